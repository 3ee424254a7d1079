"""`bench`: a network on every engine: outputs compared, then latency in turns; memory in a process for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tombola.compression.bench.peak import peak_memory
from tombola.compression.cost import Flops, count_flops
from tombola.compression.engines.by_torch import in_own_cache
from tombola.compression.engines.engine import Call, Engine, Job, Network, largest_error, network_of
from tombola.compression.engines.rivals import COMPILED, EAGER, ENGINES, SPARSE
from tombola.compression.export.exported import content_of, deflated
from tombola.compression.measured import BATCH_SIZES, batches_of, in_turn
from tombola.compression.onnx_packages import required
from tombola.compression.turns import Taken, warm_turns
from tombola.data import DataSet
from tombola.errors import one_line
from tombola.pruning import Masks
from tombola.pruning.surroundings import put_back

SECONDS = 6.0
"""How long the engines take turns in one batch size, altogether."""
LEAST_BLOCKS = 5
CALIBRATION = 512
"""Training examples: int8 is calibrated and kernels are chosen on them."""
SCORED = 512
"""Test examples on which outputs are compared and classes scored, as batches of the largest size."""
SINGLE = 64
"""Batches of smaller sizes that take turns."""
TOLERANCE = 1e-4
"""The largest error of a float32 engine, relative to the largest output."""
BUSY = 0.2
"""The fraction of disturbed blocks from which it is said that the machine was busy."""


@dataclass(frozen=True)
class Time:
    """Seconds per call in one batch size: the median, and what 95 of 100 calls stay within."""

    batch: int
    p50: float
    p95: float

    @property
    def throughput(self) -> float:
        """Examples a second."""
        return self.batch / self.p50


@dataclass(frozen=True)
class Benched:
    """A network on one engine. What it was not measured for is None, and `reason` says why there is no time.

    `error` is the largest difference to torch's outputs, relative to the largest; `score` the accuracy on the test
    examples that were compared. One that is `wrong` in these was not timed. `memory` is what loading and running takes
    beyond the libraries at the largest batch. `flops` are those of one example.
    """

    engine: str
    precision: str
    threads: int
    times: tuple[Time, ...] = ()
    error: float | None = None
    score: float | None = None
    bytes: int | None = None
    deflated: int | None = None
    memory: int | None = None
    flops: int | None = None
    wrong: bool = False
    reason: str | None = None
    memory_reason: str | None = None

    def at(self, batch: int) -> Time | None:
        """The time in a batch size."""
        return next((time for time in self.times if time.batch == batch), None)


@dataclass(frozen=True)
class Bench:
    """A network on all engines, in their order, and whether the machine was too busy to believe its latencies."""

    name: str
    examples: int
    sparsity: float
    flops: Flops | None
    engines: tuple[Benched, ...]
    busy: float


@dataclass
class _Way:
    """An engine on its way to a row."""

    engine: Engine
    known: dict[str, object] = field(default_factory=dict)
    calls: dict[int, list[Call]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return "reason" in self.known


def bench(
    name: str,
    model: nn.Module,
    masks: Masks,
    data: DataSet,
    *,
    engines: Sequence[Engine] = ENGINES,
    threads: int = 1,
    max_drop: float = 0.01,
    on_step: Callable[[str, int, int], None] = lambda said, done, total: None,
) -> Bench:
    """Measures a classifier on `engines`, in batches of 1 and of 64 test examples.

    Args:
        name: What it is called.
        model: Takes `data`'s inputs and gives logits; it is not changed.
        masks: Removed weights, which are 0 in `model`.
        data: Training examples calibrate, test examples are computed.
        engines: Which; torch eager is always among them, outputs are compared with its.
        threads: How many each may use.
        max_drop: The accuracy that an engine of lower precision may lose before it is called wrong.
        on_step: Told what is done, and how many steps of how many are.

    Returns:
        Bench: a row for every engine. One that is not installed, not possible here or wrong has a reason.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with (
            put_back(),
            in_own_cache(),
            network_of(model.eval(), masks, data.train.inputs[:CALIBRATION], BATCH_SIZES) as network,
        ):
            return _Bench(name, network, data, threads, max_drop, on_step).run(engines)
    finally:
        torch.set_num_threads(before)


