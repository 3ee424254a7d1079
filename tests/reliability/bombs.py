"""Small files that claim gigabytes or take minutes, and what reads each; run as a script it reads them one by one."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import traceback
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

SECONDS, MEMORY, LARGEST = 30, 2 << 30, 1 << 20
ZEROS = 8 << 20


def _sparse(path: Path) -> None:
    """131 KB of packed zeros say that none of 2^30 weights is kept."""
    import torch

    from tombola.models.tensors import save_tensors

    side = 1 << 15
    layer = {"name": "0", "outputs": side, "inputs": side, "relu": False}
    chain = {"sites": ["0"], "types": ["Linear"], "layers": [layer], "flatten": False, "flat_only": False, "plans": []}
    facts = {"kind": "tombola sparse model", "format": 2, "tombola": "0", "machine": "", "whole": True}
    kept = np.frombuffer(zlib.compress(bytes(side * side // 8), 9), np.uint8).copy()
    parts = {"values": torch.zeros(0), "bias": torch.zeros(side), "kept": torch.from_numpy(kept)}
    tensors = {f"0/0/{name}": part for name, part in parts.items()}
    save_tensors(path, tensors, facts | {"unsupported": [], "chains": [chain], "graphs": []})


def _ticket_of_removed(path: Path) -> None:
    """A few weights, which are said to be what was left of 30,000 × 30,000 units."""
    from tombola.compression.tickets.blocks import packed, unpacked
    from tombola.compression.tickets.writing import pack
    from tombola.models import ModelSpec, build
    from tombola.pruning import Masks

    spec = ModelSpec(architecture="lenet-300-100", widths=(6, 5), input_shape=(1, 4, 4), classes=3, seed=0)
    pack(path, spec, Masks.full(build(spec)), trained=build(spec))
    found = unpacked(path.read_bytes(), path)
    model = {**found.facts["model"], "widths": [30_000, 30_000], "removed": REMOVED}
    path.write_bytes(packed(found.tensors, {**found.facts, "model": model}))


def _ticket(path: Path, frame: bool) -> None:
    """More weights than such a file may have, of which none is kept; or a frame of zeros."""
    import torch
    import zstandard

    from tombola.compression.tickets.blocks import packed
    from tombola.models import ModelSpec

    if frame:
        packing, part = zstandard.ZstdCompressor(level=1).compressobj(size=4 << 30), bytes(1 << 20)
        path.write_bytes(b"".join([packing.compress(part) for _ in range(4 << 10)]) + packing.flush())
        return
    side = 14_480
    spec = ModelSpec(architecture="lenet-300-100", widths=(side, 1), input_shape=(1, 1, side), classes=2, seed=0)
    shapes = {"fc1": (side, side), "fc2": (1, side), "output": (2, 1)}
    layers = [{"name": f"{n}.weight", "shape": s, "kept": 0, "code": "gaps between kept"} for n, s in shapes.items()]
    said = {"kind": "tombola ticket", "format": 1, "tombola": "0", "model": spec.model_dump(mode="json")}
    start = {"sha256": "0" * 64, "restart": "init", "stored": []}
    masks = {f"mask/{place}": torch.zeros(0, dtype=torch.uint8) for place in range(3)}
    path.write_bytes(packed(masks, {**said, "history": {}, "layers": layers, "start": start, "trained": None}))


REMOVED = {
    "kept": [
        {"indices": "0-5", "of": 30_000, "places": ["fc1.weight/0", "fc1.bias/0", "fc2.weight/1"]},
        {"indices": "0-4", "of": 30_000, "places": ["fc2.weight/0", "fc2.bias/0", "output.weight/1"]},
    ]
}
"""30,000 × 30,000 units, of which 6 × 5 are left."""


def _model_folder(path: Path, removed: bool = False) -> None:
    """A spec of 30,000 × 30,000 units beside the weights of another model, or of what is said to be left of it."""
    from tombola.models import ModelSpec, build
    from tombola.models.folder import save_model

    spec = ModelSpec(architecture="lenet-300-100", widths=(6, 5), input_shape=(1, 4, 4), classes=3, seed=0)
    save_model(path, spec, build(spec))
    said = json.loads((path / "spec.json").read_text())
    said["model"]["widths"] = [30_000, 30_000]
    if removed:
        said["model"]["removed"] = REMOVED
        said = {key: value for key, value in said.items() if key not in ("format", "sha256")}
    (path / "spec.json").write_text(json.dumps(said))


def _run_folder(path: Path, stored: bool) -> None:
    """A lottery's run whose config, or whose stored spec, claims 30,000 × 30,000 units beside weights of 6 × 5."""
    from small_study import SMALL_STUDY
    from tombola.models import ModelSpec
    from tombola.runs.configs import validate
    from tombola.runs.folder import RunFolder, begin_or_continue, writing
    from tombola.runs.sealed import read_sealed, write_sealed
    from tombola.studies.base.work import Finished, unit_rows
    from tombola.studies.lottery.config import LotteryConfig
    from tombola.studies.lottery.metrics import UNIT
    from tombola.studies.lottery.replicate import ReplicateSpec, run_replicate
    from tombola.studies.lottery.result import data_facts

    small = {"model": {"widths": [6, 5]}, "replicates": 1, "controls": [], "pruning": {"densities": [0.5]}}
    training = {"length": "2it", "evaluate_every": "2it"}
    config = validate({**SMALL_STUDY, **small, "training": training}, LotteryConfig, "bomb")
    folder, wide = RunFolder(path), {"widths": (30_000, 30_000)}
    with writing(folder):
        begin_or_continue(folder, "lottery", config, {"data": data_facts(config, None)})
        table, events = folder.table(UNIT), []
        run_replicate(ReplicateSpec(config, 0, folder.checkpoints, None), events.append)
        for event in events:
            if isinstance(event, Finished):
                table.append_unit(unit_rows(event.path))
        if stored:
            spec = folder.checkpoints / "replicate-00" / "spec.json"
            write_sealed(spec, ModelSpec(**read_sealed(spec, "")).model_copy(update=wide).model_dump(mode="json"))
        else:
            folder.write_config(config.model_copy(update={"model": config.model.model_copy(update=wide)}))


