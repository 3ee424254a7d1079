"""`export`: a network as a file for others, given away once it was compared, counted and scored."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression import measured
from tombola.compression.export.exported import Exported, Running, Times, amount, content_of, deflated, lost, scored
from tombola.compression.export.formats import EngineModule, Format, Run, format_of
from tombola.compression.export.int8 import write_int8
from tombola.compression.export.zeros import counted_zeros, found_in
from tombola.compression.measured import BATCH_SIZES, DENSE
from tombola.data import DataSet
from tombola.data.given import given_parts
from tombola.errors import ConfigError, ModelError, StorageError, one_line
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.pruning.surroundings import put_back
from tombola.pruning.wrapped import unwrapped
from tombola.runs.atomic import storage_errors, write_bytes
from tombola.training.classification import Classification
from tombola.training.task import ACCURACY, Measure, Task
from tombola.training.threads import one_thread

FLOAT32, INT8 = "float32", "int8"
ONE_POINT = 0.01
CALIBRATION, BATCH = 512, 64
"""Training examples on which the ranges of int8 activations are measured, and how many at a time."""
COMPARED = (64, 1, 3)
"""The batch sizes in which outputs are compared with torch's."""
TOLERANCE = 1e-4
"""The largest difference of a float32 file's outputs, relative to torch's largest where that is above 1."""


def export(
    model: nn.Module,
    path: Path | str,
    data: DataSet | Sequence[Any] | Task,
    *,
    masks: Masks | None = None,
    to: str | None = None,
    int8: bool = False,
    max_drop: float | None = None,
    on_step: Callable[[str], None] = lambda said: None,
) -> Exported:
    """Writes a network as an ONNX, pt2 or Keras file that takes batches of any size, and measures it.

    The file is read back and compared with torch on training examples, its zeros are counted against the masks, and it
    is scored on the test part; only then does it get its name, and an older file of that name goes. A float32 file
    computes what the model computes in evaluation. An int8 one is calibrated on training examples and may lose
    `max_drop`. Latency is that of this machine, on one thread, all taking turns.

    Args:
        model: A module that takes one tensor (n, ...) and gives one; it is not changed.
        path: What to write: `net.onnx`, `net.pt2`, `net.keras`.
        data: A DataSet with inputs as the model takes them; three parts (training, validation, test), each of them
            (inputs, targets), a torch data set or a loader; or a Task.
        masks: Removed weights are 0 in the file, whatever they are in the model.
        to: `onnx`, `pt2` or `keras`; by default what the name of `path` ends with.
        int8: Weights and activations in 8 bits (ONNX only).
        max_drop: The most that the score may lose, by default one point of accuracy, 0.01; in the unit of the task's
            measure, which has no default where that is not accuracy.
        on_step: Is told what is done next.

    Returns:
        Exported: scores, bytes, latency, zeros.

    Raises:
        ModelError: where the file would compute something else or lose too much, in one line with numbers, and for
            packages that are missing. No file is left.
        ConfigError: for what does not go together.
        StorageError: for a path that cannot be written.

    Examples:
        >>> import tempfile
        >>> from tombola import prune
        >>> from tombola.data import DataConfig, load_data
        >>> from tombola.models import ModelSpec, build
        >>> model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0))
        >>> digits = load_data(DataConfig(name="digits"), seed=0)
        >>> file = Path(tempfile.mkdtemp(), "net.pt2")
        >>> exported = export(model, file, digits, masks=prune(model, 0.9))
        >>> exported.zeros.zeros == exported.zeros.removed, exported.drop
        (True, 0.0)
    """
    path = Path(path)
    form = format_of(path, to)
    if int8 and not form.int8:
        raise ConfigError(f"int8 goes into ONNX files, not into {form.name}")
    _check_place(path)
    form.packages()
    task = _task(data)
    allowed = _allowed(task.compares, max_drop)
    network = copy_of(unwrapped(model)).cpu().eval().requires_grad_(False)
    masks = (Masks.full(network) if masks is None else masks.cpu()).of(network)
    masks.apply_(network)
    inputs = _inputs(task)
    with one_thread(), put_back(), torch.no_grad(), tempfile.TemporaryDirectory(prefix="tombola-export-") as folder:
        return _Exporting(path, network, masks, form, task, inputs, Path(folder), on_step).run(int8, allowed)


def _check_place(path: Path) -> None:
    """StorageError for a path that cannot be written, before minutes are spent on what goes there."""
    try:
        odd = "\0" in str(path) or (path.exists() and not path.is_file())
        reached = path.parent.is_dir() and os.access(path.parent, os.W_OK)
    except OSError as error:  # a name that is too long
        raise StorageError(f"cannot write {str(path)!r}: {one_line(error)}") from None
    if odd or not reached:
        reason = "it is no file" if odd else f"{path.parent} is no folder that can be written to"
        raise StorageError(f"cannot write {str(path)!r}: {reason}; name another one")


def _task(data: DataSet | Sequence[Any] | Task) -> Task:
    if isinstance(data, Task):
        return data
    if isinstance(data, DataSet):
        return Classification(data)
    train, validation, test = given_parts(data)
    classes = 1 + max(int(part.targets.max()) for part in (train, validation, test))
    return Classification(DataSet("data", train, validation, test, classes, checksum=""))


