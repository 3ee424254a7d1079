"""What an image file is before it is decoded: its kind, and whether decoding it would lose or cost too much.

Pixels of more than 8 bits, and all images of a file but the first, would be lost silently: such files are refused.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from tombola.errors import DataError
from tombola.runs import limits
from tombola.runs.kinds import kind_of

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""What is read, by Pillow's names."""
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".j2k",
        ".jxl",
        ".pbm",
        ".pgm",
        ".ppm",
        ".pnm",
        ".tga",
        ".ico",
        ".exr",
        ".svg",
    ),
)
"""By these a file says that it is an image. Those of the second line are not read: such a file is a bad one."""
_KINDS = tuple(f"a {name} image" for name in ("PNG", "JPEG", "BMP", "GIF", "WebP", "TIFF"))
_BITS_PER_SAMPLE, _SAMPLES, _SAMPLE_FORMAT = 258, 277, 339
"""Tags of TIFF: bits of each number, numbers of each pixel, and whether these are unsigned (1)."""
START_OF_SCAN = b"\xff\xda"
PREVIEWS = 8
"""Of how many smaller images beside a photograph in its file the sizes are looked at; cameras store up to three."""


@dataclass
class DecodingLimit:
    """What all images of a data set may take to decode, by the bytes of their files; `size` where these are packed."""

    size: int | None = None
    _bytes: int = field(default=0, init=False)
    _work: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)
    _noted: dict[str, list[str]] = field(default_factory=dict, init=False)

    def spend(self, image: Image.Image, content: bytes, where: str) -> None:
        """Before `image` is decoded, whose file is `content`; DataError where it would take too much."""
        scans = max(content.count(START_OF_SCAN), 1) if image.format in ("JPEG", "MPO") else 1
        if scans > limits.SCANS:
            raise DataError(f"{where}: a JPEG of {scans:,} scans, more than {limits.SCANS}; save it anew")
        self._bytes += len(content)
        self._work += image.width * image.height * scans
        size = self._bytes if self.size is None else self.size
        if self._work > limits.decoding(size):
            raise DataError(
                f"{where}: too large for its file, with what came before it: {self._work:,} pixels to decode in "
                f"{size:,} bytes; leave it out or make it smaller"
            )

    def keep(self, size: int, where: str) -> None:
        """That an image takes `size` bytes when it is decoded; DataError where all together are too large."""
        self._kept += size
        packed = self._bytes if self.size is None else self.size
        if self._kept > limits.unpacked(packed):
            raise DataError(
                f"{where}: the images up to this one are {self._kept:,} bytes, more than {limits.UNPACKED_RATIO} times "
                "their files; set data.size"
            )

    def note(self, remark: str | None, where: str) -> None:
        """Remembers what was decided of an image."""
        if remark is not None:
            self._noted.setdefault(remark, []).append(where)

    def notes(self, count: int) -> list[str]:
        """What was decided of how many of `count` images, a sentence each."""
        return [
            f"{remark} ({len(names):,} of {count:,} images, the first is {names[0].rpartition('/')[2]})"
            for remark, names in self._noted.items()
        ]


def looks_like_image(name: str, head: bytes) -> bool:
    """Whether a file is taken for an image, by its name or by its first bytes."""
    return name.lower().endswith(SUFFIXES) or kind_of(head) in _KINDS


def refuse_loss(image: Image.Image, content: bytes, where: str) -> None:
    """DataError for an image of which Pillow would give the upper 8 bits, some channels, or the first frame."""
    bits, channels = _bits(image, content), len(image.getbands())
    if bits > 8:
        raise DataError(f"{where}: has {bits} bits a channel, of which 8 would be lost; convert it to 8 bits a channel")
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_SAMPLES, channels) > max(channels, 4 if image.mode == "RGB" else 0):
        raise DataError(f"{where}: has {tags[_SAMPLES]} channels, only 1, 3 and their opacity are read")
    if any(form != 1 for form in _numbers(tags.get(_SAMPLE_FORMAT, 1))):
        raise DataError(f"{where}: holds signed or floating numbers; convert it to 8 bits a channel")
    if getattr(image, "is_animated", False) and not (image.format == "MPO" and _others_are_previews(image, content)):
        raise DataError(f"{where}: holds several images, of which only the first would be used; save each as a file")


def _others_are_previews(image: Image.Image, content: bytes) -> bool:
    """Whether an MPO is a photograph and smaller images of it; those that are not in the file do not count."""
    count: int = getattr(image, "n_frames", 1)
    if count > 1 + PREVIEWS:
        return False
    return all(_pixels(content, number) < image.width * image.height for number in range(1, count))


def _pixels(content: bytes, number: int) -> float:
    """How many pixels the image of that number has in an MPO; 0 where it is cut off."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as frames:  # the caller's stays at its first
                frames.seek(number)
                start: Any = getattr(frames, "offset", 0)
            with Image.open(io.BytesIO(content[start:]), formats=("JPEG",)) as frame:
                return frame.width * frame.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return math.inf
    except Exception:  # cut off by a program that edited the photograph and kept its table of images
        return 0


def remark(mode: str, image: Image.Image) -> str | None:
    """What is to be said of how an image, decoded, became grey or RGB; None where nothing was decided."""
    if mode == "CMYK":
        return "CMYK became RGB without a colour profile"
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A") if "A" not in image.getbands() else image.getchannel("A")
        if alpha.getextrema()[0] != 255:
            return "opacity was dropped, colours are those stored beneath it"
    return None


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits of the deepest channel, as the file has them."""
    if image.format == "PNG":
        return content[24]
    tags: Any = getattr(image, "tag_v2", {})
    return max(_numbers(tags.get(_BITS_PER_SAMPLE, 8)), default=8)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
