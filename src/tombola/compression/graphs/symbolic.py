"""What modules call, step by step, as `torch.fx` sees it: functions run once on what stands for a tensor.

Which nodes these steps are, is `tracing`.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tombola.compression.graphs.nodes import Shape

GIVEN = "given"
"""Where a traced step keeps its result."""
_one_at_a_time = threading.Lock()
"""`fx` exchanges what a module's call is, for the whole process."""


class UnsupportedError(Exception):
    """What a graph has no node for."""


class _Value(fx.Proxy):
    """A traced value that knows `+=` from `+`."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


def is_leaf(module: nn.Module) -> bool:
    """Torch's own modules are not looked into."""
    return not isinstance(module, nn.Sequential) and module.__module__.startswith("torch.nn")


class _Tracer(fx.Tracer):
    """Goes into everything but torch's own modules.

    While it traces, calls of all modules of the process come here: those of other threads go on as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m._forward_hooks or m._forward_pre_hooks:
            raise UnsupportedError(f"{module_qualified_name} has hooks")
        if "forward" in vars(m):
            raise UnsupportedError(f"{module_qualified_name} has a forward of its own")
        return is_leaf(m)


@dataclass(frozen=True)
class Given:
    """What a step gives: a tensor of this shape and type. Several tensors have neither."""

    shape: torch.Size | None = None
    dtype: torch.dtype | None = None


class _Run(fx.Interpreter):
    """Runs what was traced, and keeps what each step gives: `Given`, or sizes and numbers made of them."""

    def __init__(self, traced: fx.GraphModule, shape: Shape, examples: int) -> None:
        super().__init__(traced)
        self.results: dict[fx.Node, Any] = {}
        with torch.no_grad():
            self.run(torch.zeros(examples, *shape, dtype=torch.float32, device="cpu"))

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        tensors: list[Tensor] = []
        fx.node.map_aggregate(result, lambda part: tensors.append(part) if isinstance(part, Tensor) else None)
        single = isinstance(result, Tensor)
        self.results[n] = Given(result.shape, result.dtype) if single else Given() if tensors else result
        return result


def is_tensor(step: fx.Node) -> bool:
    """Whether a step gives a tensor, and not sizes."""
    return isinstance(step.meta.get(GIVEN), Given)


def traced_steps(module: nn.Module, shape: Shape) -> fx.GraphModule:
    """What a module does with an input (n, *shape); each step knows what it gives. Raises UnsupportedError for hooks,
    anything for code that cannot be traced."""
    with _one_at_a_time:
        traced = fx.GraphModule(module, _Tracer().trace(module))
    for step, result in _Run(traced, shape, 2).results.items():
        step.meta[GIVEN] = result
    return traced


def sizes_of(traced: fx.GraphModule, shape: Shape) -> dict[fx.Node, Any]:
    """What is computed of sizes and the same for any number of examples."""
    found = _Run(traced, shape, 3).results
    return {step: result for step, result in found.items() if not is_tensor(step) and result == step.meta[GIVEN]}


def shape_of(step: fx.Node) -> Shape:
    """The shape of one example of a step's result."""
    given = step.meta[GIVEN]
    if not isinstance(given, Given) or given.shape is None or given.dtype != torch.float32 or given.shape[:1] != (2,):
        raise UnsupportedError(f"{step.name} does not give one float32 tensor (n, ...)")
    shape = tuple(given.shape[1:])
    if len(shape) not in (1, 3) or 0 in shape:
        raise UnsupportedError(f"{step.name} gives (n, {', '.join(map(str, shape))})")
    return shape
