"""`bench`: a network on every engine: outputs compared, then latency in turns; memory in a process for each."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from tombola.errors import ModelError, one_line, one_line_by_name
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
    """An engine on its way to a row, of which `known` are the columns so far."""

    engine: Engine
    known: dict[str, Any] = field(default_factory=dict)
    times: list[Time] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """Why it is not timed."""
        reason: str | None = self.known.get("reason")
        return reason

    def wrong(self, how: str) -> None:
        self.known |= {"wrong": True, "reason": f"wrong: {how}"}


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

    Raises:
        ModelError: where torch itself does not run the model.
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
        self.examples = len(inputs[: largest * len(self.batches[largest])])
        self.targets = torch.cat(batches_of(data.test.targets[:SCORED], largest))
        try:
            with torch.inference_mode():
                self.expected = {size: [network.model(b) for b in batches] for size, batches in self.batches.items()}
            self.score = self._accuracy(self.expected[largest])
        except Exception as error:  # of somebody's own forward pass
            raise ModelError(f"{name}: gives no logits of test examples: {one_line_by_name(error)}") from None

    def run(self, engines: Sequence[Engine]) -> Bench:
        ways = [_Way(engine) for engine in dict.fromkeys((EAGER, *engines))]
        steps = 2 * len(ways) + len(BATCH_SIZES) * (len(ways) + 1)
        done = itertools.count()

        def all_of(what: str, do: Callable[[_Way], None]) -> None:
            for way in ways:
                self.on_step(f"{what} {way.engine.name}", next(done), steps)
                if way.reason is None:
                    try:
                        do(way)
                    except Exception as error:  # of engines that are not ours, of any kind
                        way.known["reason"] = one_line(error)

        all_of("files of", self._begin)
        taken: list[Taken] = []
        for size in BATCH_SIZES:
            calls: dict[str, Callable[[], object]] = {}
            all_of(f"batch {size}:", lambda way, size=size, calls=calls: self._prepare(way, size, calls))  # type: ignore[misc]
            self.on_step(f"batch {size}: taking turns", next(done), steps)
            with torch.inference_mode():
                turns = warm_turns(calls, SECONDS, LEAST_BLOCKS, each_call=True)
            taken += turns.values()
            for way in ways:
                if way.engine.name in turns:
                    way.times.append(_time(size, turns[way.engine.name].seconds))
        all_of("memory of", self._memory)
        busy = sum(one.disturbed for one in taken) / max(1, sum(one.blocks for one in taken))
        flops = self._flops()
        rows = tuple(self._row(way, flops) for way in ways)
        return Bench(self.name, self.examples, self.network.masks.sparsity, flops, rows, busy)

    def _begin(self, way: _Way) -> None:
        """What the engine loads; raises whatever an engine raises that cannot, as the next two do."""
        engine, network = way.engine, self.network
        if engine.package is not None:
            required(engine.package)
        content = content_of(network.model) if engine.file is None else engine.file(network).read_bytes()
        way.known |= {"bytes": len(content), "deflated": deflated(content)}
        if engine is COMPILED:  # in a process that can be ended it is seen whether compiling comes to an end
            self._memory(way)
            if (reason := way.known.get("memory_reason")) is not None:
                way.known["reason"] = reason

    def _prepare(self, way: _Way, size: int, calls: dict[str, Callable[[], object]]) -> None:
        """Compares an engine's outputs in one batch size, and lets it take turns where they are right.

        One size after the other: what torch compiles without guards for one is taken for the next.
        """
        engine = way.engine
        with torch.inference_mode():
            prepared = engine.prepare(Job(self.network, self.batches[size], self.threads))
            found = [call.result() for call in prepared]
        error = largest_error(found, self.expected[size])
        way.known["error"] = max(error, way.known.get("error", 0.0))
        if engine.exact and not error <= TOLERANCE:
            way.wrong(f"outputs differ by {error:.1e}, more than {TOLERANCE:.0e}")
        elif not error < math.inf:
            way.wrong("outputs are no finite numbers")
        if size == self.largest:
            way.known["score"] = self._accuracy(found)
            lost = self.score - way.known["score"]
            if not engine.exact and lost > self.max_drop:
                way.wrong(f"loses {100 * lost:.2f} points of accuracy")
        if way.reason is None:
            calls[engine.name] = in_turn(_run, prepared)

    def _memory(self, way: _Way) -> None:
        if "memory" in way.known:
            return
        try:
            batch = self.batches[self.largest][0]
            way.known["memory"] = peak_memory(way.engine, self.network, batch, self.threads)
        except Exception as error:  # of an engine's, or the system's
            way.known["memory_reason"] = one_line(error)

    def _accuracy(self, outputs: Sequence[Tensor]) -> float:
        return float((torch.cat(list(outputs)).argmax(1) == self.targets).double().mean())

    def _flops(self) -> Flops | None:
        try:
            return count_flops(self.network.model, tuple(self.network.examples.shape[1:]), self.network.masks)
        except Exception:  # somebody's own forward pass may ask for values, which the counter's copy lacks
            return None

    def _row(self, way: _Way, flops: Flops | None) -> Benched:
        own = None if flops is None else flops.effective if way.engine is SPARSE else flops.dense
        times = tuple(way.times) if way.reason is None else ()  # one that is wrong in a batch size has none in another
        return Benched(way.engine.name, way.engine.precision, self.threads, times=times, flops=own, **way.known)


def _run(call: Call) -> object:
    return call.run()


def _time(batch: int, seconds: Sequence[float]) -> Time:
    return Time(batch, statistics.median(seconds), statistics.quantiles(seconds, n=20, method="inclusive")[-1])