class _Bench:
    def __init__(
        self,
        name: str,
        network: Network,
        data: DataSet,
        threads: int,
        max_drop: float,
        on_step: Callable[[str, int, int], None],
    ) -> None:
        self.name, self.network, self.threads, self.max_drop, self.on_step = name, network, threads, max_drop, on_step
        inputs, largest = data.test.inputs[:SCORED], max(BATCH_SIZES)
        self.batches = {size: batches_of(inputs if size == largest else inputs[:SINGLE], size) for size in BATCH_SIZES}
        self.largest = largest
        self.targets = data.test.targets[: largest * len(self.batches[largest])]
        with torch.inference_mode():
            self.expected = {size: [network.model(b) for b in batches] for size, batches in self.batches.items()}
        self.score = self._accuracy(self.expected[largest])

    def run(self, engines: Sequence[Engine]) -> Bench:
        ways = [_Way(engine) for engine in dict.fromkeys((EAGER, *engines))]
        steps = len(ways) + len(BATCH_SIZES)
        for number, way in enumerate(ways):
            self.on_step(f"preparing {way.engine.name}", number, steps)
            try:
                self._prepare(way)
            except Exception as error:  # of engines that are not ours, of any kind
                way.known["reason"] = one_line(error)
        times: dict[str, list[Time]] = {way.engine.name: [] for way in ways}
        taken: list[Taken] = []
        for number, size in enumerate(BATCH_SIZES):
            self.on_step(f"taking turns, batch {size}", len(ways) + number, steps)
            for name, one in self._turns(ways, size).items():
                times[name].append(_time(size, one.seconds))
                taken.append(one)
        self.on_step("done", steps, steps)
        flops = self._flops()
        rows = tuple(self._row(way, tuple(times[way.engine.name]), flops) for way in ways)
        busy = sum(one.disturbed for one in taken) / max(1, sum(one.blocks for one in taken))
        return Bench(self.name, len(self.targets), self.network.masks.sparsity, flops, rows, busy)

    def _prepare(self, way: _Way) -> None:
        """Sizes, memory, calls and what they compute; raises whatever an engine raises that cannot."""
        engine, network = way.engine, self.network
        if engine.package is not None:
            required(engine.package)
        content = content_of(network.model) if engine.file is None else engine.file(network).read_bytes()
        way.known |= {"bytes": len(content), "deflated": deflated(content)}
        if engine is COMPILED:  # in a process that can be ended it is seen whether compiling comes to an end
            self._memory(way)
        with torch.inference_mode():
            for size, batches in self.batches.items():
                way.calls[size] = engine.prepare(Job(network, batches, self.threads))
            found = {size: [call.result() for call in calls] for size, calls in way.calls.items()}
        error = max(largest_error(found[size], self.expected[size]) for size in found)
        score = self._accuracy(found[self.largest])
        way.known |= {"error": error, "score": score}
        if engine is not COMPILED:
            self._memory(way)
        lost = self.score - score
        if engine.exact and not error <= TOLERANCE:
            way.known |= {"wrong": True, "reason": f"wrong: outputs differ by {error:.1e}, more than {TOLERANCE:.0e}"}
        elif not (lost <= self.max_drop and error < float("inf")):
            way.known |= {"wrong": True, "reason": f"wrong: loses {100 * lost:.2f} points of accuracy"}

    def _memory(self, way: _Way) -> None:
        try:
            batch = self.batches[self.largest][0]
            way.known["memory"] = peak_memory(way.engine, self.network, batch, self.threads)
        except Exception as error:
            way.known["memory_reason"] = one_line(error)
            if way.engine is COMPILED:
                raise

    def _turns(self, ways: Sequence[_Way], size: int) -> dict[str, Taken]:
        calls = {way.engine.name: in_turn(_run, way.calls[size]) for way in ways if not way.failed}
        with torch.inference_mode():
            return warm_turns(calls, SECONDS, LEAST_BLOCKS, each_call=True)

    def _accuracy(self, outputs: Sequence[Tensor]) -> float:
        return float((torch.cat(list(outputs)).argmax(1) == self.targets).double().mean())

    def _flops(self) -> Flops | None:
        try:
            return count_flops(self.network.model, tuple(self.network.examples.shape[1:]), self.network.masks)
        except Exception:  # somebody's own forward pass may ask for values, which the counter's copy lacks
            return None

    def _row(self, way: _Way, times: tuple[Time, ...], flops: Flops | None) -> Benched:
        own = None if flops is None else flops.effective if way.engine is SPARSE else flops.dense
        return Benched(
            way.engine.name,
            way.engine.precision,
            self.threads,
            times=times,
            flops=own,
            **way.known,  # type: ignore[arg-type]
        )


def _run(call: Call) -> object:
    return call.run()


def _time(batch: int, seconds: Sequence[float]) -> Time:
    return Time(batch, statistics.median(seconds), statistics.quantiles(seconds, n=20, method="inclusive")[-1])
