"""The nodes of a graph while it is read: steps are joined to the node before them where one kernel does both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor, fx, nn

from tombola.compression.graphs.nodes import Flatten, Node, Shape, Shortcut
from tombola.compression.graphs.symbolic import UnsupportedError, is_tensor, sizes_of

Kind = TypeVar("Kind", bound=Node)


@dataclass
class Builder:
    """Goes through what was traced, and joins each step to the node before it where one kernel does both.

    Nodes carry numbers that stay; those that were joined are gone, so at the end numbers are counted anew.
    """

    traced: fx.GraphModule
    names: Mapping[int, str]
    keeps: Mapping[int, Tensor]
    shape: Shape
    modules: Mapping[type[nn.Module], Callable[..., int]]
    functions: Mapping[Any, Callable[[Builder, fx.Node], int]]
    """What makes nodes of a module's call, and of a function's: `conversions`."""

    def build(self) -> tuple[Node, ...]:
        self.nodes: dict[int, Node] = {}
        self.values: dict[fx.Node, int] = {}
        self.count = 0
        result = None
        for step in self.traced.graph.nodes:
            if step.op == "placeholder":
                if self.values:
                    raise UnsupportedError("it has several inputs")
                self.values[step] = 0
            elif step.op == "output":
                result = step.args[0]
            elif is_tensor(step):  # sizes of tensors are numbers by now, and no values
                self.values[step] = self._take(step)
        if not isinstance(result, fx.Node) or self.values.get(result) not in self.nodes:
            raise UnsupportedError("it has no output, or several")
        return self._renumbered(self.values[result])

    def _take(self, step: fx.Node) -> int:
        """The number of the node that does this step, too."""
        if step.op == "call_module":
            module = self.traced.get_submodule(str(step.target))
            for kind, take in self.modules.items():
                if type(module) is kind:
                    return take(self, step, module)
            raise UnsupportedError(f"{self.names[id(module)]}: {type(module).__name__}")
        take_function = self.functions.get(step.target)
        if take_function is None:
            raise UnsupportedError(f"it calls {name_of(step)}")
        return take_function(self, step)

    def input(self, step: fx.Node, number: int = 0) -> int:
        """Which value a step's argument is."""
        argument = step.args[number] if number < len(step.args) else None
        if not isinstance(argument, fx.Node) or argument not in self.values:
            raise UnsupportedError(f"{step.name} does not take its input as its argument number {number}")
        return self.values[argument]

    def add(self, node: Node) -> int:
        self.count += 1
        self.nodes[self.count] = node
        return self.count

    def alone(self, value: int, kind: type[Kind]) -> Kind | None:
        """The node of this kind that computes a value which only one step reads; None where there is none such."""
        node = self.nodes.get(value)
        owners = [step for step, own in self.values.items() if own == value]
        readers = sum(is_tensor(user) for step in owners for user in step.users) - (len(owners) - 1)
        return node if isinstance(node, kind) and readers == 1 else None

    def check_in_place(self, step: fx.Node, value: int, in_place: bool) -> None:
        """What changes a value that is read later under another name, or the input, is left alone."""
        if not in_place:
            return
        memory = self._memory_of(value)
        steps = iter(self.traced.graph.nodes)
        while next(steps) is not step:
            pass
        read = {own for later in steps if is_tensor(later) for own in later.all_input_nodes if own in self.values}
        if not memory or any(self._memory_of(self.values[own]) == memory for own in read):
            raise UnsupportedError(f"{step.name} changes in place what is read elsewhere")

    def _memory_of(self, value: int) -> int:
        """The value in whose memory torch has this one."""
        while isinstance(node := self.nodes.get(value), Flatten | Shortcut):
            value = node.inputs[0]
        return value

    def arguments(self, step: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A step's arguments, sizes as numbers."""

        def known(argument: fx.Node) -> Any:
            if is_tensor(argument):
                return argument
            if argument not in self._sizes:
                raise UnsupportedError(f"{step.name} depends on how many examples there are")
            return self._sizes[argument]

        return fx.node.map_arg(step.args, known), fx.node.map_arg(step.kwargs, known)

    @functools.cached_property
    def _sizes(self) -> dict[fx.Node, Any]:
        return sizes_of(self.traced, self.shape)

    def join(self, value: int, node: Node) -> int:
        """`node` in place of the one that computed `value`, behind all others."""
        del self.nodes[value]
        return self.add(node)

    def _renumbered(self, result: int) -> tuple[Node, ...]:
        needed, wanted = {result}, [result]
        while wanted:
            value = wanted.pop()
            fresh = set(self.nodes[value].inputs) - needed - {0} if value in self.nodes else set()
            needed |= fresh
            wanted += fresh
        kept = [number for number in self.nodes if number in needed]
        if not kept or kept[-1] != result:
            raise UnsupportedError("its output is not what it computes last")
        new = {0: 0} | {number: place for place, number in enumerate(kept, start=1)}
        return tuple(
            replace(self.nodes[number], inputs=tuple(new[value] for value in self.nodes[number].inputs))
            for number in kept
        )


def name_of(step: fx.Node) -> str:
    """Of the function or method that is called."""
    return str(getattr(step.target, "__name__", step.target))
