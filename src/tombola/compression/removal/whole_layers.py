"""Whole layers that go: residual blocks and other modules that give as much as they take are passed by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.compression.removal.result import Removed
from tombola.compression.removal.trace import Example, call_of
from tombola.compression.removal.verify import TOLERANCE, difference
from tombola.errors import ModelError, PruningError, one_line_by_name
from tombola.models.removed import Removal, parameters, shrink
from tombola.pruning.copies import copy_of
from tombola.pruning.masks import Masks
from tombola.pruning.observe import observed
from tombola.pruning.prunable import weights_of_modules
from tombola.pruning.surroundings import surroundings_kept
from tombola.pruning.wrapped import unwrapped
from tombola.registry import suggest


@dataclass(frozen=True)
class Layer:
    """A module that can be passed by. `influence`: 1 - the mean cosine of what goes in and what comes out."""

    name: str
    parameters: int
    influence: float


def removable_layers(model: nn.Module, example: Example) -> list[Layer]:
    """The modules of a model that can go whole, those that change least first.

    They have weights, are called once, and give one tensor of the shape of the first that they take: residual blocks,
    convolutions of as many filters as channels, layers of a transformer. Block influence: Men et al. 2024
    (arXiv 2403.03853); it is worth what the example is worth, so give real data.

    Args:
        model: Any module; it is not changed.
        example: What the model is called with, real data at best.

    Returns:
        The layers, by influence; one may lie within another.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> [layer.name for layer in removable_layers(model, torch.randn(3, 4))]
        ['1']
    """
    copied = copy_of(unwrapped(model)).eval()
    names = {module: name for name, module in copied.named_modules() if module is not copied}
    weighty = {module for module in names if next(weights_of_modules(module), None) is not None}
    found: dict[nn.Module, list[float]] = {}

    def look(module: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        inputs = _first(given, keywords)
        same = isinstance(inputs, Tensor) and isinstance(output, Tensor) and inputs.shape == output.shape
        found.setdefault(module, []).append(_influence(inputs, output) if same else float("nan"))

    arguments, keywords = call_of(example)
    with observed(weighty, look), surroundings_kept(), torch.no_grad():
        copied(*arguments, **keywords)
    once = [(module, calls[0]) for module, calls in found.items() if len(calls) == 1 and calls[0] == calls[0]]
    layers = [Layer(names[module], parameters(module), influence) for module, influence in once]
    return sorted(layers, key=lambda layer: (layer.influence, layer.name))


def remove_layers(
    model: nn.Module, layers: Sequence[str] | int, example: Example, masks: Masks | None = None
) -> Removed:
    """A smaller copy of `model` without these layers: what goes into them comes out.

    Proved at once: the smaller model gives what the model gives when these layers are passed by.

    Args:
        model: Any module; it is not changed.
        layers: Names of `removable_layers`, or how many of them: those of the least influence on the example.
        example: What the model is called with.
        masks: Of a pruned model; those of layers that are left come back.

    Returns:
        Removed: the model, its masks, the record. No units are gone but the layers'.

    Raises:
        PruningError: for a layer that cannot be passed by, or fewer than are asked for.
        ModelError: where the model does not run without them.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> removed = remove_layers(model, ["1"], torch.randn(3, 4))
        >>> removed.parameters_before, removed.parameters_after
        (130, 58)
    """
    model = unwrapped(model)
    kept = Masks.full(model) if masks is None else masks.of(model)
    removal = Removal(bypassed=tuple(_chosen(removable_layers(model, example), layers)))
    reference = copy_of(model)
    kept.apply_(reference)
    smaller = copy_of(reference)
    for name in removal.bypassed:
        reference.get_submodule(name).register_forward_hook(_gives_what_it_takes, with_kwargs=True)
    shrink(smaller, removal)
    try:
        error = difference(reference, copy_of(smaller), example)
    except Exception as problem:  # the model's own code looks into the layer
        raise ModelError(f"the model does not run without {removal.bypassed}: {one_line_by_name(problem)}") from problem
    if not error <= TOLERANCE:
        raise ModelError(f"its outputs differ by {error:.1e} from those with {', '.join(removal.bypassed)} passed by")
    left = {name: mask for name, mask in kept.items() if name in dict(smaller.named_parameters())}
    return Removed(smaller, Masks(left), removal, (), (), parameters(model), parameters(smaller), error)


def _chosen(candidates: Sequence[Layer], layers: Sequence[str] | int) -> Iterator[str]:
    """The names asked for, none within another."""
    names = [layer.name for layer in candidates]
    if isinstance(layers, int) and layers < 1:
        raise PruningError(f"{layers} layers to remove: ask for 1 or more")
    if not names:
        raise PruningError("no layer of the network can go whole: none gives a tensor of the shape that it takes")
    if not isinstance(layers, int):
        for name in layers:
            if name not in names:
                raise PruningError(f"{name!r} cannot go whole{suggest(name, names)}")
        if any(_within(one, other) for one, other in itertools.permutations(layers, 2)):
            raise PruningError(f"of {', '.join(layers)} one lies within another; name the outer one")
        yield from layers
        return
    chosen: list[str] = []
    for name in names:
        if len(chosen) < layers and not any(_within(name, c) or _within(c, name) for c in chosen):
            chosen.append(name)
    if len(chosen) < layers:
        raise PruningError(f"{layers} layers cannot go: of {len(names)} that can, {len(chosen)} lie beside each other")
    yield from chosen


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def _first(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return arguments[0] if arguments else next(iter(keywords.values()), None)


def _gives_what_it_takes(module: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
    return _first(given, keywords)


def _influence(inputs: Tensor, output: Tensor) -> float:
    return 1 - float(functional.cosine_similarity(inputs.flatten(1), output.flatten(1), dim=1).mean())
