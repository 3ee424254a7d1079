"""Looks: the error of a verdict holds when a run is extended, whatever path is taken; looks are rows of the run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_study import SMALL_STUDY, run_lottery
from studies.test_verdict import study
from tombola.reports.intervals import power
from tombola.runs.rows import read_rows, rows_of
from tombola.studies.base.opened import read_result
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.looks import Looks, look_row
from tombola.studies.lottery.study import open_lottery
from tombola.studies.lottery.verdict import judge
from tombola.studies.lottery.verdict_notes import levels_line

NUMBERS = (5, 6, 10, 20)
"""Replicates at which a study is looked at: one at a time for a while, then always doubled."""


class TestLevels:
    @pytest.mark.parametrize("first", [None, 2, 3, 5, 8, 10])
    def test_those_of_all_numbers_of_replicates_add_up_to_5_percent(self, first: int | None) -> None:
        looks = [Looks(first).levels(n) for n in range(first or 2, 1500)]
        assert 0.049 < sum(levels.dense for levels in looks) <= 0.05
        assert sum(levels.controls for levels in looks) <= 0.035

    def test_the_first_look_keeps_its_power(self) -> None:
        """At 5 replicates, for a difference of two standard deviations: at most 7 points of power for the looks."""
        levels = Looks(5).levels(5)
        assert power(2, 1, 5, 1 - levels.dense) > power(2, 1, 5, 0.95) - 0.07
        assert levels.controls == 0.025

    def test_one_replicate_claims_nothing_and_spends_nothing(self) -> None:
        assert Looks.of([look_row(1), look_row(10), look_row(4)]) == Looks(10)  # the first one taken

    @pytest.mark.parametrize("first", [None, 2, 3, 5, 10, 37])
    def test_all_numbers_together_spend_no_more_than_5_percent(self, first: int | None) -> None:
        """Those below the first look too, which somebody may ask for afterwards."""
        levels = [Looks(first).levels(count) for count in range(2, 5000)]
        assert 0.049 < sum(level.dense for level in levels) < 0.05 + 1e-9
        assert sum(level.controls for level in levels) < 0.035 + 1e-9

    def test_what_is_advised_is_a_doubling_with_80_percent_power(self) -> None:
        assert Looks(6).advised(0.5, sd=1.0, replicates=9) == 96
        assert power(0.5, 1.0, 96, 1 - Looks(6).levels(96).dense) >= 0.8
        assert power(0.5, 1.0, 48, 1 - Looks(6).levels(48).dense) < 0.8
        assert Looks(6).advised(-0.1, 1.0, 9) is None
        assert Looks(6).advised(1e-6, 1.0, 9) is None


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "no better than random": ("winning", {"random": 0.0}),
    "selected, validation is test": ("winning", {"like_ticket": ("random",), "decline": 0.2, "shared": 1.0}),
    "at the tolerance, validation is test": ("winning", {"ticket": -1.0, "random": -9, "reinit": -9, "shared": 1.0}),
    "falsely matching": ("matching", {"ticket": -1.0, "shared": 1.0, "controls": (), "rounds": 1}),
    "falsely not winning": ("not winning", {"ticket": -1.0, "shared": 1.0, "controls": (), "rounds": 1}),
}


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_of_studies_looked_at_until_they_claim_it_at_most_5_percent_do(kind: str, recorded: bool) -> None:
    """Every look of `NUMBERS` is taken and the worst counts: no path through them, however chosen, errs more often."""
    claim, true = KINDS[kind]
    rng, false, count = np.random.default_rng(5), 0, 300 if true.get("rounds") == 1 else 100
    looked = [look_row(NUMBERS[0])] if recorded else []
    for _ in range(count):
        rows = study(rng, replicates=NUMBERS[-1], **{"rounds": 2} | true)
        seen = ([row for row in rows if row["replicate"] < n] for n in NUMBERS)
        false += any(judge([*part, *looked], 1.0).outcome == claim for part in seen)
    assert false <= 0.05 * count


def test_extended_as_the_sentence_advises() -> None:
    """The path that a person takes: the number in the sentence, until it wins or nothing is advised any more."""
    rng, won, count = np.random.default_rng(3), 0, 120
    for _ in range(count):
        rows = study(rng, replicates=40, rounds=2, random=0.0, shared=1.0, spread=0.4)
        replicates = 5
        while True:
            sentence = judge([row for row in rows if row["replicate"] < replicates], 1.0).sentence
            advised = [int(n.replace(",", "")) for n in re.findall(r"about ([\d,]+) replicates would", sentence)]
            if not advised or not replicates < max(advised) <= 40:
                break
            replicates = max(advised)
        won += sentence.startswith("Winning")
    assert won <= 0.05 * count


def test_a_later_look_says_its_level_and_which_it_is() -> None:
    rows = study(np.random.default_rng(1), replicates=10)
    first, later = judge([*rows, look_row(10)], 1.0), judge([*rows, look_row(5)], 1.0)
    assert levels_line(first).startswith(
        "First look, at 10 replicates: one-sided bounds at 96 % against dense and 97.5 %"
    )
    assert "after a first one at 5: one-sided bounds at 99.6 %" in levels_line(later)
    assert "No earlier look is recorded" in levels_line(judge(rows, 1.0))
    assert later.versus["dense"].confidence == later.dense_confidence == 0.996


TINY = SMALL_STUDY | {"pruning": {"densities": [0.5]}, "controls": []}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("looks")


class TestRuns:
    def test_each_verdict_that_is_shown_is_recorded_once(self, root: Path) -> None:
        one = run_lottery(LotteryConfig(**TINY), root)
        assert one.verdict.first_look == 2
        run_lottery(LotteryConfig(**TINY), root)  # shown again: no new look
        assert [row["replicates"] for row in rows_of(read_rows(one.folder.rows), kind="look")] == [2]
        more = run_lottery(LotteryConfig(**TINY | {"replicates": 3}), root)
        assert [row["replicates"] for row in rows_of(read_rows(one.folder.rows), kind="look")] == [2, 3]
        assert more.verdict.first_look == 2
        assert more.verdict.dense_confidence > one.verdict.dense_confidence == 0.96

    def test_a_run_that_is_not_finished_is_not_judged(self, root: Path) -> None:
        """Judging what happens to be there would be a look that nobody recorded."""
        folder = next(root.glob("lottery-*"))
        run = open_lottery(folder)
        run.folder.write_config(run.config.model_copy(update={"replicates": 4}))
        found = read_result(open_lottery(folder))
        assert found is not None
        assert found.verdict.sentence == "Not judged yet: 3 of 4 replicates are complete."
