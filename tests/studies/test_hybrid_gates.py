"""Gates: who leaves, what it costs, and that the ends of the curve are the forest and the network to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tombola.errors import DataError
from tombola.studies.hybrid.gates import (
    ALWAYS,
    NEVER,
    POINTS,
    Gated,
    GatePoint,
    at_threshold,
    choose_threshold,
    gate_curve,
)


@st.composite
def gates(draw: st.DrawFn) -> Gated:
    """Forests of few trees, whose confidences repeat, 1 among them."""
    count, classes, trees = draw(st.integers(1, 60)), draw(st.integers(2, 4)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = random.dirichlet(np.full(classes, draw(st.sampled_from([0.05, 1.0]))), count)
    probabilities = (np.stack([random.multinomial(trees, row) for row in shares]) / trees).astype(np.float32)
    late, targets = random.integers(0, classes, (2, count))
    costs = [draw(st.floats(0, 1e9)) for _ in range(3)]
    return Gated(probabilities, probabilities.argmax(1), late, targets, *costs)


def gate(confidences: list[float], early: list[int], late: list[int], targets: list[int]) -> Gated:
    """Of two classes; 10 FLOPs to the exit and 90 beyond."""
    sure = np.array(confidences)
    classes = [np.array(given) for given in (early, late, targets)]
    return Gated(np.stack([sure, 1 - sure], 1), *classes, exit_flops=10, rest_flops=90, comparisons=7)


FIVE = gate([0.6, 0.7, 0.8, 0.9, 1.0], early=[1, 1, 0, 0, 0], late=[0, 0, 0, 1, 0], targets=[0, 0, 0, 0, 0])
"""The forest is wrong about the two it is least sure of, the network about the fourth."""


class TestCurve:
    def test_by_hand(self) -> None:
        found = [(p.threshold, p.left, p.accuracy, p.flops, p.comparisons) for p in gate_curve(FIVE)]
        assert found == [
            (0.0, 1.0, 0.6, 10, 7),
            (0.6, 0.8, 0.8, 10 + 0.2 * 90, 7),
            (0.7, 0.6, 1.0, 10 + 0.4 * 90, 7),
            (0.8, 0.4, 1.0, 10 + 0.6 * 90, 7),
            (0.9, 0.2, 0.8, 10 + 0.8 * 90, 7),
            (1.0, 0.0, 0.8, 100, 7),
        ]

    @given(gates())
    def test_its_ends_are_the_forest_and_the_network(self, gated: Gated) -> None:
        first, *_, last = gate_curve(gated)
        assert (first.threshold, first.left, first.flops) == (ALWAYS, 1, gated.exit_flops)
        assert first.accuracy == (gated.early == gated.targets).mean()
        assert (last.threshold, last.left) == (NEVER, 0)
        assert last.flops == gated.exit_flops + gated.rest_flops
        assert last.accuracy == (gated.late == gated.targets).mean()
        for point, predicted in ((first, gated.early), (last, gated.late)):
            expected = f1_score(gated.targets, predicted, average="macro", zero_division=0)
            assert point.f1 == pytest.approx(expected, abs=1e-12)

    @given(gates())
    def test_fewer_leave_as_it_gets_stricter(self, gated: Gated) -> None:
        curve = gate_curve(gated)
        assert 2 <= len(curve) <= POINTS
        thresholds, left = [point.threshold for point in curve], [point.left for point in curve]
        assert all(np.diff(thresholds) > 0)
        assert all(np.diff(left) < 0)  # no two points are the same choice
        costs = [point.flops for point in curve]
        assert costs == sorted(costs)
        assert min(costs) >= gated.exit_flops
        assert max(costs) <= gated.exit_flops + gated.rest_flops
        assert {point.comparisons for point in curve} == {gated.comparisons}

    @given(gates(), st.floats(0, 1))
    def test_every_example_is_counted_once(self, gated: Gated, threshold: float) -> None:
        point = at_threshold(gated, threshold)
        right = leaving = 0
        for shares, early, late, target in zip(
            gated.probabilities, gated.early, gated.late, gated.targets, strict=True
        ):
            leaves = bool(shares.max() > threshold)
            leaving += leaves
            right += int((early if leaves else late) == target)
        count = len(gated.targets)
        assert (point.left, point.accuracy) == (leaving / count, right / count)
        going_on = (count - leaving) * (gated.exit_flops + gated.rest_flops)
        assert point.flops == pytest.approx((leaving * gated.exit_flops + going_on) / count)

    def test_a_curve_of_many_examples_is_spread_over_them(self) -> None:
        sure = np.random.default_rng(0).uniform(0.5, 1, 5000)
        zeros = np.zeros(5000, dtype=int)
        left = [point.left for point in gate_curve(gate(sure.tolist(), *(zeros.tolist(),) * 3))]
        assert len(left) == POINTS
        assert np.abs(np.diff(left) + 1 / (POINTS - 1)).max() < 0.002

    def test_one_confidence_leaves_two_points(self) -> None:
        curve = gate_curve(gate([0.75] * 9, [0] * 9, [0] * 9, [0] * 9))
        assert [(point.threshold, point.left) for point in curve] == [(ALWAYS, 1), (NEVER, 0)]

    def test_nobody_is_surer_than_sure(self) -> None:
        """Sums of shares may be a bit above 1."""
        gated = replace(FIVE, probabilities=np.array([[1.0 + 1e-10, 0]] * 5))
        assert at_threshold(gated, NEVER).left == 0


class TestChoice:
    def test_the_cheapest_that_is_good_enough(self) -> None:
        curve = gate_curve(FIVE)
        assert choose_threshold(curve, 0).threshold == 0.6
        assert choose_threshold(curve, 20).threshold == ALWAYS  # 0.8 - 0.2 is 0.6, whatever floating point says
        assert choose_threshold(curve, 19.9).threshold == 0.6

    def test_a_bad_forest_lets_nobody_leave(self) -> None:
        curve = gate_curve(gate([0.6, 0.7, 0.8], early=[1, 1, 1], late=[0, 0, 0], targets=[0, 0, 0]))
        assert choose_threshold(curve, 1).threshold == NEVER

    def test_of_equally_cheap_points_the_most_accurate(self) -> None:
        curve = [GatePoint(t, 1 - t, accuracy, 0, 5, 0) for t, accuracy in ((0, 0.8), (0.5, 0.9), (1, 0.7))]
        assert choose_threshold(curve, 0).threshold == 0.5

    @given(gates(), st.floats(0, 100))
    def test_it_keeps_its_promise(self, gated: Gated, tolerance: float) -> None:
        curve = gate_curve(gated)
        chosen = choose_threshold(curve, tolerance)
        assert chosen == at_threshold(gated, chosen.threshold)
        allowed = curve[-1].accuracy - tolerance / 100
        assert chosen.accuracy >= allowed - 1e-6
        assert not [point for point in curve if point.accuracy >= allowed and point.flops < chosen.flops]


@pytest.mark.parametrize(
    "changes",
    [
        {"early": np.zeros(4, dtype=int)},
        {"targets": np.zeros(6, dtype=int)},
        {"probabilities": np.full(5, 0.5)},
        {"probabilities": np.full((5, 2), 1.5)},
        {"probabilities": np.full((5, 2), -0.5)},
        {"probabilities": np.full((5, 2), np.nan)},
        {name: np.zeros(0, dtype=int) for name in ("early", "late", "targets")} | {"probabilities": np.zeros((0, 2))},
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="a gate needs probabilities") as caught:
        replace(FIVE, **changes)
    assert "\n" not in str(caught.value)
