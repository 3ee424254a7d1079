"""What every round came to, dense, tickets and controls, and what the run checked of itself."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.tables import Table, plus_minus
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.checks import failed_checks
from tombola.studies.base.measures import ACCURACY, Scale
from tombola.studies.lottery.metrics import CHECKS, UNIT
from tombola.studies.lottery.over_replicates import Summary
from tombola.studies.lottery.search_costs import COST_COLUMNS, cost_cells


def table_note(summaries: Sequence[Summary]) -> str:
    """What the columns of `results_table` are."""
    measure, first = summaries[0].measure, summaries[0]
    if measure == ACCURACY:
        shown = "Test accuracy in percent" if first.f1 is None else "Test accuracy and macro-F1 in percent"
    else:
        shown = f"Test {Scale(measure).axis}{'' if measure.higher_is_better else ', the less the better,'}"
    flops = "" if first.flops_effective is None else "; effective FLOPs of one example, in thousands"
    return (
        f"{shown} at the end of training, ± half of the 95 % confidence interval; the iteration of minimum validation "
        f"loss (early stop) and the test {measure.words} there; weights kept{flops}."
    )


def results_table(summaries: Sequence[Summary], costs: bool = True) -> Table:
    """Density, accuracy ± CI, F1, early stop, kept weights and FLOPs, for ticket and controls; what training cost.

    `table_note` and `COST_NOTE` say what the columns are; the titles are short, and without `costs` the table fits a
    terminal. With several modes of rewinding a ticket's name says its mode. Tasks without F1 or FLOPs have no such
    column.
    """
    several = len({s.rewind for s in summaries} - {None}) > 1
    scale, first = scale_of(summaries), summaries[0]
    f1, flops = first.f1 is not None, first.flops_effective is not None
    name = scale.measure.words
    columns = ["Density", "Network", f"Test {name}", *(["F1"] if f1 else []), "Early stop"]
    columns += [f"{name[:1].upper()}{name[1:]} there", "Weights", *(["kFLOPs"] if flops else [])]
    columns += COST_COLUMNS if costs else ()
    rows = [
        (
            f"{s.density:.1%}",
            _named(s, several),
            scale.shown(s.test),
            *([] if s.f1 is None else [f"{s.f1.mean:.2f}"]),
            plus_minus(s.early_stop_iteration, 0),
            scale.shown(s.early_stop_test),
            f"{round(s.kept.mean):,}",
            *([] if s.flops_effective is None else [f"{s.flops_effective.mean / 1000:,.1f}"]),
            *(cost if costs else ()),
        )
        for s, cost in zip(summaries, cost_cells(summaries), strict=True)
    ]
    return Table(columns, rows)


def scale_of(summaries: Sequence[Summary]) -> Scale:
    """How the values of summaries are written: with as many places as give their spread two figures."""
    measure = summaries[0].measure
    spreads = [s.test.half_width or abs(s.test.mean) / 100 for s in summaries]
    return Scale.of(measure, 10 * (min((width for width in spreads if width), default=0.1)))


def _named(summary: Summary, several: bool) -> str:
    """`ticket (lr), diverged`: the branch, of several modes of rewinding which one, and what is wrong with it."""
    name = f"{summary.branch} ({summary.rewind})" if several and summary.rewind else summary.branch
    return name if summary.fault is None else f"{name}, {summary.fault}"


def early_stop_note(rows: Sequence[Row]) -> str:
    """How many early-stop iterations are cut off by the end of training, and so are too small."""
    trainings = rows_of(rows, kind="training")
    late = sum(row["early_stop_iteration"] == row["iterations"] for row in trainings)
    if not late:
        return "Every training passed its minimum of validation loss before its end."
    return (
        f"In {late} of {len(trainings)} trainings the validation loss was still falling at the end: their true early "
        "stop is later than shown, and a longer training would tell."
    )


def check_lines(rows: Sequence[Row]) -> list[str]:
    """What the run asserted of itself, with counts; a failed check is named."""
    trainings = rows_of(rows, kind="training")
    lines = []
    for check, meaning in CHECKS.items():
        asked = [row[check] for row in trainings if row[check] is not None]
        lines.append(f"{meaning}: {sum(asked)} of {len(asked)}")
    return lines + emptied_lines(rows) + failed_checks(trainings, UNIT, CHECKS)


def emptied_lines(rows: Sequence[Row]) -> list[str]:
    """From which round on a ticket's layer is left nearly empty, in some replicate; often nothing."""
    first: dict[str, int] = {}
    for row in rows_of(rows, kind="layer", branch="ticket"):
        if row.get("nearly_empty"):
            name = row["layer"].removesuffix(".weight")
            first[name] = min(row["round"], first.get(name, row["round"]))
    if not first:
        return []
    said = ", ".join(f"{name} from round {number}" for name, number in first.items())
    return [
        f"layers left nearly empty, of which next to nothing can pass: {said} (the distribution erk leaves them more)"
    ]
