"""The tables of a lottery study: results, costs, and what the run checked of itself."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.tables import Table, plus_minus
from tombola.runs.rows import Row, rows_of
from tombola.studies.lottery.metrics import CHECKS, Summary, failed_checks
from tombola.studies.lottery.verdict import POWER_DIFFERENCE, Verdict

TABLE_NOTE = (
    "Test accuracy and macro-F1 in percent at the end of training, ± half of the 95 % confidence interval; the "
    "iteration of minimum validation loss (early stop) and the test accuracy there; weights kept; effective "
    "FLOPs of one example, in thousands."
)


def results_table(summaries: Sequence[Summary]) -> Table:
    """Density, accuracy ± CI, F1, early stop, kept weights and FLOPs, for ticket and controls.

    `TABLE_NOTE` says what the columns are; the titles are short so that the table fits a terminal. With
    several modes of rewinding a ticket's name says its mode.
    """
    several = len({s.rewind for s in summaries} - {None}) > 1
    columns = ("Density", "Network", "Test accuracy", "F1", "Early stop", "Accuracy there", "Weights", "kFLOPs")
    rows = [
        (
            f"{s.density:.1%}",
            f"{s.branch} ({s.rewind})" if several and s.rewind else s.branch,
            plus_minus(s.test_accuracy),
            f"{s.f1.mean:.2f}",
            plus_minus(s.early_stop_iteration, 0),
            plus_minus(s.early_stop_test_accuracy),
            f"{round(s.kept.mean):,}",
            f"{s.flops_effective.mean / 1000:,.1f}",
        )
        for s in summaries
    ]
    return Table(columns, rows)


def cost_table(summaries: Sequence[Summary]) -> Table:
    """What every round cost, in trainings of the dense network, by iterations and by measured time."""
    dense = summaries[0]

    def costs(part: Sequence[Summary]) -> tuple[str, str, str]:
        trained = sum(s.iterations_trained.mean > 0 for s in part)  # modes share some trainings
        iterations = sum(s.iterations_trained.mean for s in part) / dense.iterations_trained.mean
        seconds = sum(s.seconds.mean for s in part) / dense.seconds.mean
        return str(trained), f"{iterations:.2f}", f"{seconds:.2f}"

    rows = []
    for index in sorted({s.round for s in summaries}):
        part = [s for s in summaries if s.round == index]
        rows.append((str(index), f"{part[0].density:.1%}", *costs(part)))
    rows.append(("all", "", *costs(summaries)))
    return Table(("Round", "Density", "Trainings", "Cost by iterations", "Cost by time"), rows)


def early_bird_line(rows: Sequence[Row]) -> str | None:
    """What stopping the search at its early birds would have saved; None when the run did not look for them."""
    last = max(row["round"] for row in rows_of(rows, kind="training"))
    search = [r for r in rows if r["kind"] == "training" and r["branch"] in ("dense", "ticket") and r["round"] < last]
    settled = [row for row in search if row["early_bird_iteration"] is not None]
    if not settled:
        return None
    whole = sum(row["iterations_trained"] for row in search)
    # A ticket rewound to step k begins there, and would stop `iterations - early bird` before its end.
    spared = sum(r["iterations"] - r["early_bird_iteration"] for r in settled if r["iterations_trained"])
    used = whole - spared
    return (
        f"Early birds: in {len(settled)} of {len(search)} trainings of the search the mask settled before the end; "
        f"a search that stopped there would take {used / whole:.0%} of the iterations."
    )


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
    return lines + failed_checks(rows)


def cost_line(rows: Sequence[Row]) -> str:
    trainings = rows_of(rows, kind="training")
    seconds = sum(row["seconds"] for row in trainings)
    return f"{len(trainings)} trainings, {seconds:,.0f} seconds of training on one thread each"


def power_line(verdict: Verdict) -> str:
    """What this many replicates could have found."""
    if verdict.power is None:
        return "Power against the controls: unknown, one replicate has no spread."
    return (
        f"Power: with {verdict.replicates} replicates and the spread seen, a ticket that is truly "
        f"{POWER_DIFFERENCE:g} point better than a control would be told from it in {verdict.power:.0%} of such "
        "studies."
    )
