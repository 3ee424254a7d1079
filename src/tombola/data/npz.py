"""NumPy's .npz files: a zip of arrays, read without ever unpickling, and image sets stored in them.

Every array's header is checked against the bytes that are there before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.data.dataset import RawData
from tombola.data.decoding import Pixels, fitted, raw_data
from tombola.data.layout import some
from tombola.data.npy import parse_npy
from tombola.errors import DataError, one_line
from tombola.runs import limits
from tombola.runs.atomic import opened, storage_errors
from tombola.runs.kinds import LONGEST, other_kind

SIZE_LIMIT = limits.DATA
LABEL_LIMIT = 65_536
MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")
MEDMNIST_VALIDATION = ("val_images", "val_labels")
KERAS = ("x_train", "y_train", "x_test", "y_test")


def npz(folder: Path, size: int | None = None, channels: int | None = None) -> RawData:
    """Any .npz file of images: MedMNIST's array names, or x_train, y_train, x_test and y_test.

    `folder` is the file, or a folder that holds exactly one. Images are uint8, (n, height, width), (n, height,
    width, channels) or (n, channels, height, width) with 1 or 3 channels; labels are integers, (n,) or (n, 1).
    Arrays for validation (val_images, val_labels) are added to the training examples: what is held out for
    validation is drawn by each replicate's seed, as for every other data set. With `size` and `channels`, images
    are resized to size × size pixels, and made grey (1) or RGB (3).
    """
    if folder.is_dir():
        found = sorted(path for path in folder.glob("*.npz") if path.is_file())
        if len(found) != 1:
            raise DataError(f"{folder}: holds {len(found)} .npz files; let data.folder name the one to read")
        folder = found[0]
    return read_image_set(folder, "npz", size, channels)


def read_image_set(path: Path, name: str, size: int | None = None, channels: int | None = None) -> RawData:
    """The data set called `name` in an .npz file; DataError names the file and the array."""
    there = array_names(path)
    wanted = KERAS if set(KERAS) <= set(there) else MEDMNIST
    if missing := [array for array in wanted if array not in there]:
        raise DataError(
            f"{path}: no array {missing[0]}; wanted are {', '.join(MEDMNIST)}, or {', '.join(KERAS)} "
            f"(there are {', '.join(there[:8]) or 'none'})"
        )
    merged = wanted is MEDMNIST and any(array in there for array in MEDMNIST_VALIDATION)
    if merged and (missing := [array for array in MEDMNIST_VALIDATION if array not in there]):
        raise DataError(f"{path}: no array {missing[0]}, which belongs to {' and '.join(MEDMNIST_VALIDATION)}")
    names = wanted + (MEDMNIST_VALIDATION if merged else ())
    arrays = dict(zip(names, read_arrays(path, names), strict=True))
    training, test, *validation = (
        fitted(_pixels(path, arrays, images, labels), path, size, channels)
        for images, labels in zip(names[::2], names[1::2], strict=True)
    )
    for part in validation:
        if part.images.shape[1:] != training.images.shape[1:]:
            raise DataError(
                f"{path}: array {MEDMNIST_VALIDATION[0]} has images of {part.images.shape[1:]}, {names[0]} of "
                f"{training.images.shape[1:]} (channels, height, width)"
            )
        images = np.concatenate([training.images, part.images])
        training = Pixels(images, np.concatenate([training.labels, part.labels]))
    unused = [array for array in there if array not in names]
    notes = (f"arrays that are not used ({len(unused)}): {some(unused)}",) if unused else ()
    return raw_data(name, path, training, test, notes=notes)


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file, as they are stored."""
    with _opened(path) as archive:
        return [member.removesuffix(".npy") for member in archive.namelist()]


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """The arrays called `names`; DataError for one that is missing, damaged, too large or holds Python objects."""
    with _opened(path) as archive:
        members = []
        for name in names:
            try:
                members.append(archive.getinfo(f"{name}.npy"))
            except KeyError:
                raise DataError(f"{path}: no array {name}") from None
        most = min(SIZE_LIMIT, limits.unpacked(path.stat().st_size))
        if (total := sum(member.file_size for member in members)) > most:
            raise DataError(f"{path}: unpacks to {total:,} bytes, more than {most:,}")
        return [_read(archive, member, f"{path}: array {name}") for name, member in zip(names, members, strict=True)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with storage_errors("read", path), contextlib.ExitStack() as stack:
        if not path.exists():
            raise DataError(f"{path}: no such .npz file")
        file = stack.enter_context(opened(path))
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except OSError:
            raise
        except Exception as error:  # a damaged directory of a zip is met with several kinds of error
            file.seek(0)
            what = other_kind(file.read(LONGEST), "zip") or one_line(error)
            raise DataError(f"{path}: not an .npz file, damaged or cut short ({what})") from None
        yield archive


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    """One array. What a member unpacks to is bounded by its stated size, which the caller has capped."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise DataError(f"{where}: encrypted, or packed in a way that numpy.savez never uses")
    try:
        with archive.open(member) as file:
            content = file.read()
    except OSError:
        raise
    except Exception as error:  # zipfile and zlib have their own errors for damage
        raise DataError(f"{where}: damaged or cut short ({one_line(error)}); get the file again") from None
    return parse_npy(content, where)


def _pixels(path: Path, arrays: dict[str, NDArray[Any]], images: str, labels: str) -> Pixels:
    pixels, targets = arrays[images], arrays[labels]
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: array {images} holds {pixels.dtype}, images are wanted as uint8 (0 to 255)")
    if not np.issubdtype(targets.dtype, np.integer):
        raise DataError(f"{path}: array {labels} holds {targets.dtype}, labels are wanted as integers")
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise DataError(f"{path}: array {labels} has shape {targets.shape}, wanted is one label an image")
    pixels = _channels_first(path, images, pixels)
    if len(pixels) != len(targets):
        raise DataError(f"{path}: {len(pixels)} images in {images} but {len(targets)} labels in {labels}")
    smallest, largest = int(targets.min()), int(targets.max())
    if smallest < 0 or largest >= LABEL_LIMIT:
        wrong = smallest if smallest < 0 else largest
        raise DataError(f"{path}: array {labels} holds the label {wrong}; labels are 0, 1, ... below {LABEL_LIMIT:,}")
    return Pixels(pixels, targets.astype(np.int64))


def _channels_first(path: Path, name: str, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, channels, height, width), channels being the one axis of 1 or 3 beside the images' sides."""
    shape = images.shape
    if not images.size:
        raise DataError(f"{path}: array {name} holds no data (shape {shape})")
    if images.ndim == 3:
        return images[:, None]
    first, last = (images.ndim == 4 and shape[axis] in (1, 3) for axis in (1, -1))
    if first == last:
        raise DataError(
            f"{path}: array {name} has shape {shape}, wanted is (n, height, width), or with 1 or 3 channels (n, "
            "height, width, channels) or (n, channels, height, width)"
            + ("; here two axes could be the channels" if first else "")
        )
    return images if first else images.transpose(0, 3, 1, 2)
