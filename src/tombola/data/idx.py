"""IDX files, the format of MNIST: a magic number, sizes, then unsigned bytes; plain or gzipped.

Everything is checked before it is believed: magic, sizes against the bytes that are there, and a cap on what
a compressed file may grow to.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tombola.data.dataset import Examples, RawData
from tombola.errors import DataError, counted
from tombola.runs import limits
from tombola.runs.atomic import opened, storage_errors
from tombola.runs.kinds import LONGEST, other_kind

UNSIGNED_BYTES = 0x08
SIZE_LIMIT = limits.DATA
GZIP = b"\x1f\x8b"
FILES = {
    "training images": "train-images-idx3-ubyte",
    "training labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file of `rank` dimensions; DataError names what is wrong."""
    with _opened(path) as (file, most):
        header = file.read(4 + 4 * rank)
        shape = _shape(header, rank, path)
        expected = math.prod(shape)
        content = file.read(min(expected, most) + 1)
    if len(content) > most:
        raise DataError(
            f"{path}: unpacks to more than {most:,} bytes, {limits.UNPACKED_RATIO} times its size; not read"
        )
    if len(content) != expected:
        state = "is cut short" if len(content) < expected else "has bytes left over"
        raise DataError(f"{path}: {state}: its header says {expected:,} bytes of data; get the file again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx_folder(folder: Path, name: str) -> RawData:
    """The data set in four IDX files of `folder`, under their usual names, each plain or `.gz`."""
    arrays = {part: read_idx(find(folder, stem), _rank(stem)) for part, stem in FILES.items()}
    digest = hashlib.md5(usedforsecurity=False)
    for part in FILES:
        digest.update(repr(arrays[part].shape).encode())
        digest.update(arrays[part].tobytes())
    training = _examples(folder, arrays["training images"], arrays["training labels"])
    test = _examples(folder, arrays["test images"], arrays["test labels"])
    if training.inputs.shape[1:] != test.inputs.shape[1:]:
        raise DataError(
            f"{folder}: training images are {tuple(training.inputs.shape[2:])}, test images "
            f"{tuple(test.inputs.shape[2:])}"
        )
    try:
        return RawData(name, training, test, f"md5:{digest.hexdigest()}")
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def find(folder: Path, stem: str) -> Path:
    """The file called `stem` or `stem.gz` in `folder`; DataError lists the four files that are wanted."""
    for candidate in (folder / stem, folder / f"{stem}.gz"):
        if candidate.is_file():
            return candidate
    wanted = ", ".join(f"{name}[.gz]" for name in FILES.values())
    raise DataError(f"{folder}: {stem}[.gz] is missing; put these files there: {wanted}")


def decompressed_md5(path: Path, content: bytes | None = None) -> str:
    """MD5 of the whole decompressed file, the checksum by which these data sets are known.

    With `content`, of what `path` would hold: a download is judged before it is kept.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with _opened(path, content) as (file, most):
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if (most := most - len(chunk)) < 0:
                raise DataError(f"{path}: unpacks to more than {limits.UNPACKED_RATIO} times its size; not read")
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """The decompressed bytes of `path`, or of `content` in its place, and the most there may be; DataError for damage.

    A file of another name is unpacked, too, where its first bytes say that it is packed.
    """
    with storage_errors("read", path):
        try:
            with opened(path) if content is None else io.BytesIO(content) as raw:
                size = raw.seek(0, io.SEEK_END)
                raw.seek(0)
                head = raw.read(LONGEST)
                raw.seek(0)
                packed = path.suffix == ".gz" or head.startswith(GZIP)
                yield (gzip.GzipFile(fileobj=raw), limits.unpacked(size)) if packed else (raw, size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:  # BadGzipFile is an OSError too
            what = other_kind(head, "gzip") or str(error)
            raise DataError(f"{path}: damaged or cut short ({what}); get the file again") from None


def _rank(stem: str) -> int:
    return 3 if "idx3" in stem else 1


def _shape(header: bytes, rank: int, path: Path) -> tuple[int, ...]:
    if len(header) < 4 + 4 * rank:
        raise DataError(f"{path}: cut short before its header ends; get the file again")
    zero, kind, dimensions = struct.unpack(">HBB", header[:4])
    if zero != 0 or kind != UNSIGNED_BYTES or dimensions != rank:
        what = f"; {found}" if (found := other_kind(header)) else ""
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes in {counted(rank, 'dimension')} "
            f"(magic {header[:4].hex()}{what})"
        )
    shape = struct.unpack(f">{rank}I", header[4:])
    if math.prod(shape) == 0:
        raise DataError(f"{path}: holds no data (sizes {shape})")
    if math.prod(shape) > SIZE_LIMIT:
        raise DataError(f"{path}: its header asks for {math.prod(shape):,} bytes, more than {SIZE_LIMIT:,}")
    return shape


def _examples(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Examples:
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} images but {len(labels)} labels")
    inputs = torch.from_numpy(images.astype(np.float32)).div_(255).unsqueeze(1)
    return Examples(inputs, torch.from_numpy(labels.astype(np.int64)))
