"""The charts of a hybrid study, made from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.chart import Chart, Series
from tombola.reports.intervals import Estimate
from tombola.runs.rows import Row
from tombola.studies.hybrid.gating import gates_of
from tombola.studies.hybrid.summaries import best_features, exits_of, forests_of, networks_of
from tombola.studies.hybrid.units import NETWORK

STYLE = {"ticket": 0, "dense": 1, "base": 2, "pixels": 3, "pca": 4}
WHOLE_TICKET = 5
PERCENT = (0.0, 100.0)
OVERHANG = 0.2
"""How far the lines of baselines reach beyond the first and last exit."""

EXITS_CAPTION = (
    "Test accuracy of forests by exit, each network with the features that are best on validation; level lines are "
    "forests without a network and the whole networks. Bands are 95 % confidence intervals of the mean (Student t)."
)
GATE_CAPTION = (
    "Test accuracy of confidence-gated early exits against effective MFLOPs of a mean example, pooled at equal "
    "fractions of early leavers; forests' comparisons are not in the MFLOPs. Bands are 95 % confidence intervals of "
    "the mean (Student t); the dotted line is the dense network without a gate."
)


def exits_chart(rows: Sequence[Row]) -> Chart | None:
    """Accuracy by exit, a line for every network; None where no forest stands on an exit."""
    best = best_features(forests_of(rows))
    places = exits_of(best)
    if not places:
        return None
    ends = [-OVERHANG, len(places) - 1 + OVERHANG]
    series = []
    for network, style in STYLE.items():
        found = [f for f in best if f.network == network and f.over("test_accuracy") is not None]
        if any(forest.exit for forest in found):
            found.sort(key=lambda forest: places.index(forest.exit or ""))
            x = [float(places.index(forest.exit or "")) for forest in found]
            name = f"forest on {NETWORK[network]} features"
            series.append(Series(name, x, [_accuracy(forest.over("test_accuracy", 100)) for forest in found], style))
        elif found:
            level = _accuracy(found[0].over("test_accuracy", 100))
            series.append(Series(f"forest on {NETWORK[network]}", ends, [level, level], style))
    ticket = networks_of(rows).get("ticket")
    if ticket is not None and (whole := ticket.over("test_accuracy", 100)) is not None:
        series.append(Series("ticket network, whole", ends, [whole, whole], WHOLE_TICKET))
    return Chart("Exit", "Test accuracy (%)", series, _dense(rows), within=PERCENT, places=places)


def gate_chart(rows: Sequence[Row]) -> Chart | None:
    """Accuracy against mean cost on test, a line for every gate; None where there is no gate."""
    gates = gates_of(rows)
    if not gates:
        return None
    series = []
    for gate in gates:
        points = sorted(gate.curve(), key=lambda point: point[0])
        x, y = [flops / 1e6 for flops, _ in points], [accuracy for _, accuracy in points]
        series.append(Series(f"{NETWORK[gate.network]}, {gate.exit}, {gate.features}", x, y, STYLE[gate.network]))
    return Chart("Effective MFLOPs, mean of examples", "Test accuracy (%)", series, _dense(rows), within=PERCENT)


def _dense(rows: Sequence[Row]) -> tuple[str, float] | None:
    dense = networks_of(rows).get("dense")
    level = None if dense is None else dense.over("test_accuracy", 100)
    return None if level is None else ("dense network, whole", level.mean)


def _accuracy(value: Estimate | None) -> Estimate:
    assert value is not None  # forests without one were left out
    return value
