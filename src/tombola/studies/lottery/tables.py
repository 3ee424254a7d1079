"""The tables of a lottery study: results, costs, and what the run checked of itself."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.tables import MISSING, Table, fixed, plus_minus
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.checks import failed_checks
from tombola.studies.base.measures import ACCURACY, Scale
from tombola.studies.base.speed import FORMAT, Speed, remarks, speeds_of, times
from tombola.studies.lottery.metrics import CHECKS, UNIT, Summary, summaries_of_mode
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.start import start_line
from tombola.studies.lottery.verdict import Verdict
from tombola.training.frozen import SEEN

COST_NOTE = (
    "Milliseconds of training per iteration (evaluations included), mean over replicates, beside those of the dense "
    "network; the engine that trained it."
)
NO_MATTER = 0.05
"""A head whose FLOPs are at most this fraction of base and head cannot move them, however few weights it keeps."""


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
        for s, cost in zip(summaries, _cost_cells(summaries), strict=True)
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


COST_COLUMNS = ("ms/it", "Of dense", "Engine")


def _cost_cells(summaries: Sequence[Summary]) -> list[tuple[str, str, str]]:
    """What an iteration of a training cost, and relative to the dense network's, the first; dashes where nothing was
    trained."""
    costs = [s.seconds_per_iteration for s in summaries]
    means = [None if cost is None else cost.mean for cost in costs]
    relative = [f"{mean / means[0]:.2f} ×" if mean is not None and means[0] else MISSING for mean in means]
    engines = [MISSING if mean is None else s.engine for s, mean in zip(summaries, means, strict=True)]
    milliseconds = fixed([None if mean is None else 1000 * mean for mean in means])
    return list(zip(milliseconds, relative, engines, strict=True))


def rounds_table(summaries: Sequence[Summary], rows: Sequence[Row]) -> Table:
    """Beside every density: what its ticket's training cost, and its measured speed in every batch size; one mode."""
    tickets = [s for s in summaries if s.branch in ("dense", "ticket")]
    speeds = {s.round: round_speeds(rows, s.round) for s in tickets}
    columns: list[str] = ["Density", *COST_COLUMNS]
    for speed in speeds[tickets[0].round]:
        columns += [f"batch {speed.batch}: dense µs", "ticket µs", "×"]
    measured: list[Sequence[str]] = []
    for of_batch in zip(*speeds.values(), strict=True):
        for engine in ("dense", "sparse"):
            quartiles = [getattr(speed, engine) for speed in of_batch]
            measured.append(fixed([found and 1e6 * found[1] for found in quartiles]))
        measured.append([times(speed.ratio) for speed in of_batch])
    cells = zip(tickets, _cost_cells(tickets), zip(*measured, strict=True), strict=True)
    return Table(columns, [(f"{s.density:.1%}", *cost, *speed) for s, cost, speed in cells])


def round_speeds(rows: Sequence[Row], index: int) -> list[Speed]:
    """The measured speed of a round's ticket (round 0: the dense network), one for every batch size."""
    return speeds_of(rows_of(rows, kind="latency", round=index))


def speed_notes(summaries: Sequence[Summary], rows: Sequence[Row]) -> list[str]:
    """What the speeds are of, where dense is faster, and what could not be measured."""
    tickets = [s for s in summaries if s.branch in ("dense", "ticket")]
    speeds = [(s.density, speed) for s in tickets for speed in round_speeds(rows, s.round)]
    measured = [(density, speed) for density, speed in speeds if speed.ratio is not None]
    reasons = dict.fromkeys(row.get("flops_reason") for row in rows_of(rows, kind="training"))
    uncounted = [f"FLOPs are not counted: {reason}." for reason in reasons if reason]
    said = [*uncounted, *remarks(speed for _, speed in speeds)]
    if not measured:
        return said
    batches = list(dict.fromkeys(speed.batch for _, speed in measured))
    slower = {b: [f"{d:.1%}" for d, v in measured if v.batch == b and v.ratio and v.ratio < 1] for b in batches}
    wins = "; ".join(
        f"at batch {batch} with {', '.join(densities)}" for batch, densities in slower.items() if densities
    )
    return [
        f"Median µs per call at batch {' and '.join(map(str, batches))}, of replicate 0's trained networks on test "
        f"images: {FORMAT}, on the machine of the run. Against torch alone: other dense engines may be faster.",
        f"Dense is faster {wins} of the weights." if wins else "Dense is faster nowhere here.",
        "What a network gains with all its weights is overhead saved, not sparsity.",
        *said,
    ]


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


