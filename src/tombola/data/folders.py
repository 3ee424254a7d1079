"""Pictures in folders: one sub-folder per class. The layout is checked here, decoding is in `pictures`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tombola.data.dataset import RawData
from tombola.data.pictures import Pixels, decode, raw_data
from tombola.errors import DataError

SIZE_LIMIT = 4 << 30
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
LAYOUT = "the layout is <class>/<picture>, or train/<class>/<picture> and test/<class>/<picture>"

Labelled = list[tuple[Path, int]]


def class_folders(folder: Path, size: int | None = None) -> RawData:
    """Any folder of PNG, JPEG or BMP pictures, one sub-folder per class, perhaps within train/ and test/.

    Classes are numbered by name, pictures ordered by name. All are resized to `size` × `size` pixels; without
    `size` they must be of one size already. They are read as RGB if any of them has colours, else as grey.
    Hidden files and files of another suffix are left aside. Raises DataError that names what cannot be used.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {LAYOUT}")
    parts = _parts(folder)
    classes = [path.name for path in _sub_folders(parts[0], folder)]
    listed = [_pictures(part, classes, folder) for part in parts]
    images = _decode([path for part in listed for path, _ in part], size)
    labels = np.array([label for part in listed for _, label in part], dtype=np.int64)
    count = len(listed[0])
    test = Pixels(images[count:], labels[count:]) if len(parts) == 2 else None
    return raw_data("folder", folder, Pixels(images[:count], labels[:count]), test)


def _parts(folder: Path) -> list[Path]:
    """The folders of classes: `folder` itself, or its train/ and test/, which then stand alone."""
    there = _sub_folders(folder, folder)
    parts = [path for name in ("train", "test") for path in there if path.name == name]
    if len(parts) < 2:
        return [folder]
    if others := [path.name for path in there if path not in parts]:
        raise DataError(f"{folder}: holds {others[0]}/ beside train/ and test/; {LAYOUT}")
    return parts


def _sub_folders(folder: Path, root: Path) -> list[Path]:
    entries = _entries(folder, root)
    found = [path for path in entries if path.is_dir()]
    if not found:
        raise DataError(f"{folder}: holds no class folders; {LAYOUT}")
    if stray := [path for path in entries if _is_picture(path)]:
        raise DataError(f"{stray[0]}: a picture outside of the class folders; {LAYOUT}")
    return found


def _pictures(folder: Path, classes: Sequence[str], root: Path) -> Labelled:
    """The pictures of every class folder in `folder`, each with its label."""
    found: Labelled = []
    for path in _sub_folders(folder, root):
        if path.name not in classes:
            raise DataError(f"{path}: a class without training pictures; the classes are {', '.join(classes[:20])}")
        entries = _entries(path, root)
        if nested := [entry for entry in entries if entry.is_dir()]:
            raise DataError(f"{nested[0]}: a folder within a class folder; {LAYOUT}")
        pictures = [entry for entry in entries if _is_picture(entry)]
        if not pictures:
            aside = f" ({count} other files left aside)" if (count := sum(1 for _ in path.iterdir())) else ""
            raise DataError(f"{path}: no picture ({', '.join(SUFFIXES)}) of this class{aside}")
        if odd := [entry for entry in pictures if not entry.is_file()]:
            raise DataError(f"{odd[0]}: not a file, or a link to nothing; remove it")
        found += [(entry, classes.index(path.name)) for entry in pictures]
    return found


def _entries(folder: Path, root: Path) -> list[Path]:
    """What is in `folder` and not hidden, by name; a link that leads out of `root` is refused."""
    entries = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    for path in entries:
        if path.is_symlink():
            try:
                inside = path.resolve().is_relative_to(root.resolve())
            except RuntimeError:  # a loop of links
                inside = False
            if not inside:
                raise DataError(f"{path}: a link out of {root}; put the files themselves there")
    return entries


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _decode(paths: Sequence[Path], size: int | None) -> NDArray[np.uint8]:
    """All pictures as one array (n, channels, height, width)."""
    pictures: list[NDArray[np.uint8]] = []
    for path in paths:
        picture = decode(path, str(path), size)
        first = pictures[0] if pictures else picture
        if picture.shape[:2] != first.shape[:2]:
            (height, width), (first_height, first_width) = picture.shape[:2], first.shape[:2]
            raise DataError(
                f"{path}: {width}×{height} pixels, where {paths[0].name} has {first_width}×{first_height}; set "
                "data.size to have all resized"
            )
        pictures.append(picture)
        if picture.size * len(paths) > SIZE_LIMIT:
            raise DataError(
                f"{path}: {len(paths):,} pictures like this are more than {SIZE_LIMIT:,} bytes; set data.size"
            )
    channels = max(1 if picture.ndim == 2 else 3 for picture in pictures)
    images = np.empty((len(pictures), channels, *pictures[0].shape[:2]), dtype=np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image[:] = picture if picture.ndim == 2 else picture.transpose(2, 0, 1)  # grey fills all channels
    return images
