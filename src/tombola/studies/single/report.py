"""The page of one parent or child."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tombola.reports.chart import Chart, Series
from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.intervals import estimate
from tombola.reports.page import Header, Section, listing, page
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.soundness import fault_of
from tombola.studies.single.stages import layers_note, layers_table, stages_note, stages_table


def child_page(header: Header, rows: Sequence[Row], history: Mapping[str, Any], own: Sequence[Section] = ()) -> str:
    """`report.html`: the stages, what is a study's `own`, the layers, how the fine-tuning went, how it was made."""
    stages = rows_of(rows, kind="stage")
    latencies, layers = rows_of(rows, kind="latency"), rows_of(rows, kind="layer")
    several = len(stages) > 1
    measures = table_html(
        stages_table(stages, latencies),
        ", ".join(stage["stage"] for stage in stages).capitalize() if several else "What was measured",
        stages_note(stages, latencies),
    )
    sections = [
        Section("Stages" if several else "The model", measures),
        *own,
        Section("Layers", table_html(layers_table(layers), "Weights of every layer", layers_note(layers))),
        *_training_sections(rows),
        Section("How it was made", listing(json.dumps(dict(history), indent=1), "How it was made")),
    ]
    return page(header, sections)


def lead(stages: Sequence[Row]) -> str:
    """What came of it, in one sentence."""
    last = stages[-1]
    said = f"{last['test_accuracy']:.2%} test accuracy with {last['kept']:,} of {last['weights']:,} weights"
    faults = "".join(_nothing_learned(stage) for stage in stages)
    if len(stages) == 1:
        return f"{said}.{faults}"
    points = f"{100 * (last['test_accuracy'] - stages[0]['test_accuracy']):+.2f}".replace("-", "−")
    return f"{said} ({last['sparsity']:.1%} sparse), {points} points to its parent.{faults}"


def _nothing_learned(stage: Row) -> str:
    """Said of a network that is not shown to be better than always answering the most frequent class."""
    fault = fault_of(stage)
    if fault is None:
        return ""
    majority = stage.get("test_majority_accuracy")
    beside = "" if majority is None else f", {majority:.2%} of always answering the most frequent class"
    return f" The network {stage['stage']} {fault}: test accuracy {stage['test_accuracy']:.2%}{beside}."


def _training_sections(rows: Sequence[Row]) -> list[Section]:
    looks = rows_of(rows, kind="evaluation")
    if not looks:
        return []
    series = []
    for number in sorted({row["training"] for row in looks}):
        own = rows_of(looks, training=number)
        accuracies = [estimate([100 * row["validation_accuracy"]]) for row in own]
        iterations = [float(row["iteration"]) for row in own]
        series.append(Series(f"training {number}", iterations, accuracies, number - 1))
    chart = Chart("Iteration", "Validation accuracy (%)", series)
    return [Section("Training", figure_html(chart, "Accuracy on the validation set while it learns."))]
