"""What was measured of sparse inference, and the page that is written from it. Nothing here measures."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tombola.reports.chart import Chart, Series
from tombola.reports.documents import bullet_block, document, fold_block, table_block
from tombola.reports.intervals import Estimate
from tombola.reports.tables import Table

TOLERANCE = 1e-5
"""Largest error of a float32 engine, relative to the largest output."""
LEAST_OF_DENSE = 0.95
"""The least that ours may reach of our own dense path, at every sparsity."""
OWN_DENSE = "torch eager"
KERNEL_SIZE = re.compile(r" by \d+$")
"""How many inputs a kernel takes at a time."""
TYPICAL = 0.9
"""The sparsity whose ticket the dense engines run, and whose kernels are shown where nothing is wanted of another."""
LAYER = re.compile(r"Convolution|FFN")
"""Cases that are one layer, or a block of two, and no network."""
NEAR = 0.003
"""Sparsities closer together than this are one: counts of weights are whole."""
INTERPOLATED_GAP = 0.25
"""Between sparsities further apart than this no crossover is interpolated."""


@dataclass(frozen=True)
class Timing:
    """One way's seconds per call, block by block, and its largest error, relative to the largest output.

    `failed` says why there are none. `sparsity` and `mask` (found, random, none) are those of a sparse network,
    `kernels` its layers and what they run on.
    """

    way: str
    fp32: bool = True
    sparsity: float | None = None
    mask: str | None = None
    error: float | None = None
    failed: str | None = None
    seconds: list[float] = field(default_factory=list)
    kernels: list[tuple[str, str]] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def exact(self) -> bool:
        return self.error is not None and self.error <= TOLERANCE


@dataclass(frozen=True)
class Measured:
    """A case at one batch size: what every way took in the same run. `zeros` is the share of zero inputs."""

    title: str
    batch: int
    zeros: float
    wanted: dict[float, float]
    dense: list[Timing]
    sparse: list[Timing]

    @property
    def best(self) -> Timing | None:
        """The fastest dense engine of those that gave torch's float32 outputs."""
        return fastest([timing for timing in self.dense if timing.fp32 and timing.exact])

    @property
    def best_bf16(self) -> Timing | None:
        return fastest([timing for timing in self.dense if not timing.fp32])

    @property
    def own_dense(self) -> Timing:
        return next(timing for timing in self.dense if timing.way == OWN_DENSE)

    def wanted_at(self, timing: Timing) -> float | None:
        """The speed-up that is wanted of the found mask of this sparsity."""
        near = [wanted for sparsity, wanted in self.wanted.items() if abs(sparsity - (timing.sparsity or 0)) < NEAR]
        return near[0] if near and timing.mask == "found" else None

    def speed_up(self, timing: Timing) -> float | None:
        """Over the best dense engine; None where one of both was not measured."""
        return self.best.median / timing.median if self.best and timing.seconds else None

    def random_beside(self, timing: Timing) -> Timing | None:
        """The random mask that keeps as many weights in each layer as a found one."""
        near = [t for t in self.sparse if t.mask == "random" and abs((t.sparsity or 0) - (timing.sparsity or 0)) < NEAR]
        return near[0] if near else None

    def curve(self) -> list[tuple[float, float]]:
        """Sparsity and speed-up over the best engine, ascending; of two masks the found one."""
        points: dict[float, float] = {}
        for timing in sorted(self.sparse, key=lambda t: t.mask != "random"):
            if (ratio := self.speed_up(timing)) is not None:
                points[round(timing.sparsity or 0, 3)] = ratio
        return sorted(points.items())


def fastest(timings: Sequence[Timing]) -> Timing | None:
    return min((timing for timing in timings if timing.seconds), key=lambda timing: timing.median, default=None)


def speed_chart(results: Sequence[Measured], batch: int) -> Chart:
    """The speed-up of whole networks over the best dense engine, by weights kept, at one batch size."""
    shown = [result for result in results if result.batch == batch and not LAYER.match(result.title)]
    series = [
        Series(
            result.title,
            [100 * (1 - sparsity) for sparsity, _ in result.curve()],
            [Estimate(ratio, None, None, None, 1) for _, ratio in result.curve()],
            style,
        )
        for style, result in enumerate(shown)
    ]
    title = f"Speed-up at batch {batch}"
    return Chart("Weights kept (%)", title, series, ("best dense engine", 1.0), over_density=True, factors=True)


