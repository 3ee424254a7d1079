"""What an engine is: it gets a network and batches of one shape, and gives one call per batch.

A call has its input bound beforehand, so that nothing but the engine's own work is timed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.compression.export.int8 import write_int8
from tombola.compression.export.onnx_files import write_onnx
from tombola.compression.export.pt2_files import write_pt2
from tombola.compression.runtime import sparsify
from tombola.compression.sparse_modules import SparseModel
from tombola.pruning import Masks

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
CALIBRATION_BATCH = 64


@dataclass(frozen=True)
class Call:
    """One batch bound to an engine: `run` computes, `result` gives the output of the last run as float32."""

    run: Callable[[], object]
    result: Callable[[], Tensor]


@dataclass(frozen=True)
class Network:
    """A network in evaluation, removed weights 0, and what is made of it once for all engines, in `folder`.

    `examples` are inputs that int8 is calibrated and sparse kernels are chosen on, `batch_sizes` those that matter.
    """

    model: nn.Module
    masks: Masks
    examples: Tensor
    batch_sizes: tuple[int, ...]
    folder: Path

    @cached_property
    def onnx(self) -> Path:
        return self._file("float32.onnx", lambda path: write_onnx(path, self.model, self.two))

    @cached_property
    def int8(self) -> Path:
        batches = self.examples.split(CALIBRATION_BATCH)
        return self._file("int8.onnx", lambda path: write_int8(path, self.onnx, batches))

    @cached_property
    def pt2(self) -> Path:
        return self._file("float32.pt2", lambda path: write_pt2(path, self.model, self.two))

    @cached_property
    def sparse(self) -> SparseModel:
        """On sparse kernels, which are chosen by measuring."""
        return sparsify(self.model, self.masks, self.examples[: max(self.batch_sizes)], self.batch_sizes)

    def _file(self, name: str, write: Callable[[Path], None]) -> Path:
        """A file of the folder, written where it is not there: another process may have made it."""
        path = self.folder / name
        if not path.exists():
            unfinished = path.with_stem(f"unfinished-{path.stem}")
            write(unfinished)
            unfinished.replace(path)
        return path

    @property
    def two(self) -> Tensor:
        """Two examples, for exporters: of one they would take it that there is always one."""
        return self.examples[:1].expand(2, *self.examples.shape[1:]).clone()


@contextmanager
def network_of(model: nn.Module, masks: Masks, examples: Tensor, batch_sizes: Sequence[int]) -> Iterator[Network]:
    """A network with a folder, which stays as long as engines may map its files into memory."""
    folder = Path(tempfile.mkdtemp(prefix="tombola-engines-"))
    try:
        yield Network(model, masks, examples, tuple(batch_sizes), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Job:
    """What an engine is to run: a network, batches of one shape, and how many threads it may use."""

    network: Network
    batches: Sequence[Tensor]
    threads: int = 1

    @property
    def batch(self) -> int:
        return len(self.batches[0])


@dataclass(frozen=True)
class Engine:
    """`prepare` makes the calls; only engines that compute in float32 count as the best dense one.

    `file` is what the engine loads of a network, with its numbers; torch, which loads none, has its tensors. `package`
    is the one that it comes with, besides torch's.
    """

    name: str
    precision: str
    prepare: Callable[[Job], list[Call]]
    file: Callable[[Network], Path] | None = None
    package: str | None = None

    @property
    def exact(self) -> bool:
        return self.precision == FLOAT32


def module_calls(model: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> list[Call]:
    """The calls of anything that is an ordinary module."""
    return [Call(partial(model, batch), lambda batch=batch: model(batch).float()) for batch in batches]  # type: ignore[misc]


def bound(run: Callable[[], object], output: Callable[[], NDArray[Any]]) -> Call:
    """A call whose output lies in the engine's own memory."""

    def result() -> Tensor:
        run()
        return torch.from_numpy(np.array(output(), dtype=np.float32))

    return Call(run, result)


def largest_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest output; an output that is not a number gives infinity."""
    difference = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    relative = difference / max(float(b.abs().max()) for b in expected)
    return relative if relative == relative else float("inf")