def _allowed(measure: Measure, max_drop: float | None) -> float:
    if max_drop is None and measure != ACCURACY:
        raise ConfigError(f"max_drop: say how much {measure.words} the file may lose, there is no default for it")
    allowed = ONE_POINT if max_drop is None else max_drop
    if not 0 <= allowed < math.inf or (measure == ACCURACY and allowed > 1):
        raise ConfigError(f"max_drop={allowed:g}: a loss from 0 on; of accuracy a fraction, 0.01 is one point")
    return allowed


def _inputs(task: Task) -> Tensor:
    """The first training inputs, as one tensor."""
    found = task.inputs(CALIBRATION, BATCH)
    if not all(isinstance(batch, Tensor) for batch in found) or sum(map(len, found)) < 2:
        raise ConfigError("a file takes one tensor: the inputs of this task are something else, or fewer than two")
    return torch.cat(found).cpu()


@dataclass(frozen=True)
class _Exporting:
    """One network on its way into one file; `folder` is for files that are not yet known to be right."""

    path: Path
    network: nn.Module
    masks: Masks
    form: Format
    task: Task
    inputs: Tensor
    folder: Path
    on_step: Callable[[str], None]

    def run(self, int8: bool, allowed: float) -> Exported:
        self.on_step(f"writing {self.path.name}")
        file = self.folder / f"{FLOAT32}{self.form.suffix}"
        example = self.inputs[:2]  # of one, torch would take it that there is always one
        self.form.write(file, self.network, example)
        found = found_in(self.form.weights(file, self.network, example), self._parameters())
        runs: list[Run] = [self.network, self.form.run(file)]
        if not (error := self._difference(runs[1])) <= TOLERANCE:  # NaN, too
            raise ModelError(
                f"{self.path}: not written, its outputs differ from torch's by {error:.1e} of the largest, where "
                f"{TOLERANCE:.0e} is the most"
            )
        self.on_step(f"scoring on {self.task.count('test'):,} test examples")
        running = [self._of_torch(), self._of_file(file, FLOAT32, runs[1], error)]
        if int8:
            self.on_step(f"calibrating int8 on {len(self.inputs):,} training examples")
            plain, file = file, self.folder / f"{INT8}{self.form.suffix}"
            write_int8(file, plain, self.inputs.split(BATCH))
            runs.append(self.form.run(file))
            running.append(self._of_file(file, INT8, runs[2], self._difference(runs[2])))
        keeps = {name: mask.keep.numpy() for name, mask in self.masks.items()}
        zeros = counted_zeros(self.form.weights(file, self.network, example), keeps, found)
        drop = self._drop(running, allowed)
        with storage_errors("read", file):
            content = file.read_bytes()
        write_bytes(self.path, content)
        self.on_step("measuring latency")
        timed = self._timed(runs)
        measured_too = tuple(replace(one, times=times) for one, times in zip(running, timed, strict=True))
        return Exported(self.path, self.task.compares, self.task.count("test"), measured_too, drop, zeros)

    def _parameters(self) -> dict[str, Any]:
        return {name: p.detach().numpy() for name, p in self.network.named_parameters() if name in self.masks}

    def _of_torch(self) -> Running:
        content = content_of(self.network)
        return Running(DENSE, FLOAT32, self._score(self.network), 0.0, len(content), deflated(content))

    def _of_file(self, file: Path, precision: str, run: Run, error: float) -> Running:
        content = file.read_bytes()
        return Running(
            self.form.engine, precision, self._score(EngineModule(run)), error, len(content), deflated(content)
        )

    def _score(self, network: nn.Module) -> float:
        return self.task.scores(network, "test").values[self.task.compares.name]

    def _drop(self, running: Sequence[Running], allowed: float) -> float:
        """What the last of them loses against the first; ModelError where that is too much."""
        measure, before, after = self.task.compares, running[0].score, running[-1].score
        drop = lost(measure, before, after)
        if not drop <= allowed:
            raise ModelError(
                f"{self.path}: not written, {scored(measure, after)} on {self.task.count('test'):,} test examples is "
                f"{amount(measure, drop)} worse than the model's {scored(measure, before)}, and "
                f"{amount(measure, allowed)} may be lost; allow more (max_drop), or keep float32"
            )
        return drop

    def _difference(self, run: Run) -> float:
        """The largest one, in batches of several sizes; infinite where outputs are of another shape."""
        largest = 0.0
        for size in COMPARED:
            batch = self.inputs[:size]
            wanted: Tensor = self.network(batch)
            try:
                given = run(batch)
            except Exception as error:  # an engine may refuse what it was made for
                raise ModelError(f"{self.path}: {self.form.engine} does not run it: {one_line(error)}") from None
            if given.shape != wanted.shape:
                return math.inf
            scale = max(1.0, float(wanted.abs().max()))
            if self.form.probabilities:
                wanted, given, scale = wanted.softmax(-1), given.exp(), 1.0
            difference = float((given - wanted).abs().max()) / scale
            largest = difference if math.isnan(difference) else max(largest, difference)
        return largest

    def _timed(self, runs: Sequence[Run]) -> list[tuple[Times, ...]]:
        """Of every way to run it, a time for each batch size."""
        found: list[list[Times]] = [[] for _ in runs]
        for size in BATCH_SIZES:
            batches = measured.batches_of(self.inputs, size)
            calls = {number: measured.in_turn(run, batches) for number, run in enumerate(runs)}
            quartiles, clock = measured.warmly_timed(calls, measured.SECONDS * len(calls))
            for number, times in enumerate(found):
                times.append(Times(size, quartiles.get(number), clock))
        return [tuple(times) for times in found]
