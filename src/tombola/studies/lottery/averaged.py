"""Averages of weights (`ema` in the recipe) beside the raw ones, which every verdict is about. From the rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.chart import Chart, Series
from tombola.reports.intervals import Estimate, Paired, estimate
from tombola.reports.nature import DENSITY_AXIS
from tombola.reports.tables import MISSING, Table
from tombola.runs.rows import Row, rows_of
from tombola.studies.lottery.curves import test_axis, within
from tombola.studies.lottery.over_replicates import Summary
from tombola.studies.lottery.round_results import scale_of

NOTE = (
    "The final value on test of raw weights and of their exponential average (`ema` in the recipe), ± half of the 95 % "
    "confidence interval; the average's minus the raw one's [95 % confidence interval], paired by replicate and each "
    "by itself. Verdicts are about raw weights."
)


def has_averages(rows: Sequence[Row]) -> bool:
    """Whether the run's recipe averages weights."""
    return any("averaged_test_loss" in row for row in rows_of(rows, kind="training"))


def averaged_chart(rows: Sequence[Row], summaries: Sequence[Summary]) -> Chart:
    """Dense network and tickets with raw and averaged weights, against weights remaining; one mode of rewinding."""
    tickets, measure = [s for s in summaries if s.branch in ("dense", "ticket")], summaries[0].measure
    raw = Series("raw weights", [100 * s.density for s in tickets], [s.test for s in tickets], 0)
    found = [(100 * s.density, mean) for s in tickets if (mean := _averaged(rows, s)) is not None]
    averaged = Series("averaged weights", [x for x, _ in found], [y for _, y in found], 1)
    return Chart(DENSITY_AXIS, test_axis(measure), [raw, averaged], over_density=True, within=within(measure))


def averaged_table(rows: Sequence[Row], summaries: Sequence[Summary]) -> Table:
    """A line for every network of every round."""
    scale, body = scale_of(summaries), []
    for summary in summaries:
        averaged = _averaged(rows, summary)
        gap = Paired.of(_by_replicate(rows, summary, "averaged_"), _by_replicate(rows, summary))
        cells = [
            MISSING if averaged is None else scale.shown(averaged),
            MISSING if gap is None else _gap(gap, summaries),
        ]
        body.append((f"{summary.density:.1%}", summary.branch, scale.shown(summary.test), *cells))
    return Table(("Density", "Network", "Raw weights", "Averaged weights", "Difference"), body)


def _gap(gap: Paired, summaries: Sequence[Summary]) -> str:
    """`+0.34 [+0.14, +0.54]`, with a real minus."""
    places, value = scale_of(summaries).places, gap.interval
    ends = "" if value.low is None else f" [{value.low:+.{places}f}, {value.high:+.{places}f}]"
    return f"{value.mean:+.{places}f}{ends}".replace("-", "−")


def _averaged(rows: Sequence[Row], summary: Summary) -> Estimate | None:
    values = _by_replicate(rows, summary, "averaged_")
    return estimate([*values.values()]) if values else None


def _by_replicate(rows: Sequence[Row], summary: Summary, which: str = "") -> dict[int, float]:
    """What networks are compared by, as it is shown; replicates without a value are left out."""
    measure = summary.measure
    where = {"round": summary.round, "branch": summary.branch, "rewind": summary.rewind}
    column = f"{which}test_{measure.name}"
    found = rows_of(rows, kind="training", **where)
    return {row["replicate"]: measure.scale * row[column] for row in found if row.get(column) is not None}
