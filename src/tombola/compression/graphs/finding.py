"""Which parts of a model are graphs: the whole model where it can be, else the largest parts that hold convolutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.graphs.conversions import may_be_traced
from tombola.compression.graphs.nodes import Convolution, Graph
from tombola.compression.graphs.symbolic import UnsupportedError
from tombola.compression.graphs.tracing import trace
from tombola.compression.layers import IDENTITIES
from tombola.pruning.observe import observed

Named = tuple[str, nn.Module]


@dataclass
class FoundGraphs:
    """The graphs of a model, the input (n, ...) that reached each on the example, and all modules that they replace."""

    graphs: list[Graph] = field(default_factory=list)
    examples: list[Tensor] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    """Why modules with code of their own, and convolutions, are none, by their id."""


def find_graphs(model: nn.Module, keeps: Mapping[str, Tensor], example: Tensor) -> FoundGraphs:
    """Runs `model` (in evaluation, removed weights 0) on `example` and finds what can run as graphs.

    `keeps` are boolean tensors by parameter name, of which some may be missing: all weights are kept there.
    """
    found = FoundGraphs()
    if not holds_convolution(model):
        return found
    masks = {id(parameter): keeps[name] for name, parameter in model.named_parameters() if name in keeps}
    shapes = _Shapes(model, example)
    finder = _Finder(shapes, masks, found.reasons)
    for graph in finder.graphs_of("", model):
        found.graphs.append(graph)
        found.modules += [own for site in graph.sites for own in model.get_submodule(site).modules()]
    first = [model.get_submodule(graph.sites[0]) for graph in found.graphs]
    found.examples = _inputs_of(model, example, first)
    return found


class _Shapes:
    """How often each module was called, and with what shape of input; None where it differs from call to call.

    `within`: the modules during whose calls all calls of a module were.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.of: dict[int, torch.Size | None] = {}
        self.calls: Counter[int] = Counter()
        self.within: dict[int, set[int]] = {}
        self._running: list[int] = []
        with observed(model.modules(), after=self._leave, before=self._see), torch.no_grad():
            model(example)

    def _see(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        simple = len(arguments) == 1 and not keywords and isinstance(arguments[0], Tensor)
        shape = arguments[0].shape if simple and arguments[0].dtype == torch.float32 else None
        same = self.of.get(id(module), shape) == shape
        self.of[id(module)] = shape if same else None
        self.calls[id(module)] += 1
        self._running.append(id(module))
        self.within[id(module)] = self.within.get(id(module), set(self._running)) & set(self._running)

    def _leave(self, module: nn.Module, *_: Any) -> None:
        while self._running.pop() != id(module):  # what ended in an error did not leave
            pass

    def is_whole(self, module: nn.Module) -> bool:
        """Whether its parts are only called by itself, so that nobody misses them when it is replaced."""
        return all(id(module) in self.within.get(id(part), {id(module)}) for part in module.modules())


@dataclass
class _Finder:
    """Goes through a model from outside to inside, and stops where a part is a graph."""

    shapes: _Shapes
    masks: Mapping[int, Tensor]
    reasons: dict[int, str]
    reason: str = ""
    """Why what was last looked at is no graph."""
    done: set[int] = field(default_factory=set)

    def graphs_of(self, name: str, module: nn.Module) -> Iterator[Graph]:
        """The graphs of a module: itself, or those of its parts."""
        if id(module) in self.done or not holds_convolution(module):
            return
        self.done.add(id(module))  # a module may have several names
        whole = self.graph([(name, module)])
        plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
        if whole is None and not plain:
            own = f"{name}: {type(module).__name__}"
            self.reasons[id(module)] = self.reason.removeprefix(own).strip(" ()")
        if whole is not None:
            yield whole
        elif isinstance(module, nn.Sequential) and plain:
            yield from self._graphs_of_sequence(name, module)
        else:
            for own, child in module.named_children():
                yield from self.graphs_of(f"{name}.{own}".strip("."), child)

    def _graphs_of_sequence(self, name: str, sequence: nn.Sequential) -> Iterator[Graph]:
        """The longest runs of its modules that are graphs, and the graphs of what is in none."""
        steps = [(f"{name}.{own}".strip("."), child) for own, child in sequence._modules.items() if child is not None]
        unusual = sequence._forward_hooks or sequence._forward_pre_hooks or "forward" in vars(sequence)
        begin = 0
        while begin < len(steps) and any(holds_convolution(module) for _, module in steps[begin:]):
            if type(steps[begin][1]) in IDENTITIES:  # no graph begins with nothing
                begin += 1
                continue
            run = None if unusual else self._longest_run(steps[begin:], self.shapes.calls[id(sequence)])
            if run is not None:
                yield run
                begin += len(run.sites)
            else:
                yield from self.graphs_of(*steps[begin])
                begin += 1

    def _longest_run(self, steps: Sequence[Named], calls: int) -> Graph | None:
        """The longest graph of several modules that begins with the first, none of which runs elsewhere, too.

        What begins like it is a graph, too, so that its end is found by halving.
        """
        end = 0
        while end < len(steps) and self._only_here(steps[end][1], calls) and may_be_traced(steps[end][1]):
            end += 1
        longest, least, most, stop = None, 0, end, end
        while least < most:
            graph = self._traced(steps[:stop])
            least, most = (least, stop - 1) if graph is None else (stop, most)
            longest, stop = graph or longest, (least + most + 1) // 2
        return longest if longest is not None and len(longest.sites) > 1 and has_convolution(longest) else None

    def _only_here(self, module: nn.Module, calls: int) -> bool:
        return self.shapes.calls[id(module)] == calls

    def graph(self, modules: Sequence[Named]) -> Graph | None:
        """The graph of modules that run one after the other, if they are one with a convolution in it."""
        graph = self._traced(modules)
        return graph if graph is not None and has_convolution(graph) else None

    def _traced(self, modules: Sequence[Named]) -> Graph | None:
        shapes = [self.shapes.of.get(id(module)) for _, module in modules]
        if shapes[0] is None or len({id(module) for _, module in modules}) < len(modules):
            self.reason = "not called with one float32 tensor, or with several shapes"
            return None
        if not all(self.shapes.is_whole(module) for _, module in modules):
            self.reason = "parts of it are called from outside"
            return None
        try:
            return trace(modules, self.masks, shapes[0])
        except UnsupportedError as error:
            self.reason = str(error)
            return None


def holds_convolution(module: nn.Module) -> bool:
    """Whether there may be a graph in it."""
    return any(type(own) is nn.Conv2d for own in module.modules())


def has_convolution(graph: Graph) -> bool:
    """Whether it is worth its name; Linear layers alone are chains."""
    return any(isinstance(node, Convolution) for node in graph.nodes)


def _inputs_of(model: nn.Module, example: Tensor, modules: Sequence[nn.Module]) -> list[Tensor]:
    """What reaches each module first when the model runs on the example."""
    seen: dict[int, Tensor] = {}

    def see(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if id(module) not in seen or not seen[id(module)].numel():
            seen[id(module)] = arguments[0].detach().clone()

    with observed(modules, before=see), torch.no_grad():
        model(example)
    return [seen[id(module)] for module in modules]
