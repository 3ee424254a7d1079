"""YAML of strangers: bounded before it is built, and nothing in it guessed that YAML's versions differ on.

PyYAML reads YAML 1.1, where `1:30` is 90, `010` is 8, `1_000` is 1000 and `2024-01-01` a date; in YAML 1.2 they are
text, 10, text and text. Such a value has to be written so that it can only be read in one way. Only `true` and `false`
are booleans, as in YAML 1.2: `yes`, `no`, `on` and `off` are text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tombola.runs import limits

DIGITS = 100
"""Of a number; Python takes the square of the time for them."""
MERGE = "tag:yaml.org,2002:merge"
BOOLEAN = "tag:yaml.org,2002:bool"
NUMBER = "tag:yaml.org,2002:float"


def parse_yaml(text: str) -> Any:
    """The one document in `text`. Raises yaml.YAMLError for whatever cannot be read, or is beyond `limits`."""
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        # PyYAML lets these through where a value does not fit its tag: `!!int x`.
        raise yaml.YAMLError(f"a value cannot be read ({type(error).__name__}: {error})") from None
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that counts what it composes, and refuses what plain loaders resolve silently."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes, self._depth = 0, 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node:
        """Counts an alias as often as it is used, with all that is in it: a few lines may unfold to billions."""
        self._depth += 1
        event = self.peek_event()
        node: Node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _refused(f"*{event.anchor} holds itself", event)
            self._nodes += self._sizes[id(node)]
            self._check(event)
        return node

    def compose_scalar_node(self, anchor: Any) -> ScalarNode:
        node: ScalarNode = super().compose_scalar_node(anchor)
        self._count(node, self._nodes)
        return node

    def compose_sequence_node(self, anchor: Any) -> SequenceNode:
        before = self._nodes
        self._check(self.peek_event())
        node: SequenceNode = super().compose_sequence_node(anchor)
        self._count(node, before)
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        before = self._nodes
        self._check(self.peek_event())
        node: MappingNode = super().compose_mapping_node(anchor)
        self._count(node, before)
        return node

    def _count(self, node: Node, before: int) -> None:
        self._nodes += 1
        self._sizes[id(node)] = self._nodes - before
        self._check(node)

    def _check(self, at: Any) -> None:
        if self._nodes > limits.YAML_NODES:
            raise _refused(f"more than {limits.YAML_NODES:,} keys and values, this is no config", at)
        if self._depth > limits.YAML_DEPTH:
            raise _refused(f"nested more than {limits.YAML_DEPTH} deep, this is no config", at)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == MERGE:
                raise _refused("`<<` takes over the keys of another place; write them out", key)
            name = key.value if isinstance(key, ScalarNode) else repr(key)
            if name in seen:
                raise _refused(f"key {name!r:.60} is given twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _number(loader: _StrictLoader, node: ScalarNode) -> Any:
    text = str(loader.construct_scalar(node))
    bare = text.lstrip("+-")
    if len(bare) > DIGITS:
        raise _refused(f"a number of {len(bare):,} digits", node)
    octal = len(bare) > 1 and bare[0] == "0" and bare[1:].isdigit()
    if "_" in bare:
        raise _refused(
            f"{text!r} is a number in YAML 1.1 and text in YAML 1.2; write the number without _, or put text in quotes",
            node,
        )
    if ":" in bare or octal or bare[:2] == "0b":
        raise _refused(
            f"{text!r} is one number in YAML 1.1 and another, or text, in YAML 1.2; put text in quotes", node
        )
    if node.tag.endswith(":int"):
        return yaml.SafeLoader.construct_yaml_int(loader, node)
    return yaml.SafeLoader.construct_yaml_float(loader, node)


def _date(loader: _StrictLoader, node: ScalarNode) -> Any:
    raise _refused(f"{str(node.value)!r:.60} is a date in YAML 1.1, no option takes one; put text in quotes", node)


def _refused(reason: str, at: Any) -> ConstructorError:
    return ConstructorError(None, None, reason, at.start_mark)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(BOOLEAN, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
# `1_0e3` is no number to PyYAML, but the configs that are made of its text take it for one.
_UNDERSCORES = re.compile(r"[-+]?[0-9.]+_[0-9._]*(?:[eE][-+]?[0-9_]+)?$")
_StrictLoader.add_implicit_resolver(NUMBER, _UNDERSCORES, list("-+.0123456789"))
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _number)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _number)
_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _date)
