"""The files that a lottery study leaves for others, by fixed names, in `results/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.compression.ticket import write_ticket
from tombola.errors import in_line
from tombola.reports.figures import still_html
from tombola.reports.intervals import Estimate
from tombola.reports.page import Section, page
from tombola.reports.printed import png
from tombola.runs.atomic import make_folder, write_bytes, write_json, write_text
from tombola.runs.results import Artefacts, read_summary
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.measures import ACCURACY
from tombola.studies.lottery.curves import COST_CAPTION, accuracy_chart, cost_chart, marked, modes_chart, speed_chart
from tombola.studies.lottery.document import CURVE, MODES, summary_markdown
from tombola.studies.lottery.keras_ticket import MASKS, MODEL, extra_is_missing, write_keras_ticket
from tombola.studies.lottery.networks import layer_sizes, outline, restored_ticket
from tombola.studies.lottery.over_replicates import Summary, rows_of_mode, summaries_of_mode
from tombola.studies.lottery.report import accuracy_caption, header, speed_table
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.round_results import results_table
from tombola.studies.lottery.search_costs import round_speeds, speed_notes
from tombola.training.task import Measure

SUMMARY = "sparsity_vs_accuracy.json"
NAMES = (
    SUMMARY,
    "winning_ticket_mask.npy",
    "winning_ticket_mask.json",
    "winning_ticket.safetensors",
    "sparsity_curve.html",
    CURVE,
    "sparsity_vs_time.html",
    "sparsity_vs_time.json",
    "summary.md",
    "table.csv",
    "table.tex",
    "spec.json",
)
"""Every file of `results/`; the first is written last and names the run that all belong to."""

OPTIONAL_NAMES = (MODES, MODEL, MASKS)
"""The figure of several modes of rewinding; the Keras export, where there is one (the summary says why not)."""

ARTEFACTS = Artefacts(SUMMARY, NAMES, OPTIONAL_NAMES)


def write_results(result: Result, data_dir: Path | None = None) -> None:
    """Writes `results/`. The ticket is replicate 0's, at the verdict's density when it won, else at the target.

    `data_dir` is where the images lie that the base of a head's Keras export is built for.
    """
    results = result.folder.results
    make_folder(results)
    summaries = summaries_of_mode(result.summaries, result.config.rewind[0])
    chart = marked(accuracy_chart(summaries), summaries, result.verdict)
    curve = still_html(chart, accuracy_caption(result))
    head = header(result, f"{result.config.name}: {result.measure.words} against weights remaining")
    write_text(results / "sparsity_curve.html", page(head, [Section("Curve", curve)]))
    write_bytes(results / CURVE, png(chart))
    _write_sparsity_vs_time(result, summaries, rows_of_mode(result.rows, result.config.rewind[0]))
    if len(result.config.rewind) > 1:
        write_bytes(results / MODES, png(modes_chart(result.summaries, result.config.rewind)))
    write_text(results / "summary.md", summary_markdown(result))
    table = results_table(result.summaries)
    write_text(results / "table.csv", table.to_csv())
    write_text(results / "table.tex", table.to_latex())
    _write_ticket(result)
    export = write_keras_ticket(result, data_dir)
    others = _never_pruned(result)
    write_json(
        results / SUMMARY,
        {
            "run": result.folder.root.name,
            "replicates": result.verdict.replicates,
            "units": {**_unit(result.measure), "intervals": "95 %, Student t"},
            "verdict": result.verdict.entry,
            "keras": export,
            "verdicts": {mode: verdict.entry for mode, verdict in result.verdicts.items()},
            "densities": [_density_entry(result, summary, others) for summary in result.summaries],
        },
    )


def _unit(measure: Measure) -> dict[str, str]:
    return {measure.name: "percent" if measure == ACCURACY else measure.unit or "as the task has it"}


def _density_entry(result: Result, summary: Summary, others: int) -> dict[str, Any]:
    """What the summary file says of one network of one round; counts are means over replicates.

    `parameter_count` is what is left of the network: kept weights and the `others`, which are never pruned. `flops` are
    those of one example that kept weights need. `layers` has the sparsity of every layer with prunable weights.
    """
    where = {"kind": "layer", "round": summary.round, "branch": summary.branch, "rewind": summary.rewind}
    by_layer: dict[str, list[Row]] = {}
    for row in rows_of(result.rows, **where):
        by_layer.setdefault(row["layer"], []).append(row)
    return summary.entry | {
        "parameter_count": summary.kept.mean + others,
        "sparsity": 1 - summary.density,
        "flops": summary.flops_effective and summary.flops_effective.mean,
        "layers": [
            {
                "layer": name,
                "weights": rows[0]["total"],
                "kept": (kept := sum(row["kept"] for row in rows) / len(rows)),
                "sparsity": 1 - kept / rows[0]["total"],
            }
            for name, rows in by_layer.items()
        ],
    }


def _never_pruned(result: Result) -> int:
    """The parameters of the run's network that are no prunable weights: biases, normalisation."""
    if result.config.task is not None:
        return int(result.data["parameters"] - result.summaries[0].total)
    model = outline(result.config, result.data["input_shape"], result.data["classes"])
    return sum(parameter.numel() for parameter in model.parameters()) - sum(layer_sizes(model).values())


