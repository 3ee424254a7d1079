"""The charts of a lottery study, made from its rows and summaries alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tombola.reports import nature
from tombola.reports.chart import Chart, Mark, Series
from tombola.reports.intervals import Estimate, estimate
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.measures import ACCURACY, Scale
from tombola.studies.base.paired import paired_measure
from tombola.studies.base.speed import speeds_of
from tombola.studies.lottery.controls import controls, title_of
from tombola.studies.lottery.over_replicates import Summary, summaries_of_mode
from tombola.studies.lottery.verdict import Verdict
from tombola.training.task import Measure

TRAINING_CURVES = 5
PERCENT = (0.0, 100.0)
WON = ("winning", "matching")
"""Verdicts whose round is marked in curves and tables."""
COST_CAPTION = (
    "A forward pass's FLOPs fall with the weights; the measured time of a training iteration (evaluations included) "
    "does where sparse kernels train it, and does not on dense ones. Zeros alone save no time: what a ticket saves on "
    "sparse kernels is measured, below."
)


def accuracy_chart(summaries: Sequence[Summary]) -> Chart:
    """The measure on test at the end against weights remaining, with the dense network as baseline; one mode."""
    measure = summaries[0].measure
    return replace(_density_chart(summaries, "test", test_axis(measure)), within=within(measure))


def test_axis(measure: Measure) -> str:
    """`Test accuracy (%)`: the title of an axis with final values."""
    return f"Test {Scale(measure).axis}"


def within(measure: Measure) -> tuple[float, float] | None:
    """What values can be at all, where that is known."""
    return PERCENT if measure == ACCURACY else None


def marked(chart: Chart, summaries: Sequence[Summary], verdict: Verdict, column: str = "test") -> Chart:
    """The chart with a ring round the ticket that the verdict is of, where it won or matches."""
    found = [s for s in summaries if s.branch == "ticket" and s.round == verdict.round]
    if not found or verdict.outcome not in WON:
        return chart
    label = f"{verdict.outcome} round, {found[0].density:.1%} of the weights"
    return replace(chart, mark=Mark(label, 100 * found[0].density, getattr(found[0], column).mean))


def early_stop_chart(summaries: Sequence[Summary]) -> Chart:
    return _density_chart(summaries, "early_stop_iteration", "Early-stop iteration")


def modes_chart(summaries: Sequence[Summary], modes: Sequence[str]) -> Chart:
    """The tickets of every mode of rewinding on one figure, as in Renda et al. 2020, figure 1."""
    dense = next(s for s in summaries if s.branch == "dense")
    series = [
        _over_density(mode, [dense, *_tickets(summaries_of_mode(summaries, mode))], "test", style)
        for style, mode in enumerate(modes)
    ]
    baseline, title = ("dense", dense.test.mean), test_axis(dense.measure)
    return Chart(nature.DENSITY_AXIS, title, series, baseline, over_density=True, within=within(dense.measure))


def gaps_chart(rows: Sequence[Row], measure: Measure = ACCURACY) -> Chart:
    """How much better the ticket is than dense and each control, paired by replicate, with two-sided 95 % intervals;
    one mode."""
    series = []
    for style, other in enumerate(("dense", *controls)):
        points = [
            (100 * ticket[0]["density"], gap)
            for ticket in _by_round(rows)
            if (gap := paired_gap(ticket, rows, other, measure)) is not None
        ]
        if points:
            name = f"ticket − {title_of(other)}"
            series.append(Series(name, [x for x, _ in points], [gap for _, gap in points], style))
    unit = f" ({measure.unit})" if measure.unit else ""
    sign = "" if measure.higher_is_better else ", positive is better"
    title = f"Test {measure.words} gap{unit}{sign}"
    return Chart(nature.DENSITY_AXIS, title, series, ("no gap", 0.0), over_density=True)


def paired_gap(ticket: Sequence[Row], rows: Sequence[Row], other: str, measure: Measure = ACCURACY) -> Estimate | None:
    """The mean paired difference of a round's tickets to a branch, in the measure's unit, better as positive; None when
    it was not trained."""
    index = 0 if other == "dense" else ticket[0]["round"]
    theirs = rows_of(rows, kind="training", branch=other, round=index)
    return paired_measure(ticket, theirs, measure=measure).interval if theirs else None


def layer_chart(rows: Sequence[Row]) -> Chart:
    """Density of every layer by round, of the ticket."""
    layers: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["kind"] == "layer" and row["branch"] in ("dense", "ticket"):
            by_round = layers.setdefault(row["layer"].removesuffix(".weight"), {})
            by_round.setdefault(row["round"], []).append(100 * row["kept"] / row["total"])
    series = [
        Series(layer, [float(r) for r in sorted(by)], [estimate(by[r]) for r in sorted(by)], style)
        for style, (layer, by) in enumerate(layers.items())
    ]
    return Chart("Round", "Weights remaining in layer (%)", series)


def training_chart(rows: Sequence[Row], summaries: Sequence[Summary]) -> Chart:
    """The measure on validation during training, of the dense network and tickets spread over the densities."""
    series, measure = [], summaries[0].measure
    for style, summary in enumerate(chosen_rounds(summaries)):
        at: dict[int, list[float]] = {}
        for row in rows_of(rows, kind="evaluation", round=summary.round, branch=summary.branch):
            at.setdefault(row["iteration"], []).append(measure.scale * row[measure.name])
        iterations = sorted(at)
        estimates = [estimate(at[iteration]) for iteration in iterations]
        series.append(Series(f"{summary.density:.1%}", [float(i) for i in iterations], estimates, style))
    return Chart("Training iteration", f"Validation {Scale(measure).axis}", series, within=within(measure))


def cost_chart(summaries: Sequence[Summary]) -> Chart:
    """What a ticket costs against weights remaining: effective FLOPs, and measured time of its training."""
    tickets = [s for s in summaries if s.branch in ("dense", "ticket")]
    dense = tickets[0]

    def relative(name: str, of: Callable[[Summary], Estimate], unit: float, style: int) -> Series:
        values = [_scaled(of(s), 100 / unit) for s in tickets]
        return Series(name, [100 * s.density for s in tickets], values, style)

    series, flops = [], dense.flops_effective
    if flops is not None and flops.mean:  # a network may be made of what is counted as nothing
        title = "effective FLOPs of a forward pass"
        series.append(relative(title, lambda s: s.flops_effective or flops, flops.mean, 0))
    whole = dense.seconds_per_iteration
    if whole is not None and whole.mean:
        tickets = [s for s in tickets if s.seconds_per_iteration is not None]
        # The filter above leaves no None to be replaced.
        title = "measured time of a training iteration"
        series.append(relative(title, lambda s: s.seconds_per_iteration or whole, whole.mean, 1))
    return Chart(nature.DENSITY_AXIS, "Relative to dense (%)", series, over_density=True)


def speed_chart(summaries: Sequence[Summary], rows: Sequence[Row]) -> Chart | None:
    """How many times faster than dense a ticket is, measured, in every batch size; None where nothing was measured."""
    points: dict[int, list[tuple[float, float]]] = {}
    for summary in (s for s in summaries if s.branch in ("dense", "ticket")):
        for speed in speeds_of(rows_of(rows, kind="latency", round=summary.round)):
            if speed.ratio is not None:
                points.setdefault(speed.batch, []).append((100 * summary.density, speed.ratio))
    series = [
        Series(f"batch {batch}", [x for x, _ in found], [estimate([y]) for _, y in found], style)
        for style, (batch, found) in enumerate(points.items())
    ]
    dense = ("dense, torch eager", 1.0)
    title = "Measured speed-up (×)"
    return Chart(nature.DENSITY_AXIS, title, series, dense, over_density=True, factors=True) if series else None


def overlap_chart(rows: Sequence[Row]) -> Chart:
    """How many kept weights two replicates' tickets share, and how many they would by chance."""
    overlaps = rows_of(rows, kind="overlap")
    rounds = sorted({row["round"] for row in overlaps})
    groups = [rows_of(overlaps, round=index) for index in rounds]
    densities = [100 * group[0]["density"] for group in groups]

    def line(name: str, column: str, style: int) -> Series:
        # Pairs of replicates share replicates, so they give a mean and no interval.
        means = [100 * sum(row[column] for row in group) / len(group) for group in groups]
        counts = [len(group) for group in groups]
        return Series(
            name, densities, [Estimate(m, None, None, None, n) for m, n in zip(means, counts, strict=True)], style
        )

    series = [line("found", "shared", 0), line("by chance", "shared_by_chance", 1)]
    return Chart(nature.DENSITY_AXIS, "Kept weights shared (%)", series, over_density=True)


