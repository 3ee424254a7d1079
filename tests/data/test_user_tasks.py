"""Tasks of somebody's own: lines become tasks, and what is wrong is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.data.text import Item, read_tasks, user_tasks
from tombola.errors import DataError, StorageError, TombolaError


def line(task: Any = "mine", prompt: Any = "1+1=", completion: Any = "2", **more: Any) -> str:
    return json.dumps({"task": task, "prompt": prompt, "completion": completion, **more})


def enough(task: str = "mine") -> list[str]:
    return [line(task, f"{at}:", "x", split="held_out" if at < 8 else "train") for at in range(16)]


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tasks_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    later, mine = read_tasks(written(tmp_path, [*enough("later"), "", *enough()]))
    assert (later.name, mine.name) == ("later", "mine")
    assert mine.held_out == tuple(Item(f"{at}:", "x") for at in range(8))
    assert len(mine.train) == 8
    assert mine.difficulty is None


@given(at=st.integers(0, 10**6))
def test_without_a_split_the_text_of_an_item_says_its_part(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    """Whatever else is in the file."""
    folder = tmp_path_factory.mktemp("drawn")
    few = [line(prompt=f"{number} ") for number in range(120)]
    (one,) = read_tasks(written(folder, [*few, line(prompt=f"{at} ")]))
    (other,) = read_tasks(written(folder, [line(prompt=f"{at} "), *few, *(line(prompt=f"{n}?") for n in range(9))]))
    item = Item(f"{at} ", "2")
    assert (item in one.train) == (item in other.train)
    assert (item in one.train) != (item in one.held_out)
    assert 8 <= len(one.held_out) < len(one.train)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no object"),
        ('{"task": "mine", "prompt": "", "completion": NaN}', "NaN is no JSON"),
        ('{"task": "mine", "task": "yours", "completion": "x"}', "is given twice"),
        (line(completion=""), "the completion is empty"),
        (line(completion=3), "'completion' is int, not text"),
        (line(completion=None), "'completion' is NoneType, not text"),
        (line(prompt=["a"]), "'prompt' is list, not text"),
        ('{"prompt": "a", "completion": "b"}', "'task' is missing"),
        (line(task="../x"), "a task's name is 1 to 40 of"),
        (line(task="Mine"), "a task's name is 1 to 40 of"),
        (line(task="x" * 41), "a task's name is 1 to 40 of"),
        (line(task="mine\n"), "a task's name is 1 to 40 of"),
        (line(task="german"), "'german' is the name of a task that Tombola brings"),
        (line(split="test"), 'split is "train" or "held_out", not \'test\''),
        (line(label="x"), "'label' is no key; known: completion, prompt, split, task"),
        (line(prompt="\ud800"), "half a character"),
        (line(prompt="x" * 20_001), "more than 20,000 characters"),
        (line(prompt="3:", completion="x", split="train"), "is train in the task mine, and line 4 has the same text"),
        (line(prompt="", completion="3:x", split="train"), "is train in the task mine, and line 4 has the same text"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_item_is_named_with_its_line(bad: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_tasks(written(tmp_path, [*enough(), bad]))
    assert said in str(caught.value)
    assert "tasks.jsonl, line 17: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_items_of_a_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the task mine has 7 different held_out items, and needs 8"):
        read_tasks(written(tmp_path, [enough()[1], *enough()[1:]]))


def test_files_that_are_no_tasks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="has no items"):
        read_tasks(written(tmp_path, [""]))
    (tmp_path / "latin").write_bytes("größe".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_tasks(tmp_path / "latin")
    with pytest.raises(StorageError, match="cannot read"):
        read_tasks(tmp_path / "none")
    monkeypatch.setattr(user_tasks, "MOST_LINES", 10)
    with pytest.raises(DataError, match="has 17 lines, at most 10 are read"):
        read_tasks(written(tmp_path, enough()))
    monkeypatch.undo()
    monkeypatch.setattr(user_tasks, "MOST_TASKS", 1)
    with pytest.raises(DataError, match="has 2 tasks, at most 1"):
        read_tasks(written(tmp_path, [*enough(), *enough("yours")]))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_tasks_or_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "tasks.jsonl"
    path.write_bytes(content)
    with pytest.raises(TombolaError) as caught:  # 200 bytes hold no 16 items
        read_tasks(path)
    assert "\n" not in str(caught.value)
