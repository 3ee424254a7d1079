"""Image sets in .npz files: every array is believed only when it is what it must be."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tombola.data import DataConfig, decoding, load_data
from tombola.data import npz as package
from tombola.data.folders import class_folders
from tombola.data.npz import npz, read_arrays
from tombola.errors import ConfigError, DataError
from tombola.runs.configs import identity_hash, validate

ROOT = Path(__file__).parent.parent.parent


def _arrays(count: int = 20, test: int = 6, shape: tuple[int, ...] = (5, 4)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "train_images": generator.integers(0, 256, (count, *shape), dtype=np.uint8),
        "train_labels": (np.arange(count) % 3)[:, None].astype(np.uint8),
        "test_images": generator.integers(0, 256, (test, *shape), dtype=np.uint8),
        "test_labels": (np.arange(test) % 3)[:, None].astype(np.uint8),
    }


def _save(folder: Path, arrays: dict[str, Any], name: str = "set.npz") -> Path:
    np.savez_compressed(folder / name, **arrays)
    return folder / name


def _refused(act: Callable[[], object], *says: object) -> None:
    with pytest.raises(DataError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in says:
        assert str(part) in str(caught.value)


def test_a_file_or_the_folder_of_one_is_a_data_set(tmp_path: Path) -> None:
    arrays = _arrays()
    path = _save(tmp_path, arrays)
    for folder in (path, tmp_path):
        data = load_data(DataConfig(name="npz", folder=folder), seed=0)
        assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
        assert (data.input_shape, data.classes) == ((1, 5, 4), 3)
        assert np.array_equal(data.test.inputs[:, 0].mul(255).round().numpy(), arrays["test_images"])
        assert data.test.targets.tolist() == arrays["test_labels"][:, 0].tolist()
        assert data.train.inputs.dtype == torch.float32
    _save(tmp_path, arrays, "second.npz")
    _refused(lambda: npz(tmp_path), tmp_path, "holds 2 .npz files")
    _refused(lambda: npz(tmp_path / "none.npz"), tmp_path / "none.npz", "no such")


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_and_last_are_told_apart(tmp_path: Path, channels: int, fortran: bool) -> None:
    last = _arrays(shape=(6, 5, channels))
    first = {
        name: np.moveaxis(array, -1, 1) if array.ndim == 4 else array[:, 0].astype(np.int64)
        for name, array in last.items()
    }
    if fortran:
        first = {name: np.asfortranarray(array) for name, array in first.items()}
    one, other = npz(_save(tmp_path, last, "last.npz")), npz(_save(tmp_path, first, "first.npz"))
    assert one.training.inputs.shape == (20, channels, 6, 5)
    assert torch.equal(one.training.inputs, other.training.inputs)
    assert one.checksum == other.checksum  # the checksum names the data and not its layout


def test_the_names_of_keras(tmp_path: Path) -> None:
    arrays = _arrays()
    path = _save(tmp_path, dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays.values(), strict=True)))
    assert npz(path).checksum == npz(_save(tmp_path, arrays, "other.npz")).checksum


def test_validation_images_join_the_training_ones(tmp_path: Path) -> None:
    arrays = _arrays()
    more = {"val_images": arrays["test_images"][:4], "val_labels": arrays["test_labels"][:4]}
    raw = npz(_save(tmp_path, arrays | more))
    assert len(raw.training) == 24
    assert np.array_equal(raw.training.inputs[20:, 0].mul(255).round().numpy(), more["val_images"])
    _refused(lambda: npz(_save(tmp_path, arrays | {"val_images": more["val_images"]})), "no array val_labels")
    wide = more | {"val_images": np.zeros((4, 5, 5), np.uint8)}
    _refused(lambda: npz(_save(tmp_path, arrays | wide)), "val_images", "(1, 5, 5)", "(1, 5, 4)")


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a missing array": ({"test_labels": None}, ("no array test_labels",)),
    "floats": ({"train_images": np.full((20, 5, 4), np.nan)}, ("train_images", "float64", "uint8")),
    "deep integers": ({"test_images": np.ones((6, 5, 4), np.int32)}, ("test_images", "int32")),
    "flat images": ({"train_images": np.ones((20, 20), np.uint8)}, ("train_images", "(20, 20)")),
    "five dimensions": ({"train_images": np.ones((20, 1, 5, 4, 3), np.uint8)}, ("train_images", "5, 4, 3)")),
    "two channels": ({"train_images": np.ones((20, 5, 4, 2), np.uint8)}, ("train_images", "1 or 3 channels")),
    "either layout": (
        {"train_images": np.ones((20, 3, 4, 3), np.uint8)},
        ("train_images", "two axes"),
    ),
    "no images": ({"test_images": np.ones((0, 5, 4), np.uint8)}, ("test_images", "no data")),
    "a scalar": ({"train_images": np.uint8(3)}, ("train_images", "shape ()")),
    "too few labels": ({"train_labels": np.arange(19) % 3}, ("20 images", "19 labels", "train_labels")),
    "no labels": ({"train_labels": np.arange(0)}, ("20 images", "0 labels")),
    "several labels each": ({"train_labels": np.ones((20, 14), np.uint8)}, ("train_labels", "(20, 14)")),
    "labels that are no numbers": ({"train_labels": np.full(20, np.nan)}, ("train_labels", "float64")),
    "words": ({"train_labels": np.array(["cat", "dog"] * 10)}, ("train_labels", "integers")),
    "a negative label": ({"train_labels": np.arange(20) - 1}, ("train_labels", "label -1")),
    "a huge label": ({"test_labels": np.full(6, 2**64 - 1, np.uint64)}, ("test_labels", "18446744073709551615")),
    "one class": ({"train_labels": np.zeros(20, int)}, ("the same class",)),
    "test images of another size": ({"test_images": np.ones((6, 4, 4), np.uint8)}, ("(1, 5, 4)", "(1, 4, 4)")),
    "Python objects": ({"train_labels": np.array([{}] * 20)}, ("train_labels", "never unpickled")),
    "records": ({"train_labels": np.zeros(20, [("a", "i4")])}, ("train_labels", "integers")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_array_is_named(tmp_path: Path, case: str) -> None:
    change, says = WRONG[case]
    arrays = {name: array for name, array in (_arrays() | change).items() if array is not None}
    path = _save(tmp_path, arrays)
    _refused(lambda: npz(path), path, *says)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    path = _save(tmp_path, _arrays() | {"train_labels": np.array([Trap()] * 20)})
    _refused(lambda: npz(path), path, "train_labels", "never unpickled")
    path.write_bytes(pickle.dumps(Trap()))
    _refused(lambda: npz(path), path, "not an .npz file")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 1, 30, 0.2, 0.5, 0.9, 0.999])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, keep: float) -> None:
    path = _save(tmp_path, _arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    _refused(lambda: npz(path), path, "not an .npz file")


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = _save(tmp_path, _arrays())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("train_images.npy").header_offset
    content[begin + 300] ^= 0xFF
    path.write_bytes(content)
    _refused(lambda: npz(path), path, "train_images", "damaged or cut short")


def _header(text: str) -> bytes:
    encoded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00",
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }") + b"x",
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -24), }") + b"x" * 24,
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (24,), }") + b"x" * 25,
        _header("{'descr': '|V0', 'fortran_order': False, 'shape': (24,), }"),
        _header("{'descr': '|u1', 'shape': (24,), }") + b"x" * 24,
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (24"),
        _header("__import__('os').getcwd()"),
    ],
)
def test_a_header_is_believed_only_as_far_as_there_are_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
    _refused(lambda: read_arrays(path, ["a"]), path, "array a")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path, _arrays(shape=(50, 50)) | {"train_images": np.zeros((20, 500, 500), np.uint8)})
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(package, "SIZE_LIMIT", 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    _refused(lambda: npz(path), path, "unpacks to", "more than 1,000,000")


def test_a_member_that_lies_about_its_size_is_not_unpacked_further(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "a.npy", _header("{'descr': '|u1', 'fortran_order': False, 'shape': (9000000,), }") + bytes(9 << 20)
        )
        true = archive.getinfo("a.npy").file_size
    path = tmp_path / "set.npz"
    path.write_bytes(buffer.getvalue().replace(struct.pack("<I", true), struct.pack("<I", 200)))
    _refused(lambda: read_arrays(path, ["a"]), path, "array a")


def test_only_data_sets_of_ones_own_take_a_folder() -> None:
    for content in ({"name": "npz"}, {"name": "folder"}, {"name": "cifar10", "folder": "x"}):
        with pytest.raises(ConfigError, match="`folder` belongs to the data sets idx, npz, folder, arrays"):
            validate(content, DataConfig, "data.yaml")
    with pytest.raises(ConfigError, match="`size` belongs to the data sets npz, folder, plantvillage-apple, pneumo"):
        validate({"name": "mnist", "size": 32}, DataConfig, "data.yaml")
    for size in (1, 1025):
        with pytest.raises(ConfigError, match="size"):
            validate({"name": "folder", "folder": "x", "size": size}, DataConfig, "data.yaml")


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("size", [None, 4, 9])
def test_images_are_fitted_exactly_as_those_of_files(
    tmp_path: Path, depth: int, channels: int | None, size: int | None
) -> None:
    arrays = _arrays(shape=(6, 5) if depth == 1 else (6, 5, 3))
    for part in ("train", "test"):
        for number, (image, label) in enumerate(zip(arrays[f"{part}_images"], arrays[f"{part}_labels"], strict=True)):
            path = tmp_path / "set" / part / str(label[0]) / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    order = {part: np.argsort(arrays[f"{part}_labels"][:, 0], kind="stable") for part in ("train", "test")}
    sorted_ = {name: array[order[name.split("_")[0]]] for name, array in arrays.items()}
    one = npz(_save(tmp_path, sorted_), size=size, channels=channels)
    assert one.training.inputs.shape == (20, channels or depth, size or 6, size or 5)
    assert one.checksum == class_folders(tmp_path / "set", size=size, channels=channels).checksum


def test_parts_of_different_size_can_be_fitted(tmp_path: Path) -> None:
    path = _save(tmp_path, _arrays() | {"test_images": np.full((6, 9, 9), 7, np.uint8)})
    _refused(lambda: npz(path), "(1, 5, 4)", "(1, 9, 9)")
    raw = npz(path, size=8)
    assert raw.test is not None
    assert raw.test.inputs.shape == (6, 1, 8, 8)
    assert raw.test.inputs.mul(255).round().unique().tolist() == [7]


def test_images_too_large_to_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path, _arrays())
    monkeypatch.setattr(decoding, "SIZE_LIMIT", 10_000)
    _refused(lambda: npz(path, size=64), path, "20 images of (1, 64, 64) are more than 10,000 bytes", "data.size")
    npz(path, size=16)


def test_new_options_rename_no_old_run() -> None:
    assert DataConfig(name="digits").identity() == {"name": "digits"}
    assert identity_hash("s", DataConfig(name="digits")) == identity_hash(
        "s", DataConfig(name="digits", normalise=False, training=None)
    )


def test_pneumonia_of_medmnist() -> None:
    folder = Path(os.environ.get("TOMBOLA_DATA", ROOT.parent / "shared" / "data")) / "pneumoniamnist"
    if not (folder / "pneumoniamnist.npz").exists():
        pytest.skip("no PneumoniaMNIST: point TOMBOLA_DATA at a folder that holds pneumoniamnist/pneumoniamnist.npz")
    raw = npz(folder)
    assert raw.test is not None
    assert torch.bincount(raw.training.targets).tolist() == [1214 + 135, 3494 + 389]  # training and validation
    assert torch.bincount(raw.test.targets).tolist() == [234, 390]
    assert raw.training.inputs.shape[1:] == (1, 28, 28)
    assert float(raw.training.inputs[:4708].mean()) == pytest.approx(0.5719, abs=5e-5)
