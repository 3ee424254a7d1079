"""Images of one's own: a folder or a tar file with one sub-folder per class.

How they must lie is checked in `layout`, how an archive is read in `tars`; bytes become pixels in `decoding`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.data.dataset import RawData
from tombola.data.decoding import SIZE_LIMIT, Pixels, decode, raw_data
from tombola.data.images import DecodingLimit
from tombola.data.layout import LAYOUT, Entry, Labelled, labelled_parts, shown, some
from tombola.data.patient import search_all
from tombola.data.tars import tar_tree
from tombola.errors import DataError
from tombola.runs import limits
from tombola.runs.atomic import opened, read_bytes, storage_errors
from tombola.runs.kinds import LONGEST

IMAGE_LIMIT = limits.IMAGE_FILE


def class_folders(
    folder: Path,
    size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    group_by: str | None = None,
    name: str = "folder",
) -> RawData:
    """Any folder or tar of images (`images.FORMATS`), one sub-folder per class, perhaps within train/ and test/.

    Classes are numbered by name, images ordered by name. All are resized to `size` × `size` pixels; without `size`
    they must be of one size already. They are read as RGB if any of them has colours, else as grey, or with the
    `channels` asked for. An image is known by its suffix or its content. What is left out is named in the result:
    files that are no images, hidden ones, and with `skip_bad` images that cannot be decoded. `group_by` is a
    regular expression: training images in whose path below `folder` it finds the same, or the same in its groups,
    belong to one group. Raises DataError that names what cannot be used.
    """
    if not folder.is_dir() and not folder.is_file():
        raise DataError(f"{shown(str(folder))}: no such folder or tar; {LAYOUT}")
    root = _disk_entry(folder, "", folder) if folder.is_dir() else tar_tree(folder)
    parts, aside = labelled_parts(root)
    limit = DecodingLimit(None if folder.is_dir() else folder.stat().st_size)
    images = _decoded([one.entry for part in parts for one in part], size, channels, skip_bad, limit)
    kept = [[one for one in part if one.entry.path in images] for part in parts]
    for part, left in zip(parts, kept, strict=True):
        _refuse_lost_class(part, left)
    depth = channels or max(1 if image.ndim == 2 else 3 for image in images.values())
    training, *test = (_stacked(part, images, depth) for part in kept)
    paths = [one.entry.path for part in parts for one in part]
    skipped = tuple(path for path in paths if path not in images)
    groups = None if group_by is None else _groups(kept[0], group_by, root.where)
    notes = (*_left_aside(aside), *_of_names(list(images)), *limit.notes(len(images)))
    return raw_data(name, folder, training, test[0] if test else None, groups, skipped, notes)


def _left_aside(entries: Sequence[Entry]) -> list[str]:
    kinds = {
        "left aside, as they are no images": [entry.path for entry in entries if not entry.is_hidden],
        "left aside, as they are hidden": [entry.path for entry in entries if entry.is_hidden],
    }
    return [f"{what} ({len(paths)}): {some(paths)}" for what, paths in kinds.items() if paths]


def _of_names(paths: Sequence[str]) -> list[str]:
    """What perhaps nobody meant: classes that differ in case only, and images kept in several ways, which can tell."""
    classes = sorted({path.rpartition("/")[0].rpartition("/")[2] for path in paths})
    lower = Counter(name.lower() for name in classes)
    alike = [name for name in classes if lower[name.lower()] > 1]
    suffixes = Counter(Path(path).suffix.lower() or "no suffix" for path in paths)
    several = [f"{suffix} {count:,}" for suffix, count in sorted(suffixes.items())]
    return [
        *([f"classes that differ in case only are classes of their own: {some(alike)}"] if alike else []),
        *([f"images of several suffixes are read: {some(several)}"] if len(several) > 1 else []),
    ]


def _disk_entry(path: Path, relative: str, root: Path) -> Entry:
    """A name on disk; a link that leads out of `root` is refused."""
    where = shown(str(path))
    if path.is_symlink() and not path.name.startswith(".") and not _within(path, root):
        raise DataError(f"{where}: a link out of {shown(str(root))}; put the files themselves there")
    if path.is_dir():
        below = f"{relative}/" if relative else ""
        return Entry(relative, where, lambda: [_disk_entry(p, below + p.name, root) for p in path.iterdir()])
    if not path.is_file():
        return Entry(relative, where)
    return Entry(relative, where, read=partial(read_bytes, path, IMAGE_LIMIT), head=partial(_head, path))


def _head(path: Path) -> bytes:
    with storage_errors("read", path), opened(path) as file:
        return file.read(LONGEST)


def _within(link: Path, root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # a loop of links
        return False


def _decoded(
    entries: Sequence[Entry], size: int | None, channels: int | None, skip_bad: bool, limit: DecodingLimit
) -> dict[str, NDArray[np.uint8]]:
    """The images by their paths: all of them, or with `skip_bad` those that can be decoded."""
    images: dict[str, NDArray[np.uint8]] = {}
    bad: list[str] = []
    for entry in entries:
        try:
            image = _decode(entry, size, channels, limit)
        except DataError as error:
            bad.append(str(error))
            continue
        if bad and not skip_bad:
            continue  # the rest is only looked at to say how much of it is bad
        _refuse_misfit(entry, image, images, len(entries))
        if size is None:
            limit.keep(image.nbytes, entry.where)
        images[entry.path] = image
    if bad and not skip_bad:
        more = f"; {len(bad) - 1} more of {len(entries)} are bad" if len(bad) > 1 else ""
        raise DataError(f"{bad[0]}{more}; --skip-bad (data.skip_bad: true) leaves out what cannot be read")
    return images


def _decode(entry: Entry, size: int | None, channels: int | None, limit: DecodingLimit) -> NDArray[np.uint8]:
    if entry.read is None:
        raise DataError(f"{entry.where}: not a file, or a link to nothing; remove it")
    return decode(entry.read(), entry.where, size, channels, limit)


def _refuse_misfit(entry: Entry, image: NDArray[np.uint8], images: dict[str, NDArray[np.uint8]], count: int) -> None:
    path, first = next(iter(images.items()), (entry.path, image))
    if image.shape[:2] != first.shape[:2]:
        (height, width), (first_height, first_width) = image.shape[:2], first.shape[:2]
        name = shown(path.rpartition("/")[2])
        raise DataError(
            f"{entry.where}: {width}×{height} pixels, where {name} has {first_width}×{first_height}; set data.size to "
            "have all resized"
        )
    if image.size * count > SIZE_LIMIT:
        raise DataError(f"{entry.where}: {count:,} images like this are more than {SIZE_LIMIT:,} bytes; set data.size")


def _refuse_lost_class(labelled: Sequence[Labelled], left: Sequence[Labelled]) -> None:
    there = {one.label for one in left}
    if lost := [one for one in labelled if one.label not in there]:
        raise DataError(
            f"{lost[0].entry.where}: no image of its class can be read, and a class without images cannot be "
            "left out; mend them or remove the class"
        )


def _stacked(labelled: Sequence[Labelled], images: dict[str, NDArray[np.uint8]], channels: int) -> Pixels:
    """Images as one array; a grey one fills all channels."""
    height, width = images[labelled[0].entry.path].shape[:2]
    stacked = np.empty((len(labelled), channels, height, width), dtype=np.uint8)
    for place, one in zip(stacked, labelled, strict=True):
        image = images[one.entry.path]
        place[:] = image if image.ndim == 2 else image.transpose(2, 0, 1)
    return Pixels(stacked, np.array([one.label for one in labelled], dtype=np.int64))


def _groups(labelled: Sequence[Labelled], pattern: str, where: str) -> Tensor:
    """Images (n,) numbered so that those in whose paths `pattern` finds the same have the same number.

    A pattern that finds nothing in a path, or something else in every path, is a mistake that would go unnoticed.
    """
    found = search_all(pattern, [one.entry.path for one in labelled], where)
    if lost := [one.entry.path for one, match in zip(labelled, found, strict=True) if match is None]:
        raise DataError(
            f"{where}: data.group_by {pattern!r} finds nothing in {len(lost)} of {len(labelled)} paths, the first is "
            f"{shown(lost[0])}; every training image needs its group"
        )
    names = [match.groups(default="") or (match[0],) for match in found if match]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) == len(labelled):
        raise DataError(
            f"{where}: data.group_by {pattern!r} groups nothing: what it finds is different in each of {len(labelled)} "
            f"paths, in the first it is {' '.join(names[0])!r}"
        )
    return torch.tensor([numbers[name] for name in names])
