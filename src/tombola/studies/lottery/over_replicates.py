"""The rows of a lottery by branch and round, summed up over replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tombola.reports.intervals import Estimate, estimate
from tombola.runs.columns import count
from tombola.runs.rows import Row
from tombola.studies.base.measures import ACCURACY
from tombola.studies.base.soundness import faults_of
from tombola.studies.lottery.controls import HOST, controls
from tombola.training.task import Measure


def rows_of_mode(rows: Iterable[Row], mode: str) -> list[Row]:
    """The rows of one mode of rewinding, and those of the dense network that it shares."""
    return [row for row in rows if row["rewind"] in (None, mode)]


@dataclass(frozen=True)
class Summary:
    """One branch of one round over its replicates; `rewind` is None for dense.

    `test`, `validation` and `early_stop_test` are of the `measure` that compares, as it is shown: accuracies and F1 in
    percent. F1 and FLOPs are None for tasks without. `seconds_per_iteration` is that of training, evaluations included;
    None where another mode's training was taken over. `engine` is what trained it, `dense` or `sparse`. `fault` says
    which of its trainings learned nothing or diverged, None where none did (see `studies.base.soundness`). Dead units
    are those of tickets; None of other networks, and where they are not known.
    """

    rewind: str | None
    branch: str
    round: int
    density: float
    kept: Estimate
    total: int
    test: Estimate
    validation: Estimate
    early_stop_test: Estimate
    f1: Estimate | None
    early_stop_iteration: Estimate
    iterations_trained: Estimate
    flops_dense: int | None
    flops_effective: Estimate | None
    seconds: Estimate
    seconds_per_iteration: Estimate | None
    engine: str
    fault: str | None
    measure: Measure = ACCURACY
    units_dead: Estimate | None = None
    flops_without_dead: Estimate | None = None

    @property
    def entry(self) -> dict[str, Any]:
        """For a program: `test_accuracy`, or whatever the measure is."""
        compared = ("test", "validation", "early_stop_test")
        fields = {key: value for key, value in asdict(self).items() if key != "measure"}
        return {f"{key}_{self.measure.name}" if key in compared else key: value for key, value in fields.items()}


def units_of(measure: Measure) -> dict[str, str]:
    """What the numbers of `Summary.entry` and of a verdict are in."""
    whole = "percent" if measure == ACCURACY else measure.unit
    return {
        **{f"{part}_{measure.name}": whole for part in ("test", "validation", "early_stop_test")},
        **dict.fromkeys(("versus", "tolerance", "detectable"), measure.unit),
        "f1": "percent",
        "density": "fraction",
        "seconds": "s",
        "seconds_per_iteration": "s",
    }


def summarise(rows: Sequence[Row], measure: Measure = ACCURACY) -> list[Summary]:
    """Summaries by mode and round, and within a round dense or ticket first, then the controls."""
    groups: dict[tuple[str | None, int, str], list[Row]] = {}
    for row in sorted((r for r in rows if r["kind"] == "training"), key=lambda r: r["replicate"]):
        groups.setdefault((row["rewind"], row["round"], row["branch"]), []).append(row)
    order = ["dense", HOST, "ticket", *controls]
    modes = list(dict.fromkeys(mode for mode, _, _ in groups))
    ordered = sorted(groups, key=lambda k: (k[0] is not None, modes.index(k[0]), k[1], order.index(k[2])))
    return [_summary(groups[key], *key, measure) for key in ordered]


def summaries_of_mode(summaries: Iterable[Summary], mode: str) -> list[Summary]:
    return [summary for summary in summaries if summary.rewind in (None, mode)]


def _summary(group: list[Row], mode: str | None, round_index: int, branch: str, measure: Measure) -> Summary:
    def over(column: str, scale: float = 1.0) -> Estimate:
        return estimate([row[column] * scale for row in group])

    def if_there(column: str, scale: float = 1.0) -> Estimate | None:
        return None if any(row.get(column) is None for row in group) else over(column, scale)

    def counted(column: str) -> Estimate | None:
        """Of a column that tables of earlier versions lack, and so no schema asks for."""
        return over(column) if all(count(row.get(column)) for row in group) else None

    return Summary(
        rewind=mode,
        branch=branch,
        round=round_index,
        density=group[0]["density"],
        kept=over("kept"),
        total=group[0]["total"],
        test=over(f"test_{measure.name}", measure.scale),
        validation=over(f"validation_{measure.name}", measure.scale),
        early_stop_test=over(f"early_stop_test_{measure.name}", measure.scale),
        f1=if_there("test_f1", 100),
        early_stop_iteration=over("early_stop_iteration"),
        iterations_trained=over("iterations_trained"),
        flops_dense=group[0]["flops_dense"],
        flops_effective=if_there("flops_effective"),
        seconds=over("seconds"),
        seconds_per_iteration=_per_iteration(group),
        engine=" and ".join(sorted({row["engine"] for row in group})),
        fault=faults_of(group, measure=measure),
        measure=measure,
        units_dead=counted("units_dead"),
        flops_without_dead=counted("flops_without_dead"),
    )


def _per_iteration(group: Sequence[Row]) -> Estimate | None:
    costs = [row["seconds"] / row["iterations_trained"] for row in group if row["iterations_trained"]]
    return estimate(costs) if costs else None