def _extracted(path: Path) -> None:
    from tombola.studies.lottery.extract import extract

    extract(path, 0.5, path.with_name("ticket"), reinit=1)


def _shown(path: Path) -> Any:
    from tombola.studies.base.opened import read_result
    from tombola.studies.lottery.study import open_lottery

    return read_result(open_lottery(path))


def _empty_base(path: Path) -> None:
    """VGG16's convolutions without a weight: those that give nothing make the 20,000 filters of the others free."""
    import torch

    from tombola.models.tensors import save_tensors
    from tombola.models.vgg16_keras import STAGES

    tensors, before = {}, 3
    for block, count in enumerate(STAGES, start=1):
        for number in range(1, count + 1):
            outputs = 20_000 if number == count else 0
            tensors[f"block{block}_conv{number}.weight"] = torch.zeros(outputs, before, 3, 3)
            tensors[f"block{block}_conv{number}.bias"] = torch.zeros(outputs)
            before = outputs
    save_tensors(path, tensors)


def _based(path: Path) -> Any:
    from tombola.data.base import Base
    from tombola.training.base import open_base

    return open_base(Base(weights=str(path), preprocessing="none"), (3, 32, 32))


def _tar(pack: Callable[[bytes], bytes], streams: int) -> bytes:
    """A tar whose one member is nothing but zeros: the same packed stream again and again."""
    member = tarfile.TarInfo("cat/0.png")
    member.size = ZEROS * streams
    return pack(member.tobuf()) + pack(bytes(ZEROS)) * streams + pack(bytes(1024))


def _members(count: int) -> bytes:
    """A tar of so many empty files; only digits of their names, and so of the headers' checksums, differ."""
    header = bytearray(tarfile.TarInfo("cat/00000.png").tobuf())
    total, headers = int(header[148:154], 8) - sum(b"00000"), []
    for digits in (b"%05d" % number for number in range(count)):
        header[4:9], header[148:154] = digits, b"%06o" % (total + sum(digits))
        headers.append(bytes(header))
    return gzip.compress(b"".join(headers) + bytes(1024), 1)


