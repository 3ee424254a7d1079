"""The modules that `sparsify` puts in place of layers, and around the whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback

from tombola.compression.calls import Wholes, call_of
from tombola.compression.chains import Chain
from tombola.compression.compiled import Arrays, Weights
from tombola.compression.fixed import Fixed
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.nodes import Graph
from tombola.compression.layers import Layer
from tombola.compression.plans import Form, Plan
from tombola.compression.tuning import best_of, expected_best, plan_on_torch
from tombola.errors import ModelError
from tombola.kernels.room import with_room
from tombola.kernels.tensors import INSTEAD, address_of, readable

SHAPES_KEPT = 64
"""Input shapes for which a chain stays ready."""


class SparseChain(Fixed):
    """Layers as one call of machine code. Takes what they took; its outputs have no gradients.

    float32 tensors on the CPU in any layout: (..., features), or (n, ...) where the layers began with a Flatten; a
    graph takes images (n, channels, height, width) of the size that it was made for.
    In place of one Linear layer it has its sizes, and a `weight` of its shape, type and device whose values are NaN:
    who reads them is noticed. A NaN in an input reaches every output to which a kept weight leads; sparse kernels do
    not compute what is removed.
    """

    def __init__(self, chain: Chain | Graph, plans: Sequence[Plan], arrays: Weights | None = None) -> None:
        super().__init__()
        self._engine = _Engine(chain, plans, arrays or weights_of(chain))
        if chain.types == ("Linear",):  # what a model's own code asks a layer for
            self.in_features, self.out_features = chain.inputs, chain.outputs
            self.weight = torch.full((1, 1), torch.nan, dtype=torch.float32).expand(chain.outputs, chain.inputs)

    @property
    def chain(self) -> Chain | Graph:
        return self._engine.chain

    @property
    def plans(self) -> tuple[Plan, ...]:
        return tuple(self._engine.plans.values())

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        """As any module's, but for what costs as long as a small layer: half a microsecond."""
        if self._forward_hooks or self._forward_pre_hooks:
            return super().__call__(*arguments, **keywords)
        return self.forward(*arguments, **keywords)

    def forward(self, input: Tensor) -> Tensor:
        engine = self._engine
        address = address_of(input) if get_eval_frame_callback() is None else None
        if address is None or (found := engine.ready.get(input.shape)) is None:
            return engine.carefully(input)
        run, like = found
        if run is None:
            return engine.on_torch(input)
        output = torch.empty_like(like)
        run(address, output.data_ptr())
        return output

    forward._torchdynamo_disable = True  # type: ignore[attr-defined]
    forward._torchdynamo_disable_msg = f"sparse kernels are machine code; {INSTEAD}"  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        layers = self.chain.layers
        widths = "-".join(str(width) for width in (self.chain.inputs, *(layer.outputs for layer in layers)))
        kept = sum(len(layer.values) for layer in layers)
        total = sum(layer.inputs * layer.outputs for layer in layers)
        return f"{widths}, {kept} of {total} weights kept"


def weights_of(chain: Chain | Graph) -> GraphArrays | Arrays:
    """A chain's weights, or a graph's, to be packed."""
    return GraphArrays(chain) if isinstance(chain, Graph) else Arrays(chain.layers)


Ready = tuple[Callable[[int, int], None] | None, Tensor]
"""What runs (None: torch), and a tensor like the output, of which nothing is read: faster than to make one by shape."""