def chosen_rounds(summaries: Sequence[Summary]) -> list[Summary]:
    """The dense network and a few tickets, spread evenly over the rounds, the last one included."""
    tickets = [s for s in summaries if s.branch in ("dense", "ticket")]
    count = min(TRAINING_CURVES, len(tickets))
    return [tickets[round(i * (len(tickets) - 1) / max(1, count - 1))] for i in range(count)]


def _density_chart(summaries: Sequence[Summary], column: str, title: str) -> Chart:
    dense = next(s for s in summaries if s.branch == "dense")
    series = [
        _over_density(title_of(branch), [dense, *of_branch], column, style)
        for style, branch in enumerate(("ticket", *controls))
        if (of_branch := [s for s in summaries if s.branch == branch])
    ]
    return Chart(nature.DENSITY_AXIS, title, series, ("dense", getattr(dense, column).mean), over_density=True)


def _over_density(name: str, points: Sequence[Summary], column: str, style: int) -> Series:
    return Series(name, [100 * s.density for s in points], [getattr(s, column) for s in points], style)


def _tickets(summaries: Sequence[Summary]) -> list[Summary]:
    return [s for s in summaries if s.branch == "ticket"]


def _by_round(rows: Sequence[Row]) -> list[list[Row]]:
    tickets = rows_of(rows, kind="training", branch="ticket")
    return [rows_of(tickets, round=index) for index in sorted({row["round"] for row in tickets})]


def _scaled(value: Estimate, factor: float) -> Estimate:
    def times(x: float | None) -> float | None:
        return None if x is None else x * factor

    return Estimate(value.mean * factor, times(value.low), times(value.high), times(value.sd), value.n)
