"""Formulas against score matrices worked by hand, and what must hold whatever the scores are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tombola.studies.stress.metrics import (
    Curve,
    area,
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
    halfway,
    is_dead,
    known,
    mean_of,
    normalised_forgetting,
    null,
    reached,
    recovery,
    savings,
    stability_gap,
)

ONCE = [[1], [2], [3]]
MATRIX = np.array(
    [
        [0.10, 0.20, 0.30],  # just after pruning
        [0.80, 0.25, 0.20],  # after task 1
        [0.60, 0.90, 0.35],  # after task 2
        [0.50, 0.70, 0.95],  # after task 3
    ]
)
TWICE = [[1, 3], [2, 4]]
CYCLES = np.array([[0.0, 0.0], [0.8, 0.1], [0.2, 0.9], [0.9, 0.4], [0.5, 1.0]])
SCORE = st.floats(-10, 10)
NUMBER = pytest.approx


def curve(*scores: float, every: int = 10, tokens: int = 100) -> Curve:
    steps = np.arange(len(scores), dtype=np.float64) * every
    return Curve(steps, steps * tokens, np.array(scores, dtype=np.float64))


class TestTasksLearnedOnce:
    """With one visit each the formulas are those of the papers."""

    def test_average(self) -> None:
        assert average(MATRIX[-1]).number == NUMBER((0.50 + 0.70 + 0.95) / 3)

    def test_backward_transfer(self) -> None:
        assert backward_transfer(MATRIX, ONCE).number == NUMBER(((0.50 - 0.80) + (0.70 - 0.90)) / 2)

    def test_forward_transfer(self) -> None:
        untrained = np.array([0.05, 0.15, 0.25])
        assert forward_transfer(MATRIX, ONCE, untrained).number == NUMBER(((0.25 - 0.15) + (0.35 - 0.25)) / 2)
        assert forward_transfer(MATRIX, ONCE, MATRIX[0]).number == NUMBER(((0.25 - 0.20) + (0.35 - 0.30)) / 2)

    def test_forgetting(self) -> None:
        assert forgetting(MATRIX, ONCE).number == NUMBER(((0.80 - 0.50) + (0.90 - 0.70)) / 2)

    def test_forgetting_has_a_sign(self) -> None:
        better = MATRIX.copy()
        better[-1, :2] = 1.0
        assert forgetting(better, ONCE).number == NUMBER(-((1.0 - 0.80) + (1.0 - 0.90)) / 2)

    def test_what_was_known_before_training_is_not_forgotten_learning(self) -> None:
        knew = MATRIX.copy()
        knew[0] = 5.0
        assert forgetting(knew, ONCE).number == forgetting(MATRIX, ONCE).number


class TestTasksLearnedAgain:
    def test_backward_transfer_is_from_the_last_visit_on(self) -> None:
        assert backward_transfer(CYCLES, TWICE).number == NUMBER(0.5 - 0.9)

    def test_forward_transfer_is_up_to_the_first(self) -> None:
        assert forward_transfer(CYCLES, TWICE, np.zeros(2)).number == NUMBER(0.1)

    def test_forgetting_is_from_the_best(self) -> None:
        assert forgetting(CYCLES, TWICE).number == NUMBER(0.9 - 0.5)

    def test_one_task_has_no_transfer(self) -> None:
        alone = np.array([[0.0], [1.0]])
        for value in (
            backward_transfer(alone, [[1]]),
            forgetting(alone, [[1]]),
            forward_transfer(alone, [[1]], alone[0]),
        ):
            assert value.number is None
            assert value.reason == "no task was followed by another"

    @given(arrays(np.float64, (5, 3), elements=SCORE))
    def test_a_life_that_never_forgets(self, scores: np.ndarray) -> None:
        rising = np.maximum.accumulate(scores, axis=0)
        transfer, forgotten = backward_transfer(rising, [[1, 4], [2], [3]]), forgetting(rising, [[1, 4], [2], [3]])
        assert transfer.number is not None
        assert forgotten.number is not None
        assert transfer.number >= 0 >= forgotten.number

    @given(arrays(np.float64, (4, 3), elements=SCORE), SCORE)
    def test_a_shift_of_all_scores_changes_no_difference(self, scores: np.ndarray, shift: float) -> None:
        for measure in (backward_transfer, forgetting):
            assert measure(scores + shift, ONCE).number == NUMBER(measure(scores, ONCE).number, abs=1e-9)

    def test_a_score_that_was_not_taken_is_left_out(self) -> None:
        holes = MATRIX.copy()
        holes[1, 0] = np.nan
        found = backward_transfer(holes, ONCE)
        assert (found.asked, found.missing) == (2, 1)
        assert found.number == NUMBER(0.70 - 0.90)


class TestRates:
    def test_by_hand(self) -> None:
        assert normalised_forgetting(after=-3.0, later=-4.0, start=-5.0, noise=0.1).number == NUMBER(0.5)
        assert recovery(relearned=-3.1, before=-4.0, peak=-3.0, noise=0.1).number == NUMBER(0.9)

    def test_recovery_is_not_clipped(self) -> None:
        assert recovery(-2.5, -4.0, -3.0, 0.1).number == NUMBER(1.5)
        assert recovery(-4.5, -4.0, -3.0, 0.1).number == NUMBER(-0.5)

    @pytest.mark.parametrize("gain", [0.0, 0.19, -1.0])
    def test_within_noise_there_is_no_rate(self, gain: float) -> None:
        forgotten, recovered = normalised_forgetting(gain, 0.0, 0.0, 0.1), recovery(1.0, 0.0, gain, 0.1)
        assert forgotten.number is None
        assert forgotten.reason == "not learned: the gain is within noise"
        assert recovered.number is None
        assert recovered.reason == "nothing to recover: the loss is within noise"

    def test_without_a_standard_error_nothing_is_claimed(self) -> None:
        assert recovery(1.0, 0.0, 1.0, math.nan).reason == "the loss has no standard error"

    @given(SCORE, SCORE, SCORE, st.floats(-100, 100))
    def test_a_shift_changes_no_rate(self, a: float, b: float, c: float, shift: float) -> None:
        assume(abs(abs(a - c) - 0.02) > 1e-6)
        for rate in (normalised_forgetting, recovery):
            plain, shifted = rate(a, b, c, 0.01), rate(a + shift, b + shift, c + shift, 0.01)
            if plain.number is not None and shifted.number is not None:
                assert shifted.number == NUMBER(plain.number, rel=1e-6, abs=1e-6)

    @given(SCORE, SCORE, st.floats(0.1, 10), st.floats(0.1, 10))
    def test_neither_does_another_unit(self, after: float, later: float, gain: float, unit: float) -> None:
        plain = normalised_forgetting(after, later, after - gain, 0.01)
        scaled = normalised_forgetting(unit * after, unit * later, unit * (after - gain), unit * 0.01)
        assert scaled.number == NUMBER(plain.number, rel=1e-6, abs=1e-9)


class TestLearningCurves:
    def test_between_two_looks(self) -> None:
        rising = curve(-5.0, -4.0, -3.0)
        assert reached(-3.5, rising.steps, rising.scores).number == NUMBER(15.0)
        assert reached(-3.5, rising.tokens, rising.scores, "tokens").number == NUMBER(1500.0)

    def test_already_there(self) -> None:
        rising = curve(-5.0, -4.0)
        assert reached(-6.0, rising.steps, rising.scores).number == 0.0

    def test_never(self) -> None:
        rising = curve(-5.0, -4.0)
        assert reached(-1.0, rising.steps, rising.scores).reason == "not reached in 10 steps"

    def test_a_curve_without_its_start(self) -> None:
        holes = curve(math.nan, -4.0, -3.0)
        assert reached(-4.5, holes.steps, holes.scores).reason == "the start of the learning curve was not measured"
        assert area(holes).reason == "the start of the learning curve was not measured"

    @given(st.lists(SCORE, min_size=2, max_size=6), SCORE)
    def test_a_target_is_met_where_the_curve_meets_it(self, scores: list[float], target: float) -> None:
        looks = curve(*scores)
        found = reached(target, looks.steps, looks.scores)
        if found.number is None:
            assert max(scores) < target
        elif found.number > 0:
            assert np.interp(found.number, looks.steps, looks.scores) == NUMBER(target, abs=1e-6)
        else:
            assert scores[0] >= target

    def test_savings_by_hand(self) -> None:
        first, again = curve(-5.0, -4.0, -3.0), curve(-5.0, -3.0, -3.0)
        assert halfway(first) == -4.0
        assert savings(first, again).number == NUMBER(1 - 5 / 10)

    def test_savings_of_what_was_never_forgotten(self) -> None:
        assert savings(curve(-5.0, -3.0), curve(-3.0, -3.0)).number == 1.0

    def test_censored_savings(self) -> None:
        found = savings(curve(-5.0, -3.0), curve(-5.0, -4.9))
        assert found.number is None
        assert found.reason == "relearning: not reached in 10 steps"

    def test_nothing_learned_saves_nothing(self) -> None:
        assert savings(curve(-5.0, -5.0), curve(-5.0, -5.0)).number is None

    def test_area_is_the_mean_score_over_steps(self) -> None:
        uneven = Curve(np.array([0.0, 10.0, 40.0]), np.zeros(3), np.array([-5.0, -4.0, -3.0]))
        assert area(uneven).number == NUMBER((10 * -4.5 + 30 * -3.5) / 40)

    @given(SCORE, st.integers(2, 5))
    def test_area_of_a_level_curve(self, score: float, looks: int) -> None:
        assert area(curve(*[score] * looks)).number == NUMBER(score)

    def test_stability_gap(self) -> None:
        inside = np.array([-3.0, -4.5, -3.5])
        assert stability_gap(inside, -3.5).number == NUMBER(1.0)
        assert stability_gap(inside, -2.5).number == NUMBER(2.0)
        assert stability_gap(np.array([np.nan]), -2.5).number is None


class TestNulls:
    def test_a_mean_says_what_it_lacks(self) -> None:
        found = mean_of([known(1.0), known(3.0), null("why"), known(math.nan)])
        assert (found.number, found.asked, found.missing) == (2.0, 4, 2)

    def test_a_mean_of_none(self) -> None:
        found = mean_of([null("rare"), null("why"), null("why")])
        assert (found.number, found.reason) == (None, "why")
        assert mean_of([], "nobody").reason == "nobody"

    def test_dead(self) -> None:
        floor, noise = np.array([-6.0, -6.0]), np.array([0.01, 0.01])
        assert is_dead(floor + 0.01, floor, [null("not learned")], noise)
        assert not is_dead(floor + 0.5, floor, [null("not learned")], noise)
        assert not is_dead(floor, floor, [known(1.0)], noise)
        assert not is_dead(floor, np.array([np.nan, -6.0]), [null("not learned")], noise)