def _png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(6)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _images(path: Path) -> None:
    """Twelve images of 80 million pixels in a tar of 1 MB."""
    content = _png(9000)
    with tarfile.open(path, "w") as archive:
        for number in range(min(12, (LARGEST - 20_000) // (len(content) + 1024))):
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _scans() -> bytes:
    """A progressive JPEG of thousands of scans, each of which says that nothing changes."""

    def segment(marker: int, content: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content

    table = bytes([1] + [0] * 15)
    head = (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC2, struct.pack(">BHHB", 8, 9000, 9000, 1) + b"\1\x11\0")
    )
    head += segment(0xC4, b"\x00" + table + b"\0") + segment(0xC4, b"\x10" + table + b"\xe0")
    scan = segment(0xDA, b"\1\1\0" + bytes([1, 63, 0])) + bytes(100)
    return head + segment(0xDA, b"\1\1\0" + bytes(3)) + bytes(160_000) + scan * 5000 + b"\xff\xd9"


def _npz() -> bytes:
    buffer = io.BytesIO()
    arrays = {"x_train": np.zeros((350, 900, 900), np.uint8), "x_test": np.zeros((1, 900, 900), np.uint8)}
    np.savez_compressed(buffer, **arrays, y_train=np.arange(350) % 2, y_test=np.zeros(1, int))
    return buffer.getvalue()


class Called:
    """Pickled, a call of a function that a file should never have called."""

    def __init__(self, called: Any, *given: Any) -> None:
        self.given = called, given

    def __reduce__(self) -> Any:
        return self.given


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("a/version", "3")
    return buffer.getvalue()


def _older(count: int) -> bytes:
    """Torch's older form: a storage that claims so many numbers."""
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(77_777)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(struct.pack("<i", 77_777), struct.pack("<i", count))


def _mask(path: Path) -> None:
    path.mkdir()
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': ({6 << 30},), }}\n".encode()
    (path / "winning_ticket_mask.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    (path / "winning_ticket_mask.json").write_text(json.dumps({"size": 6 << 30, "layers": []}))


def _groups() -> bytes:
    """Each group holds the next one many times over: 10^11 paths."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        inner = file.create_group("last")
        for depth in range(11):
            outer = file.create_group(f"level{depth}")
            for number in range(10):
                outer[str(number)] = inner
            inner = outer
    return buffer.getvalue()


def _forest() -> bytes:
    """An ONNX model that makes 2^34 numbers of one, when it is loaded."""
    from onnx import TensorProto, helper

    shape = helper.make_tensor("s", TensorProto.INT64, [1], [1 << 34])
    nodes = [
        helper.make_node("Constant", [], ["n"], value=shape),
        helper.make_node("ConstantOfShape", ["n"], ["label"]),
    ]
    outputs = [helper.make_tensor_value_info("label", TensorProto.FLOAT, [None])]
    graph = helper.make_graph(nodes, "g", [], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def _keras(path: Path) -> None:
    layers = [{"class_name": "ReLU", "config": {"name": "r"}}] * 15_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.1"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
        archive.writestr("model.weights.h5", _groups())


Make = bytes | Callable[[Path], None]


def bombs() -> dict[str, tuple[str, Make, Callable[[Path], Any]]]:
    """By name: the file's name, what it holds or what writes it, and its reader."""
    from tombola.compression.sparse_files import load_sparse
    from tombola.compression.ticket import read_mask
    from tombola.compression.tickets.files import unpack
    from tombola.data.decoding import decode
    from tombola.data.folders import class_folders
    from tombola.data.idx import read_idx
    from tombola.data.npz import npz
    from tombola.models.folder import load_model
    from tombola.models.keras_models import read_keras
    from tombola.models.pretrained import read_base
    from tombola.models.tensors import load_tensors
    from tombola.models.weights import read_weights
    from tombola.runs.atomic import read_json
    from tombola.runs.configs import load_config
    from tombola.studies.hybrid.forests import Forest
    from tombola.studies.lottery.config import LotteryConfig

    def config(path: Path) -> Any:
        return load_config(path, LotteryConfig)

    def base(path: Path) -> Any:
        return read_base(path, None, "keras")

    header = struct.pack(">HBB3I", 0, 8, 3, 100, 3000, 3000)
    aliases = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 10)}]" for i in range(30))
    found: dict[str, tuple[str, Make, Callable[[Path], Any]]] = {
        "sparse": ("s.safetensors", _sparse, load_sparse),
        "ticket": ("a.ticket", partial(_ticket, frame=False), unpack),
        "ticket, a frame of zeros": ("a.ticket", partial(_ticket, frame=True), unpack),
        "ticket, units removed": ("a.ticket", _ticket_of_removed, unpack),
        "model folder": ("model", _model_folder, load_model),
        "model folder, units removed": ("model", partial(_model_folder, removed=True), load_model),
        "run folder, its config": ("run", partial(_run_folder, stored=False), _shown),
        "run folder, a stored spec": ("run", partial(_run_folder, stored=True), _extracted),
        "base of empty layers": ("base.safetensors", _empty_base, _based),
        "tar.gz": ("a.tar", _tar(lambda part: gzip.compress(part, 9), 40), class_folders),
        "tar.bz2": ("a.tar", _tar(bz2.compress, 40), class_folders),
        "tar.xz": ("a.tar", _tar(lzma.compress, 40), class_folders),
        "many members": ("a.tar", _members(30_000), class_folders),
        "large images": ("a.tar", _images, class_folders),
        "scans": ("a.jpg", _scans(), lambda path: decode(path.read_bytes(), str(path), 32)),
        "npz": ("a.npz", _npz(), npz),
        "idx": ("a.gz", gzip.compress(header, 9) + gzip.compress(bytes(ZEROS), 9) * 60, lambda path: read_idx(path, 3)),
        "memory by a pickle": ("a.pt", _pickled({"a": Called(bytearray, 10**11)}), read_weights),
        "memory by a tensor": ("a.pt", _older(2**30), read_weights),
        "mask": ("mask", _mask, read_mask),
        "groups": ("a.h5", _groups(), base),
        "forest": ("a.onnx", _forest(), lambda path: Forest(path.read_bytes())),
        "keras": ("a.keras", _keras, read_keras),
        "keys": ("a.yaml", "\n".join(f"{i}a: 1" for i in range(90_000)).encode(), config),
        "sexagesimal": ("a.yaml", b"seed: 1" + b":1" * 500_000, config),
        "digits": ("a.yaml", b"seed: " + b"1" * 1_000_000, config),
        "aliases": ("a.yaml", aliases.encode(), config),
        "merged": ("a.yaml", b"a: &a {x: 1}\nb: {<<: [*a, *a]}", config),
        "deep": ("a.json", b"[" * 1_000_000, read_json),
        "large numbers": ("a.json", b'{"a": 1e400}', read_json),
        "twice": ("a.json", b'{"a": 1, "a": 2}', read_json),
        "header": ("a.safetensors", struct.pack("<Q", 1 << 62) + b"{}", load_tensors),
    }
    plain: dict[str, Callable[[Path], Any]] = {
        "a.yaml": config,
        "a.json": read_json,
        "a.safetensors": load_tensors,
        "a.pt": read_weights,
        "a.npz": npz,
        "a.keras": read_keras,
        "a.h5": base,
        "a.gz": lambda path: read_idx(path, 3),
    }
    for name, read in plain.items():
        found[f"a link to /dev/zero, {name}"] = (name, lambda path: path.symlink_to("/dev/zero"), read)
        found[f"a pipe, {name}"] = (name, os.mkfifo, read)
    return found


