"""Whether a network is the same with sparse kernels in place of its layers, tried out; layers that it needs stay.

A model's own code may ask a layer for its type or its weights' values. Nobody can tell beforehand, so it is run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.exchange import exchanged
from tombola.compression.sparse_modules import SparseChain
from tombola.errors import ModelError, one_line
from tombola.pruning.surroundings import put_back

TOLERANCE = 1e-5
"""The largest difference to the model's own outputs, relative to the largest of these where that is above 1."""

Check = tuple[Tensor, list[Tensor]]
"""A batch, and the floating-point tensors that the model makes of it."""
Chains = dict[tuple[str, ...], SparseChain]


def exchanged_where_it_works(
    model: nn.Module, chains: Mapping[tuple[str, ...], SparseChain], checks: Sequence[Check]
) -> tuple[nn.Module, Chains, list[str]]:
    """A copy of `model` with as many of the chains as leave its outputs what they are; these; and the layers that stay,
    each with its type and why. ModelError where none of several can be exchanged.
    """
    reason = why_apart(exchanged(model, chains), checks)
    if reason is None:
        return exchanged(model, chains), dict(chains), []  # not the one that has run: a pass may change it
    if not chains:
        raise ModelError(f"two copies of the model do not compute the same: {reason}")
    taken: Chains = {}
    left: dict[tuple[str, ...], str] = {}

    def take(some: list[tuple[str, ...]]) -> None:
        why = why_apart(exchanged(model, taken | {sites: chains[sites] for sites in some}), checks)
        if why is None:
            taken.update({sites: chains[sites] for sites in some})
        elif len(some) == 1:
            left[some[0]] = why
        else:
            take(some[: len(some) // 2])
            take(some[len(some) // 2 :])

    take(list(chains))
    layers = [(layer.name, why) for sites, why in left.items() for layer in chains[sites].chain.layers]
    if not taken:
        names = ", ".join(name or "the model" for name, _ in layers[:3])
        raise ModelError(f"the model does not run without its layers {names}: {reason}")
    stay = [f"{name}: {type(model.get_submodule(name)).__name__} ({why})" for name, why in layers]
    return exchanged(model, taken), taken, stay


def why_apart(network: nn.Module, checks: Sequence[Check]) -> str | None:
    """Why a network does not make of batches what was expected; None where it does."""
    for batch, expected in checks:
        with put_back(), torch.no_grad():  # every pass draws the same numbers, so chance is no difference
            try:
                given = list(tensors_of(network(batch.clone())))
            except AttributeError as error:
                return f"the model's own code asks it for {error.name or one_line(error)}"
            except Exception as error:  # anybody's model may raise anything
                return f"the model's own code needs it as it is: {one_line(error)}"
        if [own.shape for own in given] != [own.shape for own in expected]:
            return f"outputs would have shapes {[tuple(own.shape) for own in given]} on a batch of {len(batch)}"
        for own, other in zip(expected, given, strict=True):
            allowed = TOLERANCE * max(1.0, own.abs().nan_to_num(0, 0).max().item() if own.numel() else 1.0)
            if not torch.allclose(own, other, rtol=0, atol=allowed, equal_nan=True):
                return (
                    f"outputs would differ from the model's by {(own - other).abs().max().item():.1e} on a batch of "
                    f"{len(batch)}, more than {allowed:.1e}: does it use a random state of its own, a lower "
                    "precision, or a layer otherwise than to call it?"
                )
    return None


def tensors_of(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of what a model returns."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from tensors_of(part)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from tensors_of(vars(output))
