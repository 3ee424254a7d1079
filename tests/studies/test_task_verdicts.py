"""Verdicts on measures of other tasks: better is positive whichever way they go, and what learned nothing is named."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.test_new_examples import row_of
from tombola.errors import RunFolderError, StorageError
from tombola.reports.intervals import Estimate
from tombola.studies.base.measures import ACCURACY, Scale, measure_from
from tombola.studies.base.new_examples import MOST_SCORES, for_new_examples, score_columns, scores_of
from tombola.studies.base.numbers import amount
from tombola.studies.base.paired import paired_accuracy, paired_measure
from tombola.studies.base.soundness import UNSHOWN_ANSWER, faults_of
from tombola.studies.lottery.curves import accuracy_chart, gaps_chart
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.verdict import Verdict, judge
from tombola.studies.lottery.verdict_notes import new_examples_line, power_line
from tombola.training.task import Measure

NATS = Measure("nats", higher_is_better=False, unit="nats a token")
ERROR = Measure("mae", higher_is_better=False)
R2 = Measure("r2", higher_is_better=True, scale=100, unit="% of variance")
DENSE = 2.0


def planted(measure: Measure, better: dict[str, float], replicates: int = 6, naive: float | None = None) -> list[dict]:
    """Rows of one round in which branches are better than dense by so many of the measure's own numbers."""
    chance, rows = np.random.default_rng(0), []
    for replicate in range(replicates):
        for branch, by in {"dense": 0.0, "ticket": 0.0, "random": -0.5, "reinit": -0.5, **better}.items():
            row: dict[str, Any] = {"kind": "training", "replicate": replicate, "branch": branch, "rewind": None}
            row |= {"round": int(branch != "dense"), "density": 1.0 if branch == "dense" else 0.2}
            for part in ("validation", "test"):
                value = DENSE + (by if measure.higher_is_better else -by) + chance.normal(0, 0.005)
                row |= {f"{part}_{measure.name}": value, f"{part}_examples": 50}
                row |= {f"{part}_naive_{measure.name}": naive, f"{part}_naive_error": None if naive is None else 0.1}
            rows.append(row)
    return rows


def verdict_of(measure: Measure, tolerance: float, **better: float) -> Verdict:
    return judge(planted(measure, better), tolerance, measure)


@pytest.mark.parametrize("measure", [NATS, ERROR, R2])
class TestWhicheverWayTheMeasureGoes:
    def tolerance(self, measure: Measure) -> float:
        return 0.1 * measure.scale

    def test_a_better_ticket_wins_with_a_positive_gap(self, measure: Measure) -> None:
        verdict = verdict_of(measure, self.tolerance(measure), ticket=0.3)
        assert verdict.outcome == "winning"
        assert verdict.versus["dense"].mean == pytest.approx(0.3 * measure.scale, rel=0.05)
        assert verdict.versus["random"].mean == pytest.approx(0.8 * measure.scale, rel=0.05)
        assert f"within {Scale(measure).amount(self.tolerance(measure))} of dense" in verdict.sentence

    def test_a_worse_ticket_does_not_win_and_its_gap_is_negative(self, measure: Measure) -> None:
        verdict = verdict_of(measure, self.tolerance(measure), ticket=-0.3)
        assert verdict.outcome == "not winning"
        assert verdict.versus["dense"].mean == pytest.approx(-0.3 * measure.scale, rel=0.05)
        assert "is worse than dense by more than" in verdict.sentence

    def test_a_control_that_is_better_is_not_beaten(self, measure: Measure) -> None:
        verdict = verdict_of(measure, self.tolerance(measure), random=0.2)
        assert verdict.outcome == "matching"
        assert "not shown to be better than random" in verdict.sentence
        assert verdict.versus["random"].mean < 0

    def test_the_sentence_says_which_way_it_goes(self, measure: Measure) -> None:
        said = "positive where the ticket is better, which is where it has less."
        assert verdict_of(measure, self.tolerance(measure)).sentence.endswith(said) == (not measure.higher_is_better)

    def test_charts_show_what_it_is(self, measure: Measure) -> None:
        rows = planted(measure, {"ticket": 0.3})
        gaps = gaps_chart(rows, measure)
        assert gaps.series[0].y[0].mean == pytest.approx(0.3 * measure.scale, rel=0.05)
        assert ("positive is better" in gaps.y_title) == (not measure.higher_is_better)


def test_the_axis_of_an_unbounded_measure_is_not_clipped() -> None:
    full = {
        "kept": 2,
        "total": 2,
        "iterations_trained": 1,
        "early_stop_iteration": 1,
        "seconds": 1.0,
        "engine": "dense",
    }
    full |= {"early_stop_test_nats": 2.0, "flops_dense": None, "flops_effective": None}
    chart = accuracy_chart(summarise([row | full for row in planted(NATS, {})], NATS))
    assert (chart.y_title, chart.within) == ("Test nats a token", None)