def _outcome(path: Path, read: Callable[[Path], Any]) -> str:
    from tombola.errors import TombolaError

    try:
        read(path)
    except TombolaError as error:
        return f"refused: {error}"
    except BaseException:
        return traceback.format_exc()[-1000:]
    return "read"


def work(folder: Path) -> None:
    """Reads each in a child of this process; one JSON line for each."""
    made = bombs()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for number, (bomb, (name, content, read)) in enumerate(made.items()):
        path = folder / str(number) / name
        path.parent.mkdir()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        assert not path.is_file() or path.stat().st_size <= LARGEST, bomb
        receiving, sending = os.pipe()
        if (child := os.fork()) == 0:
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: a busy machine is no fault
            signal.alarm(10 * SECONDS)  # for what waits for ever
            os.write(sending, _outcome(path, read).encode())
            os._exit(0)
        os.close(sending)
        with os.fdopen(receiving, "rb") as answer:
            said = answer.read().decode()
        _, status, usage = os.wait4(child, 0)
        if status or usage.ru_maxrss * 1024 > MEMORY:
            said = f"ended with {status}, {usage.ru_maxrss:,} KB"
        print(json.dumps([bomb, said]), flush=True)


def read_all(folder: Path) -> dict[str, str]:
    """What reading each said: `refused: ` and the error where all is well."""
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
