"""What a search cost and how fast its tickets are: training, measured calls, what early birds would have saved."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.tables import MISSING, Table, fixed
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.speed import FORMAT, Speed, remarks, speeds_of, times
from tombola.studies.lottery.dead_tickets import dead_lines
from tombola.studies.lottery.over_replicates import Summary

COST_NOTE = (
    "Milliseconds of training per iteration (evaluations included), mean over replicates, beside those of the dense "
    "network; the engine that trained it."
)


COST_COLUMNS = ("ms/it", "Of dense", "Engine")


def cost_cells(summaries: Sequence[Summary]) -> list[tuple[str, str, str]]:
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
    cells = zip(tickets, cost_cells(tickets), zip(*measured, strict=True), strict=True)
    return Table(columns, [(f"{s.density:.1%}", *cost, *speed) for s, cost, speed in cells])


def round_speeds(rows: Sequence[Row], index: int) -> list[Speed]:
    """The measured speed of a round's ticket (round 0: the dense network), one for every batch size."""
    return speeds_of(rows_of(rows, kind="latency", round=index))


def speed_notes(summaries: Sequence[Summary], rows: Sequence[Row]) -> list[str]:
    """What the speeds are of, where dense is faster, what is dead of tickets, and what could not be measured."""
    tickets = [s for s in summaries if s.branch in ("dense", "ticket")]
    speeds = [(s.density, speed) for s in tickets for speed in round_speeds(rows, s.round)]
    measured = [(density, speed) for density, speed in speeds if speed.ratio is not None]
    reasons = dict.fromkeys(row.get("flops_reason") for row in rows_of(rows, kind="training"))
    uncounted = [f"FLOPs are not counted: {reason}." for reason in reasons if reason]
    said = [*uncounted, *dead_lines(rows), *remarks(speed for _, speed in speeds)]
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
