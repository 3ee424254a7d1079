"""CIFAR-10 is read whole or not at all, whatever its layout; what is decoded once is not believed blindly."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tombola.data import DataConfig, load_data
from tombola.data import cifar as module
from tombola.data.cifar import ARCHIVE, BATCHES, CLASSES, EXACT, LABELS, cifar10, cifar10_exact, read_jpeg_set
from tombola.errors import DataError, StorageError

ROOT = Path(__file__).parent.parent.parent
GENERATOR = np.random.default_rng(0)


@pytest.fixture
def real() -> Path:
    """The folder of real CIFAR-10 files, when it is there."""
    folder = Path(os.environ.get("TOMBOLA_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    if not all((folder / name).exists() for name in (ARCHIVE, LABELS, EXACT)):
        pytest.skip(f"no CIFAR-10: point TOMBOLA_DATA at a folder that holds cifar10/{ARCHIVE}, {LABELS} and {EXACT}")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tombola" / "decoded"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CIFAR-10 of 10 + 2 images per class."""
    monkeypatch.setattr(module, "PER_CLASS", {"train": 10, "test": 2})


def _refused(act: Callable[[], object], *says: object) -> None:
    with pytest.raises((DataError, StorageError)) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in says:
        assert str(part) in str(caught.value)


def _write_binary(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    batches = {}
    for stems in BATCHES.values():
        for stem in stems:
            pixels = GENERATOR.integers(0, 256, (20, 3072), dtype=np.uint8)
            records = np.concatenate([np.repeat(np.arange(10, dtype=np.uint8), 2)[:, None], pixels], axis=1)
            batches[stem] = GENERATOR.permutation(records)
            (folder / f"{stem}.bin").write_bytes(batches[stem].tobytes())
    return batches


def _jpeg(colour: tuple[int, int, int] = (0, 0, 0), size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _small_members() -> dict[str, bytes]:
    """Images whose red says the class, green the number and blue the part."""
    counts = {"train": 10, "test": 2}
    return {
        f"{part}/{name}/{number:04d}.jpg": _jpeg((20 * label, 20 * number, 200 if part == "test" else 20))
        for part, count in counts.items()
        for label, name in enumerate(CLASSES)
        for number in range(count)
    }


def _write_archive(folder: Path, members: list[tuple[str, bytes]]) -> None:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / ARCHIVE, "w:xz", preset=0) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _write_labels(folder: Path) -> dict[str, np.ndarray]:
    labels = {
        "train_labels": GENERATOR.permutation(np.repeat(np.arange(10, dtype=np.uint8), 10)),
        "test_labels": GENERATOR.permutation(np.repeat(np.arange(10, dtype=np.uint8), 2)),
    }
    np.savez(folder / LABELS, **labels)
    return labels


class TestBinary:
    @pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
    @pytest.mark.usefixtures("small")
    def test_records_are_read_in_order(self, tmp_path: Path, inner: str) -> None:
        batches = _write_binary(tmp_path / "cifar10" / inner)
        raw = cifar10(tmp_path / "cifar10")
        assert raw.test is not None
        assert raw.training.inputs.shape == (100, 3, 32, 32)
        assert raw.training.inputs.dtype == torch.float32
        training = np.concatenate([batches[stem] for stem in BATCHES["train"]])
        for part, records in ((raw.training, training), (raw.test, batches["test_batch"])):
            assert part.targets.tolist() == records[:, 0].tolist()
            assert np.array_equal((part.inputs * 255).round().numpy().reshape(len(records), -1), records[:, 1:])
        data = load_data(DataConfig(name="cifar10"), seed=0, data_dir=tmp_path)
        assert (len(data.train), len(data.validation), len(data.test), data.classes) == (90, 10, 20, 10)

    @pytest.mark.usefixtures("small")
    def test_they_come_before_the_lossy_set(self, tmp_path: Path) -> None:
        _write_binary(tmp_path)
        checksum = cifar10(tmp_path).checksum
        (tmp_path / ARCHIVE).write_bytes(b"not looked at")
        assert cifar10(tmp_path).checksum == checksum

    @pytest.mark.usefixtures("small")
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda content: content[:-1], "data_batch_3.bin: is cut short"),
            (lambda content: content + b"x", "data_batch_3.bin: has bytes left over"),
            (lambda content: b"", "data_batch_3.bin: is cut short"),
            (lambda content: b"\x0a" + content[1:], "data_batch_3.bin: holds the label 10"),
            (lambda content: bytes([content[0] ^ 1]) + content[1:], "not CIFAR-10: its train set has"),
            (None, "data_batch_3.bin is missing"),
        ],
    )
    def test_a_damaged_file_is_named(self, tmp_path: Path, change: Callable | None, says: str) -> None:
        _write_binary(tmp_path)
        path = tmp_path / "data_batch_3.bin"
        content = path.read_bytes()
        path.unlink()
        if change is not None:
            path.write_bytes(change(content))
        _refused(lambda: cifar10(tmp_path), tmp_path, says)

    def test_a_file_of_another_size_is_no_batch(self, tmp_path: Path) -> None:
        _write_binary(tmp_path)
        _refused(lambda: cifar10(tmp_path), "61,460 bytes, 10,000 records of 3,073 are wanted")


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_pickles_are_refused_with_a_way_out(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    _refused(lambda: cifar10(tmp_path), folder, "pickles, which are never read", "binary version")


def test_an_empty_home_says_which_files_to_put_where(tmp_path: Path) -> None:
    config = DataConfig(name="cifar10")
    wanted = ("data_batch_1.bin", ARCHIVE, LABELS, "--data-dir", "$TOMBOLA_DATA")
    _refused(lambda: load_data(config, 0, tmp_path), tmp_path / "cifar10", *wanted)
    _refused(lambda: load_data(DataConfig(name="cifar10-exact"), 0, tmp_path), tmp_path / "cifar10", EXACT)


@pytest.mark.usefixtures("small")
class TestJpeg:
    def test_images_come_in_the_order_of_the_labels(self, tmp_path: Path) -> None:
        members = list(_small_members().items())
        _write_archive(tmp_path, [members[place] for place in GENERATOR.permutation(len(members))])
        labels = _write_labels(tmp_path)
        raw = cifar10(tmp_path)
        assert raw.test is not None
        for part, name, blue in ((raw.training, "train", 20), (raw.test, "test", 200)):
            expected = labels[f"{name}_labels"]
            assert part.targets.tolist() == expected.tolist()
            number = [int((expected[:place] == label).sum()) for place, label in enumerate(expected)]
            red, green, blues = (part.inputs.mean((2, 3)) * 255).T
            assert (red / 20).round().int().tolist() == expected.tolist()
            assert (green / 20).round().int().tolist() == number
            assert (blues - blue).abs().max() < 5

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda m: m[:-1], "test/truck/0001.jpg is missing"),
            (lambda m: m[1:], "train/airplane/0000.jpg is missing"),
            (lambda m: [*m, m[5]], "0005.jpg is one too many"),
            (lambda m: [*m, ("train/cat/0010.jpg", m[0][1])], "train/cat/0010.jpg is one too many"),
            (lambda m: [("../../etc/passwd", b"x"), *m], "../../etc/passwd does not belong"),
            (lambda m: [("train/cow/0000.jpg", m[0][1]), *m], "train/cow/0000.jpg does not belong"),
            (lambda m: [(m[0][0], m[0][1] * 200), *m[1:]], "train/airplane/0000.jpg does not belong"),
            (lambda m: [(m[0][0], m[0][1][:-200]), *m[1:]], "train/airplane/0000.jpg: cannot be read as an image"),
            (lambda m: [(m[0][0], b""), *m[1:]], "train/airplane/0000.jpg: cannot be read as an image"),
            (lambda m: [(m[0][0], _jpeg(size=(32, 31))), *m[1:]], "train/airplane/0000.jpg is (31, 32, 3)"),
            (lambda m: [(m[0][0], _jpeg(mode="L")), *m[1:]], "train/airplane/0000.jpg is (32, 32)"),
        ],
    )
    def test_a_set_that_is_not_whole_is_refused(
        self, tmp_path: Path, cache: Path, change: Callable[[list], list], says: str
    ) -> None:
        _write_archive(tmp_path, change(list(_small_members().items())))
        _write_labels(tmp_path)
        _refused(lambda: cifar10(tmp_path), tmp_path / ARCHIVE, says)
        assert not cache.exists()

    @pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, 0.999])
    def test_an_archive_cut_anywhere_is_refused(self, tmp_path: Path, keep: float) -> None:
        _write_archive(tmp_path, list(_small_members().items()))
        _write_labels(tmp_path)
        content = (tmp_path / ARCHIVE).read_bytes()
        (tmp_path / ARCHIVE).write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
        _refused(lambda: cifar10(tmp_path), tmp_path / ARCHIVE, "get the archive again")

    def test_a_bomb_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _write_archive(tmp_path, [("train/airplane/0000.jpg", bytes(40 << 20))])
        _write_labels(tmp_path)
        monkeypatch.setattr(module, "UNPACKED_LIMIT", 30 << 20)
        _refused(lambda: cifar10(tmp_path), tmp_path / ARCHIVE, "unpacks to more than")

    def test_labels_that_are_missing_or_wrong(self, tmp_path: Path) -> None:
        _write_archive(tmp_path, list(_small_members().items()))
        _refused(lambda: cifar10(tmp_path), tmp_path / LABELS)
        labels = _write_labels(tmp_path)
        for wrong in (labels["train_labels"][1:], labels["train_labels"] + 1, labels["train_labels"][:, None]):
            np.savez(tmp_path / LABELS, **{**labels, "train_labels": wrong})
            _refused(lambda: cifar10(tmp_path), tmp_path / LABELS, "train_labels is not that of CIFAR-10")

    def test_decoding_is_done_once_and_a_damaged_cache_is_mended(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _write_archive(tmp_path, list(_small_members().items()))
        _write_labels(tmp_path)
        checksum = cifar10(tmp_path).checksum
        (path,) = cache.iterdir()
        whole = path.read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(module, "decode", lambda *_: pytest.fail("decoded again"))
            assert cifar10(tmp_path).checksum == checksum
        middle = len(whole) // 2
        with np.load(path) as arrays:
            stored = dict(arrays)
        stored["train"][3, 4, 5, 6, 0] ^= 1
        buffer = io.BytesIO()
        np.savez(buffer, **stored)  # a sound file of other pixels
        for damaged in (b"", whole[:-100], whole[:middle] + b"\xff" + whole[middle + 1 :], buffer.getvalue()):
            path.write_bytes(damaged)
            assert cifar10(tmp_path).checksum == checksum
            assert path.read_bytes() == whole

    def test_it_works_without_a_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _write_archive(tmp_path, list(_small_members().items()))
        _write_labels(tmp_path)
        checksum = cifar10(tmp_path).checksum
        (tmp_path / "file").write_text("no folder can be made in here")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert cifar10(tmp_path).checksum == checksum

        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(module, "cache_home", homeless)
        assert cifar10(tmp_path).checksum == checksum


def test_real_images_lie_at_the_places_of_the_exact_ones(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 images a class of the real test set, against the original pixels of those among the first 761."""
    monkeypatch.setattr(module, "PER_CLASS", {"train": 60, "test": 60})
    wanted = {f"test/{name}/{number:04d}.jpg" for name in CLASSES for number in range(60)}
    members = []
    with tarfile.open(real / ARCHIVE, "r|xz") as archive:
        for member in archive:
            if member.name in wanted:
                file = archive.extractfile(member)
                assert file is not None
                members.append((member.name, file.read()))
                if len(members) == len(wanted):
                    break
    _write_archive(tmp_path, [(name.replace("test", part), content) for part in BATCHES for name, content in members])
    with np.load(real / LABELS) as stored:
        labels = stored["test_labels"]
    places = np.sort(np.concatenate([np.flatnonzero(labels == label)[:60] for label in range(10)]))
    np.savez(tmp_path / LABELS, train_labels=labels[places], test_labels=labels[places])
    read = read_jpeg_set(tmp_path)["test"]
    with np.load(real / EXACT) as stored:
        exact, shared = stored["test_images"], places < 761
        assert np.array_equal(read.labels[shared], stored["test_labels"][places[shared]])
    assert shared.sum() > 500
    found = read.images[shared].transpose(0, 2, 3, 1).astype(float)
    ratios = 10 * np.log10(255**2 / ((found - exact[places[shared]]) ** 2).mean((1, 2, 3)))
    assert 30 < np.median(ratios) < 31  # dB; another image in its place has about 10
    assert ratios.min() > 23


def test_the_exact_part_has_the_published_pixels(real: Path) -> None:
    raw = cifar10_exact(real)
    assert raw.test is not None
    assert (len(raw.training), len(raw.test), raw.classes) == (3805, 761, 10)
    assert raw.training.targets[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, automobile
    assert (raw.training.inputs[0, :, 0, 0] * 255).round().tolist() == [59, 62, 63]
    data = load_data(DataConfig(name="cifar10-exact"), seed=0, data_dir=real.parent)
    assert (len(data.train), len(data.validation), len(data.test)) == (3424, 381, 761)


def test_another_set_is_not_the_exact_part(tmp_path: Path) -> None:
    images, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / EXACT, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    _refused(lambda: cifar10_exact(tmp_path), tmp_path / EXACT, "not images of 3×32×32")
