"""The network as a graph of operations, by torch.export. For analysis only: a graph has all sizes written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from tombola.compression.quiet import quiet
from tombola.errors import ModelError, one_line_by_name
from tombola.pruning.copies import copy_of
from tombola.pruning.surroundings import surroundings_kept

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with: one tensor, several arguments, or keyword arguments."""


@dataclass(frozen=True)
class Traced:
    """`graph` with what its placeholders stand for: `tensors` by node name are parameters and buffers."""

    graph: Graph
    tensors: dict[str, str]
    constants: dict[str, Tensor]


class _Wrapped(nn.Module):
    """Gives the tensors of whatever a model gives: export knows no caches and other objects of somebody's own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments: Any, **keywords: Any) -> list[Tensor]:
        return tensors_in(self.model(*arguments, **keywords))


def tensors_in(output: Any) -> list[Tensor]:
    """All tensors of a model's answer, in order; those within lists, tuples and mappings, too."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def call_of(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments and keyword arguments of a call."""
    if isinstance(example, Tensor):
        return (example,), {}
    return ((), dict(example)) if isinstance(example, Mapping) else (tuple(example), {})


def trace(model: nn.Module, example: Example) -> Traced:
    """The graph of a copy of `model` in evaluation mode. ModelError in one line where torch.export cannot make one."""
    arguments, keywords = call_of(example)
    if elsewhere := next((t.device for _, t in _named(model) if t.device.type != "cpu"), None):
        raise ModelError(f"units are removed on the CPU and the model is on {elsewhere}: give it as model.cpu()")
    copied = copy_of(model).eval()
    aliases = {id(t): n for n, t in _named(copied)}  # the first name of a shared tensor
    first = {n: aliases[id(t)] for n, t in reversed(_named(copied))}
    try:
        with surroundings_kept(), torch.no_grad(), quiet():
            exported = torch.export.export(_Wrapped(copied), arguments, keywords, strict=False)
    except Exception as error:  # of anybody's model
        raise ModelError(
            f"the model ({type(model).__name__}) cannot be traced by torch.export, so that nobody knows which of its "
            f"dimensions belong together: {one_line_by_name(error)}"
        ) from error
    exported.graph.eliminate_dead_code()  # weights of attention that nobody asked for
    signature = exported.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {node: first[name.removeprefix("model.")] for node, name in stored.items()}
    lifted = {node: exported.constants[name] for node, name in signature.inputs_to_lifted_tensor_constants.items()}
    return Traced(exported.graph, tensors, lifted)


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    """All parameters and buffers under all of their names, last names first."""
    found: list[tuple[str, Tensor]] = [*model.named_parameters(remove_duplicate=False)]
    found += model.named_buffers(remove_duplicate=False)
    return found[::-1]


def operation(node: Node) -> str:
    """`conv2d` for torch.ops.aten.conv2d.default; in-place ones as the others."""
    packet = getattr(node.target, "overloadpacket", None)
    name = packet.__name__ if packet is not None else getattr(node.target, "__name__", str(node.target))
    return str(name).removesuffix("_")


def shape_of(node: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape)


def layer_of(node: Node) -> str:
    """The module that calls an operation, by its name in the model; '' for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name = str(stack[-1][0]) if stack else ""
    return name.removeprefix("model").lstrip(".")
