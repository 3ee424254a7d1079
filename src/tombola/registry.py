"""Named, listable collections: criteria, structures, distributions, schedules, models, data sets.

Registering is one decorator line; looking a name up fails with the list of known names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from tombola.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a name to one object of a kind. Iterates over the names in the order of registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its object under `name`; a name can be taken once."""

        def decorate(item: T) -> T:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return decorate

    def get(self, name: str) -> T:
        """The object called `name`; raises ConfigError with the known names otherwise."""
        try:
            return self._items[name]
        except (KeyError, TypeError):
            raise ConfigError(f"unknown {self.kind} {name!r}{suggest(name, self._items)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items


def suggest(name: object, known: Iterable[object]) -> str:
    """` (did you mean 'x'?); known: a, b` for an error about an unknown name."""
    names = sorted(str(item) for item in known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}; known: {', '.join(names)}"


def described(thing: object) -> str:
    """The first paragraph of a registered thing's documentation, in one line."""
    return " ".join((thing.__doc__ or "").strip().partition("\n\n")[0].split())
