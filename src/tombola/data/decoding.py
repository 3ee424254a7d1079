"""Images as arrays of bytes, and arrays of bytes as a data set. Pillow is used here and nowhere else.

Which files to read, and in which order, is decided by the module of each format.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tombola.data.dataset import Examples, RawData
from tombola.data.images import FORMATS, DecodingLimit, refuse_loss, remark
from tombola.data.layout import KINDS
from tombola.errors import DataError, one_line
from tombola.runs import limits
from tombola.runs.kinds import LONGEST, other_kind

logging.getLogger("PIL").addHandler(logging.NullHandler())  # which would else print of damage that is raised, too

SIZE_LIMIT = limits.DATA
_CHANNELS = {"1": "L", "L": "L", "LA": "L"} | dict.fromkeys(("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"), "RGB")
"""What each of Pillow's modes becomes. Deeper pixels (I;16, I, F) are missing: Pillow would clip them."""


@dataclass(frozen=True)
class Pixels:
    """Images (n, channels, height, width) uint8 and labels (n,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def decode(
    source: bytes, where: str, size: int | None = None, channels: int | None = None, limit: DecodingLimit | None = None
) -> NDArray[np.uint8]:
    """The image in the bytes of a file: (height, width) if it is grey, (height, width, 3) if it has colours.

    With `size` it is resized to size × size pixels, bilinear over all pixels, whatever its proportions were. It is
    turned as its EXIF data say. Opacity is dropped, CMYK becomes RGB without a colour profile; `limit` notes both.
    With one of `channels` colours become their luminance; a grey image is always one channel, whose repetition is
    left to who puts images together. Raises DataError that begins with `where` for what is damaged, cut short, of
    another format, of more than 8 bits or one image, and where decoding would take more than `limit` has.
    """
    limit = limit or DecodingLimit()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(source), formats=FORMATS)
        with opened as image:
            mode = image.mode
            if mode in _CHANNELS:
                refuse_loss(image, source, where)
                limit.spend(image, source, where)
                ImageOps.exif_transpose(image, in_place=True)
                limit.note(remark(mode, image), where)
            converted = image if mode == _CHANNELS.get(mode) else image.convert(_CHANNELS.get(mode))
            pixels = np.array(_fitted(converted, size, channels))
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: too large an image ({one_line(error)}); make it smaller") from None
    except Exception as error:  # Pillow meets damaged files with many kinds of error, and any of them is the file's
        reason = one_line(error)
        if isinstance(error, UnidentifiedImageError):
            reason = other_kind(source[:LONGEST], "image") or f"no {KINDS}"
        raise DataError(f"{where}: cannot be read as an image ({reason}); mend or remove it") from None
    if mode not in _CHANNELS:
        raise DataError(f"{where}: pixels of kind {mode} are not supported; convert it to 8 bits a channel")
    return pixels


def fitted(pixels: Pixels, where: Path, size: int | None, channels: int | None) -> Pixels:
    """`pixels` at size × size and with 1 or 3 `channels`, exactly as `decode` would have made them of files.

    Raises DataError that begins with `where` when they would be more than SIZE_LIMIT bytes.
    """
    count, depth, height, width = pixels.images.shape
    shape = (count, channels or depth, size or height, size or width)
    if shape == pixels.images.shape:
        return pixels
    if math.prod(shape) > SIZE_LIMIT:
        raise DataError(f"{where}: {count:,} images of {shape[1:]} are more than {SIZE_LIMIT:,} bytes; lower data.size")
    images = np.empty(shape, dtype=np.uint8)
    for place, image in zip(images, pixels.images, strict=True):
        whole = Image.fromarray(image[0] if depth == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        array = np.asarray(_fitted(whole, size, channels))
        place[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)  # grey fills all channels
    return Pixels(images, pixels.labels)


def raw_data(
    name: str,
    where: Path,
    training: Pixels,
    test: Pixels | None,
    groups: Tensor | None = None,
    skipped: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> RawData:
    """The data set of these images, scaled to [0, 1]; `where` begins the message of every DataError."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in (training, test) if test else (training,):
        for array in (part.images, part.labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    if test and training.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{where}: training images are {training.images.shape[1:]} and test images {test.images.shape[1:]} "
            "(channels, height, width)"
        )
    try:
        parts = _examples(training), _examples(test) if test else None
        return RawData(name, *parts, f"md5:{digest.hexdigest()}", groups, skipped, notes)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _fitted(image: Image.Image, size: int | None, channels: int | None) -> Image.Image:
    """A grey or RGB image in size × size pixels, bilinear, and grey if one of `channels` is wanted."""
    if channels == 1:
        image = image.convert("L")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return image


def _examples(pixels: Pixels) -> Examples:
    inputs = torch.from_numpy(pixels.images.astype(np.float32, order="C")).div_(255)
    return Examples(inputs, torch.from_numpy(pixels.labels.astype(np.int64)))
