"""Strategies and levels side by side: dot plots, grids and radars, each with the dense network as its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tombola.reports.chart import Series
from tombola.reports.dots import Dots, Missing, Radar
from tombola.reports.grid import Cell, Grid
from tombola.studies.base.numbers import begun
from tombola.studies.stress.outcome.estimates import Estimate
from tombola.studies.stress.outcome.groups import Group, GroupKey
from tombola.studies.stress.outcome.quantities import QUANTITIES, Quantity
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.shown.places import label, percents

NOISE = 2.0
"""Half intervals (the median one) that a distance from the dense network has at least where a grid's colours end."""
STYLES = {"entropy": 0, "random": 1, "magnitude": 2, "gradient": 3, "oracle": 4, "dense": 5, "entropy_low": 6}
STYLES |= {"gradual": 7}
"""Each strategy looks the same in every figure."""
REFERENCE = "dense (nothing removed)"
RECOVERED = (
    "A recovery rate above 1: the task was learned beyond its earlier best, because learning still went on. The "
    "control without interference had as many steps on the task, without other tasks between."
)
FURTHEST = (-0.5, 2.0)
"""As far as the dot plot beside a radar reaches at most."""
NO_LIMIT = 50.0
"""Nats beyond which e to their power only has to be large."""
HEATMAPS = (
    "performance_nats",
    "avg_forgetting_rate",
    "avg_recovery_rate",
    "probe_change",
    "adaptation_steps",
    "savings",
    "top1",
    "stability_gap",
)
DIRECTIONS = {"more": "more is better", "less": "less is better", "neither": ""}


def axis_title(quantity: Quantity) -> str:
    """`Recovery rate (of what was lost; more is better)`."""
    parts = unit_title(quantity)
    return f"{begun(quantity.title)} ({parts})" if parts else begun(quantity.title)


def unit_title(quantity: Quantity) -> str:
    """`of what was lost; more is better`."""
    return "; ".join(part for part in (quantity.unit, DIRECTIONS[quantity.better]) if part)


def style_of(key: GroupKey) -> int:
    """The style that a strategy has everywhere."""
    return STYLES.get(key.strategy, 8)


def strategies(result: Stress) -> dict[str, GroupKey]:
    """Every strategy that removes something, with its remedy, by what it is called; with the first of its keys."""
    found: dict[str, GroupKey] = {}
    for key in result.groups:
        if not key.is_reference:
            found.setdefault(label(key), key)
    return found


def comparison(result: Stress, metric: str, title: str = "") -> Dots:
    """A metric of every strategy (a series each) at every level (a place each) of every model.

    The dense network is a line across, or a dot in each place where there are several models.
    """
    several = len(result.models) > 1
    where = [(model, level) for model in result.models for level in result.levels]
    names = [f"{model}\n{at}" if several else at for model in result.models for at in percents(result.levels)]
    series, missing = [], []
    for name, example in strategies(result).items():
        groups = [result.group(model, example.strategy, level, example.remedy) for model, level in where]
        one, gaps = _series(name, style_of(example), [None if g is None else g.metrics[metric] for g in groups])
        series.append(one)
        missing += gaps
    baseline = None
    if several:
        dense = [result.dense(model) for model, _ in where]
        one, gaps = _series(REFERENCE, STYLES["dense"], [None if g is None else g.metrics[metric] for g in dense])
        series, missing = [*series, one], [*missing, *gaps]
    elif (mean := dense_mean(result, result.models[0], metric)) is not None:
        baseline = (f"{REFERENCE}, {number(mean)}", mean)
    return Dots(axis_title(QUANTITIES[metric]), names, series, missing, baseline, None, title)


def _series(name: str, style: int, found: Sequence[Estimate | None]) -> tuple[Series, list[Missing]]:
    known = [(float(place), one.plain) for place, one in enumerate(found) if one is not None and one.plain is not None]
    gaps = [
        Missing(name, place, "not run" if one is None else one.reason or "not measured")
        for place, one in enumerate(found)
        if one is None or one.mean is None
    ]
    return Series(name, [place for place, _ in known], [one for _, one in known], style), gaps


def dense_mean(result: Stress, model: str, metric: str) -> float | None:
    """What the dense network has of a metric."""
    dense = result.dense(model)
    return None if dense is None else dense.metrics[metric].mean


def missing_notes(figures: Sequence[Dots]) -> list[str]:
    """Why values are missing, for below the figures; with where, each reason once."""
    places: dict[str, list[str]] = {}
    for figure in figures:
        for one in figure.missing:
            at = f"{one.series} {figure.places[one.place]}".replace("\n", " ")
            found = places.setdefault(one.reason, [])
            if at not in found:
                found.append(at)
    return [f"No value (×): {', '.join(at)}: {reason}." for reason, at in places.items()]