def test_one_point_is_singular_and_units_are_said() -> None:
    assert [amount(value, "points") for value in (1, 0.5, 2)] == ["1 point", "0.5 points", "2 points"]
    assert [amount(value, "nats a token") for value in (1, 0.1)] == ["1 nat a token", "0.1 nats a token"]
    assert amount(0.05, "") == "0.05"
    verdict = verdict_of(NATS, 0.05, ticket=0.3)
    assert "0.05 nats a token better than a control" in power_line(verdict)
    assert "point" not in verdict.sentence


@pytest.mark.parametrize(("tolerance", "places"), [(1.0, 2), (0.05, 4), (0.1, 3), (300.0, 0), (2e-5, 7)])
def test_as_many_places_as_the_tolerance_needs(tolerance: float, places: int) -> None:
    assert Scale.of(ERROR, tolerance).places == places
    assert Scale.of(ACCURACY, tolerance).places == 2
    assert Scale(ERROR, 3).shown(Estimate(1.23456, 1.0, 1.46912, 0.1, 5)) == "1.235 ± 0.235"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_sign_turns_with_the_direction_and_with_nothing_else(values: list[tuple[float, float]]) -> None:
    ours, theirs = (
        [{"replicate": i, "test_m": pair[side], "test_examples": 9} for i, pair in enumerate(values)] for side in (0, 1)
    )
    up, down = Measure("m", higher_is_better=True, scale=3), Measure("m", higher_is_better=False, scale=3)
    forth, back = (paired_measure(ours, theirs, measure=measure).values for measure in (up, down))
    assert forth == pytest.approx([-value for value in back])
    assert forth == pytest.approx([3 * (mine - other) for mine, other in values])
    turned = paired_measure(theirs, ours, measure=up).values
    assert turned == pytest.approx(back)


def test_accuracies_are_compared_as_ever() -> None:
    ours, theirs = ([{"replicate": 0, "test_accuracy": value, "test_examples": 200}] for value in (0.9, 0.8))
    assert paired_accuracy(ours, theirs) == paired_measure(ours, theirs, measure=ACCURACY)
    assert (paired_accuracy(ours, theirs).values, paired_accuracy(ours, theirs).resolution) == (
        (100 * 0.9 - 100 * 0.8,),
        0.5,
    )


class TestWhatLearnedNothing:
    @pytest.mark.parametrize(
        ("naive", "fault"), [(DENSE - 0.2, "learned nothing"), (DENSE + 0.1, UNSHOWN_ANSWER), (DENSE + 1, None)]
    )
    def test_is_no_better_than_one_answer_for_all(self, naive: float, fault: str | None) -> None:
        rows = [row for row in planted(NATS, {}, naive=naive) if row["branch"] == "dense"]
        assert faults_of(rows, measure=NATS) == fault

    def test_gives_nothing_to_match(self) -> None:
        verdict = judge(planted(ERROR, {}, naive=DENSE - 0.5), 0.1, ERROR)
        assert verdict.sentence == "Undecided: the dense network learned nothing, so that there is nothing to match."
        verdict = judge(planted(ERROR, {"ticket": -1.0}, naive=DENSE + 0.6), 5.0, ERROR)
        assert verdict.outcome == "not winning"
        assert "with 20.0% of the weights learned nothing" in verdict.sentence

    def test_a_loss_far_above_that_of_one_answer_has_diverged(self) -> None:
        rows = [row | {"train_loss": 9.0, "train_naive_loss": 4.0} for row in planted(NATS, {}, naive=DENSE + 1)]
        assert faults_of(rows[:1], measure=NATS) == "diverged"
        assert faults_of([rows[0] | {"train_naive_loss": None}], measure=NATS) is None  # a task that says nothing


