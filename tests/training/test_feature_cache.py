"""Features on disk: whole or not there, never more than the cache may hold, and never another entry's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_bases import own_cache
from tombola.errors import ConfigError, DataError, StorageError, TombolaError
from tombola.models.tensors import save_tensors
from tombola.runs import cache
from tombola.training import feature_cache as module
from tombola.training.feature_cache import VARIABLE, FeatureCache, limit_bytes


@pytest.fixture(autouse=True)
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(module, "PART", 8)
    with own_cache(tmp_path / "cache") as folder:
        yield folder


def written(key: str, count: int = 20, shape: tuple[int, ...] = (3, 2)) -> FeatureCache:
    entry = FeatureCache(key, count, shape)
    entry.begin()
    for part in entry.parts():
        entry.write(part, content(part, shape))
    return entry


def content(part: slice, shape: tuple[int, ...] = (3, 2)) -> torch.Tensor:
    size = torch.Size(shape).numel()
    return torch.arange(part.start * size, part.stop * size).float().reshape(-1, *shape)


@given(count=st.integers(1, 100))
def test_parts_are_all_examples_in_order(count: int) -> None:
    parts = FeatureCache("k", count, (2,)).parts()
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))


def test_what_is_written_is_read_to_the_bit() -> None:
    entry = written("k")
    assert entry.missing == 0
    for part in entry.parts():
        found = entry.read(part)
        assert found is not None
        assert torch.equal(found, content(part))


def test_what_is_not_there_is_none_and_counted() -> None:
    entry = FeatureCache("k", 20, (3, 2))
    assert entry.missing == 20
    entry.begin()
    assert [entry.read(part) for part in entry.parts()] == [None] * 3
    entry.write(entry.parts()[2], content(entry.parts()[2]))
    assert entry.missing == 16


@pytest.mark.parametrize("keep", [0, 1, 8, 60, -4, -1])
def test_a_part_cut_short_is_none(keep: int) -> None:
    entry = written("k")
    path = entry._path(entry.parts()[1])
    path.write_bytes(path.read_bytes()[:keep])
    assert entry.read(entry.parts()[1]) is None
    assert entry.read(entry.parts()[0]) is not None


def test_every_altered_byte_is_seen() -> None:
    entry = written("k")
    path, part = entry._path(entry.parts()[0]), entry.parts()[0]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = entry.read(part)
        assert found is None or torch.equal(found, content(part))


@pytest.mark.parametrize(
    "tensors",
    [
        {"features": torch.zeros(8, 2, 3)},
        {"features": torch.zeros(7, 3, 2)},
        {"features": torch.zeros(8, 3, 2, dtype=torch.float64)},
        {"other": torch.zeros(8, 3, 2)},
        {},
    ],
)
def test_other_tensors_are_none(tensors: dict[str, torch.Tensor]) -> None:
    entry = written("k")
    save_tensors(entry._path(entry.parts()[0]), tensors)
    assert entry.read(entry.parts()[0]) is None


class TestTheBound:
    """Entries of 20 × 6 numbers are 480 bytes, and some headers on disk."""

    def limit(self, monkeypatch: pytest.MonkeyPatch, size: float) -> None:
        monkeypatch.setenv(VARIABLE, str(size / 2**30))

    def test_what_was_not_used_for_longest_goes_first(self, monkeypatch: pytest.MonkeyPatch, features: Path) -> None:
        for age, key in enumerate(["new", "old", "middle"]):
            folder = written(key).folder
            os.utime(folder, (1_000 - age, 1_000 - age))
        os.utime(features / "old", (10, 10))
        one = sum(path.stat().st_size for path in (features / "new").iterdir())
        self.limit(monkeypatch, 480 + 2 * one)
        FeatureCache("own", 20, (3, 2)).begin()
        assert {path.name for path in features.iterdir()} == {"own", "new", "middle"}
        assert FeatureCache("new", 20, (3, 2)).missing == 0

    def test_an_entry_in_use_is_used_now(self, monkeypatch: pytest.MonkeyPatch, features: Path) -> None:
        for key in ("first", "second"):
            os.utime(written(key).folder, (10, 10))
        FeatureCache("first", 20, (3, 2)).begin()
        one = sum(path.stat().st_size for path in (features / "first").iterdir())
        self.limit(monkeypatch, 480 + one)
        FeatureCache("own", 20, (3, 2)).begin()
        assert {path.name for path in features.iterdir()} == {"own", "first"}

    def test_its_own_entry_stays(self, monkeypatch: pytest.MonkeyPatch, features: Path) -> None:
        entry = written("own")
        os.utime(entry.folder, (10, 10))
        written("other")
        self.limit(monkeypatch, 480)  # which its headers are over already
        entry.begin()
        assert [path.name for path in features.iterdir()] == ["own"]
        assert entry.missing == 0

    def test_what_is_too_large_alone_is_refused_and_costs_nobody_anything(
        self, monkeypatch: pytest.MonkeyPatch, features: Path
    ) -> None:
        written("other")
        self.limit(monkeypatch, 479)
        with pytest.raises(DataError, match=rf"20 examples take .* choose a deeper data\.base\.layer .*{VARIABLE}$"):
            FeatureCache("own", 20, (3, 2)).begin()
        assert [path.name for path in features.iterdir()] == ["other"]

    @pytest.mark.parametrize("text", ["", "many", "0", "-1", "nan", "1 GiB"])
    def test_nonsense_is_refused(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(ConfigError, match=VARIABLE) as caught:
            FeatureCache("own", 20, (3, 2)).begin()
        assert repr(text) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_by_default_it_is_twenty_gib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        assert limit_bytes() == 20 * 2**30

    def test_files_of_nobody_do_no_harm(self, monkeypatch: pytest.MonkeyPatch, features: Path) -> None:
        written("other")
        (features / "stray").write_bytes(b"x")
        self.limit(monkeypatch, 480)
        FeatureCache("own", 20, (3, 2)).begin()
        assert {path.name for path in features.iterdir()} == {"own", "stray"}


def test_an_entry_that_another_study_removed_is_written_again(features: Path) -> None:
    entry = FeatureCache("k", 8, (3, 2))
    entry.begin()
    entry.folder.rmdir()
    entry.write(entry.parts()[0], content(entry.parts()[0]))
    assert entry.missing == 0


def test_entries_may_vanish_while_they_are_counted(monkeypatch: pytest.MonkeyPatch, features: Path) -> None:
    """As when two studies make room at the same time."""
    gone, _ = written("gone"), written("stays")
    real = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        found = list(real(folder))
        if folder == gone.folder:
            for path in found:
                path.unlink()
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    FeatureCache("own", 20, (3, 2)).begin()
    assert FeatureCache("stays", 20, (3, 2)).missing == 0


@pytest.mark.parametrize("kind", ["file", "no home"])
def test_a_cache_that_cannot_be_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if kind == "file":
        (tmp_path / "file").write_bytes(b"")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:

        def nobody() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(cache.Path, "home", nobody)
    with pytest.raises(TombolaError) as caught:
        FeatureCache("own", 20, (3, 2)).begin()
    assert isinstance(caught.value, StorageError)
    assert "\n" not in str(caught.value)
