"""IDX files are believed only when every byte of them fits."""

from __future__ import annotations

import gzip
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tombola.data import DataConfig, load_data
from tombola.data.idx import FILES, SIZE_LIMIT, decompressed_md5, read_idx, read_idx_folder
from tombola.errors import DataError, StorageError

LABELS = "train-labels-idx1-ubyte"
IMAGES = "train-images-idx3-ubyte"


def _idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write_set(folder: Path, training: int = 20, test: int = 6, suffix: str = "", classes: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for stem in FILES.values():
        count = training if stem.startswith("train") else test
        shape = (count, 5, 4) if "idx3" in stem else (count,)
        values = np.arange(np.prod(shape)).reshape(shape) % (256 if "idx3" in stem else classes)
        content = _idx(values.astype(np.uint8))
        (folder / f"{stem}{suffix}").write_bytes(gzip.compress(content, 1) if suffix else content)
    return folder


def _refused(act: Callable[[], object], *says: object) -> None:
    with pytest.raises(DataError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in says:
        assert str(part) in str(caught.value)


@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), zipped=st.booleans())
@settings(max_examples=40)
def test_what_was_written_is_read(shape: list[int], zipped: bool) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.gz" if zipped else "a")
        path.write_bytes(gzip.compress(_idx(array), 1) if zipped else _idx(array))
        assert np.array_equal(read_idx(path, len(shape)), array)


GOOD = _idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
DAMAGED = {
    "empty": (b"", "header"),
    "truncated header": (GOOD[:10], "header"),
    "wrong magic": (b"\x01" + GOOD[1:], "magic"),
    "floats": (GOOD[:2] + b"\x0d" + GOOD[3:], "magic"),
    "wrong rank": (GOOD[:3] + b"\x02" + GOOD[4:], "magic"),
    "zero sizes": (GOOD[:4] + bytes(4) + GOOD[8:], "holds no data"),
    "sizes too large": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "more than"),
    "sizes at the limit": (GOOD[:4] + struct.pack(">3I", SIZE_LIMIT >> 2, 2, 2) + GOOD[16:], "cut short"),
    "missing byte": (GOOD[:-1], "cut short"),
    "no data": (GOOD[:16], "cut short"),
    "extra byte": (GOOD + b"x", "left over"),
    "text": (b"<!DOCTYPE html><html>not here</html>", "magic"),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("case", DAMAGED)
def test_a_malformed_file_is_an_error_that_names_it(tmp_path: Path, case: str, zipped: bool) -> None:
    content, says = DAMAGED[case]
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(content) if zipped else content)
    _refused(lambda: read_idx(path, 3), path, says)


ZIPPED = gzip.compress(GOOD, mtime=0)
BAD_ZIPS = {
    "truncated": ZIPPED[:-12],
    "cut in its checksum": ZIPPED[:-3],
    "wrong checksum": ZIPPED[:-8] + bytes(4) + ZIPPED[-4:],
    "damaged inside": ZIPPED[:12] + b"\xff\xff\xff" + ZIPPED[15:],
    "not gzip at all": GOOD,
    "a page": b"<html>please log in</html>",
    "garbage behind": ZIPPED + b"garbage",
}


@pytest.mark.parametrize("case", BAD_ZIPS)
def test_a_damaged_gzip_is_an_error_that_names_it(tmp_path: Path, case: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(BAD_ZIPS[case])
    _refused(lambda: read_idx(path, 3), path, "damaged or cut short")
    _refused(lambda: decompressed_md5(path), path, "damaged or cut short")


@given(cut=st.integers(0, len(ZIPPED) - 1))
@settings(max_examples=60)
def test_a_gzip_cut_anywhere_is_an_error(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.gz"
        path.write_bytes(ZIPPED[:cut])
        _refused(lambda: read_idx(path, 3), path)


def test_a_file_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="images"):
        read_idx(tmp_path / "images", 3)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_is_a_data_set(tmp_path: Path, suffix: str) -> None:
    raw = read_idx_folder(_write_set(tmp_path / "set", suffix=suffix), "mine")
    assert raw.test is not None
    assert (len(raw.training), len(raw.test), raw.classes) == (20, 6, 3)
    assert raw.training.inputs.shape == (20, 1, 5, 4)
    assert raw.training.inputs.dtype == torch.float32
    assert raw.training.inputs.reshape(-1)[:256].mul(255).round().tolist() == list(range(256))
    assert raw.training.targets.tolist()[:4] == [0, 1, 2, 0]


def test_the_checksum_names_the_content_and_not_its_packing(tmp_path: Path) -> None:
    plain = read_idx_folder(_write_set(tmp_path / "plain"), "a").checksum
    assert plain == read_idx_folder(_write_set(tmp_path / "gz", suffix=".gz"), "b").checksum
    assert plain != read_idx_folder(_write_set(tmp_path / "other", classes=2), "a").checksum


def test_a_missing_file_is_named_with_the_four_that_are_wanted(tmp_path: Path) -> None:
    _write_set(tmp_path)
    (tmp_path / IMAGES).unlink()
    _refused(lambda: read_idx_folder(tmp_path, "mine"), tmp_path, *FILES.values())


def test_images_and_labels_of_different_number(tmp_path: Path) -> None:
    _write_set(tmp_path)
    (tmp_path / LABELS).write_bytes(_idx(np.arange(19, dtype=np.uint8)))
    _refused(lambda: read_idx_folder(tmp_path, "mine"), tmp_path, "20 images but 19 labels")


def test_training_and_test_images_of_different_size(tmp_path: Path) -> None:
    _write_set(tmp_path)
    (tmp_path / IMAGES).write_bytes(_idx(np.ones((20, 4, 4), dtype=np.uint8)))
    _refused(lambda: read_idx_folder(tmp_path, "mine"), tmp_path, "(4, 4)", "(5, 4)")


def test_one_class_is_no_data_set(tmp_path: Path) -> None:
    _write_set(tmp_path, classes=1)
    _refused(lambda: read_idx_folder(tmp_path, "mine"), tmp_path, "the same class")


def test_a_config_loads_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = _write_set(tmp_path / "mine")
    data = load_data(DataConfig(name="idx", folder=folder), seed=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    assert data.input_shape == (1, 5, 4)
    _refused(lambda: load_data(DataConfig(name="idx", folder=folder, test=3), seed=0), "its own test set")
    _refused(lambda: load_data(DataConfig(name="idx", folder=folder, validation=19), seed=0), "too few")
