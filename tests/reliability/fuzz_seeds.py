"""Small good files of every kind that is read, made on the spot, and what reads each."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from sealing import write_table
from small_study import SMALL_STUDY
from tombola import pack, prune, read_ticket, unpack
from tombola.compression.sparse_files import load_sparse, save_sparse
from tombola.compression.ticket import read_mask, write_mask
from tombola.data import cifar
from tombola.data.decoding import decode
from tombola.data.folders import class_folders
from tombola.data.idx import read_idx
from tombola.data.npz import npz
from tombola.errors import StorageError
from tombola.models import ModelSpec, build
from tombola.models.folder import load_model, save_model
from tombola.models.keras_models import read_keras
from tombola.models.pretrained import read_base
from tombola.models.tensors import load_tensors
from tombola.models.weights import read_weights
from tombola.runs.configs import load_config
from tombola.runs.rows import read_rows
from tombola.studies.lottery.config import LotteryConfig
from tombola.training.checkpoint import load_checkpoint, save_checkpoint
from tombola.training.feature_cache import FeatureCache

Files = dict[str, bytes]
"""A file's name and content; several where they belong together."""


@dataclass(frozen=True)
class Reader:
    """`read` is given the folder with the files; `share` says how many mutations it gets beside the others."""

    name: str
    files: Files
    read: Callable[[Path], Any]
    share: float = 1.0


