"""Courses over a network's life: scores over steps, the probe over cycles, and how much of the function is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from tombola.reports.chart import Chart, Moment, Series, Span
from tombola.reports.intervals import Estimate, estimate
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import begun
from tombola.studies.stress.outcome.groups import Group
from tombola.studies.stress.outcome.lives import Life
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.steering import CONTROLLERS
from tombola.studies.stress.shown.comparisons import axis_title, strategies, style_of, unit_title
from tombola.studies.stress.shown.places import titled

LOSS = "Held-out loss (nats a token; less is better)"
CYCLE, PHASE = "Cycle (0: just after pruning)", "Phase (0: just after pruning)"
MOST_TICKS = 25
PRESERVED = ("kl", "js", "top1", "flips", "cosine", "cka")
FROM_ZERO = (0.0, math.inf)
POSSIBLE = {"kl": FROM_ZERO, "js": (0.0, math.log(2)), "cosine": (-1.0, 1.0)}
"""What values can be where they are no fraction; bands end there."""
FLOORS = {"all_off": "floor: all heads off", "independent": "floor: independent network"}


def whole(xs: Sequence[float]) -> list[str]:
    """Ticks at whole numbers from 0 on; none where they would be too many."""
    return [str(n) for n in range(int(max(xs)) + 1)] if xs and max(xs) < MOST_TICKS else []


def starts_of(life: Life) -> list[int]:
    """The global step at which each phase begins, and last the one at which the life ends."""
    return [0, *accumulate(phase.steps for phase in life.phases)]


def spans_of(life: Life) -> list[Span]:
    """A life's phases over global steps, by the task that is learned."""
    starts = starts_of(life)
    return [Span(starts[n], starts[n + 1], phase.training) for n, phase in enumerate(life.phases)]


def prunings_of(life: Life) -> list[Moment]:
    """When heads were removed."""
    if not any(row["units_removed"] for row in life.rows.get("pruned", ())):
        return []
    starts, prune_cycles = starts_of(life), [phase.moment.prune_cycle for phase in life.phases]
    first = [n for n, cycle in enumerate(prune_cycles) if n == 0 or cycle != prune_cycles[n - 1]]
    return [Moment(starts[n], "pruned") for n in first]


def time_series(life: Life, title: str = "") -> Chart:
    """One network's held-out loss on every task over global steps, looks within phases among them.

    All points are of the few items of looks inside phases, so that they can be compared; a task without these has the
    whole held-out set's.
    """
    lines = [Series(task, *_of_task(life, j), style=j) for j, task in enumerate(life.tasks)]
    lines = [line for line in lines if line.x]
    return Chart(
        "Training step", LOSS, lines, within=FROM_ZERO, title=title, spans=spans_of(life), moments=prunings_of(life)
    )


def _of_task(life: Life, j: int) -> tuple[list[float], list[Estimate]]:
    starts, points = starts_of(life), dict[float, float]()
    few = all(np.isfinite(state.few[j]) for state in life.after)
    at_start = life.pruned[0] if life.pruned else life.after[0]
    points[0.0] = float((at_start.few if few else at_start.nats)[j])
    for n, phase in enumerate(life.phases):
        curve = life.inside.get((phase.number, life.tasks[j]))
        if few and curve is not None:
            looks = zip(curve.steps, curve.scores, strict=True)
            points |= {starts[n] + float(step): float(score) for step, score in looks}
        after = life.after[phase.number]
        points[float(starts[n + 1])] = float((after.few if few else after.nats)[j])
    known = {step: -score for step, score in sorted(points.items()) if np.isfinite(score)}
    return [*known], [estimate([value]) for value in known.values()]


def over_seeds_chart(group: Group, title: str = "") -> Chart:
    """Over seeds, whose tasks have orders of their own: loss at the end of each phase, with ribbons.

    Of the mean over all tasks, the task that the phase taught, and those that were taught before it.
    """
    lengths = min((len(life.phases) for life in group.lives), default=0)
    kinds = {"task just learned": _learned, "tasks learned before": _before, "mean over all tasks": _all}
    series = []
    for style, (name, of) in enumerate(kinds.items()):
        means = [_seeds(group, [of(life, p) for life in group.lives]) for p in range(lengths + 1)]
        points = [(float(p), mean) for p, mean in enumerate(means) if mean is not None]
        series.append(Series(name, [x for x, _ in points], [y for _, y in points], (0, 1, 5)[style]))
    series = [one for one in series if one.x]
    places = whole([x for one in series for x in one.x])
    return Chart(PHASE, LOSS, series, places=places, within=FROM_ZERO, title=title)


def _learned(life: Life, p: int) -> float | None:
    return None if p == 0 else _loss(life, p, [life.tasks.index(life.phases[p - 1].training)])


