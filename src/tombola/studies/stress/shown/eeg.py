"""The figures of an entropy journal: an EEG of one network's heads, and a map of layers by heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tombola.reports.chart import Span
from tombola.reports.grid import Cell, Grid
from tombola.reports.traces import Trace, Traces
from tombola.studies.stress.shown.journal import Course, Head
from tombola.studies.stress.shown.journal_survey import Survey

BAR = 2.0
"""Standard deviations that the scale bar is high."""
LIMIT = 2.5
"""Standard deviations beyond which a trace is cut, so that it stays clear of its neighbours."""
MOST_TEXTS = 16
"""Heads of a layer beyond which cells have no room for their numbers."""


def eeg(courses: Mapping[Head, Course], spans: Sequence[Span], title: str, points: int = 300) -> Traces:
    """Every head's entropy over global steps, as standard deviations from its own mean.

    Args:
        courses: of one network, by layer and head.
        spans: the phases of its life.
        title: which network it is.
        points: a longer course is averaged to as many.
    """
    traces = [_trace(head, course, points) for head, course in courses.items()]
    spreads = [float(np.std(course.entropies)) for course in courses.values() if len(course.entropies) > 1]
    typical = f"; median SD {np.median(spreads):.3f}" if spreads else ""
    return Traces("Training step", traces, (BAR, f"{BAR:g} SD{typical}"), spans, title)


def _trace(head: Head, course: Course, points: int) -> Trace:
    steps, values = thinned(course, points)
    mean, spread = (float(np.mean(course.entropies)), float(np.std(course.entropies))) if len(values) else (0.0, 0.0)
    scores = np.clip((values - mean) / spread, -LIMIT, LIMIT) if spread > 0 else np.zeros_like(values)
    if course.removed is not None:  # it ends where it was removed
        until = steps <= course.removed
        at = scores[until][-1] if until.any() else 0.0
        steps, scores = np.append(steps[until], course.removed), np.append(scores[until], at)
    return Trace(_name(head), steps.tolist(), scores.round(3).tolist(), course.removed is not None, head[0])


def _name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def thinned(course: Course, points: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Steps and entropies of a course, averaged in runs of equal length to at most `points`."""
    steps, values = np.asarray(course.steps, dtype=np.float64), np.asarray(course.entropies, dtype=np.float64)
    run = -(-len(steps) // points) if len(steps) else 1
    if run == 1:
        return steps, values
    starts = np.arange(0, len(steps), run)
    sizes = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(values, starts) / sizes


def entropy_map(found: Survey, title: str) -> Grid:
    """The mean entropy of every head in the last cycle, over seeds; hatched where no network kept it."""
    last = {one.head: one.last.mean for one in found.summaries}
    layers, heads = ({part[index] for part in found.heads} for index in (0, 1))
    columns = range(max(heads) + 1)
    cells = [[_cell(last.get((layer, head)), len(columns)) for head in columns] for layer in sorted(layers)]
    mean = float(np.mean([*last.values()])) if last else None
    reference = None if mean is None else ("mean over heads", mean)
    rows = [f"layer {layer}" for layer in sorted(layers)]
    return Grid(cells, rows, [str(head) for head in columns], title, "Head", reference)


def _cell(value: float | None, columns: int) -> Cell:
    if value is None:
        return Cell(None, reason="removed in every network")
    return Cell(value, f"{value:.2f}" if columns <= MOST_TEXTS else "")