def keras_export_is_due(result: Result) -> bool:
    """Whether finished results lack a Keras export that can be written now: the extra has come since."""
    return bool(_keras_entry(result).get("extra_missing")) and not extra_is_missing()


def keras_line(result: Result) -> str | None:
    """What became of the Keras export; None for results of a version that knew of none."""
    export = _keras_entry(result)
    if not export:
        return None
    if export["model"] is None:
        return f"No Keras export: {export['reason']}."
    model = in_line(result.folder.results / export["model"])
    return f"Keras export: {model}, whose outputs differ by {export['difference']:.1e}."


def _keras_entry(result: Result) -> dict[str, Any]:
    """What the summary says of it; empty where there is no summary (yet)."""
    export = read_summary(result.folder.results, SUMMARY).get("keras")
    return export if isinstance(export, dict) else {}


def _write_sparsity_vs_time(result: Result, summaries: Sequence[Summary], rows: Sequence[Row]) -> None:
    """Density against measured latency of the tickets, FLOPs, and measured time of their training."""
    results, notes, chart = result.folder.results, speed_notes(summaries, rows), speed_chart(summaries, rows)
    speed = "" if chart is None else still_html(chart, " ".join(notes))
    speed += speed_table(result, summaries, rows, () if chart else notes)
    sections = [Section("Speed", speed), Section("Cost", still_html(cost_chart(summaries), COST_CAPTION))]
    head = header(result, f"{result.config.name}: sparsity against time")
    write_text(results / "sparsity_vs_time.html", page(head, sections))
    dense = summaries[0].seconds_per_iteration
    points = [
        {
            "density": s.density,
            "flops_effective": s.flops_effective and s.flops_effective.mean,
            "flops_dense": s.flops_dense,
            "seconds_per_iteration": s.seconds_per_iteration and s.seconds_per_iteration.mean,
            "fraction_of_dense_iteration": _fraction(s.seconds_per_iteration, dense),
            "training_engine": s.engine,
            "latency": [speed.entry for speed in round_speeds(rows, s.round)],
        }
        for s in summaries
        if s.branch in ("dense", "ticket")
    ]
    write_json(results / "sparsity_vs_time.json", points)


def _fraction(part: Estimate | None, whole: Estimate | None) -> float | None:
    return part.mean / whole.mean if part and whole and whole.mean else None


def _write_ticket(result: Result) -> None:
    verdict, mode, index = result.verdict, result.config.rewinds[0], result.ticket_round
    network, spec, masks = restored_ticket(
        result.folder, mode, replicate=0, index=index, factory=result.config.model.factory
    )
    history = {
        "run": result.folder.root.name,
        "replicate": 0,
        "round": index,
        "density": masks.density,
        "restart": str(mode),
        "verdict": verdict.entry,
    }
    write_ticket(result.folder.results, spec, network, masks, history)