class TestAnAccuracyThatCountsNoExamples:
    """Of tokens in sequences: its name and its unit are those of classes, and its rows are not."""

    def rows(self, accuracy: float, chance: np.random.Generator) -> list[dict]:
        found = []
        for replicate in range(4):
            each = np.clip(chance.normal(accuracy, 0.05, 50), 0, 1).astype(np.float32)
            value = float(each.mean(dtype=np.float64))
            row = {"kind": "training", "replicate": replicate, "branch": "dense", "rewind": None, "round": 0}
            row |= {"test_accuracy": value, "test_examples": 50, "train_examples": 100}
            row |= {"test_naive_accuracy": 0.5, "test_naive_error": 0.01}
            found.append(row | score_columns(each, value, "these"))
        return found

    @pytest.mark.parametrize(("accuracy", "fault"), [(0.45, "learned nothing"), (0.51, UNSHOWN_ANSWER), (0.6, None)])
    def test_has_to_be_better_than_one_answer_for_all(self, accuracy: float, fault: str | None) -> None:
        rows = [row | {"test_accuracy": accuracy} for row in self.rows(accuracy, np.random.default_rng(0))]
        assert faults_of(rows, measure=ACCURACY) == fault

    def test_moves_in_no_steps_and_has_bounds_for_new_examples(self) -> None:
        chance = np.random.default_rng(0)
        ours, theirs = self.rows(0.7, chance), self.rows(0.6, chance)
        assert paired_measure(ours, theirs).resolution == 0
        found = for_new_examples(ours, theirs).bounds
        assert found is not None
        assert found.mean == pytest.approx(10, abs=2)
        without = [row | {"test_each": None, "test_each_reason": "none here"} for row in ours]
        assert for_new_examples(without, theirs).reason == "none here"
        assert paired_measure(without, theirs).resolution == 0


class TestNewExamples:
    def rows(self, gap: float, spread: float, count: int = 400) -> tuple[list[dict], list[dict]]:
        """Two networks in four replicates, whose test examples all have errors of their own."""
        chance = np.random.default_rng(1)
        ours, theirs = [], []
        liking = chance.normal(gap, spread, count)
        for replicate in range(4):
            base = chance.gamma(4.0, 0.5, count)
            for rows, each in ((ours, base), (theirs, base + liking + chance.normal(0, 0.01, count))):
                value = float(each.mean())
                columns = score_columns(each.astype(np.float32), value, "the same")
                rows.append({**row_of(replicate, "ticket", each > 9), **columns, "test_mae": value})
        return ours, theirs

    def test_bounds_widen_by_what_examples_differ(self) -> None:
        ours, theirs = self.rows(0.2, 1.0)
        here = paired_measure(ours, theirs, measure=ERROR).bounds()
        new = for_new_examples(ours, theirs, measure=ERROR).bounds
        assert new is not None
        assert new.mean == here.mean > 0
        # The error of a mean over 400 examples of standard deviation 1 is 0.05, and 1.645 of it are 95 %.
        assert new.mean - new.lower == pytest.approx(1.645 * 0.05, rel=0.15)
        assert here.mean - here.lower < 0.01

    def test_reasons_are_given_where_there_are_none(self) -> None:
        ours, theirs = self.rows(0.2, 1.0)
        many = score_columns(np.zeros(MOST_SCORES + 1, np.float32), 0.0, "x")
        for odd, said in (
            (many, "more than 20,000 test examples"),
            (score_columns(None, 0.0, "x"), "no score of each example"),
            (score_columns(np.ones(3, np.float32), 2.0, "x"), "not those that networks are compared by"),
        ):
            reason = for_new_examples([row | odd for row in ours], theirs, measure=ERROR).reason
            assert reason is not None
            assert said in reason
        verdict = judge([*planted(ERROR, {"ticket": 0.3})], 0.1, ERROR)
        assert "not known: the rows have no score of each test example" in new_examples_line(verdict)

    def test_damaged_scores_are_noticed(self) -> None:
        (row, *_), _ = self.rows(0.2, 1.0)
        assert len(scores_of(row, ERROR)) == 400
        for damage in ("AAAA", "?", row["test_each"][:-8]):
            with pytest.raises(StorageError, match="test_each of replicate 0, round 1, ticket is damaged"):
                scores_of(row | {"test_each": damage}, ERROR)
        with pytest.raises(StorageError, match="does not have the row's mae"):
            scores_of(row | {"test_mae": 2 * row["test_mae"]}, ERROR)


def test_tables_show_a_measure_by_its_title() -> None:
    titled = Measure("mae", higher_is_better=False, unit="kcal", title="mean absolute error")
    assert (Scale(titled).axis, Scale(ERROR).axis, Scale(NATS).axis) == (
        "mean absolute error (kcal)",
        "mae",
        "nats a token",
    )
    assert "Differences in mean absolute error are positive" in Scale(titled).direction
    assert measure_from(asdict(titled), "here") == titled


@pytest.mark.parametrize("facts", [{}, {"name": 3}, {"name": "mae", "higher_is_better": "no", "scale": 1, "unit": ""}])
def test_a_manifest_that_names_no_measure_is_damaged(facts: dict[str, Any]) -> None:
    with pytest.raises(RunFolderError, match="run: does not say what its networks are compared by"):
        measure_from(facts, "run")
    whole = {"name": "mae", "higher_is_better": False, "scale": 1.0, "unit": ""}
    assert measure_from(whole, "run") == ERROR
