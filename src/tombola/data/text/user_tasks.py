"""Tasks of somebody's own, in a file of JSON lines."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.data.text import idioms, written
from tombola.data.text.generated import LEVELS
from tombola.data.text.items import Item, TextTask
from tombola.errors import DataError
from tombola.runs import limits
from tombola.runs.atomic import read_bytes
from tombola.runs.strict_json import parse_json

SHIPPED = frozenset({*written.ABOUT, *LEVELS, *idioms.ABOUT, "sentiment", "sentiment-flipped"})
"""The names that a task of somebody's own cannot have."""
NAME = re.compile(r"[a-z0-9_-]{1,40}")
KEYS = {"task", "prompt", "completion", "split"}
PARTS = ("train", "held_out")
FEWEST = 8
"""Items of a part."""
MOST_LINES, MOST_TASKS, MOST_CHARACTERS = 200_000, 64, 20_000
"""Lines of a file, tasks in it, characters of an item."""
HELD_OUT_OF = 5
"""One item of so many is held out where none of a task's says its part."""


@dataclass(frozen=True)
class _Line:
    number: int
    task: str
    item: Item
    part: str | None


def read_tasks(path: Path) -> list[TextTask]:
    """The tasks of a file, in the order in which they begin; every line is one item.

        {"task": "capitals", "prompt": "France:", "completion": " Paris", "split": "train"}

    `prompt` may be empty or left out. `split` is "train" or "held_out". Without it an item's part is drawn from its
    text alone, one of five is held out, so that equal items are in one part.

    Args:
        path: At most 64 MiB and 200,000 lines of UTF-8; empty lines are passed over.

    Raises:
        DataError: with file and line for what is no such item, for one that is in both parts, and for a task with
            fewer than 8 items in a part.
        StorageError: where the file cannot be read.
    """
    try:
        text = read_bytes(path, limits.JSON).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start:,})") from None
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        raise DataError(f"{path}: has {len(lines):,} lines, at most {MOST_LINES:,} are read")
    found: dict[str, list[_Line]] = {}
    for number, content in enumerate(lines, start=1):
        if content.strip():
            line = _line(content, number, path)
            found.setdefault(line.task, []).append(line)
    if not found:
        raise DataError(f'{path}: has no items; one is a line {{"task": ..., "prompt": ..., "completion": ...}}')
    if len(found) > MOST_TASKS:
        raise DataError(f"{path}: has {len(found)} tasks, at most {MOST_TASKS} are read")
    return [_task(name, its, path) for name, its in found.items()]


def _line(content: str, number: int, path: Path) -> _Line:
    where = f"{path}, line {number}"
    try:
        value = parse_json(content)
    except ValueError as error:
        raise DataError(f"{where}: is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f'{where}: is no object {{"task": ..., "prompt": ..., "completion": ...}}')
    if unknown := sorted(value.keys() - KEYS):
        raise DataError(f"{where}: {unknown[0]!r:.60} is no key; known: completion, prompt, split, task")
    task, prompt, completion = (_text(value, key, where) for key in ("task", "prompt", "completion"))
    if not NAME.fullmatch(task):
        raise DataError(f"{where}: a task's name is 1 to 40 of a-z, 0-9, _ and -, not {task!r:.60}")
    if task in SHIPPED:
        raise DataError(f"{where}: {task!r} is the name of a task that Tombola brings; choose another")
    if not completion:
        raise DataError(f"{where}: the completion is empty, and nothing could be scored")
    if len(prompt) + len(completion) > MOST_CHARACTERS:
        raise DataError(f"{where}: has more than {MOST_CHARACTERS:,} characters")
    part = value.get("split")
    if part is not None and part not in PARTS:
        raise DataError(f'{where}: split is "train" or "held_out", not {part!r:.60}')
    return _Line(number, task, Item(prompt, completion), part)


def _text(value: dict[str, Any], key: str, where: str) -> str:
    text = value.get(key, "" if key == "prompt" else None)
    if not isinstance(text, str):
        said = "is missing" if key not in value else f"is {type(text).__name__}, not text"
        raise DataError(f"{where}: {key!r} {said}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: {key!r} has half a character (a lone surrogate)")
    return text


def _task(name: str, lines: list[_Line], path: Path) -> TextTask:
    parts: dict[str, dict[Item, None]] = {part: {} for part in PARTS}
    first: dict[str, tuple[str, int]] = {}
    for line in lines:
        part = line.part or _part_of(line.item)
        known, number = first.setdefault(line.item.text, (part, line.number))
        if known != part:
            raise DataError(
                f"{path}, line {line.number}: is {part} in the task {name}, and line {number} has the same text as "
                f"{known}: what is held out must not be trained on"
            )
        parts[part][line.item] = None
    for part, items in parts.items():
        if len(items) < FEWEST:
            raise DataError(
                f"{path}: the task {name} has {len(items)} different {part} items, and needs {FEWEST}; add some, or "
                "say `split` in its lines"
            )
    return TextTask(name, f"of {path.name}", tuple(parts["train"]), tuple(parts["held_out"]))


def _part_of(item: Item) -> str:
    drawn = int.from_bytes(hashlib.sha256(item.text.encode()).digest()[:8], "big")
    return "held_out" if drawn % HELD_OUT_OF == 0 else "train"
