"""What a person sees of an export: a table of torch and the file side by side, and what to know of it in sentences."""

from __future__ import annotations

from rich.console import Console

from tombola.compression.export.exported import Exported, amount, scored
from tombola.compression.export.formats import Format
from tombola.compression.measured import BATCH_SIZES
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say
from tombola.studies.base.numbers import kilo
from tombola.studies.base.output import Numbers
from tombola.studies.base.speed import microseconds
from tombola.training.task import ACCURACY

UNITS = {"bytes": "bytes", "deflated": "bytes", "seconds": "s"}


def default_name(name: str, form: Format, int8: bool) -> str:
    """What the file of a network is called that nobody named."""
    return f"{name}{'-int8' if int8 else ''}{form.suffix}"


def show(console: Console, exported: Exported) -> None:
    """The table, the remarks, and what was written in one sentence."""
    console.print(drawn(table(exported), left=1))
    for line in remarks(exported):
        say(console, line)
    say(console, f"\n{outcome(exported)}", "bold")


def table(exported: Exported) -> Table:
    """A line for torch, the float32 file and, where it was asked for, the int8 one."""
    measure = exported.measure
    rows = [
        [
            f"{one.engine}, {one.precision}",
            amount(measure, one.score).partition(" ")[0],
            kilo(one.bytes),
            kilo(one.deflated),
            *(microseconds(None if times.seconds is None else list(times.seconds)) for times in one.times),
        ]
        for one in exported.running
    ]
    score = "Accuracy, %" if measure == ACCURACY else measure.words
    times = [f"µs, batch {size}" for size in BATCH_SIZES]
    return Table(("Engine", score, "kB", "kB, deflated", *times), rows)


def numbers(exported: Exported) -> Numbers:
    """For a program: a row for every engine, seconds as (lower quartile, median, upper quartile)."""
    rows = [
        {
            "engine": one.engine,
            "precision": one.precision,
            exported.measure.name: one.score,
            "error": one.error,
            "bytes": one.bytes,
            "deflated": one.deflated,
            "threads": 1,
            "times": [{"batch": t.batch, "seconds": t.seconds, "reason": t.reason} for t in one.times],
        }
        for one in exported.running
    ]
    zeros = exported.zeros
    counts = {"weights": zeros.weights, "removed": zeros.removed, "zeros": zeros.zeros, "not_seen": zeros.unseen}
    return Numbers(rows, {"drop": exported.drop, "test_examples": exported.examples, **counts}, UNITS)


def outcome(exported: Exported) -> str:
    """What was written and what it lost, in a sentence."""
    file, drop = exported.running[-1], exported.drop
    than = f"{amount(exported.measure, abs(drop))} {'worse' if drop > 0 else 'better'} than" if drop else "as of"
    return (
        f"{exported.path}: {file.precision}, {scored(exported.measure, file.score)} on {exported.examples:,} test "
        f"examples, {than} the model."
    )


def remarks(exported: Exported) -> list[str]:
    """Zeros, slowness, and what was not measured, a sentence each."""
    zeros, said = exported.zeros, []
    rounded = zeros.zeros - zeros.removed
    if zeros.removed:
        also = f", and {rounded:,} kept ones are as well" if rounded else ""
        said.append(f"All {zeros.removed:,} removed of {zeros.weights:,} weights are 0 in the file{also}.")
    if zeros.unseen:
        said.append(f"Not counted, part of other tensors in the file: {', '.join(zeros.unseen)}.")
    said += [f"Batch {batch}: int8 is {ratio:.2f} × as slow as float32 here." for batch, ratio in _slower(exported)]
    reasons = dict.fromkeys(t.reason for one in exported.running for t in one.times if t.reason)
    said += [f"Latency: {reason}." for reason in reasons]
    said.append("Engines multiply by zeros as by any number: zeros make the deflated file small, and nothing faster.")
    return said


def _slower(exported: Exported) -> list[tuple[int, float]]:
    """The batch sizes in which int8 is slower than float32, and how many times."""
    if len(exported.running) < 3:
        return []
    plain, small = exported.running[1:3]
    pairs = [(a.batch, a.seconds, b.seconds) for a, b in zip(plain.times, small.times, strict=True)]
    ratios = [(batch, b[1] / a[1]) for batch, a, b in pairs if a is not None and b is not None]
    return [(batch, ratio) for batch, ratio in ratios if ratio > 1]
