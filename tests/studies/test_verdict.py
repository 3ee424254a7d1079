"""The verdict: its four outcomes, its error rate in null studies, and its power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tombola.reports.intervals import estimate, one_sided, power
from tombola.studies.lottery.verdict import judge

ROUNDS = 6
TEST_EXAMPLES = 10_000


def study(
    rng: np.random.Generator,
    *,
    replicates: int = 10,
    ticket: float = 0.0,
    random: float = -2.0,
    reinit: float = -2.0,
    spread: float = 0.5,
    controls: tuple[str, ...] = ("random", "reinit"),
    examples: int = TEST_EXAMPLES,
    shared: float = 0.5,
    decline: float = 0.0,
    like_ticket: tuple[str, ...] = (),
    rounds: int = ROUNDS,
) -> list[dict]:
    """Rows of a simulated study: true means in points relative to dense, normal noise, and accuracies that are
    shares of a finite test set, as real ones are.

    `shared` is the correlation of a training's validation and test accuracy: both measure one network. The
    ticket loses `decline` points a round, and so do the controls `like_ticket`, which are as good as it is.
    """
    means = {"dense": 0.0, "ticket": ticket, "random": random, "reinit": reinit}
    means |= dict.fromkeys(like_ticket, ticket)
    rows = []
    for replicate in range(replicates):
        for index in range(rounds + 1):
            for branch in ("dense",) if index == 0 else ("ticket", *controls):
                row = {"kind": "training", "replicate": replicate, "round": index, "branch": branch}
                row["density"] = 0.8**index
                falling = index * decline * (branch == "ticket" or branch in like_ticket)
                common = rng.standard_normal()
                for part in ("validation", "test"):
                    noise = shared**0.5 * common + (1 - shared) ** 0.5 * rng.standard_normal()
                    accuracy = 0.97 + (means[branch] - falling + spread * noise) / 100
                    row[f"{part}_accuracy"] = round(accuracy * examples) / examples
                    row[f"{part}_examples"] = examples
                rows.append(row)
    return rows


def shift(rows: list[dict], points: float, **where: object) -> list[dict]:
    for row in rows:
        if all(row[key] == value for key, value in where.items()):
            for part in ("validation", "test"):
                row[f"{part}_accuracy"] += points / 100
    return rows


class TestOutcomes:
    def test_winning_speaks_of_the_smallest_density_that_passed(self) -> None:
        rows = study(np.random.default_rng(0), spread=0.1)
        verdict = judge(shift(rows, -3, branch="ticket", round=5), tolerance=1.0)
        assert (verdict.outcome, verdict.round) == ("winning", 4)
        assert verdict.sentence.startswith("Winning: the ticket with 41.0% of the weights")

    def test_the_search_stops_at_the_first_failure(self) -> None:
        """Round 5 fails, round 6 is good again: it must not be looked at."""
        rows = shift(study(np.random.default_rng(0), spread=0.1), -3, branch="ticket", round=5)
        assert judge(rows, 1.0).round == 4

    def test_selection_never_sees_the_test_set(self) -> None:
        rows = study(np.random.default_rng(0), spread=0.1)
        for row in rows:
            if row["branch"] == "ticket" and row["round"] == 3:
                row["test_accuracy"] = 0.0
        assert judge(rows, 1.0).round == 6

    def test_not_confirmed_on_test_is_not_winning(self) -> None:
        rows = study(np.random.default_rng(0), spread=0.1)
        for row in rows:
            if row["branch"] == "ticket" and row["round"] == 6:
                row["test_accuracy"] -= 0.05
        verdict = judge(rows, 1.0)
        assert (verdict.outcome, verdict.round) == ("not winning", 6)

    @pytest.mark.parametrize("control", ["random", "reinit"])
    def test_as_good_as_one_control_is_only_matching_and_names_it(self, control: str) -> None:
        verdict = judge(study(np.random.default_rng(1), **{control: 0.3}), 1.0)
        assert verdict.outcome == "matching"
        assert f"not shown to be better than {control}" in verdict.sentence

    def test_without_a_control_nothing_wins(self) -> None:
        verdict = judge(study(np.random.default_rng(1), controls=("random",)), 1.0)
        assert verdict.outcome == "matching"
        assert "the control reinit was not run" in verdict.sentence

    def test_far_below_dense_is_not_winning(self) -> None:
        verdict = judge(study(np.random.default_rng(1), ticket=-5), 1.0)
        assert (verdict.outcome, verdict.round) == ("not winning", 1)

    def test_undecided_says_how_many_replicates_would_decide(self) -> None:
        rows = study(np.random.default_rng(0), replicates=5)
        differences = [-2.0, 0.5, -1.5, 0.0, -0.5]  # mean -0.7, above the tolerance, with a wide interval
        for row in rows:
            row["validation_accuracy"] = 0.97 + (row["branch"] == "ticket") * differences[row["replicate"]] / 100
        verdict = judge(rows, 1.0)
        assert verdict.outcome == "undecided"
        assert verdict.replicates_needed is not None
        assert verdict.replicates_needed > 5
        assert f"about {verdict.replicates_needed} replicates would decide" in verdict.sentence

    def test_one_replicate_has_no_interval(self) -> None:
        verdict = judge(study(np.random.default_rng(0), replicates=1), 1.0)
        assert verdict.outcome == "undecided"
        assert verdict.versus["dense"].lower is None

    def test_pairs_by_replicate_whatever_the_order_of_rows(self) -> None:
        rows = study(np.random.default_rng(2), spread=0.2)
        for row in rows:  # a large effect common to a replicate cancels in paired differences
            row["test_accuracy"] -= 0.03 * row["replicate"]
            row["validation_accuracy"] -= 0.03 * row["replicate"]
        verdict = judge(rows, 1.0)
        assert verdict.outcome == "winning"
        np.random.default_rng(0).shuffle(rows)
        assert judge(rows, 1.0) == verdict


def wins(count: int, seed: int, **kind: object) -> float:
    rng = np.random.default_rng(seed)
    return sum(judge(study(rng, **kind), 1.0).outcome == "winning" for _ in range(count)) / count


NULL_STUDIES = {
    "no better than either control": {"random": 0.0, "reinit": 0.0},
    "no better than random": {"random": 0.0},
    "no better than reinit": {"reinit": 0.0},
    "worse than dense by the tolerance": {"ticket": -1.0, "random": -9.0, "reinit": -9.0},
    "few replicates, small test set": {"random": 0.0, "replicates": 3, "examples": 360, "spread": 0.1},
    # The density is chosen by the accuracy of the very networks that are then compared: chance helps twice.
    "selected, falling slowly": {"like_ticket": ("random",), "decline": 0.15, "shared": 0.8},
    "selected, falling fast": {"like_ticket": ("random",), "decline": 0.3, "shared": 0.8},
    "selected, validation is test": {"like_ticket": ("random",), "decline": 0.2, "shared": 1.0},
    "selected, five replicates": {"like_ticket": ("reinit",), "decline": 0.2, "shared": 1.0, "replicates": 5},
}


@pytest.mark.parametrize("kind", NULL_STUDIES)
def test_of_1000_null_studies_at_most_5_percent_are_called_winning(kind: str) -> None:
    assert wins(1000, seed=11, **NULL_STUDIES[kind]) <= 0.05


def test_the_power_for_a_1_point_difference() -> None:
    """Ten replicates, sd 0.5 points a training: a ticket one point above both controls is found in > 90 %."""
    assert wins(300, seed=2, random=-1.0, reinit=-1.0) > 0.9


@pytest.mark.parametrize(("difference", "sd", "n"), [(1.0, 0.7, 5), (0.3, 0.7, 10), (0.0, 1.0, 8)])
def test_the_stated_power_is_what_simulation_finds(difference: float, sd: float, n: int) -> None:
    rng = np.random.default_rng(4)
    found = np.mean([one_sided(rng.normal(difference, sd, n)).lower > 0 for _ in range(2000)])
    assert found == pytest.approx(power(difference, sd, n), abs=0.035)


class TestIntervals:
    def test_estimate_is_scipys_interval(self) -> None:
        values = [97.1, 98.4, 96.9, 97.7]
        low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
        mine = estimate(values)
        assert (mine.low, mine.high) == pytest.approx((low, high))

    def test_one_value_has_a_mean_and_no_interval(self) -> None:
        mine = estimate([3.0])
        assert (mine.mean, mine.low, mine.half_width, mine.n) == (3.0, None, None, 1)

    def test_one_sided_bound_is_the_t_tests(self) -> None:
        differences = [0.3, 0.1, 0.5, -0.1, 0.4]
        bounds = one_sided(differences)
        at_bound = stats.ttest_1samp(differences, bounds.lower, alternative="greater")
        assert at_bound.pvalue == pytest.approx(0.05)

    def test_equal_differences_are_not_certainty(self) -> None:
        """Two replicates that agree by rounding: without the resolution the bound would equal the mean."""
        assert one_sided([0.28, 0.28]).lower == 0.28
        assert one_sided([0.28, 0.28], resolution=0.28).lower < 0