def grid(result: Stress, model: str, metric: str) -> Grid:
    """A metric by strategy (rows) and level (columns) as mean ± half its 95 % interval, coloured around dense."""
    quantity, rows = QUANTITIES[metric], strategies(result)
    cells = [
        [_cell(result.group(model, key.strategy, level, key.remedy), metric) for level in result.levels]
        for key in rows.values()
    ]
    dense = dense_mean(result, model, metric)
    beside = "dense: no value" if dense is None else f"dense {number(dense)}"
    title = "\n".join(line for line in (begun(quantity.title), unit_title(quantity), beside) if line)
    reference = None if dense is None or quantity.better == "neither" else ("dense", dense)
    columns = percents(result.levels)
    known = [group.metrics[metric] for key, group in result.groups.items() if key.model == model]
    halves = [one.high - one.mean for one in known if one.high is not None and one.mean is not None]
    noise = median(halves) if halves else 0.0
    names = [name.replace(", ", ",\n") for name in rows]
    return Grid(cells, names, columns, title, "Fraction removed", reference, quantity.better != "less", NOISE * noise)


def _cell(group: Group | None, metric: str) -> Cell:
    if group is None:
        return Cell(None, reason="not run")
    found = group.metrics[metric]
    if found.mean is None:
        return Cell(None, reason=found.reason or "not measured")
    half = None if found.high is None else found.high - found.mean
    places = decimals(found.mean)
    beside = "" if half is None else f"\n±{half:,.{places}f}"
    return Cell(found.mean, f"{found.mean:,.{places}f}{beside}".replace("-", "−"))


def number(value: float) -> str:
    """`0.52`, `12.3`, `1,204`."""
    return f"{value:,.{decimals(value)}f}".replace("-", "−")


def decimals(value: float) -> int:
    """Of a number in a table or figure: three of small ones, none of large ones."""
    size = abs(value)
    return 3 if size < 0.1 else 2 if size < 10 else 1 if size < 100 else 0


@dataclass(frozen=True)
class Spoke:
    """An axis of the radar from 0 to 1, more being better, and how a metric becomes a number on it."""

    title: str
    metric: str
    of: Callable[[float], float]
    says: str


SPOKES = (
    Spoke("accuracy", "performance_accuracy", lambda x: x, "fraction of target tokens right, at the end"),
    Spoke("kept when\ntasks change", "avg_forgetting_rate", lambda x: 1 - x, "1 − forgetting rate"),
    Spoke("recovery", "avg_recovery_rate", lambda x: x, "recovery rate, above 1 where learning still went on"),
    Spoke("savings", "savings", lambda x: x, "fraction of steps saved in relearning"),
    Spoke("targets\nreached", "target_reached", lambda x: x, "fraction of first visits that reach their target"),
    Spoke(
        "plasticity\nkept",
        "probe_change",
        lambda x: math.exp(min(-x, NO_LIMIT)),
        "exp(probe loss just after pruning − probe loss at the end), 1 where none was lost",
    ),
    Spoke("agreement\nwith unpruned", "top1", lambda x: x, "top-1 agreement"),
)
"""What is 1 at the rim of every spoke, whatever the data."""


def radar_note() -> str:
    """What each spoke shows."""
    said = "; ".join(f"{spoke.title.replace(chr(10), ' ')}: {spoke.says}" for spoke in SPOKES)
    low, high = (f"{end:g}".replace("-", "−") for end in FURTHEST)
    return (
        "Every axis of the radar runs from 0 (middle) to 1 (rim), more is better; what lies beyond is drawn at its "
        f"end, in the dot plot what lies beyond {low} or {high}. {begun(said)}."
    )


def profiles(groups: Sequence[tuple[str, Group]], title: str = "") -> tuple[Radar, Dots]:
    """A radar of groups, by what they are called, and the same values with their intervals as a dot plot."""
    places = [spoke.title for spoke in SPOKES]
    series, missing = [], []
    for name, group in groups:
        one, gaps = _series(name, style_of(group.key), [_on_spoke(group, spoke) for spoke in SPOKES])
        series.append(one)
        missing += gaps
    return Radar(places, series, title), Dots("0 to 1, more is better", places, series, missing, None, _reach(series))


def _on_spoke(group: Group, spoke: Spoke) -> Estimate:
    found = group.metrics[spoke.metric]
    if found.mean is None:
        return found
    ends = [None if bound is None else spoke.of(bound) for bound in (found.low, found.high)]
    known = sorted(end for end in ends if end is not None)
    low, high = known if len(known) == 2 else (None, None)
    return Estimate(spoke.of(found.mean), low, high, found.n, found.reason, None)


def _reach(series: Sequence[Series]) -> tuple[float, float]:
    """From 0 to 1, and to `FURTHEST` where means are; an interval may be longer than the axis."""
    values = [0.0, 1.0, *(one.mean for each in series for one in each.y)]
    return max(min(values), FURTHEST[0]) - 0.05, min(max(values), FURTHEST[1]) + 0.05