def cost_line(rows: Sequence[Row]) -> str:
    """The seconds of the whole search, and of the controls beside it."""
    trainings = rows_of(rows, kind="training")
    search = [row for row in trainings if row["branch"] in ("dense", "ticket")]
    spent, whole = (sum(row["seconds"] for row in part) for part in (search, trainings))
    sparse = sum(row["engine"] == "sparse" for row in trainings)
    return (
        f"{len(trainings)} trainings ({sparse} on sparse kernels), {whole:,.0f} seconds of training on one thread "
        f"each; {spent:,.0f} of them for the search, the dense network and its tickets"
    )


def origin_lines(result: Result) -> list[str]:
    """What came before the first training: a frozen base, a network that the search starts from; often nothing."""
    return [line for line in (base_line(result), start_line(result.config)) if line is not None]


def base_line(result: Result) -> str | None:
    """Which frozen base the examples passed, and whether pruning its head can move FLOPs; None without a base."""
    base = result.data.get("base")
    if base is None:
        return None
    said = (
        f"Frozen base: {base['source']}, up to {base['layer']}; it stays as it is and all replicates share it. "
        "Weights, FLOPs and times are the head's alone."
    )
    if result.data.get("seen_by_base"):
        said += " " + SEEN
    flops = base.get("flops")
    return said if flops is None else f"{said} {_head_line(result, flops)}"


def _head_line(result: Result, flops: int) -> str:
    """The head's fraction of the FLOPs of base and head, dense and at the run's ticket."""
    summaries = summaries_of_mode(result.summaries, result.config.rewind[0])
    ticket = next(s for s in summaries if s.branch == "ticket" and s.round == result.ticket_round)
    dense = summaries[0].flops_dense
    assert dense is not None, "a head has classes, and FLOPs"
    assert ticket.flops_effective is not None
    whole, left = flops + dense, flops + ticket.flops_effective.mean
    moves = "Here the head moves FLOPs" if dense > NO_MATTER * whole else "A head cannot move FLOPs"
    return (
        f"{moves}: dense it needs {dense / 1e6:.3g} of the {whole / 1e6:,.4g} MFLOPs of base and head "
        f"({dense / whole:.2%}), with {ticket.density:.1%} of its weights {ticket.flops_effective.mean / 1e6:.3g} of "
        f"{left / 1e6:,.4g}; what it saves are weights and bytes."
    )


def verdict_notes(verdict: Verdict) -> list[str]:
    """How sure the verdict is, what it is of, and what this many replicates could have found."""
    return [levels_line(verdict), new_examples_line(verdict), power_line(verdict)]


def levels_line(verdict: Verdict) -> str:
    """The levels of this look, and which look it is."""
    if not verdict.replicates or not verdict.dense_confidence:
        return "No level: nothing was judged."
    if verdict.first_look is None:
        look = f"No earlier look is recorded, so {verdict.replicates} replicates are judged as if there may be some"
    elif verdict.first_look == verdict.replicates:
        look = f"First look, at {verdict.replicates} replicates"
    else:
        look = f"A later look, at {verdict.replicates} replicates after a first one at {verdict.first_look}"
    dense, controls = (f"{100 * c:.6g} %" for c in (verdict.dense_confidence, verdict.control_confidence))
    levels = dense if dense == controls else f"{dense} against dense and {controls} against the controls"
    return (
        f"{look}: one-sided bounds at {levels}. The levels are such that all looks at this verdict together claim "
        "something false in at most 5 % of studies."
    )


def new_examples_line(verdict: Verdict) -> str:
    """What the bounds are over, and whether more is known."""
    here = "The verdict is over replicates on this data set's test examples"
    if not verdict.new_examples:
        return f"{here}."
    reasons = list(dict.fromkeys(found.reason for found in verdict.new_examples.values() if found.reason))
    if reasons:
        return f"{here}; what holds for new examples is not known: {', '.join(reasons)}."
    return f"{here}; the bounds for new examples take the choice of test examples into account as well."


def power_line(verdict: Verdict) -> str:
    """What this many replicates could have found."""
    if verdict.power is None:
        return "Power against the controls: unknown, one replicate has no spread."
    scale = verdict.scale
    return (
        f"Power: with {verdict.replicates} replicates and the spread seen, a ticket that is truly "
        f"{scale.amount(verdict.tolerance)} better than a control, as many as the tolerance, would be told from it in "
        f"{verdict.power:.0%} of such studies, and one that is {verdict.detectable:.{scale.places}f}{scale.unit} "
        "better in 80%."
    )
