"""Images in class folders: read in a stable order, and no image is lost without a word."""

from __future__ import annotations

import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tombola.data import DataConfig, load_data
from tombola.data import folders as module
from tombola.data.decoding import decode
from tombola.data.folders import class_folders
from tombola.errors import DataError

ROOT = Path(__file__).parent.parent.parent


def _image(path: Path, colour: int | tuple[int, ...] = 100, size: tuple[int, int] = (6, 5), mode: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode or ("L" if isinstance(colour, int) else "RGB"), size, colour).save(path)
    return path


def _set(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10, **options: object) -> Path:
    for label, name in enumerate(classes):
        for number in range(count):
            _image(folder / name / f"{number:02d}.png", 100 * label + number, **options)
    return folder


def _refused(act: Callable[[], object], *says: object) -> None:
    with pytest.raises(DataError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in says:
        assert str(part) in str(caught.value)


def _values(inputs: torch.Tensor) -> list[int]:
    return inputs[:, 0, 0, 0].mul(255).round().int().tolist()


def test_classes_and_images_come_by_name(tmp_path: Path) -> None:
    raw = class_folders(_set(tmp_path, ("dog", "cat", "Ant")))
    assert raw.training.inputs.shape == (30, 1, 5, 6)
    assert raw.training.targets.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    expected = [*range(200, 210), *range(100, 110), *range(10)]  # Ant, cat, dog
    assert _values(raw.training.inputs) == expected
    assert raw.test is None
    data = load_data(DataConfig(name="folder", folder=tmp_path), seed=0)
    assert (len(data.train), len(data.validation), len(data.test), data.classes) == (21, 3, 6, 3)


def test_train_and_test_stay_apart(tmp_path: Path) -> None:
    _set(tmp_path / "train")
    _set(tmp_path / "test", ("dog",), count=3)
    raw = class_folders(tmp_path)
    assert raw.test is not None
    assert (len(raw.training), _values(raw.test.inputs), raw.test.targets.tolist()) == (20, [0, 1, 2], [1, 1, 1])
    _set(tmp_path / "test", ("cow",), count=1)
    _refused(lambda: class_folders(tmp_path), tmp_path / "test" / "cow", "without training images")
    (tmp_path / "val").mkdir()
    _refused(lambda: class_folders(tmp_path), "holds val/ beside train/ and test/")


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "PNG", "JPG"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    for label, name in enumerate(("a", "b")):
        for number in range(2):
            _image(tmp_path / name / f"{number}.{suffix}", (50 * label, 20 * number, 200))
    raw = class_folders(tmp_path)
    assert raw.training.inputs.shape == (4, 3, 5, 6)
    means = raw.training.inputs.mean((2, 3)).mul(255)
    torch.testing.assert_close(means[3], torch.tensor([50.0, 20.0, 200.0]), atol=2, rtol=0)


def test_one_image_in_colour_makes_all_of_them_rgb(tmp_path: Path) -> None:
    _set(tmp_path)
    grey = class_folders(tmp_path)
    _image(tmp_path / "dog" / "99.png", (1, 2, 3))
    colour = class_folders(tmp_path)
    assert (grey.training.inputs.shape[1], colour.training.inputs.shape[1]) == (1, 3)
    assert torch.equal(colour.training.inputs[:20], grey.training.inputs.expand(-1, 3, -1, -1))
    assert colour.training.inputs[20, :, 0, 0].mul(255).round().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255]),
        ("LA", (7, 0), [7]),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3]),
    ],
)
def test_other_kinds_of_pixels(tmp_path: Path, mode: str, colour: object, expected: list[int]) -> None:
    for name in ("a", "b"):
        _image(tmp_path / name / "0.png", colour, mode=mode)  # type: ignore[arg-type]
    assert class_folders(tmp_path).training.inputs[0, :, 0, 0].mul(255).round().tolist() == expected


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = _image(tmp_path / name / "0.png", (10, 20, 30))
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
        assert Image.open(path).mode == "P"
    assert class_folders(tmp_path).training.inputs[0, :, 0, 0].mul(255).round().tolist() == [10, 20, 30]


def test_deep_pixels_are_refused_and_not_clipped(tmp_path: Path) -> None:
    _set(tmp_path)
    path = tmp_path / "cat" / "05.png"
    Image.fromarray(np.full((5, 6), 40_000, np.uint16)).save(path)
    _refused(lambda: class_folders(tmp_path), path, "I;16", "8 bits")


def test_sizes_must_agree_or_be_given(tmp_path: Path) -> None:
    _set(tmp_path)
    odd = _image(tmp_path / "cat" / "03.png", 3, size=(8, 4))
    _image(tmp_path / "dog" / "03.png", 3, size=(9, 9))
    _refused(lambda: class_folders(tmp_path), odd, "8×4", "00.png has 6×5", "data.size")
    data = load_data(DataConfig(name="folder", folder=tmp_path, size=12), seed=0)
    assert data.input_shape == (1, 12, 12)
    assert sorted(_values(data.train.inputs))[0] < 10  # plain images stay plain
    assert data.checksum != load_data(DataConfig(name="folder", folder=tmp_path, size=13), seed=0).checksum


