"""CIFAR-10 in the layouts in which it is found, each checked to be whole.

The official binary files and a set of JPEG files in one archive are read; the official pickles never are.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.data.dataset import RawData
from tombola.data.decoding import Pixels, decode, raw_data
from tombola.data.npz import read_arrays, read_image_set
from tombola.data.tars import unpacked
from tombola.errors import DataError, StorageError, one_line
from tombola.runs import limits
from tombola.runs.atomic import make_folder, read_bytes, write_bytes
from tombola.runs.cache import cache_home

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = {"train": 5_000, "test": 1_000}
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE
BINARY_FOLDER, PICKLE_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
ARCHIVE, LABELS = "cifar10-jpeg.tar.xz", "cifar10-canonical-labels.npz"
EXACT = "cifar10-exact-3805-761.npz"
ARCHIVE_LIMIT, UNPACKED_LIMIT, MEMBER_LIMIT = limits.DOWNLOAD, 2 * limits.DOWNLOAD, 64 << 10


def cifar10(folder: Path) -> RawData:
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 pixels in 10 classes (Krizhevsky 2009).

    Read from the official binary files (data_batch_1.bin to 5, test_batch.bin, also in cifar-10-batches-bin/),
    else from cifar10-jpeg.tar.xz and cifar10-canonical-labels.npz. The JPEG set is lossy: its pixels are near
    those of the original but not equal, and the checksum of the data tells the two apart.
    """
    if (binary := _holding(folder, BINARY_FOLDER, ".bin")) is not None:
        parts = {part: _read_binary(binary, part) for part in BATCHES}
        where = binary
    elif (folder / ARCHIVE).exists():
        parts = read_jpeg_set(folder)
        where = folder / ARCHIVE
    elif (pickled := _holding(folder, PICKLE_FOLDER, "")) is not None:
        raise DataError(
            f"{pickled}: CIFAR-10 as Python pickles, which are never read; put the binary version there instead "
            "(data_batch_1.bin to data_batch_5.bin, test_batch.bin, from cifar-10-binary.tar.gz)"
        )
    else:
        raise DataError(
            f"cifar10 is not in {folder}; put data_batch_1.bin to data_batch_5.bin and test_batch.bin (from "
            f"cifar-10-binary.tar.gz) or {ARCHIVE} and {LABELS} there, or point --data-dir or $TOMBOLA_DATA at a "
            "folder whose cifar10/ has them"
        )
    for part, pixels in parts.items():
        counts = np.bincount(pixels.labels, minlength=len(CLASSES))
        if len(counts) != len(CLASSES) or (counts != PER_CLASS[part]).any():
            raise DataError(f"{where}: not CIFAR-10: its {part} set has {counts[:12].tolist()} images per class")
    return raw_data("cifar10", where, parts["train"], parts["test"])


def cifar10_exact(folder: Path) -> RawData:
    """A part of CIFAR-10 with the original pixels: 3,805 + 761 images, the start of each official file."""
    path = folder / EXACT
    if not path.exists():
        raise DataError(f"cifar10-exact is not in {folder}; put {EXACT} there, or point --data-dir at its data home")
    raw = read_image_set(path, "cifar10-exact")
    if raw.training.inputs.shape[1:] != (3, SIDE, SIDE) or raw.classes != len(CLASSES):
        raise DataError(f"{path}: not images of 3×{SIDE}×{SIDE} in {len(CLASSES)} classes; get the file again")
    return raw


def read_jpeg_set(folder: Path) -> dict[str, Pixels]:
    """The images of the JPEG archive in CIFAR-10's own order, which the file of labels gives.

    The archive holds the k-th image of a class as `<train|test>/<class>/<k>.jpg`, k in four digits from 0.
    Decoded images are kept in the user's cache, under the checksum of the archive.
    """
    content = read_bytes(folder / ARCHIVE, ARCHIVE_LIMIT)
    names = [f"{part}_labels" for part in PER_CLASS]
    parts = {}
    labels = dict(zip(PER_CLASS, read_arrays(folder / LABELS, names), strict=True))
    decoded = _decoded(content, folder / ARCHIVE)
    for part, targets in labels.items():
        counts = [int((targets == number).sum()) for number in range(len(CLASSES))]
        if targets.shape != (sum(counts),) or set(counts) != {PER_CLASS[part]}:
            raise DataError(f"{folder / LABELS}: array {part}_labels is not that of CIFAR-10; get the file again")
        images = np.empty((len(targets), 3, SIDE, SIDE), dtype=np.uint8)
        for number, of_class in enumerate(decoded[part]):
            images[targets == number] = of_class.transpose(0, 3, 1, 2)
        parts[part] = Pixels(images, targets.astype(np.int64))
    return parts


def _holding(folder: Path, inner: str, suffix: str) -> Path | None:
    """`folder` or its folder `inner`: the first with any of the batches."""
    names = [f"{stem}{suffix}" for stems in BATCHES.values() for stem in stems]
    for candidate in (folder, folder / inner):
        if any((candidate / name).exists() for name in names):
            return candidate
    return None


