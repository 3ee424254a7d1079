"""Paired differences: one implementation, so that verdict, figures and tables cannot say different things of a gap."""

from __future__ import annotations

import math

import pytest

from tombola.reports.intervals import Paired, detectable, power
from tombola.studies.base.paired import paired_accuracy, paired_measure
from tombola.studies.lottery.curves import gaps_chart

EXAMPLES = 360


def training(replicate: int, branch: str, right: int) -> dict:
    """A training row; `right` of the test examples are answered rightly."""
    return {
        "kind": "training",
        "replicate": replicate,
        "rewind": None if branch == "dense" else "init",
        "round": int(branch != "dense"),
        "branch": branch,
        "density": 1.0 if branch == "dense" else 0.5,
        "test_accuracy": right / EXAMPLES,
        "test_examples": EXAMPLES,
    }


def test_the_gaps_figure_has_the_resolution_of_the_verdict() -> None:
    """Three replicates that agree by rounding alone are no certainty: the figure's band was 0 wide."""
    rows = [training(r, branch, right) for r in range(3) for branch, right in (("dense", 300), ("ticket", 301))]
    ticket, dense = ([row for row in rows if row["branch"] == branch] for branch in ("ticket", "dense"))
    drawn = gaps_chart(rows).series[0].y[0]
    assert drawn.half_width is not None
    assert drawn.half_width > 0.1
    judged = paired_measure(ticket, dense).bounds(0.975)
    assert (drawn.mean, drawn.low, drawn.high) == (judged.mean, judged.lower, judged.upper)


def test_only_replicates_that_both_have_are_compared() -> None:
    ours = [training(r, "ticket", 300 + r) for r in (2, 0, 1)]
    found = paired_accuracy(ours, [training(r, "dense", 300) for r in (0, 2, 5)])
    assert found.values == pytest.approx((0.0, 200 / EXAMPLES))
    with pytest.raises(ValueError, match="no replicate"):
        paired_accuracy(ours, [training(7, "dense", 300)])


def test_the_interval_and_the_bounds_are_of_the_same_values() -> None:
    found = Paired((0.1, 0.5, -0.2, 0.4), 0.1)
    assert (found.interval.low, found.interval.high) == (found.bounds(0.975).lower, found.bounds(0.975).upper)
    assert found.bounds(0.96).confidence == 0.96


@pytest.mark.parametrize(("sd", "n", "confidence"), [(0.5, 3, 0.95), (2.0, 10, 0.975), (1e-9, 4, 0.95)])
def test_the_detectable_difference_has_80_percent_power(sd: float, n: int, confidence: float) -> None:
    found = detectable(sd, n, confidence)
    assert math.isclose(power(found, sd, n, confidence), 0.8, rel_tol=1e-4)
