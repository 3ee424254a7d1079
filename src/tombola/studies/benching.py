"""What a person sees of a bench: latency, then sizes and outputs, engine by engine; and which one is the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tombola.compression.bench.benching import BUSY, Bench, Benched
from tombola.compression.engines.engine import FLOAT32
from tombola.compression.engines.rivals import ENGINES, SPARSE
from tombola.compression.measured import BATCH_SIZES
from tombola.errors import ConfigError
from tombola.registry import suggest
from tombola.reports.tables import MISSING, Table
from tombola.reports.terminal import drawn, say
from tombola.studies.base.numbers import kilo, mega
from tombola.studies.base.output import Numbers
from tombola.studies.base.speed import microseconds

UNITS = {
    "p50": "s",
    "p95": "s",
    "throughput": "examples/s",
    "bytes": "bytes",
    "deflated": "bytes",
    "memory": "bytes",
    "accuracy": "fraction",
}


def engines_without(skipped: Sequence[str]) -> list[Any]:
    """The engines but for those named; ConfigError for a name that none has."""
    names = [engine.name for engine in ENGINES]
    for name in skipped:
        if name not in names:
            raise ConfigError(f"--skip {name!r} is no engine{suggest(name, names)}")
    return [engine for engine in ENGINES if engine.name not in skipped]


def show_all(console: Console, benches: Sequence[Bench]) -> None:
    """One network after the other."""
    for bench in benches:
        show(console, bench)


def show(console: Console, bench: Bench) -> None:
    """Both tables, why some engines have no time, and the fastest."""
    say(console, f"{bench.name}: {bench.sparsity:.1%} sparse{_flops(bench)}", "bold")
    console.print(drawn(latency_table(bench), left=1))
    console.print(drawn(size_table(bench), left=1))
    for line in remarks(bench):
        say(console, line)
    say(console, f"\n{outcome(bench)}\n", "bold")


def _flops(bench: Bench) -> str:
    if bench.flops is None:
        return ""
    return f", {mega(bench.flops.dense)} MFLOPs an example, {mega(bench.flops.effective)} of kept weights"


def latency_table(bench: Bench) -> Table:
    """Microseconds of a call by batch size, and examples a second in the largest."""
    columns = [f"{size}: {what}" for size in BATCH_SIZES for what in ("p50 µs", "p95 µs")]
    rows = []
    for one in bench.engines:
        cells = []
        for size in BATCH_SIZES:
            time = one.at(size)
            cells += [MISSING, MISSING] if time is None else [_micro(time.p50), _micro(time.p95)]
        most = one.at(max(BATCH_SIZES))
        rows.append([_named(one), *cells, MISSING if most is None else f"{most.throughput:,.0f}"])
    return Table(("Engine", *columns, "Examples/s"), rows)


def size_table(bench: Bench) -> Table:
    """Bytes, memory, and how the outputs compare with torch's."""
    rows = [
        [
            _named(one),
            *(MISSING if size is None else kilo(size) for size in (one.bytes, one.deflated)),
            MISSING if one.memory is None else f"{one.memory / 1e6:.1f}",
            MISSING if one.score is None else f"{100 * one.score:.2f}",
            MISSING if one.error is None else f"{one.error:.0e}" if one.error else "0",
        ]
        for one in bench.engines
    ]
    return Table(("Engine", "kB", "kB, deflated", "Peak MB", "Accuracy, %", "Error"), rows)


def _named(one: Benched) -> str:
    """With its precision; the names of those of fewer bits have it in them."""
    return f"{one.engine}, {one.precision}" if one.precision == FLOAT32 else one.engine


def _micro(seconds: float) -> str:
    return microseconds([seconds] * 3)


def remarks(bench: Bench) -> list[str]:
    """Why what is missing is missing, and what the columns are."""
    threads = bench.engines[0].threads
    said = [f"{one.engine}: {one.reason}." for one in bench.engines if one.reason]
    alone = [one for one in bench.engines if one.memory_reason and one.memory_reason != one.reason]
    said += [f"Memory of {one.engine}: {one.memory_reason}." for one in alone]
    if bench.busy > BUSY:
        said.append(
            f"The machine was busy: {bench.busy:.0%} of the blocks were disturbed. Ratios hold better than times."
        )
    said.append(
        f"{threads} {'thread' if threads == 1 else 'threads'}; all took turns, in batches of 1 and of 64, caches warm. "
        "Accuracy and error (the largest, of the largest output) are on "
        f"{bench.examples:,} test examples, beside torch eager. Peak memory is "
        "what loading and running took beyond the libraries, each in a process of its own; torch.compile's has the "
        "compiler in it."
    )
    return said


def outcome(bench: Bench) -> str:
    """The fastest engine in each batch size, and how sparse kernels stand to the best dense one in float32."""
    return " ".join(_fastest(bench, size) for size in BATCH_SIZES)


def _fastest(bench: Bench, size: int) -> str:
    timed = [(time.p50, one) for one in bench.engines if (time := one.at(size)) is not None]
    if not timed:
        return f"Batch {size}: nothing could be timed."
    best, first = min(timed, key=lambda pair: pair[0])
    said = f"Batch {size}: the fastest is {first.engine} ({first.precision}), {_micro(best)} µs"
    dense = [pair for pair in timed if pair[1].precision == FLOAT32 and pair[1].engine != SPARSE.name]
    ours = [seconds for seconds, one in timed if one.engine == SPARSE.name]
    if dense and ours:
        seconds, rival = min(dense, key=lambda pair: pair[0])
        ratio = seconds / ours[0]
        said += f"; sparse kernels are {ratio:.2f} × as fast as {rival.engine}, the best dense one in float32"
    return f"{said}."


def rows_of(bench: Bench) -> list[dict[str, Any]]:
    """A row for every engine and batch size, for a program."""
    return [_row(bench, one, size) for one in bench.engines for size in BATCH_SIZES]


def _row(bench: Bench, one: Benched, size: int) -> dict[str, Any]:
    time = one.at(size)
    return {
        "model": bench.name,
        "engine": one.engine,
        "precision": one.precision,
        "threads": one.threads,
        "batch": size,
        "p50": None if time is None else time.p50,
        "p95": None if time is None else time.p95,
        "throughput": None if time is None else time.throughput,
        "error": one.error,
        "accuracy": one.score,
        "examples": bench.examples,
        "bytes": one.bytes,
        "deflated": one.deflated,
        "memory": one.memory,
        "memory_reason": one.memory_reason,
        "flops": one.flops,
        "wrong": one.wrong,
        "reason": one.reason,
        "disturbed": bench.busy,
    }


def numbers(benches: Sequence[Bench]) -> Numbers:
    return Numbers([row for bench in benches for row in rows_of(bench)], None, UNITS)