class _Engine:
    """What a chain needs to run; never changes but for what it keeps ready, so copies of a module share it."""

    def __init__(self, chain: Chain | Graph, plans: Sequence[Plan], arrays: Weights) -> None:
        self.chain, self.arrays, self.name = chain, arrays, chain.layers[0].name
        self.plans = {plan.rows: plan for plan in plans}
        self.ready: dict[torch.Size, Ready] = {}
        self._wholes: Wholes = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Engine:
        return self

    def __reduce__(self) -> Any:
        raise ModelError("a sparse model holds machine code and is not pickled; write it with save_sparse")

    def carefully(self, input: Tensor) -> Tensor:
        """A call on any tensor, of a shape that may be new; KernelError where it is none for kernels."""
        if get_eval_frame_callback() is not None:  # torch.compile is at work: it has nothing to compile here
            result: Tensor = torch.compiler.disable(self.carefully)(input)
            return result
        input = readable(input, self.name)
        run, like = self.ready.get(input.shape) or self.prepare(input)
        if run is None:
            return self.on_torch(input)
        output = torch.empty_like(like)
        run(input.data_ptr(), output.data_ptr())
        return output

    def prepare(self, input: Tensor) -> Ready:
        """Everything for inputs of this shape."""
        rows, shape = self.chain.rows_of(input.shape)
        found = self._run(rows, input), torch.empty(shape, dtype=torch.float32, device="cpu")
        if len(self.ready) >= SHAPES_KEPT:
            self.ready.clear()
        self.ready[input.shape] = found
        self.arrays.keep_only(list(self.plans.values()))  # what was compiled holds what it needs
        return found

    def on_torch(self, input: Tensor) -> Tensor:
        return self.arrays.on_torch(self.chain.as_rows(input))

    def _run(self, rows: int, input: Tensor) -> Callable[[int, int], None] | None:
        if not rows:
            return _do_nothing
        plan = self._measured(rows, input) if isinstance(self.chain, Graph) else self.plan_for(rows)
        if plan.form == Form.TORCH:
            return None
        return call_of(self.arrays, plan, rows, self._wholes)

    def _measured(self, rows: int, input: Tensor) -> Plan:
        """A graph's plan for so many examples: where it was not measured before, what is fastest on this input.

        Panels that are not full, one by one, or torch: which one wins between two measured batches, no rule foretold.
        """
        ways = {(plan.form, plan.panel, plan.choices): plan for plan in self.plans.values() if plan.form != Form.TORCH}
        if rows in self.plans or not ways:
            return self.plan_for(rows)
        candidates = [replace(plan, batch=rows, rows=rows) for plan in ways.values()]

        def measure() -> Plan:  # torch's convolutions are among what is tried
            with torch.no_grad():
                return best_of(self.arrays, candidates, input)

        return with_room(measure)

    def plan_for(self, rows: int) -> Plan:
        """The plan measured for so many rows, or the one that these measurements let expect to be the fastest."""
        measured = tuple(self.plans.values())
        layers = self.chain.layers
        unmeasured = plan_on_torch(layers, rows) if isinstance(self.chain, Graph) else None
        return self.plans.get(rows) or expected_best(layers, measured, rows, unmeasured)


def _do_nothing(x: int, y: int) -> None:
    """No rows, no work."""


class SparseModel(Fixed):
    """A copy of a model with chains (and graphs, as chains with branches) in place of its layers.

    `unsupported` names what was left to torch. It is always in evaluation mode and has no gradients.
    """

    def __init__(self, network: nn.Module, unsupported: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.unsupported = list(unsupported)
        self._run = network.forward if isinstance(network, SparseChain) else network.__call__
        self.requires_grad_(False)
        self.eval()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if self._forward_hooks or self._forward_pre_hooks:
            return super().__call__(*arguments, **keywords)
        return self._run(*arguments, **keywords)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        if type(arguments) is not tuple:  # torch.fx.symbolic_trace
            readable(arguments, "a sparse model")
        return self._run(*arguments, **keywords)

    @property
    def chains(self) -> list[SparseChain]:
        return [module for module in self.network.modules() if isinstance(module, SparseChain)]

    def describe(self) -> str:
        """A table: for each layer and batch size the kernel and its time, for each chain its time and torch's.

        Times are those of a call, each measured by itself: lines do not add up to all.
        """
        lines = [line for chain in self.chains for line in _lines(chain)]
        left = [f"left to torch: {name}" for name in self.unsupported]
        return "\n".join([*lines, *left])

    __str__ = describe


def _lines(chain: SparseChain) -> Iterator[str]:
    layers = chain.chain.layers
    names = [f"{layer.name or 'model'} {_size(layer)}" for layer in layers]
    width = max(map(len, [*names, "all on torch"]))
    plans = chain.plans
    yield "  ".join(["layer".ljust(width), "  kept", *(f"{f'batch {plan.batch}':>24}" for plan in plans)])
    for number, (name, layer) in enumerate(zip(names, layers, strict=True)):
        cells = [_cell(str(plan.choices[number]), plan.choices[number].seconds, plan.form) for plan in plans]
        yield "  ".join([name.ljust(width), f"{layer.density:6.1%}", *cells])
    for title, times in (("all", [plan.seconds for plan in plans]), ("all on torch", [plan.dense for plan in plans])):
        yield "  ".join([title.ljust(width), " " * 6, *(_cell("", seconds) for seconds in times)])


def _size(layer: Layer) -> str:
    """Inputs and outputs, of a convolution the channels and its window."""
    if len(layer.shape) == 2:
        return f"{layer.inputs}→{layer.outputs}"
    outputs, inputs, height, width = layer.shape
    return f"{inputs}→{outputs} {height}×{width}"


def _cell(kernel: str, seconds: float | None, form: Form | None = None) -> str:
    if form == Form.TORCH:
        return f"{'torch':>24}"
    return f"{kernel} {'' if seconds is None else f'{1e6 * seconds:,.1f} µs'}".rjust(24)