def section(results: Sequence[Measured], machine: str) -> str:
    """What came out, then every number, folded by case."""
    parts = [
        "## Sparse inference",
        reached_line(results),
        *outcome(results),
        "One thread. All engines of a table took turns in short blocks within one run; microseconds per call are "
        "medians over the blocks, with quartiles. A block begins with warm caches, and is measured again when another "
        "process had the core meanwhile. Speed-up is the best dense float32 engine's median over ours, with the "
        "quartiles of the blocks' ratios. Errors are the largest, relative to the largest output of torch in float32; "
        f"a float32 engine above {TOLERANCE:g} does not count. Masks were found by `tombola imp` on MNIST and CIFAR-10 "
        "(configs speed-*; `uniform`: every layer has the sparsity of the whole), or drawn at random with as many "
        "weights in each layer. Inputs are test images, or what the trained layers before the measured part make of "
        "them; at batch 1 it is another image each call (single convolutions: two in turn, since what a layer reads "
        "inside a network was just written).",
    ]
    for result in results:
        tables = [dense_table(result).to_markdown(), sparse_table(result).to_markdown(), *kernels(result)]
        zeros = f"{result.zeros:.0%} of the inputs are 0."
        parts.append(fold_block(f"{result.title}, batch {result.batch}", zeros, *tables))
    return document(*parts, f"Made by `make results-speed`. {machine}.")


def wanted_of(results: Sequence[Measured]) -> list[tuple[Measured, Timing, float]]:
    """Every speed-up that was wanted, with what was measured of it."""
    return [(result, t, w) for result in results for t in result.sparse if (w := result.wanted_at(t)) is not None]


def reached_line(results: Sequence[Measured]) -> str:
    """How many of the wanted speed-ups were reached, and how large they are."""
    wanted = wanted_of(results)
    if not wanted:
        return "No speed-up was wanted."
    reached = sum(reaches(result, timing, least) for result, timing, least in wanted)
    ratios = [ratio for result, timing, _ in wanted if (ratio := result.speed_up(timing)) is not None]
    sizes = f" of {min(ratios):.2f} to {max(ratios):.2f} ×" if ratios else ""
    return f"Speed-ups{sizes} over the best dense float32 engine; {reached} of {len(wanted)} targets were reached."


def outcome(results: Sequence[Measured]) -> list[str]:
    """What was wanted and reached, the least of our dense path, and where dense engines win."""
    wanted = wanted_of(results)
    lines = [table_block(wanted_table(wanted), "Wanted and reached")] if wanted else []
    kept = [
        (r.own_dense.median / t.median, r, t) for r in results for t in r.sparse if t.seconds and r.own_dense.seconds
    ]
    if kept:
        ratio, result, timing = min(kept, key=lambda item: item[0])
        lines.append(
            f"Against our own dense path ({OWN_DENSE}) the least ratio is {ratio:.2f}, of {result.title} at batch "
            f"{result.batch} and sparsity {timing.sparsity:.1%} (wanted at least {LEAST_OF_DENSE}: "
            f"**{'kept' if ratio >= LEAST_OF_DENSE else 'NOT kept'}**)."
        )
    wrong = [f"{t.way} ({r.title}, batch {r.batch})" for r in results for t in r.sparse if t.seconds and not t.exact]
    if wrong:
        lines.append(f"**Outputs differ by more than {TOLERANCE:g}: {', '.join(wrong)}.**")
    crossings = bullet_block([f"{r.title}, batch {r.batch}: {crossover(r.curve())}." for r in results])
    return [*lines, fold_block("Where ours is faster than the best dense engine", crossings)]


def reaches(result: Measured, timing: Timing, wanted: float) -> bool:
    """Whether what was wanted was reached, with the outputs that torch gives."""
    ratio = result.speed_up(timing)
    return ratio is not None and timing.exact and ratio >= wanted


def wanted_table(wanted: Sequence[tuple[Measured, Timing, float]]) -> Table:
    """All that was wanted, in one place."""
    columns = ("Case", "Batch", "Sparsity", "Best dense engine, µs", "Ours, µs", "Speed-up", "Wanted", "Random mask")
    rows = []
    for result, timing, least in wanted:
        other, best = result.random_beside(timing), result.best
        said = "reached" if reaches(result, timing, least) else "**NOT reached**"
        rows.append(
            (
                result.title,
                str(result.batch),
                f"{timing.sparsity:.1%}",
                f"{best.way} {microseconds(best.median)}" if best else "",
                microseconds(timing.median) if timing.seconds else "",
                times(result, timing),
                f"at least {least:g}: {said}",
                times(result, other) if other else "",
            )
        )
    return Table(columns, rows)


def times(result: Measured, timing: Timing) -> str:
    """The speed-up, nothing where there is none."""
    ratio = result.speed_up(timing)
    return "" if ratio is None else f"{ratio:.2f}"


