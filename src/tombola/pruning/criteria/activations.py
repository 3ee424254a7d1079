"""Criteria that look at what flows through the network: the inputs of its layers, and who reads their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.errors import PruningError
from tombola.pruning.criteria.criterion import Needs, Scores, ScoringContext, register
from tombola.pruning.criteria.network import at_least_float32, network
from tombola.pruning.criteria.products import computes_plainly, products
from tombola.pruning.observe import names_of_weights, observed
from tombola.pruning.prunable import ATTENTION_WEIGHTS, is_hugging_face_experts, weight_layouts


@register("wanda", Needs.ACTIVATIONS)
def wanda(model: nn.Module, context: ScoringContext) -> Scores:
    """|w| times the norm of the inputs that it multiplies. Sun et al. 2024 (arXiv 2306.11695).

    The norm is over all positions of all examples. Where the class of a layer is somebody's own, w and the inputs are
    what the layer multiplies: the standardised weight, say, not the parameter. The
    paper lets the weights of one output compete with each other: that is the distribution `per-output`.
    """
    layouts = weight_layouts(model)
    if experts := [name for name in context.scored(model) if layouts[name].stacked]:
        raise PruningError(
            f"{experts[0]}: wanda cannot score experts that are one parameter, whose inputs no layer is given; protect "
            "them or choose another criterion"
        )
    with network(model, context) as net:
        inputs = _SquaredInputs(net.model)
        modules = {module for module, _ in inputs.names if not is_hugging_face_experts(module)}
        with observed(modules, inputs), torch.no_grad():
            for batch in context.batches or ():
                net.run(batch)
    scores = {}
    for name in context.scored(model):
        if name not in inputs.sums:
            raise PruningError(
                f"{name}: its layer is never called, so nothing is known of its inputs; protect the layer"
            )
        if name not in inputs.seen:
            raise PruningError(f"{name}: no row of the batches reached it; give more batches or protect the layer")
        if not bool(inputs.sums[name].any()):
            raise PruningError(f"{name}: no input other than 0 reached it in the batches; protect the layer")
        weight = inputs.multiplied[name].detach()
        if context.masks is not None:
            weight = context.masks[name].apply(weight)
        scores[name] = at_least_float32(weight).abs() * inputs.sums[name].sqrt()
    return scores


@register("bn-scale", Needs.EXAMPLE, outputs_only=True, of_units=True)
def batch_norm_scale(model: nn.Module, context: ScoringContext) -> Scores:
    """|scale| of the batch norm that reads an output. Liu et al. 2017, network slimming (arXiv 1708.06519).

    Which batch norm reads which layer is seen in a run on the first batch. Raises PruningError naming a layer
    that no batch norm with a scale reads.
    """
    norms = _norms_after(model, context)
    layouts = weight_layouts(model)
    scores = {}
    for name in context.scored(model):
        layout = layouts[name]
        if name not in norms or norms[name].num_features != layout.groups * layout.outputs:
            raise PruningError(
                f"{name}: no batch norm reads its output, so bn-scale cannot score it; protect the layer"
            )
        by_output = at_least_float32(norms[name].weight.detach()).abs().view(layout.groups, layout.outputs, 1, 1)
        scores[name] = layout.original(by_output.expand(-1, -1, layout.inputs, layout.kernel_positions)).clone()
    return scores


def _norms_after(model: nn.Module, context: ScoringContext) -> dict[str, _BatchNorm]:
    """The batch norm that takes the very tensor that a layer gave, by the name of the layer's weight."""
    given: list[tuple[str, Tensor]] = []  # kept alive: a freed tensor's identity could come again
    norms: dict[str, _BatchNorm] = {}

    def observe(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if isinstance(module, _BatchNorm):
            readable = [name for name, tensor in given if arguments and tensor is arguments[0]]
            if readable and module.affine:
                norms[readable[-1]] = module
        elif isinstance(output, Tensor) and (module, "weight") in names:
            given.append((names[module, "weight"], output))

    with network(model, context) as net, torch.no_grad():
        names = names_of_weights(net.model)
        modules = {module for module, _ in names} | {m for m in net.model.modules() if isinstance(m, _BatchNorm)}
        with observed(modules, observe):
            for batch in context.batches or ():
                net.run(batch)
                break
    return norms


class _SquaredInputs:
    """Gathers, for the entries of every weight, the squares of the inputs that they multiply."""

    def __init__(self, model: nn.Module) -> None:
        self.names = names_of_weights(model)
        self.sums: Scores = {}
        self.seen: set[str] = set()
        """The weights whose layers were given any numbers: an expert may get no rows."""
        self.multiplied: dict[str, Tensor] = {}
        """What multiplies the inputs: the weight itself, or what a layer of somebody's own class makes of it."""
        self._inside = False

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if self._inside:  # a call made here, to measure
            return
        self._inside = True
        try:
            for name, weight, squares in self._found(module, arguments, keywords):
                known = self.multiplied.setdefault(name, weight)
                if known is not weight and not torch.equal(known, weight):
                    raise _own_class(name, module, "with another weight in every call")
                if any(isinstance(value, Tensor) and value.numel() for value in (*arguments, *keywords.values())):
                    self.seen.add(name)
                self.sums[name] = self.sums[name].add_(squares) if name in self.sums else squares
        finally:
            self._inside = False

    def _found(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name of the weight, what multiplies the inputs, Σ x² of its shape)."""
        attention = isinstance(module, nn.MultiheadAttention)
        if computes_plainly(module):
            for owner, attribute, squares in (_of_attention if attention else _of_layer)(module, arguments, keywords):
                yield self.names[owner, attribute], getattr(owner, attribute), squares
            return
        name = next(name for (owner, _), name in self.names.items() if owner is module)
        found = [] if attention else products(module, arguments, keywords)
        if len(found) != 1:
            raise _own_class(name, module, "not by one product of its inputs and a weight")
        yield name, found[0].weight, found[0].squared_inputs()


def _own_class(name: str, module: nn.Module, how: str) -> PruningError:
    return PruningError(
        f"{name}: wanda cannot score it: its layer's class, {type(module).__name__}, computes in its own way, {how}; "
        "protect the layer or choose another criterion"
    )


Found = Iterator[tuple[nn.Module, str, Tensor]]
"""(module, attribute, Σ x² of the attribute's shape)."""


def _of_layer(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Found:
    """A layer is linear in its weight, so the derivative of its summed outputs for an entry is the sum of the inputs
    that the entry multiplies. With x² as input this is the sum asked for, in every kind of convolution."""
    if isinstance(module, nn.Linear):  # the same number for all outputs: no need to ask for a derivative
        inputs = arguments[0] if arguments else keywords["input"]
        yield module, "weight", _sum_of_squares(inputs).expand_as(module.weight).clone()
        return
    tensors = {name: torch.zeros_like(at_least_float32(p.detach())) for name, p in module.named_parameters()}
    weight = tensors["weight"].requires_grad_()
    arguments = tuple(_squared(value) for value in arguments)
    keywords = {key: _squared(value) for key, value in keywords.items()}
    with torch.enable_grad():
        output = functional_call(module, tensors, arguments, keywords)
        yield module, "weight", torch.autograd.grad(output.sum(), weight)[0]


def _of_attention(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Found:
    """Queries, keys and values reach their projections as they are; what the output projection reads is seen by
    putting the identity in its place."""
    given = dict(zip(("query", "key", "value"), arguments, strict=False)) | keywords
    read = [_sum_of_squares(given[role]) for role in ("query", "key", "value")]
    if module.in_proj_weight is not None:
        rows = [sums.expand(module.embed_dim, -1) for sums in read]
        yield module, "in_proj_weight", torch.cat(rows)
    else:
        for attribute, sums in zip(ATTENTION_WEIGHTS[1:], read, strict=True):
            yield module, attribute, sums.expand(module.embed_dim, -1).clone()
    projection = module.out_proj
    identity = {"out_proj.weight": torch.eye(module.embed_dim).to(projection.weight)}
    if projection.bias is not None:
        identity["out_proj.bias"] = torch.zeros_like(projection.bias)
    mixed = functional_call(module, identity, arguments, keywords)[0]
    yield projection, "weight", _sum_of_squares(mixed).expand(module.embed_dim, -1).clone()


def _squared(value: Any) -> Any:
    return at_least_float32(value.detach()).square() if isinstance(value, Tensor) else value


def _sum_of_squares(inputs: Tensor) -> Tensor:
    """Over all positions, for each feature."""
    return _squared(inputs).unsqueeze(0).flatten(0, -2).sum(0)  # one example alone has one axis
