"""Tasks made in code, each with levels of difficulty: sums, keys and values, a key said early, runs of letters."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable

from tombola.data.text.items import Item, TextTask, chance_of, drawn
from tombola.data.text.shipped_text import TextPart, text_of
from tombola.errors import ConfigError, DataError

LEVELS = {"arithmetic": 4, "recall": 6, "long-context": 4, "continued": 4, "reversed": 4}
"""How many levels each has, counted from 1."""
TRIES = 20
"""How often an item is drawn, for every one that is asked for, before a level is said to have too few."""


def arithmetic(seed: int, train: int, held_out: int, difficulty: int = 1) -> TextTask:
    """Sums and differences of whole numbers; the level is how large they are: below 30, 100, 1,000, 10,000."""
    below = (30, 100, 1_000, 10_000)[_level("arithmetic", difficulty) - 1]

    def one(chance: random.Random) -> Item:
        first, second = chance.randrange(below), chance.randrange(below)
        if chance.random() < 0.5:
            return Item(f"{first}+{second}=", f"{first + second}.")
        return Item(f"{max(first, second)}-{min(first, second)}=", f"{abs(first - second)}.")

    scored = frozenset[str]()  # which a harder level, that is learned in between, must not have
    if difficulty > 1:
        scored = frozenset(item.prompt for item in arithmetic(seed, train, held_out).held_out)
    parts = _two_parts(one, train, held_out, chance_of(seed, "arithmetic", difficulty), "arithmetic", scored)
    return TextTask("arithmetic", f"sums and differences of numbers below {below}", *parts, difficulty)


def recall(seed: int, train: int, held_out: int, difficulty: int = 1) -> TextTask:
    """Pairs of a letter and a digit, then one letter: say its digit, and the other pairs in their order.

    So every value is asked for, and the next letter is known where the letter before was found. Level d has d + 1
    pairs.
    """
    pairs = _level("recall", difficulty) + 1

    def one(chance: random.Random) -> Item:
        said = [f"{key}{chance.randrange(10)}" for key in chance.sample(string.ascii_lowercase, pairs)]
        first = chance.randrange(pairs)
        again = "".join(said[first:] + said[:first])
        return Item(f"{''.join(said)};{again[0]}", again[1:])

    parts = _two_parts(one, train, held_out, chance_of(seed, "recall", difficulty), "recall")
    return TextTask("recall", f"{pairs} keys with their values, then asked for", *parts, difficulty)


def long_context(seed: int, train: int, held_out: int, difficulty: int = 1) -> TextTask:
    """A sign is said, then other text, and the sign is asked for. Level d has 3 d words between."""
    words = 3 * _level("long-context", difficulty)
    chance = chance_of(seed, "long-context", difficulty)
    signs = [letter + digit for letter in string.ascii_uppercase for digit in string.digits]

    def part(name: TextPart, count: int) -> tuple[Item, ...]:
        text = text_of("speeches", name).split()

        def one(chance: random.Random) -> Item:
            first, sign = chance.randrange(len(text) - words), chance.choice(signs)
            between = " ".join(text[first : first + words])
            return Item(f"The sign is {sign}. {between[:MOST_BETWEEN]} The sign is", f" {sign}.")

        return _different(one, count, chance, "long-context")

    about = f"a sign said {words} words ago"
    return TextTask("long-context", about, part("train", train), part("held_out", held_out), difficulty)


MOST_BETWEEN = 72
"""Characters between the two signs, of words that are long: the item has 64 tokens."""


def continued(seed: int, train: int, held_out: int, difficulty: int = 1) -> TextTask:
    """The beginning of a run of letters, to be continued: `d e f` is followed by ` g h i`."""
    parts = _runs(seed, train, held_out, difficulty, "continued")
    return TextTask("continued", "a run of letters goes on", *parts, difficulty)


def reversed_runs(seed: int, train: int, held_out: int, difficulty: int = 1) -> TextTask:
    """The same beginnings as `continued` has, to be said backwards: `d e f` is followed by ` f e d`."""
    parts = _runs(seed, train, held_out, difficulty, "reversed")
    return TextTask("reversed", "a run of letters is said backwards", *parts, difficulty)


def _runs(
    seed: int, train: int, held_out: int, difficulty: int, name: str
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Runs of 3 to 7 + d letters in steps of 1 to d, round the alphabet, each with all marks after it.

    Beginnings are split once for both tasks: none that one of them holds out is in what the other trains on. Nor does
    a harder level train on what the first holds out, by which networks are scored.
    """
    level, chance = _level(name, difficulty), chance_of(seed, "runs", difficulty)
    trained, kept = _split_runs(level, chance)
    if level > 1:
        scored = set(_split_runs(1, chance_of(seed, "runs", 1))[1])
        trained = [run for run in trained if run not in scored]

    def items(start: int, step: int, length: int) -> list[Item]:
        letters = [string.ascii_lowercase[(start + step * place) % 26] for place in range(2 * length)]
        said, on = letters[:length], letters[length:]
        completion = "".join(f" {letter}" for letter in (on if name == "continued" else said[::-1]))
        return [Item(" ".join(said) + mark, completion) for mark in MARKS]

    def part(whose: list[Run], count: int) -> tuple[Item, ...]:
        return drawn((item for run in whose for item in items(*run)), count, chance, f"the task {name}")

    return part(trained, train), part(kept, held_out)


def _split_runs(level: int, chance: random.Random) -> tuple[list[Run], list[Run]]:
    """All runs of a level, those to train on and those that are held out."""
    runs = list(itertools.product(range(26), range(1, level + 1), range(3, 8 + level)))
    chance.shuffle(runs)
    most = round(TRAINED_RUNS * len(runs))
    return runs[:most], runs[most:]


Run = tuple[int, int, int]
"""First letter, step and length of a run."""
TRAINED_RUNS = 0.6
"""The fraction of beginnings to train on."""
MARKS = (":", ";", "=", ">", "?")
"""What stands between a beginning and what follows."""


def _two_parts(
    one: Callable[[random.Random], Item],
    train: int,
    held_out: int,
    chance: random.Random,
    name: str,
    without: frozenset[str] = frozenset(),
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Different items, the first to train on, of other prompts than those that they are to be `without`."""
    every = _different(one, train + held_out, chance, name, without)
    return every[:train], every[train:]


def _different(
    one: Callable[[random.Random], Item],
    count: int,
    chance: random.Random,
    name: str,
    without: frozenset[str] = frozenset(),
) -> tuple[Item, ...]:
    """`count` items of different prompts."""
    found: dict[str, Item] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        item = one(chance)
        if item.prompt not in without:
            found.setdefault(item.prompt, item)
    if len(found) < count:
        raise DataError(f"the task {name} has hardly more than {len(found)} items at this level: ask for fewer")
    return tuple(found.values())


def _level(name: str, difficulty: int) -> int:
    if not 1 <= difficulty <= LEVELS[name]:
        raise ConfigError(f"the difficulty of {name} is 1 to {LEVELS[name]}, not {difficulty}")
    return difficulty