def _read_binary(folder: Path, part: str) -> Pixels:
    """Records of one byte of label, then 32×32 bytes each of red, green and blue."""
    records = len(CLASSES) * PER_CLASS[part] // len(BATCHES[part])
    batches = []
    for stem in BATCHES[part]:
        path = folder / f"{stem}.bin"
        if not path.exists():
            raise DataError(f"{path} is missing; CIFAR-10 is data_batch_1.bin to data_batch_5.bin and test_batch.bin")
        content = read_bytes(path, ARCHIVE_LIMIT)
        if len(content) != records * RECORD_BYTES:
            state = "is cut short" if len(content) < records * RECORD_BYTES else "has bytes left over"
            raise DataError(
                f"{path}: {state}: {len(content):,} bytes, {records:,} records of {RECORD_BYTES:,} are wanted; get the "
                "file again"
            )
        batch = np.frombuffer(content, dtype=np.uint8).reshape(records, RECORD_BYTES)
        if (largest := batch[:, 0].max()) >= len(CLASSES):
            raise DataError(f"{path}: holds the label {largest}, CIFAR-10 has 0 to 9; get the file again")
        batches.append(batch)
    whole = np.concatenate(batches)
    return Pixels(whole[:, 1:].reshape(-1, 3, SIDE, SIDE), whole[:, 0].astype(np.int64))


def _decoded(content: bytes, path: Path) -> dict[str, NDArray[np.uint8]]:
    """Per part (class, image, height, width, channel): from the cache if it is there and whole."""
    try:
        cached = cache_home() / "decoded" / f"cifar10-{hashlib.sha256(content).hexdigest()}.npz"
        return _read_cache(cached)
    except RuntimeError:  # this user has no home
        return _decode_archive(content, path)
    except (DataError, StorageError):  # not there, or damaged: then it is written anew
        decoded = _decode_archive(content, path)
    buffer = io.BytesIO()
    whole: dict[str, Any] = {"sha256": _digest(decoded), **decoded}
    np.savez(buffer, **whole)
    try:
        make_folder(cached.parent)
        write_bytes(cached, buffer.getvalue())
    except StorageError:
        pass  # the cache saves seconds and may be refused
    return decoded


def _read_cache(path: Path) -> dict[str, NDArray[np.uint8]]:
    *arrays, digest = read_arrays(path, [*PER_CLASS, "sha256"])
    decoded = dict(zip(PER_CLASS, arrays, strict=True))
    shapes = {part: (len(CLASSES), count, SIDE, SIDE, 3) for part, count in PER_CLASS.items()}
    sound = all(array.shape == shapes[part] and array.dtype == np.uint8 for part, array in decoded.items())
    if not sound or not np.array_equal(digest, _digest(decoded)):
        raise DataError(f"{path}: its content is not what was written")
    return decoded


def _digest(decoded: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for part in PER_CLASS:
        digest.update(np.ascontiguousarray(decoded[part]).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _decode_archive(content: bytes, path: Path) -> dict[str, NDArray[np.uint8]]:
    """Decodes every image of the archive; DataError names the first that is damaged, odd, missing or twice."""
    decoded, seen = {}, {}
    for part, count in PER_CLASS.items():
        decoded[part] = np.empty((len(CLASSES), count, SIDE, SIDE, 3), dtype=np.uint8)
        seen[part] = np.zeros((len(CLASSES), count), dtype=bool)
    pattern = re.compile(rf"({'|'.join(PER_CLASS)})/({'|'.join(CLASSES)})/([0-9]{{4}})\.jpg")
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked(content, path, UNPACKED_LIMIT)), mode="r:") as archive:
            for count, member in enumerate(archive, start=1):
                archive.members.clear()  # type: ignore[attr-defined]  # of which it would keep all
                if count > 2 * sum(PER_CLASS.values()) * len(CLASSES):
                    raise DataError(f"{path}: more members than CIFAR-10 has images; get the archive again")
                if member.isdir():
                    continue
                found = pattern.fullmatch(member.name)
                file = archive.extractfile(member) if found and member.isreg() else None
                if found is None or file is None or member.size > MEMBER_LIMIT:
                    raise DataError(f"{path}: {member.name} does not belong to the set; get the archive again")
                part, label, number = found[1], CLASSES.index(found[2]), int(found[3])
                if number >= PER_CLASS[part] or seen[part][label, number]:
                    raise DataError(f"{path}: {member.name} is one too many; get the archive again")
                image = decode(file.read(), f"{path}: {member.name}")
                if image.shape != (SIDE, SIDE, 3):
                    raise DataError(f"{path}: {member.name} is {image.shape}, not {SIDE}×{SIDE} in colour")
                decoded[part][label, number] = image
                seen[part][label, number] = True
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(f"{path}: damaged or cut short ({one_line(error)}); get the archive again") from None
    for part, there in seen.items():
        for label, number in np.argwhere(~there)[:1]:
            raise DataError(f"{path}: {part}/{CLASSES[label]}/{number:04d}.jpg is missing; get the archive again")
    return decoded
