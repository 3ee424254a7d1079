"""An item is a prompt and its completion; a task is many of them, in two parts that share none."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from tombola.errors import DataError
from tombola.runs.seeds import derive_seed


@dataclass(frozen=True)
class Item:
    """What a model reads, and what it is to say next: only tokens of the completion are scored.

    Both begin with their own blank where they need one. The prompt may be empty.
    """

    prompt: str
    completion: str

    @property
    def text(self) -> str:
        """All of it, as a model meets it."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class TextTask:
    """Items to train on and items held out, of one kind. No text of an item is in both parts.

    `difficulty` is the level of a task that has several, from 1; None for one that has no levels.
    """

    name: str
    about: str
    train: tuple[Item, ...]
    held_out: tuple[Item, ...]
    difficulty: int | None = None

    def __post_init__(self) -> None:
        shared = {item.text for item in self.train} & {item.text for item in self.held_out}
        if shared:
            raise DataError(f"the task {self.name}: {min(shared)!r:.80} is to be trained on and is held out, too")


def chance_of(seed: int, *purpose: str | int) -> random.Random:
    """A source of chance of its own for every purpose."""
    return random.Random(derive_seed(seed, "text", *purpose))


def drawn(candidates: Iterable[Item], count: int, chance: random.Random, whose: str) -> tuple[Item, ...]:
    """`count` different items in an order by chance; DataError where there are fewer."""
    every = list(dict.fromkeys(candidates))
    if len(every) < count:
        raise DataError(f"{whose} has {len(every)} items, not {count}: ask for fewer")
    return tuple(chance.sample(every, count))