def _before(life: Life, p: int) -> float | None:
    earlier = {phase.training for phase in life.phases[: p - 1]} - {life.phases[p - 1].training} if p > 1 else set()
    return _loss(life, p, [life.tasks.index(task) for task in sorted(earlier)])


def _all(life: Life, p: int) -> float | None:
    return _loss(life, p, [*range(len(life.tasks))])


def _loss(life: Life, p: int, tasks: Sequence[int]) -> float | None:
    values = life.scores[p, [*tasks]] if tasks else np.array([np.nan])
    return None if np.isnan(values).any() else float(-values.mean())


def _seeds(group: Group, values: Sequence[float | None]) -> Estimate | None:
    by_seed: dict[int, list[float]] = {}
    for life, value in zip(group.lives, values, strict=True):
        if value is not None:
            by_seed.setdefault(life.key.seed, []).append(value)
    return estimate([float(np.mean(found)) for found in by_seed.values()]) if by_seed else None


def probe_chart(result: Stress, model: str, level: float) -> Chart:
    """Loss after k steps on the held-out language, over cycles: strategies at a level, dense, and the fresh network."""
    chosen = [(name, result.group(model, key.strategy, level, key.remedy)) for name, key in strategies(result).items()]
    lines = [_probe(name, group) for name, group in [*chosen, ("dense", result.dense(model))] if group is not None]
    freshes = [one for _, group in chosen if group is not None for one in group.plasticity.fresh.values()]
    fresh = [one.mean for one in freshes if one.mean is not None]
    baseline = ("fresh network (mean over masks)", float(np.mean(fresh))) if fresh else None
    title = f"{100 * level:g}% removed" if len(result.models) == 1 else f"{model}, {100 * level:g}% removed"
    y = axis_title(QUANTITIES["probe_nats"])
    lines = [line for line in lines if line.x]
    places = whole([x for line in lines for x in line.x])
    return Chart(CYCLE, y, lines, baseline, places=places, within=FROM_ZERO, title=title)


def _probe(name: str, group: Group) -> Series:
    points = [(n, one.plain) for n, one in enumerate(group.plasticity.network.values()) if one.plain is not None]
    return Series(name, [float(n) for n, _ in points], [y for _, y in points], style_of(group.key))


def search_chart(rows: Sequence[Row]) -> Chart | None:
    """The mean reward of all pulls so far, by controller; None where nothing was searched."""
    pulls = rows_of(rows, kind="pull")
    series = []
    for style, controller in enumerate(dict.fromkeys(row["controller"] for row in pulls)):
        own = sorted((row for row in pulls if row["controller"] == controller), key=lambda row: row["pull"])
        totals = accumulate(row["reward"] for row in own)
        means = [estimate([total / count]) for count, total in enumerate(totals, start=1)]
        name = CONTROLLERS.get(controller, controller)
        series.append(Series(name, [float(n) for n in range(1, len(own) + 1)], means, style))
    return Chart("Network", "Mean reward so far (more is better)", series) if series else None


def function_charts(groups: Sequence[tuple[str, Group]]) -> list[Chart]:
    """Likeness to the unpruned model over cycles, a chart a measure, with both floors; none where it was not measured.

    Args:
        groups: by what they are called; the floors are those of the first one.
    """
    return [chart for metric in PRESERVED if (chart := _function(groups, metric)) is not None]


def _function(groups: Sequence[tuple[str, Group]], metric: str) -> Chart | None:
    series = []
    for name, group in groups:
        found = [found[metric].plain if metric in found else None for found in group.by_cycle.values()]
        points = [(float(n), one) for n, one in enumerate(found) if one is not None]
        if points:
            series.append(Series(name, [x for x, _ in points], [y for _, y in points], style_of(group.key)))
    if not series:
        return None
    xs = sorted({x for one in series for x in one.x})
    for style, (of, name) in enumerate(FLOORS.items(), start=8):
        floor = groups[0][1].floors.get(of, {}).get(metric)
        if floor is not None and floor.plain is not None:
            flat = Estimate(floor.plain.mean, None, None, None, floor.n)
            series.append(Series(name, xs, [flat] * len(xs), style))
    quantity = QUANTITIES[metric]
    y, possible = begun(unit_title(quantity)), POSSIBLE.get(metric, (0.0, 1.0))
    return Chart(CYCLE, y, series, places=whole(xs), within=possible, title=begun(quantity.title))


def named(result: Stress, groups: Sequence[Group]) -> list[tuple[str, Group]]:
    """Groups by what figures call them, the dense network of the first one's model first."""
    dense = None if not groups else result.dense(groups[0].key.model)
    own = [(titled(result, group.key), group) for group in groups if group is not dense]
    return [*([] if dense is None else [("dense", dense)]), *own]