def test_what_is_no_image_is_left_aside(tmp_path: Path) -> None:
    checksum = class_folders(_set(tmp_path)).checksum
    for name in (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "notes.txt", "dog/list.csv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    assert class_folders(tmp_path).checksum == checksum


def _make(entry: str) -> Callable[[Path], object]:
    def make(folder: Path) -> Path:
        path = folder / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return path

    return make


MISLAID: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a class of other files": (_make("emu/list.csv"), ("emu: no image", "(1 other files left aside)")),
    "an empty class": (lambda folder: (folder / "emu").mkdir(), ("emu: no image",)),
    "images without a class": (_make("stray.png"), ("stray.png", "outside of the class folders")),
    "folders within a class": (_make("cat/more/0.png"), ("more: a folder within a class folder", "the layout is")),
    "an image that is a folder": (lambda folder: (folder / "cat" / "x.png").mkdir(), ("x.png",)),
    "a pipe": (lambda folder: os.mkfifo(folder / "cat" / "x.png"), ("x.png: not a file",)),
    "a link to nothing": (lambda folder: (folder / "cat" / "x.png").symlink_to("none.png"), ("x.png: not a file",)),
    "a loop of links": (lambda folder: (folder / "cat" / "x.png").symlink_to("x.png"), ("x.png",)),
    "a file linked from outside": (
        lambda folder: (folder / "cat" / "x.png").symlink_to(_image(folder.parent / "far.png")),
        ("x.png: a link out of",),
    ),
    "a class linked from outside": (
        lambda folder: (folder / "emu").symlink_to(_set(folder.parent / "far") / "cat"),
        ("emu: a link out of",),
    ),
}


@pytest.mark.parametrize("case", MISLAID)
def test_what_does_not_belong_is_named(tmp_path: Path, case: str) -> None:
    make, says = MISLAID[case]
    folder = _set(tmp_path / "set")
    make(folder)
    _refused(lambda: class_folders(folder), folder, *says)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    _set(tmp_path)
    (tmp_path / "cat" / "10.png").symlink_to(tmp_path / "dog" / "05.png")
    assert _values(class_folders(tmp_path).training.inputs)[10] == 105


def test_no_folder_and_no_classes(tmp_path: Path) -> None:
    _refused(lambda: class_folders(tmp_path / "none"), "none: no such folder")
    _refused(lambda: class_folders(tmp_path), "no class folders")
    _image(tmp_path / "cat" / "0.png")
    _refused(lambda: class_folders(tmp_path), tmp_path, "the same class")
    _set(tmp_path / "train")
    _refused(lambda: class_folders(tmp_path), "the layout is")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) * 2 // 3],
    "a page": lambda content: b"<!DOCTYPE html>\n<html>log in</html>",
    "damaged inside": lambda content: content[:60] + bytes(40) + content[100:],
    "a GIF": lambda content: b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01",
}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_image_is_named(tmp_path: Path, case: str, suffix: str) -> None:
    _set(tmp_path, size=(40, 40))
    path = tmp_path / "dog" / f"20.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
    class_folders(tmp_path)
    path.write_bytes(DAMAGE[case](path.read_bytes()))
    _refused(lambda: class_folders(tmp_path), path, "cannot be read as an image")


def test_bad_images_are_counted_and_left_out_only_when_asked(tmp_path: Path) -> None:
    good = class_folders(_set(tmp_path))
    assert good.skipped == ()
    (tmp_path / "cat" / "x.png").write_bytes(b"x")
    _refused(lambda: class_folders(tmp_path), tmp_path / "cat" / "x.png", "--skip-bad (data.skip_bad: true)")
    (tmp_path / "dog" / "05a.png").write_bytes((tmp_path / "dog" / "05.png").read_bytes()[:50])
    (tmp_path / "dog" / "y.png").symlink_to("none.png")
    _refused(lambda: class_folders(tmp_path), tmp_path / "cat" / "x.png", "; 2 more of 23 are bad; --skip-bad")
    left = class_folders(tmp_path, skip_bad=True)
    assert left.skipped == ("cat/x.png", "dog/05a.png", "dog/y.png")
    assert left.checksum == good.checksum
    assert torch.equal(left.training.targets, good.training.targets)
    config = DataConfig(name="folder", folder=tmp_path)
    with pytest.raises(DataError):
        load_data(config, seed=0)
    with pytest.warns(UserWarning, match=r"left out what cannot be read \(3\): cat/x.png, dog/05a.png, dog/y.png"):
        assert len(load_data(config.model_copy(update={"skip_bad": True}), seed=0).train) == 14


