"""What is known while a traced network is read, and the registry of rules: what an operation does to labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.fx import Node

from tombola.compression.removal.labels import Dims, Indices, Labels, Lock, unlabelled
from tombola.compression.removal.trace import Traced, layer_of
from tombola.registry import Registry

Place = tuple[str, int]
"""A dimension of a parameter or buffer, by name."""


@dataclass(frozen=True)
class Product:
    """An operation that sums over a dimension with a weight: `tensor` at `dim` is read along `axis` of the input.

    `rows` is the dimension of the weight along which outputs lie, `bias` the bias that is added, by name.
    """

    node: Node
    inputs: Node
    axis: int
    tensor: str
    dim: int
    rows: int
    bias: str | None


@dataclass
class Reading:
    """What is known after a network was read. `fixed_sizes`: numbers that the model's own code writes out stay."""

    traced: Traced
    fixed_sizes: bool = False
    labels: Labels = field(default_factory=Labels)
    places: dict[Place, Indices] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    writers: set[Place] = field(default_factory=set)
    values: dict[Node, Any] = field(default_factory=dict)

    def of(self, thing: Any) -> Dims:
        """The labels of a tensor; of what is none, no dimensions."""
        return self.values.get(thing, []) if isinstance(thing, Node) else []

    def name(self, thing: Any) -> str | None:
        """The parameter or buffer that an argument is, if it is one as it stands."""
        return self.traced.tensors.get(thing.name) if isinstance(thing, Node) and thing.op == "placeholder" else None

    def lock(self, node: Node, text: str, *, unknown: bool = False) -> Lock:
        """A reason with the place where it holds."""
        layer = layer_of(node)
        return Lock(f"{text}{f' in {layer}' if layer else ''}", unknown)

    def written(self, thing: Any, dim: int) -> None:
        """The outputs of a layer lie along a dimension of this weight."""
        if (name := self.name(thing)) is not None:
            self.writers.add((name, dim))


Rule = Callable[[Reading, Node, Sequence[Any]], Any]
"""(reading, node, its arguments) -> the labels of the output: a list of dimensions, or a list of such lists."""

rules: Registry[Rule] = Registry("operation")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator that files a rule for operations."""

    def decorate(function: Rule) -> Rule:
        for name in names:
            rules.register(name)(function)
        return function

    return decorate


def unknown(reading: Reading, node: Node, text: str | None = None) -> Any:
    """All units that meet this operation stay, with its name as the reason."""
    lock = reading.lock(node, text or f"the operation {node.target}, which Tombola does not know,", unknown=True)
    for given in node.all_input_nodes:
        lock_all(reading, given, lock)
    made = without_units(node)
    for dim in flat(made):
        dim[:] = reading.labels.fresh(len(dim))
        reading.labels.lock(dim, lock)
    return made


def without_units(node: Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        return [[unlabelled(size) for size in part.shape] if isinstance(part, Tensor) else [] for part in value]
    return [unlabelled(int(size)) for size in value.shape] if isinstance(value, Tensor) else []


def lock_all(reading: Reading, thing: Any, lock: Lock) -> None:
    for dim in flat(reading.values.get(thing)):
        reading.labels.lock(dim, lock)


def flat(value: Any) -> Dims:
    """All dimensions of a tensor or of a list of tensors."""
    if not value:
        return []
    return [dim for part in value for dim in part] if isinstance(value[0], list) else value
