"""Images in a tar: the same data as in a folder, and nothing of a hostile archive is believed."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tombola.data import DataConfig, load_data
from tombola.data import tars as module
from tombola.data.folders import class_folders
from tombola.errors import DataError, StorageError
from tombola.runs import limits

Members = list[tuple[str, bytes]]


def _png(colour: int | tuple[int, ...], size: tuple[int, int] = (6, 5)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def _members(*parts: str, count: int = 4) -> Members:
    """Images that all differ, in no order."""
    found = [
        (f"{part}{name}/{number:02d}.png", _png(100 * label + 10 * place + number))
        for place, part in enumerate(parts or ("",))
        for label, name in enumerate(("cat", "dog"))
        for number in range(count)
    ]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def _tar(path: Path, members: Members, mode: str = "w", kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    """The last member is of `kind`, the others are files."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number, (name, content) in enumerate(members):
            info = tarfile.TarInfo(name)
            if number == len(members) - 1:
                info.type, info.linkname = kind, link
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def _folder(path: Path, members: Members) -> Path:
    for name, content in members:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def _refused(act: Callable[[], object], *says: object) -> None:
    with pytest.raises((DataError, StorageError)) as caught:
        act()
    assert "\n" not in str(caught.value)
    for part in says:
        assert str(part) in str(caught.value)


@pytest.mark.parametrize("around", ["", "./", "set/", "./my set/"])
@pytest.mark.parametrize(("mode", "suffix"), [("w", "tar"), ("w:gz", "tgz"), ("w:xz", "tar.xz"), ("w:bz2", "tar.bz2")])
@pytest.mark.parametrize("parts", [(), ("train/", "test/")])
def test_a_tar_is_the_same_data_as_a_folder(
    tmp_path: Path, parts: tuple[str, ...], mode: str, suffix: str, around: str
) -> None:
    members = [*_members(*parts), (f"{parts[0] if parts else ''}cat/notes.txt", b"x"), (".hidden/.x.png", b"x")]
    folder = _folder(tmp_path / "images", members)
    path = _tar(tmp_path / f"images.{suffix}", [(around + name, content) for name, content in members], mode)
    options = {"size": 4, "channels": 3, "group_by": r"/0([01])?"}
    one, other = class_folders(folder, **options), class_folders(path, **options)
    assert one.checksum == other.checksum
    assert torch.equal(one.training.inputs, other.training.inputs)
    assert torch.equal(one.training.targets, other.training.targets)
    assert one.groups is not None
    assert other.groups is not None
    assert one.groups.tolist() == other.groups.tolist() == [0, 1, 2, 2] * 2
    assert (one.test is None) == (other.test is None) == (not parts)
    data = load_data(DataConfig(name="folder", folder=path), seed=0)
    assert torch.equal(data.train.inputs, load_data(DataConfig(name="folder", folder=folder), seed=0).train.inputs)


def test_folders_that_are_members_themselves(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", _members())
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder, "images")
    assert class_folders(tmp_path / "set.tar").checksum == class_folders(folder).checksum


LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
WRONG: dict[str, tuple[Callable[[Members], Members], tuple[str, ...]]] = {
    "an absolute name": (lambda m: [*m, ("/etc/0.png", b"x")], ("/etc/0.png", "leads out")),
    "a way up": (lambda m: [*m, ("cat/../../0.png", b"x")], ("cat/../../0.png", "leads out")),
    "a hidden way up": (lambda m: [*m, (".x/../../0.png", b"x")], (".x/../../0.png", "leads out")),
    "an image twice": (lambda m: [*m, m[3]], ("there twice",)),
    "an image twice by another name": (lambda m: [*m, (f"./{m[3][0]}", m[3][1])], ("there twice",)),
    "a file that is a folder": (lambda m: [*m, (f"{m[0][0]}/0.png", b"x")], ("is a file, too",)),
    "a folder that is a file": (lambda m: [*m, ("cat", b"x")], ("cat: there twice",)),
    "a stray image": (lambda m: [*m, ("0.png", b"x")], ("set.tar: 0.png", "outside of the class folders")),
    "a folder within a class": (lambda m: [*m, ("cat/more/0.png", b"x")], ("set.tar: cat/more", "within a class")),
    "folders without end": (lambda m: [*m, ("a/" * 2000 + "0.png", b"x")], ("in more than 8 folders",)),
    "no images": (lambda m: [("README", b"x")], ("no class folders", "the layout is")),
    "a class of notes": (lambda m: [*m, ("emu/list.csv", b"x")], ("set.tar: emu: no image", "(1 other files")),
    "a name of two lines": (lambda m: [*m, ("emu/a\nb.png", b"x")], (r"emu/a\nb.png", "cannot be read as an image")),
    "a name of no text": (lambda m: [*m, ("emu/\udcff.png", b"x")], (r"emu/\udcff.png", "cannot be read")),
    "a damaged image": (lambda m: [*m[:-1], (m[-1][0], m[-1][1][:40])], ("cannot be read as an image",)),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_does_not_belong_is_named(tmp_path: Path, case: str, mode: str) -> None:
    change, says = WRONG[case]
    path = _tar(tmp_path / "set.tar", change(_members()), mode)
    _refused(lambda: class_folders(path), path, *says)


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = _tar(tmp_path / "set.tar", [*_members(), ("cat/x.png", b"")], kind=kind, link="cat/00.png")
    _refused(lambda: class_folders(path), path, "cat/x.png", "a link, a device")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.3, 0.6, 0.999])
def test_a_tar_cut_anywhere_is_refused(tmp_path: Path, mode: str, keep: float) -> None:
    path = _tar(tmp_path / "set.tar", _members(), mode)
    content = path.read_bytes().rstrip(b"\0") if mode == "w" else path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    _refused(lambda: class_folders(path), path, "damaged or cut short", "get the archive again")


def test_no_image_is_lost_where_a_member_ends_or_a_header_is_damaged(tmp_path: Path) -> None:
    """tarfile alone would read a shorter archive and say nothing."""
    path = _tar(tmp_path / "set.tar", _members())
    with tarfile.open(path) as archive:
        starts = [member.offset for member in archive][1:]
    content = path.read_bytes()
    for start in starts:
        path.write_bytes(content[:start])
        _refused(lambda: class_folders(path), path, "damaged or cut short")
        path.write_bytes(content[: start + 10] + b"\xff" + content[start + 11 :])
        _refused(lambda: class_folders(path), path, "damaged or cut short")


@settings(max_examples=150)
@given(data=st.data())
def test_damage_gives_an_error_of_one_line_or_the_same_layout(data: st.DataObject, tmp_path_factory: object) -> None:
    folder = tmp_path_factory.mktemp("tar")  # type: ignore[attr-defined]
    path = _tar(folder / "set.tar", _members(count=2))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 8 * 512))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    message = ""
    try:
        assert len(class_folders(path).training) == 4
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    assert not message or str(path) in message


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [*_members(), ("notes.txt", bytes(3 << 20))]
    for mode in ("w:gz", "w:bz2", "w:xz"):
        path = _tar(tmp_path / "set.tar", members, mode)
        assert path.stat().st_size < 20_000
        with monkeypatch.context() as patched:
            patched.setattr(module, "SIZE_LIMIT", 2 << 20)
            _refused(partial(class_folders, path), path, "unpacks to more than 2,097,152 bytes")
        class_folders(path)
    path = _tar(tmp_path / "set.tar", [*_members(), *((f"{number}.txt", b"") for number in range(50))])
    monkeypatch.setattr(limits, "members", lambda size: 57)
    _refused(lambda: class_folders(path), path, "more than 57 members")
    monkeypatch.setattr(module, "SIZE_LIMIT", 1000)
    _refused(lambda: class_folders(path), path, "more than the 1,000 expected")


@pytest.mark.parametrize("content", [b"", b"<html>log in</html>", bytes(5000), b"\x1f\x8b\x08", b"PK\x03\x04" * 200])
def test_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(content)
    _refused(lambda: class_folders(path), path)
    _refused(lambda: class_folders(tmp_path / "none.tar"), "none.tar: no such folder or tar")
    os.mkfifo(tmp_path / "pipe.tar")
    _refused(lambda: class_folders(tmp_path / "pipe.tar"), "pipe.tar: no such folder or tar")


def test_nothing_is_written(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar", _members())
    class_folders(path)
    assert list(tmp_path.rglob("*")) == [path]