def test_groups_are_those_of_the_images_that_are_left(tmp_path: Path) -> None:
    (_set(tmp_path) / "cat" / "03.png").write_bytes(b"x")
    groups = class_folders(tmp_path, skip_bad=True, group_by=r"\d+").groups
    assert groups is not None
    assert groups.tolist() == [*range(9), 0, 1, 2, 9, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("part", ["", "train", "test"])
def test_a_class_is_never_left_out(tmp_path: Path, part: str) -> None:
    for name in ("train", "test") if part else ("",):
        _set(tmp_path / name, ("cat", "dog", "emu"), count=2)
    for path in (tmp_path / part / "emu").iterdir():
        path.write_bytes(b"x")
    _refused(lambda: class_folders(tmp_path, skip_bad=True), tmp_path / part / "emu" / "00.png", "no image of its")


@pytest.mark.parametrize("case", ["images without a class", "folders within a class", "a file linked from outside"])
def test_a_wrong_layout_is_never_left_out(tmp_path: Path, case: str) -> None:
    make, says = MISLAID[case]
    make(_set(tmp_path / "set"))
    _refused(lambda: class_folders(tmp_path / "set", skip_bad=True), *says)


def test_channels_can_be_asked_for(tmp_path: Path) -> None:
    _set(tmp_path)
    grey, three = class_folders(tmp_path), class_folders(tmp_path, channels=3)
    assert torch.equal(three.training.inputs, grey.training.inputs.expand(-1, 3, -1, -1))
    _image(tmp_path / "dog" / "99.png", (200, 100, 50))
    _image(tmp_path / "dog" / "99a.png", (200, 100, 50, 7), mode="RGBA")
    one = class_folders(tmp_path, channels=1)
    assert one.training.inputs.shape == (22, 1, 5, 6)
    assert torch.equal(one.training.inputs[:20], grey.training.inputs)
    assert _values(one.training.inputs)[20:] == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)] * 2
    assert one.checksum == class_folders(tmp_path, channels=1, size=None).checksum != class_folders(tmp_path).checksum


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    """Between one and two of Pillow's limits it only warns; that is refused, too."""
    _set(tmp_path)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "dog" / "20.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    _refused(lambda: class_folders(tmp_path, size=8), path, "too large an image")


def test_more_than_fits_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIZE_LIMIT", 500)
    _refused(lambda: class_folders(_set(tmp_path)), "20 images like this are more than 500 bytes", "data.size")
    assert class_folders(tmp_path, size=4).training.inputs.shape == (20, 1, 4, 4)


def test_real_leaves(tmp_path: Path) -> None:
    """Six of each class of PlantVillage's apple leaves."""
    home = Path(os.environ.get("TOMBOLA_DATA", ROOT.parent / "shared" / "data"))
    archive = home / "plantvillage-apple" / "plantvillage-apple-segmented.tar"
    if not archive.exists():
        pytest.skip(f"no apple leaves: point TOMBOLA_DATA at a folder that holds plantvillage-apple/{archive.name}")
    with tarfile.open(archive) as leaves:
        found: dict[str, int] = {}
        for member in leaves:
            folder = Path(member.name).parent.name
            if member.isreg() and found.setdefault(folder, 0) < 6:
                leaves.extract(member, tmp_path, filter="data")
                found[folder] += 1
    whole, resized = class_folders(tmp_path), class_folders(tmp_path, size=32)
    assert whole.training.inputs.shape == (24, 3, 256, 256)
    assert resized.training.inputs.shape == (24, 3, 32, 32)
    assert whole.training.targets.tolist() == [label for label in range(4) for _ in range(6)]
    blocks = torch.nn.functional.avg_pool2d(whole.training.inputs, 8)
    assert (resized.training.inputs - blocks).abs().mean() < 0.02  # every pixel counts, not one in 64


def _photograph(path: Path, *others: tuple[int, int]) -> Path:
    """An MPO of one image of 20 x 10 pixels and others of these sizes."""
    first, *more = (Image.new("RGB", size, (9, 9, 9)) for size in ((20, 10), *others))
    first.save(path, "MPO", save_all=True, append_images=more)
    return path


class TestPhotographsWithMoreImages:
    @pytest.mark.parametrize("others", [((10, 5),), ((19, 10), (4, 4), (10, 5))])
    def test_smaller_ones_are_previews(self, others: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
        path = _photograph(tmp_path / "a.jpg", *others)
        assert decode(path.read_bytes(), "a.jpg", 20, 3).shape == (20, 20, 3)

    @pytest.mark.parametrize("others", [((20, 10),), ((10, 20),), ((4, 4), (40, 20)), ((4, 4),) * 9])
    def test_others_would_be_lost(self, others: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
        path = _photograph(tmp_path / "a.jpg", *others)
        _refused(lambda: decode(path.read_bytes(), "a.jpg", 20, 3), "a.jpg: holds several images")

    def test_a_table_of_images_that_were_cut_off_does_no_harm(self, tmp_path: Path) -> None:
        content = _photograph(tmp_path / "a.jpg", (20, 10)).read_bytes()
        first = content[: content.rindex(b"\xff\xd8")]
        assert decode(first, "a.jpg", 20, 3).shape == (20, 20, 3)