def kernels(result: Measured) -> list[str]:
    """What each layer runs on where something is wanted of the found mask, or else near 90 %."""
    found = [timing for timing in result.sparse if timing.mask == "found" and timing.kernels]
    shown = [timing for timing in found if result.wanted_at(timing) is not None]
    if not shown and found:
        shown = [min(found, key=lambda timing: abs((timing.sparsity or 0) - TYPICAL))]
    lines = [f"* Kernels chosen at {timing.sparsity:.1%}: {in_short(timing.kernels)}." for timing in shown]
    return ["\n".join(lines)] if lines else []


def in_short(chosen: Sequence[tuple[str, str]]) -> str:
    """Layers and their kernels; neighbours of one kernel together, sizes of blocks left out."""
    parts = []
    for kernel, group in itertools.groupby(chosen, key=lambda pair: KERNEL_SIZE.sub("", pair[1])):
        names = [name for name, _ in group]
        parts.append(f"{names[0]} to {names[-1]}: {kernel}" if len(names) > 1 else f"{names[0]}: {kernel}")
    return ", ".join(parts)


def crossover(curve: Sequence[tuple[float, float]]) -> str:
    """From which sparsity on ours is faster than the best dense engine; `curve` as `Measured.curve` gives it."""
    slower = [index for index, (_, ratio) in enumerate(curve) if ratio < 1]
    if not curve:
        return "no comparison"
    if not slower:
        return f"faster than the best dense engine at every sparsity measured, from {curve[0][0]:.0%} on"
    if slower[-1] == len(curve) - 1:
        return f"the best dense engine wins at {curve[-1][0]:.0%}, the highest sparsity measured"
    (low, _), (high, _) = around = curve[slower[-1]], curve[slower[-1] + 1]
    said = f"the best dense engine wins up to {low:.0%}, ours from {high:.0%} on"
    return said if high - low > INTERPOLATED_GAP else f"{said}; the crossover is at about {break_even(*around):.0%}"


def break_even(before: tuple[float, float], behind: tuple[float, float]) -> float:
    """The sparsity at which both are as fast, on a line between two points (sparsity, speed-up)."""
    (low, below), (high, above) = before, behind
    return low + (1 - below) / (above - below) * (high - low)


def dense_table(result: Measured) -> Table:
    best = result.best
    rows = []
    for timing in result.dense:
        name = f"**{timing.way}**" if timing is best else timing.way
        counted = ("best" if timing is best else "yes") if timing.fp32 and timing.exact else "no"
        if timing.failed:
            rows.append((name, f"did not run: {timing.failed}", "", "no"))
        else:
            rows.append((name, spread(timing), f"{timing.error:.1e}", counted))
    return Table(("Dense engine", "µs per call", "Largest error", "Counts as float32"), rows)


def sparse_table(result: Measured) -> Table:
    columns = ("Sparsity", "Mask", "µs per call", "Speed-up", "Wanted", "Against own dense", "Best bf16 / ours")
    ordered = sorted(result.sparse, key=lambda t: (round(t.sparsity or 0, 3), t.mask == "random"))
    return Table((*columns, "Largest error"), [sparse_row(result, timing) for timing in ordered])


def sparse_row(result: Measured, timing: Timing) -> list[str]:
    place = [f"{timing.sparsity:.1%}", timing.mask or ""]
    if timing.failed:
        return [*place, f"did not run: {timing.failed}", "", "", "", "", ""]
    wanted, best = result.wanted_at(timing), result.best
    said = ""
    if wanted is not None:
        said = f"at least {wanted:g}: {'reached' if reaches(result, timing, wanted) else '**NOT reached**'}"
    own = result.own_dense.median / timing.median
    bf16 = f"{result.best_bf16.median / timing.median:.2f}" if result.best_bf16 else ""
    return [
        *place,
        spread(timing),
        ratio(best, timing) if best else "",
        said,
        f"{own:.2f}" + ("" if own >= LEAST_OF_DENSE else f" **(below {LEAST_OF_DENSE})**"),
        bf16,
        f"{timing.error:.1e}" + ("" if timing.exact else " **(too large)**"),
    ]


def spread(timing: Timing) -> str:
    """`12.3 (12.1-12.9)` microseconds."""
    low, _, high = statistics.quantiles(timing.seconds, n=4)
    return f"{microseconds(timing.median)} ({microseconds(low)}-{microseconds(high)})"


def ratio(slow: Timing, fast: Timing) -> str:
    """The ratio of medians, and the quartiles of the ratios block by block, which the same disturbances meet."""
    low, _, high = statistics.quantiles([a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)], n=4)
    return f"{slow.median / fast.median:.2f} ({low:.2f}-{high:.2f})"


def microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f}" if seconds >= 1e-4 else f"{1e6 * seconds:.1f}"