def _folder(write: Callable[[Path], Any], folder: Path) -> Files:
    folder.mkdir(parents=True)
    write(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _images() -> Files:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    forms: dict[str, dict[str, Any]] = {
        "png": {"format": "PNG"},
        "palette.png": {"format": "PNG"},
        "jpeg": {"format": "JPEG"},
        "progressive.jpeg": {"format": "JPEG", "progressive": True},
        "gif": {"format": "GIF"},
        "webp": {"format": "WEBP"},
        "tiff": {"format": "TIFF"},
        "packed.tiff": {"format": "TIFF", "compression": "tiff_lzw"},
        "bmp": {"format": "BMP"},
    }
    found: Files = {}
    for name, options in forms.items():
        image, buffer = Image.fromarray(pixels), io.BytesIO()
        (image.quantize(16) if name == "palette.png" else image).save(buffer, **options)
        found[name] = buffer.getvalue()
    return found


def _tar(packed: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w") as archive:
        for label, name in enumerate(("cat", "dog")):
            for number in range(3):
                image = io.BytesIO()
                Image.new("L", (4, 4), 90 * label + number).save(image, format="PNG")
                member = tarfile.TarInfo(f"{name}/{number}.png")
                member.size = len(image.getvalue())
                archive.addfile(member, io.BytesIO(image.getvalue()))
    return buffer.getvalue()


def _npz() -> bytes:
    random, buffer = np.random.default_rng(0), io.BytesIO()
    arrays = {
        name: random.integers(0, 256, (6, 4, 4), dtype=np.uint8) if name.startswith("x") else np.arange(6) % 3
        for name in ("x_train", "y_train", "x_test", "y_test")
    }
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _idx() -> bytes:
    return struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + bytes(range(24))


def _cifar_batches() -> Files:
    """Two records a file; one of each class in the test file."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    records = np.concatenate([np.arange(20, dtype=np.uint8)[:, None] % 10, pixels], axis=1)
    files = {name: records[2 * number : 2 * number + 2].tobytes() for number, name in enumerate(names)}
    return files | {"test_batch.bin": records[10:].tobytes()}


def _cifar_archive() -> Files:
    """The JPEG set of one image a class, plain inside its name so that damage reaches the images; and its labels."""
    archive, labels = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for part, (label, name) in itertools.product(cifar.PER_CLASS, enumerate(cifar.CLASSES)):
            image = io.BytesIO()
            Image.new("RGB", (32, 32), (20 * label, 9, 9)).save(image, format="JPEG")
            member = tarfile.TarInfo(f"{part}/{name}/0000.jpg")
            member.size = len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))
    np.savez(labels, train_labels=np.arange(10, dtype=np.uint8), test_labels=np.arange(10, dtype=np.uint8))
    return {cifar.ARCHIVE: archive.getvalue(), cifar.LABELS: labels.getvalue()}


def _decoded(folder: Path, good: Files) -> None:
    """What was decoded before is in the cache; its damage changes nothing of what is read."""
    try:
        read = cifar.read_jpeg_set(folder)
        if all((folder / name).read_bytes() == good[name] for name in (cifar.ARCHIVE, cifar.LABELS)):
            assert [int(image.mean() > 10) for image in read["test"].images] == [0, *[1] * 9]
            assert (read["train"].images == read["test"].images).all()
    finally:
        shutil.rmtree(folder / "tombola" / "decoded")


def _rows(path: Path) -> Any:
    """The rows of a damaged table whose checks fit: what is met is the damage, not that it is noticed."""
    write_table(path, [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1]])
    return read_rows(path)


def _ticket(folder: Path) -> None:
    """As `tombola info` and `unpack` read it."""
    path = folder / "a.ticket"
    assert sum(read_ticket(path).sizes.values()) == path.stat().st_size
    unpack(path, "trained")
    unpack(path, "start")


def _features(_: Path) -> None:
    """A part of features that is damaged is computed again."""
    if FeatureCache("k", 6, (3, 2)).read(slice(0, 6)) is None:
        raise StorageError("to be computed again")


def _cached(folder: Path, write: Callable[[Path], Any]) -> Files:
    """What `write` writes into a folder, and into the user's cache, for which that folder stands meanwhile."""
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(folder)):
        return _folder(write, folder)


def _write_decoded(folder: Path) -> None:
    for name, content in _cifar_archive().items():
        (folder / name).write_bytes(content)
    cifar.read_jpeg_set(folder)


def _torch_file(model: nn.Module, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _hdf5() -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["block1_conv1/block1_conv1/kernel:0"] = np.ones((3, 3, 3, 2), np.float32)
        file["block1_conv1/block1_conv1/bias:0"] = np.ones(2, np.float32)
    return buffer.getvalue()


def _keras() -> bytes:
    import h5py

    def layer(kind: str, **config: Any) -> dict[str, Any]:
        return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}

    def dense(name: str, units: int, activation: str) -> dict[str, Any]:
        return layer("Dense", name=name, units=units, activation=activation, use_bias=True)

    layers = [
        layer("InputLayer", name="input", batch_shape=[None, 4]),
        layer("Rescaling", name="scale", scale=2.0, offset=0.0),
        *(dense("fc1", 3, "relu"), layer("Dropout", name="drop", rate=0.5), dense("output", 2, "softmax")),
    ]
    weights, buffer = io.BytesIO(), io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, shape in (("dense", (4, 3)), ("dense_1", (3, 2))):
            file[f"layers/{name}/vars/0"] = np.ones(shape, np.float32)
            file[f"layers/{name}/vars/1"] = np.ones(shape[1:], np.float32)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
        archive.writestr("model.weights.h5", weights.getvalue())
    return buffer.getvalue()


def _forest(content: bytes) -> None:
    from tombola.studies.hybrid.forests import Forest

    forest = Forest(content)
    assert forest.nodes >= forest.trees
    forest.predict(np.zeros((2, forest.features), np.float32))


def _forest_file() -> bytes:
    from tombola.studies.hybrid.forests import fit_forest

    random = np.random.default_rng(0)
    return fit_forest(random.random((30, 3)), np.arange(30) % 2, 2, trees=3).content


def readers(scratch: Path) -> list[Reader]:
    """All of them, with good files that each reads."""
    from tombola.compression.runtime import sparsify

    torch.manual_seed(0)
    spec = ModelSpec(architecture="lenet-300-100", widths=(6, 5), input_shape=(1, 4, 4), classes=3, seed=0)
    model = build(spec)
    masks = prune(model, 0.5)
    masks.apply_(model)
    chain = sparsify(model, masks, example_input=torch.zeros(1, 1, 4, 4), batch_sizes=(1,))
    convolutional = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    graph = sparsify(convolutional, prune(convolutional, 0.5), example_input=torch.zeros(1, 1, 4, 4), batch_sizes=(1,))
    folder = _folder(lambda at: save_model(at / "m", spec, model, masks), scratch / "model")
    ticket = _folder(lambda at: write_mask(at, masks), scratch / "ticket")
    whole = {"trained": model, "start": model}
    small = _folder(lambda at: pack(at / "a.ticket", spec, masks, **whole, values="int8"), scratch / "ticket file")
    checkpoint = _folder(
        lambda at: save_checkpoint(at / "c.safetensors", "f", "cpu", model.state_dict(), {"iteration": 3}),
        scratch / "check",
    )
    cifar.PER_CLASS.update(train=1, test=1)  # a set as small as the other files
    decoded = _cached(scratch / "decoded", _write_decoded)
    features = _cached(
        scratch / "features", lambda _: FeatureCache("k", 6, (3, 2)).write(slice(0, 6), torch.ones(6, 3, 2))
    )
    rows = b"".join(json.dumps({"kind": "training", "replicate": i, "value": i / 3}).encode() + b"\n" for i in range(9))

    def one(name: str, content: bytes, read: Callable[[Path], Any], share: float = 1.0, suffix: str = "") -> Reader:
        file = f"file{suffix}"
        return Reader(name, {file: content}, lambda at: read(at / file), share)

    def sparse(name: str, made: Any) -> Reader:
        content = _folder(lambda at: save_sparse(at / "s.safetensors", made), scratch / name)["s.safetensors"]
        return one(name, content, load_sparse, 0.7, ".safetensors")

    found = [
        one("safetensors", folder["m/weights.safetensors"], load_tensors, 2),
        one("torch", _torch_file(model, True), read_weights, 1.5, ".pt"),
        one("torch, older", _torch_file(model, False), read_weights, 1.5, ".pt"),
        Reader("model folder", folder, lambda at: load_model(at / "m"), 1),
        Reader("mask", ticket, read_mask, 2),
        Reader("ticket", small, _ticket, 2),
        Reader("checkpoint", checkpoint, lambda at: load_checkpoint(at / "c.safetensors", "f", "cpu"), 1),
        sparse("sparse chain", chain),
        sparse("sparse graph", graph),
        one("npz", _npz(), npz, 1.5, ".npz"),
        one("idx", _idx(), lambda path: read_idx(path, 3), 1),
        one("idx, gzipped", gzip.compress(_idx()), lambda path: read_idx(path, 3), 1, ".gz"),
        one("tar", _tar(False), class_folders, 0.5, ".tar"),
        one("tar, gzipped", _tar(True), class_folders, 0.5, ".tar"),
        Reader("cifar", _cifar_batches(), cifar.cifar10, 0.5),
        Reader("cifar, JPEG", decoded, lambda at: _decoded(at, decoded), 0.5),
        Reader("features", features, _features, 0.5),
        one("keras", _keras(), read_keras, 0.5, ".keras"),
        one("hdf5", _hdf5(), lambda path: read_base(path, None, "none"), 1, ".h5"),
        one("yaml", yaml.safe_dump(SMALL_STUDY).encode(), lambda path: load_config(path, LotteryConfig), 0.5),
        one("rows", rows, _rows, 2),
        one("forest", _forest_file(), lambda path: _forest(path.read_bytes()), 0.7),
    ]
    return found + [
        one(f"image {name}", content, lambda path: decode(path.read_bytes(), str(path)), 0.7)
        for name, content in _images().items()
    ]
