"""Chains: runs of fully connected layers in a model that one program can do, found by watching the model run once.

What is no part of a chain stays with torch and is named. Nothing is packed or measured here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.layers import IDENTITIES, Affine, Layer, affine_of, layer_of, norm_after, norm_before
from tombola.errors import KernelError
from tombola.pruning.observe import observed

FREE = (*IDENTITIES, nn.ReLU, nn.Flatten, nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""What is not worth naming when it is left to torch."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers that follow one another. `sites` are the modules that it replaces, the first one by itself.

    `types` are those of the modules. `flatten`: takes inputs (n, ...) and flattens them; else inputs (..., features),
    which must be (n, features) where `flat_only`.
    """

    sites: tuple[str, ...]
    layers: tuple[Layer, ...]
    flatten: bool = False
    flat_only: bool = False
    types: tuple[str, ...] = ("Linear",)

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs

    def rows_of(self, shape: torch.Size) -> tuple[int, tuple[int, ...]]:
        """How many rows an input of this shape has, and the shape of the output. KernelError where it does not fit."""
        features, before = (math.prod(shape[1:]), shape[:1]) if self.flatten else (math.prod(shape[-1:]), shape[:-1])
        least, most = (2 if self.flatten else 1), (2 if self.flat_only else len(shape))
        if features != self.inputs or not least <= len(shape) <= most:
            wanted = f"(n, ...) of {self.inputs}" if self.flatten else f"(..., {self.inputs})"
            raise KernelError(
                f"{self.layers[0].name}: takes inputs {wanted} features{' and two axes' if self.flat_only else ''}, "
                f"not {tuple(shape)}"
            )
        return math.prod(before), (*before, self.outputs)

    def as_rows(self, input: Tensor) -> Tensor:
        """The input as `Arrays.on_torch` takes it."""
        return input.flatten(1) if self.flatten else input


@dataclass(frozen=True, eq=False)
class Found:
    """The chains of a model with the rows (n, features) that reached each on the example, and what is left to torch."""

    chains: tuple[Chain, ...]
    examples: tuple[Tensor, ...]
    unsupported: tuple[str, ...]


def find_chains(
    model: nn.Module,
    keeps: Mapping[str, Tensor],
    example: Tensor,
    elsewhere: Collection[nn.Module] = (),
    reasons: Mapping[int, str] | None = None,
) -> Found:
    """Runs `model` (in evaluation, removed weights 0) on `example` and finds its chains.

    `keeps` are boolean tensors by parameter name, of which some may be missing: all weights are kept there. Modules
    that are taken care of `elsewhere` are no part of a chain; of others `reasons` may say, by id, why they are not.
    """
    watched = _Watched(model, example, elsewhere)
    masks = {id(parameter): keeps[name] for name, parameter in model.named_parameters() if name in keeps}
    chains: list[Chain] = []
    taken = {id(module) for module in elsewhere}
    for path in _sequences(model, watched, frozenset(taken)):
        for chain in _chains_of(path, masks):
            if (shape := watched.shape(model, chain.sites[0])) is not None and not _fits(chain, shape):
                continue
            chains.append(chain)
            taken |= {id(model.get_submodule(site)) for site in chain.sites}
    for name, module in model.named_modules():
        if id(module) not in taken and _is_linear(module) and watched.calls[id(module)]:
            chains.append(Chain((name,), (layer_of(name, module, masks.get(id(module.weight))),)))
            taken.add(id(module))
    examples = tuple(_rows(chain, watched.inputs[id(model.get_submodule(chain.sites[0]))]) for chain in chains)
    return Found(tuple(chains), examples, tuple(_left(model, taken, watched, reasons or {})))


class _Watched:
    """How often each module was called while the model ran, and with what first."""

    def __init__(self, model: nn.Module, example: Tensor, elsewhere: Collection[nn.Module]) -> None:
        self.calls: Counter[int] = Counter()
        self.inputs: dict[int, Tensor] = {}
        self.of_interest = {id(module) for module in model.modules() if kind_of(module) is not None}
        self.of_interest -= {id(module) for module in elsewhere}
        with observed(model.modules(), before=self._see), torch.no_grad():
            model(example)

    def _see(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.calls[id(module)] += 1
        first = next((value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor)), None)
        fresh = id(module) not in self.inputs or not self.inputs[id(module)].numel()  # an expert may have had no rows
        if first is not None and fresh and id(module) in self.of_interest:
            self.inputs[id(module)] = first.detach().clone()

    def shape(self, model: nn.Module, name: str) -> torch.Size | None:
        seen = self.inputs.get(id(model.get_submodule(name)))
        return None if seen is None else seen.shape


Named = tuple[str, nn.Module]


def _sequences(model: nn.Module, watched: _Watched, elsewhere: Collection[int] = ()) -> Iterator[list[Named]]:
    """The modules that surely run one after the other, nested Sequentials written out; outermost first."""
    done: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in done or not _is_sequence(module) or not watched.calls[id(module)]:
            continue
        steps = list(_steps(name, module, watched, done))
        often = Counter(id(step) for _, step in steps)
        whole = [
            watched.calls[id(step)] == often[id(step)] * watched.calls[id(module)] and id(step) not in elsewhere
            for _, step in steps
        ]
        run: list[Named] = []
        for step, belongs in zip(steps, whole, strict=True):
            if belongs:
                run.append(step)
            elif run:
                yield run
                run = []
        if run:
            yield run


