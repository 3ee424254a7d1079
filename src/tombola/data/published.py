"""Published image sets of one file each, known by its checksum."""

from __future__ import annotations

from pathlib import Path

from tombola.data.dataset import RawData
from tombola.data.folders import class_folders
from tombola.data.home import known_file
from tombola.data.npz import read_image_set

LEAVES = "plantvillage-apple-segmented.tar"
LEAVES_CHECKSUM = "sha256:d01e58d8d6a13ba9eabc915014156e190303b5fff1d19ce627203f3ce61e8a13"
PNEUMONIA = "pneumoniamnist.npz"
PNEUMONIA_SOURCE = "https://zenodo.org/records/10519652/files/pneumoniamnist.npz"
PNEUMONIA_CHECKSUMS = (
    "md5:28209eda62fecd6e6a2d98b1501bb15f",  # MedMNIST's own
    "sha256:ce8250bf5debc3c389b89affcc1d9feac579b26e875a848301e9f937bb0c2eee",  # the same images in another order
)


def plantvillage_apple(
    folder: Path,
    size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    group_by: str | None = None,
) -> RawData:
    """PlantVillage's apple leaves: 3,171 colour photographs of 256×256 pixels, cut out, in 4 classes.

    Hughes and Salathé 2015, arXiv 1511.08060; three diseases and healthy leaves. Read from
    plantvillage-apple-segmented.tar as the data set `folder` reads a tar. Several photographs may show one leaf, and 7
    files are there twice.
    """
    archive = known_file(folder / LEAVES, "plantvillage-apple", (LEAVES_CHECKSUM,), None, "folder")
    return class_folders(archive, size, channels, skip_bad, group_by, "plantvillage-apple")


def pneumoniamnist(folder: Path, size: int | None = None, channels: int | None = None) -> RawData:
    """PneumoniaMNIST of MedMNIST v2: 5,232 + 624 grey chest X-rays of 28×28 pixels, normal or pneumonia.

    Yang et al. 2023, arXiv 2110.14795. Its validation images join the training ones, as for the data set `npz`.
    """
    path = known_file(folder / PNEUMONIA, "pneumoniamnist", PNEUMONIA_CHECKSUMS, PNEUMONIA_SOURCE, "npz")
    return read_image_set(path, "pneumoniamnist", size, channels)
