"""What the evidence scripts say is computed from rows: other rows give other words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import lottery_results
import training_step
from lottery_results import Finding, agreement
from tombola.reports.intervals import estimate

PAPER = Finding("x", 1, 0.5, "points", False, lottery_results.better_than_reinit)
MINIMUM = Finding("x", 1, 0.3, "points", True, lottery_results.gain_at_early_stop)
BACK = Finding("x", 1, 0.0, "points", False, lottery_results.gain_at_early_stop)


@pytest.mark.parametrize(
    ("finding", "values", "word"),
    [
        (PAPER, [0.4, 0.5, 0.7], "agrees"),
        (PAPER, [0.1, 0.12, 0.11], "same direction, smaller"),
        (PAPER, [1.1, 1.12, 1.11], "same direction, larger"),
        (PAPER, [1.1, 0.1, -0.5], "no clear effect"),
        (PAPER, [-1.1, -1.0, -1.05], "opposite direction"),
        (MINIMUM, [0.5, 0.52, 0.51], "agrees"),
        (MINIMUM, [0.2, 0.5, 0.1], "no clear effect"),
        (BACK, [0.2, 0.21, 0.2], "ours is above"),
        (BACK, [0.2, -0.1, 0.1], "agrees"),
        (PAPER, [0.5], "unknown: one replicate"),
    ],
)
def test_agreement_is_read_off_the_interval(finding: Finding, values: list[float], word: str) -> None:
    assert agreement(finding, estimate(values)) == word


def test_findings_measure_what_they_say() -> None:
    ticket = {"early_stop_iteration": 100, "early_stop_test_accuracy": 0.98}
    dense = {"early_stop_iteration": 400, "early_stop_test_accuracy": 0.975}
    reinit = {"early_stop_iteration": 250, "early_stop_test_accuracy": 0.97}
    measured = [finding.measure(ticket, dense, reinit) for finding in lottery_results.FINDINGS]
    assert measured == pytest.approx([75, 0.5, 2.5, 1.0, 0.5])


def test_blocks_take_turns_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    times = training_step.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, blocks=3)
    steps = training_step.STEPS_PER_BLOCK
    assert order == (["a"] * steps + ["b"] * steps) * 4
    assert [len(values) for values in times.values()] == [3, 3]