def _steps(name: str, sequence: nn.Module, watched: _Watched, done: set[int]) -> Iterator[Named]:
    done.add(id(sequence))
    names = list(sequence._modules.items())  # named_children would leave out what comes twice
    often = Counter(id(child) for _, child in names)
    for own, child in names:
        assert child is not None
        path = f"{name}.{own}" if name else own
        same = watched.calls[id(child)] == watched.calls[id(sequence)] and often[id(child)] == 1
        if _is_sequence(child) and same and id(child) not in done:
            yield from _steps(path, child, watched, done)
        else:
            yield path, child


def _chains_of(modules: Sequence[Named], masks: Mapping[int, Tensor]) -> Iterator[Chain]:
    at = 0
    while at < len(modules):
        builder, end = _Builder(masks), at
        while end < len(modules) and builder.takes(*modules[end]):
            end += 1
        length = builder.whole
        if builder.layers and length:
            sites = tuple(name for name, _ in modules[at : at + length])
            types = tuple(type(module).__name__ for _, module in modules[at : at + length])
            yield Chain(sites, tuple(builder.finished), builder.flatten, builder.finished_flat_only, types)
        at += max(1, length)


class _Builder:
    """A chain while it grows. `finished` are the layers after its first `whole` modules: later ones may end in the air.

    A batch norm after a ReLU waits for the next Linear; without one it stays with torch.
    """

    def __init__(self, masks: Mapping[int, Tensor]) -> None:
        self.masks = masks
        self.flatten = self.flat_only = self.finished_flat_only = False
        self.layers: list[Layer] = []
        self.finished: list[Layer] = []
        self.waiting: list[Affine] = []
        self.seen = self.whole = 0

    def takes(self, name: str, module: nn.Module) -> bool:
        """Whether the module could be taken in."""
        kind = kind_of(module)
        if kind is None or not getattr(self, f"_{kind}")(name, module):
            return False
        self.seen += 1
        if self.layers and not self.waiting:
            self.whole, self.finished, self.finished_flat_only = self.seen, list(self.layers), self.flat_only
        return True

    def _linear(self, name: str, module: nn.Linear) -> bool:
        if self.layers and self.layers[-1].outputs != module.in_features:
            return False
        if any(len(norm.scale) != module.in_features for norm in self.waiting):
            return False
        layer = layer_of(name, module, self.masks.get(id(module.weight)))
        for norm in reversed(self.waiting):
            layer = norm_before(norm, layer)
        self.waiting = []
        self.layers.append(layer)
        return True

    def _norm(self, name: str, module: nn.BatchNorm1d) -> bool:
        self.flat_only = self.flat_only or not self.flatten
        norm = affine_of(module)
        if self.layers and not self.layers[-1].relu and not self.waiting:
            if len(norm.scale) != self.layers[-1].outputs:
                return False
            self.layers[-1] = norm_after(self.layers[-1], norm)
        else:
            self.waiting.append(norm)
        return True

    def _relu(self, name: str, module: nn.Module) -> bool:
        if not self.layers or self.waiting:
            return False
        self.layers[-1] = replace(self.layers[-1], relu=True)
        return True

    def _flatten(self, name: str, module: nn.Module) -> bool:
        if not self.layers and not self.waiting:
            self.flatten = True
        self.flat_only = self.flat_only or not self.flatten
        return True

    def _identity(self, name: str, module: nn.Module) -> bool:
        return True


def kind_of(module: nn.Module) -> str | None:
    """What a chain makes of a module; None where it cannot take it."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if _is_linear(module):
        return "linear"
    if type(module) is nn.BatchNorm1d and module.running_mean is not None and module.running_mean.is_floating_point():
        return "norm"
    if type(module) is nn.ReLU:
        return "relu"
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return "flatten"
    return "identity" if type(module) in IDENTITIES else None


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear and _why_not(module) is None


def _why_not(module: nn.Linear) -> str | None:
    """Why this Linear cannot be taken from torch; None where it can. A subclass may do anything."""
    if module._forward_hooks or module._forward_pre_hooks:
        return "has hooks"
    if "forward" in vars(module):
        return "has a forward of its own"
    if module.weight.dtype != torch.float32 or (module.bias is not None and module.bias.dtype != torch.float32):
        return f"is {module.weight.dtype}, not torch.float32"
    return None if module.weight.numel() else "has no weights"


def _is_sequence(module: nn.Module) -> bool:
    own = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return own and not module._forward_hooks and not module._forward_pre_hooks


def _fits(chain: Chain, shape: torch.Size) -> bool:
    """Whether inputs of this shape go through the chain as they go through its modules."""
    if chain.flatten:
        return len(shape) >= 2 and math.prod(shape[1:]) == chain.inputs
    return shape[-1:] == (chain.inputs,) and not (chain.flat_only and len(shape) != 2)


def _rows(chain: Chain, example: Tensor) -> Tensor:
    return example.reshape(-1, chain.inputs)


def _left(model: nn.Module, taken: set[int], watched: _Watched, reasons: Mapping[int, str]) -> Iterator[str]:
    """Name and type of every module that computes and is no part of a chain, and why, where that is known."""
    for name, module in model.named_modules():
        computes = not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))
        if id(module) in taken or type(module) in FREE or not (computes or id(module) in reasons):
            continue
        reason = reasons.get(id(module))
        if type(module) is nn.Linear:
            reason = _why_not(module)
        if reason is None and isinstance(module, nn.Linear | nn.Conv2d) and not watched.calls[id(module)]:
            reason = "is not called on the example"
        yield f"{name or 'the model'}: {type(module).__name__}{f' ({reason})' if reason else ''}"
