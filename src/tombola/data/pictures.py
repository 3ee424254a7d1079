"""Pictures as arrays of bytes, and arrays of bytes as a data set. Pillow is used here and nowhere else.

Which files to read, and in which order, is decided by the module of each format.
"""

from __future__ import annotations

import hashlib
import io
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
from tombola.errors import DataError

SIZE_LIMIT = 4 << 30
FORMATS = ("PNG", "JPEG", "BMP")
_CHANNELS = {"1": "L", "L": "L", "LA": "L"} | dict.fromkeys(("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"), "RGB")
"""What each of Pillow's modes becomes. Deeper pixels (I;16, I, F) are missing: Pillow would clip them."""


@dataclass(frozen=True)
class Pixels:
    """Pictures (n, channels, height, width) uint8 and labels (n,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def decode(source: Path | bytes, where: str, size: int | None = None, channels: int | None = None) -> NDArray[np.uint8]:
    """The picture in a file or in its bytes: (height, width) if it is grey, (height, width, 3) if it has colours.

    With `size` it is resized to size × size pixels, bilinear over all pixels, whatever its proportions were. Opacity
    is dropped. With one of `channels` colours become their luminance; a grey picture is always one channel, whose
    repetition is left to who puts pictures together. Raises DataError that begins with `where` for what is damaged,
    cut short, of another format or of more than 8 bits, and for pictures so large that Pillow warns of a
    decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        with opened as image:
            mode, picture = image.mode, ImageOps.exif_transpose(image).convert(_CHANNELS.get(image.mode))
            picture = _fitted(picture, size, channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: too large a picture ({one_line(error)}); make it smaller") from None
    except Exception as error:  # Pillow meets damaged files with many kinds of error, and any of them is the file's
        reason = "no PNG, JPEG or BMP" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise DataError(f"{where}: cannot be read as a picture ({reason}); mend or remove it") from None
    if mode not in _CHANNELS:
        raise DataError(f"{where}: pixels of kind {mode} are not supported; convert it to 8 bits a channel")
    return np.array(picture)


def fitted(pixels: Pixels, where: Path, size: int | None, channels: int | None) -> Pixels:
    """`pixels` at size × size and with 1 or 3 `channels`, exactly as `decode` would have made them of files.

    Raises DataError that begins with `where` when they would be more than SIZE_LIMIT bytes.
    """
    count, depth, height, width = pixels.images.shape
    shape = (count, channels or depth, size or height, size or width)
    if shape == pixels.images.shape:
        return pixels
    if math.prod(shape) > SIZE_LIMIT:
        raise DataError(
            f"{where}: {count:,} pictures of {shape[1:]} are more than {SIZE_LIMIT:,} bytes; lower data.size"
        )
    images = np.empty(shape, dtype=np.uint8)
    for place, image in zip(images, pixels.images, strict=True):
        picture = Image.fromarray(image[0] if depth == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        array = np.asarray(_fitted(picture, size, channels))
        place[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)  # grey fills all channels
    return Pixels(images, pixels.labels)


def raw_data(
    name: str,
    where: Path,
    training: Pixels,
    test: Pixels | None,
    groups: Tensor | None = None,
    skipped: tuple[str, ...] = (),
) -> RawData:
    """The data set of these pictures, scaled to [0, 1]; `where` begins the message of every DataError."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in (training, test) if test else (training,):
        for array in (part.images, part.labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array))
    if test and training.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{where}: training pictures are {training.images.shape[1:]} and test pictures {test.images.shape[1:]} "
            "(channels, height, width)"
        )
    try:
        parts = _examples(training), _examples(test) if test else None
        return RawData(name, *parts, f"md5:{digest.hexdigest()}", groups, skipped)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _fitted(picture: Image.Image, size: int | None, channels: int | None) -> Image.Image:
    """A grey or RGB picture in size × size pixels, bilinear, and grey if one of `channels` is wanted."""
    if channels == 1:
        picture = picture.convert("L")
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return picture


def _examples(pixels: Pixels) -> Examples:
    inputs = torch.from_numpy(pixels.images.astype(np.float32, order="C")).div_(255)
    return Examples(inputs, torch.from_numpy(pixels.labels.astype(np.int64)))
