"""A finished run that was damaged somewhere: shown as it was, mended to the same numbers, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from finished_runs import KINDS, Runs, files_of, invoke, numbers_of, one_line
from tombola.errors import TombolaError
from tombola.studies import registered
from tombola.studies.base.opened import read_result, refuse_changes

DAMAGES = ("flip", "cut", "gone", "empty", "append", "another run's", "exchanged")
MARKS = ("rows.jsonl", "spec.json", "manifest.json", "config.yaml")
"""The files that say what a run is."""
FLIPS = {"train": 100, "imp": 25}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The same studies from another seed."""
    return Runs(tmp_path_factory.mktemp("runs") / "theirs", seed=1)


def flipped(content: bytes, at: random.Random) -> bytes:
    changed = bytearray(content)
    bit = at.randrange(8 * len(changed))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damage(how: str, folder: Path, other: Path, at: random.Random) -> set[str]:
    """Damages one file of a run, or exchanges two; gives their names."""
    name = at.choice(list(files_of(folder)))
    path = folder / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "exchanged":
        second = at.choice(list(files_of(folder)))
        path.write_bytes((folder / second).read_bytes())
        (folder / second).write_bytes(content)
        return {name, second}
    elif how == "another run's":
        path.write_bytes((other / name).read_bytes())
    elif how == "append":
        path.write_bytes(content + b'{"a": 1}\n')
    elif not content:
        path.write_bytes(b"x")
    else:
        path.write_bytes({"flip": flipped(content, at), "cut": content[: at.randrange(len(content))]}.get(how, b""))
    return {name}


def about(run: str, listed: str) -> list[str]:
    """What `tombola list` says of a run, whatever the widths of its columns."""
    return [" ".join(line.split()) for line in listed.splitlines() if run in line.split()]


@pytest.mark.slow
@given(kind=st.sampled_from(KINDS), how=st.sampled_from(DAMAGES), at=st.randoms(use_true_random=False))
@settings(
    max_examples=14,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # an example takes half a second, and each is small
    suppress_health_check=list(HealthCheck),
)
def test_it_is_as_it_was_or_refused(kind: str, how: str, at: random.Random, finished: Runs, others: Runs) -> None:
    for each in KINDS:
        finished.restore(each)
    folder, expected = finished.folders[kind], numbers_of(finished.kept(kind))
    shown, listed = invoke("show", folder).stdout, invoke("list", "--out", finished.out).stdout
    touched = damage(how, folder, others.kept(kind), at)
    damaged = files_of(folder)

    show = invoke("show", folder)
    assert one_line(show) is not None or show.stdout == shown
    now = invoke("list", "--out", finished.out)
    assert one_line(now) is None
    for other in (finished.folders[each].name for each in KINDS if each != kind):
        assert about(other, now.stdout) == about(other, listed)
    assert files_of(folder) == damaged

    if one_line(finished.go_on(kind)) is None:
        assert numbers_of(folder) == expected
        assert one_line(invoke("show", folder)) is None
    else:
        after = files_of(folder)
        assert {name: after.get(name) for name in damaged if name not in touched} == {
            name: content for name, content in damaged.items() if name not in touched
        }


def read(folder: Path) -> object:
    """What `tombola show` makes its tables of."""
    study = registered.open_run(folder)
    refuse_changes(study)
    return read_result(study)


@pytest.mark.parametrize("kind", FLIPS)
def test_no_flipped_bit_of_what_says_what_a_run_is_passes(kind: str, finished: Runs) -> None:
    folder = finished.restore(kind)
    for name in MARKS:
        path = next(iter(sorted(folder.rglob(name))))
        content, at = path.read_bytes(), random.Random(name)
        for _ in range(FLIPS[kind]):
            path.write_bytes(flipped(content, at))
            with pytest.raises(TombolaError) as caught:
                read(folder)
            assert "\n" not in str(caught.value)
        path.write_bytes(content)
    read(folder)
