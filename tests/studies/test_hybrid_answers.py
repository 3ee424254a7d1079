"""The four answers are computed from rows: altered rows change the sentence, missing ones are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hybrid_rows import (
    EXITS,
    MAJORITY,
    TEST_EXAMPLES,
    Row,
    altered,
    hybrid_result,
    hybrid_rows,
    latencies,
    lottery,
    lottery_result,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tombola.reports.intervals import estimate
from tombola.studies.hybrid.answers import four_answers
from tombola.studies.hybrid.contest import contest
from tombola.studies.hybrid.costs import cost
from tombola.studies.hybrid.cuts import sources_of
from tombola.studies.hybrid.degradation import degradation
from tombola.studies.hybrid.forest_results import baselines_table, exits_table
from tombola.studies.hybrid.heads import head_sentences
from tombola.studies.hybrid.maps import maps
from tombola.studies.hybrid.questions import Answer, Lottery
from tombola.studies.hybrid.rounds import rounds_table
from tombola.studies.hybrid.summaries import best_features, exits_of, forests_of, networks_of
from tombola.studies.lottery.looks import look_row
from tombola.studies.lottery.verdict import judge

EARLY, LATE, NEVER = (0.0, 2.0, 3.0, 4.0), (0.0, 0.0, 0.0, 3.0), (0.0, 0.0, 0.0, 0.0)
EXIT = "block3_conv3"


def lotteries(**drops: tuple[float, ...]) -> dict[str, Lottery]:
    return {name: lottery(name, drops=each) for name, each in drops.items()}


class TestDegradation:
    def test_lenet_before_the_head(self) -> None:
        answer = degradation(lotteries(lenet=EARLY, head=LATE))
        assert answer.lead == (
            "LeNet is shown to degrade from 75.0% sparsity on, the head from 93.8% on: where replicates spread "
            "more, the same drop is shown later."
        )

    @pytest.mark.parametrize(
        ("lenet", "head", "said"),
        [
            (LATE, EARLY, "LeNet is shown to degrade from 93.8% sparsity on, the head from 75.0% on"),
            (EARLY, EARLY, "LeNet and the head are shown to degrade from the same sparsity on, 75.0%."),
            (
                EARLY,
                NEVER,
                "LeNet is shown to degrade from 75.0% sparsity on, the head is not shown to degrade up to 93.8%",
            ),
            (
                NEVER,
                EARLY,
                "The head is shown to degrade from 75.0% sparsity on, LeNet is not shown to degrade up to 93.8%",
            ),
            (
                NEVER,
                NEVER,
                "Neither LeNet (up to 93.8% sparsity) nor the head (up to 93.8%) is shown to degrade, which does",
            ),
        ],
    )
    def test_altered_rows_change_the_comparison(self, lenet: Any, head: Any, said: str) -> None:
        assert said in degradation(lotteries(lenet=lenet, head=head)).lead

    def test_pruned_less_far_is_no_evidence(self) -> None:
        lead = degradation(lotteries(lenet=LATE, head=(0.0, 0.0))).lead
        assert "the head is not shown to degrade but was pruned to 75.0% only" in lead
        assert "cannot be compared" in lead

    @pytest.mark.parametrize("drops", [(0.0, 0.15, 0.2, 4.0), (0.0, 0.15, 0.7, 4.0), (0.6, 0.15, 0.2, 0.3)])
    def test_the_step_is_the_one_sided_paired_t_test_on_test_after_holm(self, drops: tuple[float, ...]) -> None:
        """An independent computation of the first round that the step-down procedure rejects."""
        one = lottery("lenet", drops=drops, spread=0.15)
        dense = {r["replicate"]: r["test_accuracy"] for r in one.rows if r["branch"] == "dense"}
        p = {}
        for index in (1, 2, 3, 4):
            ticket = [r for r in one.rows if r["branch"] == "ticket" and r["round"] == index]
            gaps = [r["test_accuracy"] - dense[r["replicate"]] for r in ticket]
            p[1 - ticket[0]["density"]] = stats.ttest_1samp(gaps, 0.0, alternative="less").pvalue
        rejected = []
        for left, sparsity in zip((4, 3, 2, 1), sorted(p, key=lambda s: p[s]), strict=True):
            if left * p[sparsity] >= 0.05:
                break
            rejected.append(sparsity)
        found = degradation({"lenet": one}).numbers["lenet"]
        assert found["degrades_at_sparsity"] == min(rejected, default=None)
        assert [s["sparsity"] for s in found["sparsities"] if s["degraded"]] == sorted(rejected)

    def test_one_of_many_sparsities_below_dense_by_chance_is_not_claimed(self) -> None:
        """Without an effect, 8 sparsities and 4 replicates: a claim in at most one of twenty studies, not in most."""
        claims, studies = 0, 60
        for seed in range(studies):
            one = lottery("lenet", replicates=4, drops=(0.0,) * 8, spread=1.0, seed=seed)
            claims += degradation({"lenet": one}).numbers["lenet"]["degrades_at_sparsity"] is not None
        assert claims / studies <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5

    def test_the_verdict_gives_the_last_sparsity_within_tolerance(self) -> None:
        one = lottery("lenet", drops=LATE)
        answer = degradation({"lenet": one})
        assert answer.numbers["lenet"]["last_sparsity_within_tolerance"] == 1 - judge(one.rows, 1.0).density == 0.875
        chosen = "chosen on validation and confirmed on test"
        assert f"shows to be within 1 point of dense is that of 87.5%, {chosen}" in answer.text
        wide = Lottery("lenet", one.architecture, 5.0, one.rows)
        assert "shows to be within 5 points of dense is that of 93.8%" in degradation({"lenet": wide}).text

    def test_says_what_is_found_in_80_percent_of_such_studies(self) -> None:
        """The power of the strictest test of the family, by scipy's noncentral t; not half of an interval."""
        few, many = (degradation({"lenet": lottery("lenet", replicates=n, spread=0.4)}) for n in (3, 12))
        assert "would be found in 80 % of such studies" in few.text
        assert "could not have been seen" not in few.text
        largest = [a.numbers["lenet"]["smallest_and_largest_detectable_drop"][1] for a in (few, many)]
        assert largest[0] > largest[1] > 0
        steps = many.numbers["lenet"]["sparsities"]
        sd = max(step["two_sided"]["sd"] for step in steps)
        limit = stats.t.ppf(1 - 0.05 / len(steps), 11)
        assert stats.nct.sf(limit, 11, largest[1] * 12**0.5 / sd) == pytest.approx(0.8, abs=1e-4)

    def test_a_dip_that_sparser_tickets_do_not_share_is_named(self) -> None:
        text = degradation(lotteries(lenet=(2.0, 0.0, 0.0, 0.0))).text
        assert "3 of 3 sparser tickets not shown to be: chance may have had a hand in it." in text

    def test_one_replicate_decides_nothing(self) -> None:
        both = {name: lottery(name, replicates=1, drops=EARLY) for name in ("lenet", "head")}
        answer = degradation(both)
        assert "cannot be compared: one replicate has no spread" in answer.lead
        assert answer.numbers["head"]["degrades_at_sparsity"] is None
        assert answer.numbers["head"]["reason"] == "one replicate has no spread"

    def test_what_was_not_run_is_named(self) -> None:
        answer = degradation(lotteries(cnn=LATE))
        assert "the lottery of LeNet was not run and the lottery of the head was not run" in answer.lead
        assert answer.numbers["head"] == {"reason": "the lottery of the head was not run"}

    @settings(max_examples=20)
    @given(onset=st.integers(0, 3), depth=st.floats(1.0, 8.0), seed=st.integers(0, 1000))
    def test_whatever_the_order_of_rows_the_onset_is_where_the_drop_is(
        self, onset: int, depth: float, seed: int
    ) -> None:
        drops = tuple(depth if index >= onset else -0.5 for index in range(4))
        one = lottery("lenet", drops=drops)
        shuffled = list(one.rows)
        Random(seed).shuffle(shuffled)
        found = [degradation({"lenet": Lottery("lenet", "lenet5", 1.0, rows)}) for rows in (one.rows, shuffled)]
        assert found[0].numbers["lenet"]["degrades_at_sparsity"] == pytest.approx(1 - 0.5 ** (onset + 1))
        assert found[0].sentences == found[1].sentences


class TestContest:
    def test_matching_is_not_beating(self) -> None:
        answer = contest(lotteries(cnn=NEVER))
        assert answer.lead == "On test, at the target density: the CNN's ticket matches dense (within 1 point)."
        assert "it is not shown to beat dense" in answer.text
        assert "The lottery's verdict is of the same ticket: winning" in answer.text

    def test_altered_rows_make_it_beat(self) -> None:
        one = lottery("cnn", drops=NEVER)
        better = altered(list(one.rows), {"test_accuracy": lambda a: a + 0.02}, branch="ticket")
        answer = contest({"cnn": Lottery("cnn", "vgg11", 1.0, better)})
        assert answer.lead == "On test, at the target density: the CNN's ticket beats dense."
        assert "lies above 0: it beats dense" in answer.text

    def test_altered_rows_make_it_lose(self) -> None:
        answer = contest(lotteries(cnn=(5.0, 5.0, 5.0, 5.0), lenet=NEVER))
        assert answer.lead == (
            "On test, at the target density: LeNet's ticket matches dense (within 1 point); the CNN's ticket does not "
            "match dense (it is not within 1 point)."
        )
        assert answer.numbers["cnn"]["standing"] == "does not match dense"

    def test_undecided_is_said(self) -> None:
        answer = contest({"cnn": lottery("cnn", replicates=1)})
        assert answer.lead == "On test, at the target density: the CNN's ticket is undecided."
        assert "run with --replicates 5 or more" in answer.text
        assert "beats dense" not in answer.text

    def test_worse_within_the_tolerance_is_said(self) -> None:
        text = contest({"cnn": lottery("cnn", drops=(0.5, 0.5, 0.5, 0.5), spread=0.05)}).text
        assert "matches dense (within 1 point), though it is below it" in text

    @pytest.mark.parametrize(("control", "name"), [("random", "random mask"), ("reinit", "re-initialised")])
    def test_a_control_that_wins_is_stated(self, control: str, name: str) -> None:
        answer = contest({"cnn": lottery("cnn", drops=NEVER, controls={control: -3.0})})
        assert f"The control wins: {name} is better than the ticket of the CNN" in answer.text
        assert answer.numbers["cnn"]["controls_that_win"] == [control]
        assert "The control wins" not in contest({"cnn": lottery("cnn", drops=NEVER)}).text

    def test_not_run(self) -> None:
        assert contest({}).lead == "Not known: no lottery was run."
        assert "The lottery of LeNet was not run" in contest(lotteries(cnn=LATE)).text


class TestCost:
    def test_all_measured(self) -> None:
        answer = cost(hybrid_rows(), lotteries(head=LATE), EXIT)
        assert answer.lead.startswith(
            f"Against the exit {EXIT} of the dense network with grid features, best on validation, and a forest, the "
            "ticket needs fewer FLOPs, is faster at batch 1, is faster at batch 64 and is more accurate on test: +"
        )
        assert "needs 3.00 MFLOPs of its dense network's 15.0, 0.33 × the exit's" in answer.text
        assert "9.00 MFLOPs and, counted apart, 2,502 comparisons in 300 trees" in answer.text
        assert (
            "Measured at batch 1: ticket 200 µs (sparse kernels), exit and forest 275 µs (torch eager + " in answer.text
        )

    def test_the_base_is_the_rival_where_there_is_one(self) -> None:
        rows = hybrid_rows(networks=("base", "dense", "ticket"))
        assert f"the exit {EXIT} of the frozen base" in cost(rows, {}, EXIT).lead

    def test_altered_flops_change_the_sentence(self) -> None:
        rows = altered(hybrid_rows(), {"flops_effective": 12_000_000}, kind="network", network="ticket")
        answer = cost(rows, {}, EXIT)
        assert "needs more FLOPs" in answer.lead
        assert "with more of them the ticket is faster at batch 1 and 64" in answer.text

    def test_altered_times_change_the_sentence(self) -> None:
        slow = {"seconds": [9e-3, 1e-2, 1.1e-2]}
        rows = altered(hybrid_rows(), slow, kind="latency", network="ticket", exit=None, batch=1)
        answer = cost(rows, {}, EXIT)
        assert "is slower at batch 1, is faster at batch 64" in answer.lead
        assert "with fewer of them the ticket is slower at batch 1." in answer.text

    def test_overlapping_quartiles_are_no_difference(self) -> None:
        like = {"seconds": [2.6e-4, 2.7e-4, 2.8e-4]}
        rows = altered(hybrid_rows(), like, kind="latency", network="ticket", exit=None, batch=1)
        answer = cost(rows, {}, EXIT)
        assert "is about as fast at batch 1" in answer.lead
        assert "their quartiles overlap" in answer.text

    def test_altered_accuracy_changes_the_sentence(self) -> None:
        rows = altered(hybrid_rows(), {"test_accuracy": 0.5}, kind="network", network="ticket")
        assert "is less accurate on test: −" in cost(rows, {}, EXIT).lead

    def test_no_significant_difference_is_said_with_what_would_be_found(self) -> None:
        exits = {row["replicate"]: row for row in hybrid_rows() if row["kind"] == "forest" and row["exit"] == EXIT}
        rows = altered(hybrid_rows(), {"test_accuracy": exits[0]["test_accuracy"]}, kind="network", network="ticket")
        assert "shows no significant difference in test accuracy: " in cost(rows, {}, EXIT).lead
        assert "would be found in 80 % of such studies" in cost(rows, {}, EXIT).lead

    def test_a_time_that_is_missing_has_a_reason_and_is_never_0(self) -> None:
        gone = {"seconds": None, "reason": "no such kernels here"}
        rows = altered(hybrid_rows(), gone, kind="latency", network="ticket", exit=None)
        answer = cost(rows, {}, EXIT)
        assert "is of unknown speed at batch 1" in answer.lead
        assert "(ticket: no such kernels here)" in answer.text
        assert answer.numbers["seconds"][0]["ticket"] is None
        assert answer.numbers["seconds"][0]["reason"] == "ticket: no such kernels here"

    def test_without_latency_rows(self) -> None:
        rows = [row for row in hybrid_rows() if row["kind"] != "latency"]
        assert "(ticket: not measured)" in cost(rows, {}, EXIT).text

    def test_an_exit_without_a_forest_lists_those_there_are(self) -> None:
        said = cost(hybrid_rows(), {}, "block9_conv9").lead
        assert said.startswith("Not known: no forest was grown at block9_conv9 of the dense network; there are block1")
        assert all(exit in said for exit in EXITS)

    def test_without_a_ticket(self) -> None:
        assert cost(hybrid_rows(networks=("dense",)), {}, EXIT).lead == "Not known: no ticket was measured."

    def test_another_order_by_torch_alone_is_said(self) -> None:
        slow = {"seconds": [9e-3, 1e-2, 1.1e-2]}
        rows = altered(hybrid_rows(), slow, kind="latency", network="ticket", exit=None, batch=1, engine="torch eager")
        answer = cost(rows, {}, EXIT)
        assert "is faster at batch 1" in answer.lead
        assert "With torch alone the ticket is slower at batch 1: 10,000 against 275 µs." in answer.text
        alike = {"seconds": [1e-5, 1.1e-5, 1.2e-5]}
        same = altered(hybrid_rows(), alike, kind="latency", network="ticket", exit=None)
        assert "torch alone" not in cost(same, {}, EXIT).text

    def test_the_exit_is_timed_by_its_fastest_engine(self) -> None:
        fast = {"seconds": [9e-6, 1e-5, 1.1e-5]}
        engine = "sparse kernels + onnxruntime"
        answer = cost(altered(hybrid_rows(), fast, kind="latency", exit=EXIT, engine=engine), {}, EXIT)
        assert f"exit and forest 10.0 µs ({engine})" in answer.text
        assert "is slower at batch 1, is slower at batch 64" in answer.lead


class TestDeployed:
    """The network that base and head make together."""

    ROWS = hybrid_rows(networks=("base", "head", "head ticket", "dense", "ticket"))

    def test_against_the_exit_and_its_forest(self) -> None:
        text = cost(self.ROWS, {}, EXIT).text
        assert (
            "Base + dense head needs 15.0 MFLOPs, takes 400 µs at batch 1 (torch eager) and takes 7,352 µs at batch 64 "
            "(torch eager): against the exit and its forest it is slower at batch 1, is slower at batch 64 and is more "
            "accurate on test: +" in text
        )
        assert "Base + head's ticket needs 15.0 MFLOPs, takes 200 µs at batch 1 (sparse kernels)" in text
        assert "With the head's ticket instead of the dense head the whole is faster at batch 1 and is faster" in text

    def test_altered_rows_change_the_sentences(self) -> None:
        like = {"seconds": [3.9e-4, 4e-4, 4.1e-4]}
        rows = altered(self.ROWS, like, kind="latency", network="head ticket", batch=1)
        assert "the whole is about as fast at batch 1 and is faster at batch 64." in cost(rows, {}, EXIT).text
        rows = altered(self.ROWS, {"test_accuracy": 0.2}, kind="network", network="head")
        assert "and is less accurate on test: −" in cost(rows, {}, EXIT).text
        assert "judged at 5 %, corrected for 3 of them (Holm)" in cost(rows, {}, EXIT).text

    def test_numbers_and_missing_times(self) -> None:
        gone = {"seconds": None, "reason": "too large"}
        answer = cost(altered(self.ROWS, gone, kind="latency", network="head", batch=1), {}, EXIT)
        assert "needs 15.0 MFLOPs, no time at batch 1" not in answer.text
        assert "has no time at batch 1" in answer.text
        assert answer.numbers["base_and_head"]["head"]["seconds"][0]["reason"] == "head: too large"
        assert answer.numbers["base_and_head"]["head ticket"]["seconds"][0]["head ticket"]["engine"] == "sparse kernels"
        assert cost(hybrid_rows(), {}, EXIT).numbers["base_and_head"] == {}


class TestHead:
    BASE = networks_of(hybrid_rows(networks=("base",)))["base"]

    def test_a_head_cannot_move_flops(self) -> None:
        said = head_sentences(lottery("head", drops=LATE), self.BASE)
        assert said[0] == (
            "A head cannot move FLOPs: the head is 0.7% of the 15.1 MFLOPs of base and head (dense 0.100 MFLOPs; "
            "its ticket, 6.2% of the weights, round 4: 0.00625), and its ticket saves 0.6% of the whole."
        )
        assert said[1] == (
            "What it saves are weights and bytes: 3,125 of 50,000 weights are kept (6.2%), 18.8 kB as one bit mask "
            "and values against 200 kB dense, biases left out."
        )

    def test_altered_rows_change_the_sentence(self) -> None:
        said = head_sentences(lottery("head", drops=LATE, flops=15_000_000), self.BASE)
        assert said[0].startswith("Here the head does move FLOPs: the head is 50.0% of the 30.0 MFLOPs")

    def test_no_base_or_no_head(self) -> None:
        assert "its fraction is not known" in head_sentences(lottery("head"), None)[0]
        assert head_sentences(None, self.BASE) == [
            "The lottery of the head was not run: what its ticket saves is not known."
        ]


class TestMaps:
    def test_no_loss_shown(self) -> None:
        answer = maps(hybrid_rows())
        assert answer.lead.startswith(
            "No loss is shown at any of 3 exits, which does not show that there is none: a true"
        )
        assert "would be found in 80 % of such studies" in answer.lead

    def test_the_exits_that_lose_are_named(self) -> None:
        answer = maps(hybrid_rows(lost={"block1_conv2": 4.0}))
        assert answer.lead == (
            "Not everywhere: at block1_conv2, 1 of 3 exits, a forest on the ticket's features is worse; at 2 exits no "
            "significant difference is shown."
        )
        assert "No significant difference: block3_conv3 and block5_conv3. A true difference of " in answer.text

    def test_an_exit_that_is_worse_by_itself_alone_is_not_called_worse(self) -> None:
        """An interval below 0 is one of three looks; after Holm it is no difference that was shown."""
        losses = {0: 2.0, 1: 0.4, 2: 1.6, 3: 0.2, 4: 0.9}  # p = 0.04 by itself
        rows = hybrid_rows(spread=0.0)
        for replicate, loss in losses.items():
            here = {"kind": "forest", "network": "ticket", "exit": "block1_conv2", "replicate": replicate}
            rows = altered(rows, {"test_accuracy": lambda a, loss=loss: a - loss / 100}, **here)
        answer = maps(rows)
        found = answer.numbers["ticket_minus_dense"]["block1_conv2"]
        assert found["high"] < 0 < found["detectable"]
        assert (
            0.05 < found["p_adjusted"] == pytest.approx(3 * stats.ttest_1samp([*losses.values()], 0).pvalue, rel=0.05)
        )
        assert answer.lead.startswith("No loss is shown at any of 3 exits")

    def test_how_many_exits_are_corrected_for_is_said(self) -> None:
        said = "Exits are judged at 5 %, corrected for {} of them (Holm)"
        assert said.format(3) in maps(hybrid_rows()).text
        two = [row for row in hybrid_rows() if row.get("exit") != EXIT]
        assert said.format(2) in maps(two).text

    def test_a_mean_over_exits_has_at_least_the_spread_of_its_rounding(self) -> None:
        """Of independent errors: four for every exit, three exits."""
        level = altered(hybrid_rows(), {"test_accuracy": 0.8}, kind="forest")
        found = maps(level).numbers["gap_minus_others"]["grid"]
        assert found["sd"] == pytest.approx(100 / TEST_EXAMPLES * (4 / 12 / 3) ** 0.5)

    def test_all_lose(self) -> None:
        assert maps(hybrid_rows(lost=dict.fromkeys(EXITS, 4.0))).lead.startswith("No: at every exit (3)")

    def test_a_gain_is_named(self) -> None:
        assert "serve better at block5_conv3." in maps(hybrid_rows(lost={"block5_conv3": -4.0})).text

    def test_the_difference_is_paired(self) -> None:
        """Each replicate's own luck cancels: the interval is that of differences by replicate."""
        rows = hybrid_rows(lost={"block1_conv2": 4.0})
        found = {
            network: [
                row["test_accuracy"]
                for row in rows
                if row["kind"] == "forest"
                and row["network"] == network
                and row["features"] == "grid"
                and row["exit"] == "block1_conv2"
            ]
            for network in ("ticket", "dense")
        }
        differences = [100 * (a - b) for a, b in zip(found["ticket"], found["dense"], strict=True)]
        mine = maps(rows).numbers["ticket_minus_dense"]["block1_conv2"]
        assert mine["high"] == pytest.approx(estimate(differences, 100 / TEST_EXAMPLES).high)

    def test_gap_suffers_more(self) -> None:
        text = maps(hybrid_rows(lost_by_features={"gap": 5.0})).text
        assert "gap suffers more than gap+max" in text
        assert "gap suffers more than grid" in text

    def test_gap_suffers_less(self) -> None:
        text = maps(hybrid_rows(lost_by_features={"grid": 5.0})).text
        assert "gap shows no significant difference to gap+max" in text
        assert "gap suffers less than grid" in text

    def test_pixels_that_win_are_said_to(self) -> None:
        text = maps(hybrid_rows(pixels=97.0)).text
        assert "A forest on raw pixels beats the best exit on validation" in text
        assert "A forest on PCA beats the best exit on validation" in text
        assert "A forest on raw pixels is worse than the best exit" in maps(hybrid_rows(pixels=50.0)).text

    def test_one_replicate_decides_nothing(self) -> None:
        assert maps(hybrid_rows(replicates=1)).lead == "Undecided: one replicate has no spread."

    def test_missing_parts(self) -> None:
        assert maps([]).lead == "Not known: no forest was grown."
        alone = maps(hybrid_rows(networks=("dense",)))
        assert alone.lead.startswith("Not known: there are no forests on a ticket's")
        bare = [row for row in hybrid_rows() if row["network"] not in ("pixels", "pca")]
        answer = maps(bare)
        assert "A forest on raw pixels was not grown." in answer.text
        assert answer.numbers["baselines_minus_best_exit"] == {"pixels": None, "pca": None}


class TestChoice:
    def test_features_are_chosen_on_validation_alone(self) -> None:
        rows = hybrid_rows()
        spoiled = altered(rows, {"test_accuracy": 0.0}, kind="forest", features="grid")
        assert [f.features for f in best_features(forests_of(spoiled))] == [
            f.features for f in best_features(forests_of(rows))
        ]
        turned = altered(rows, {"validation_accuracy": 0.999}, kind="forest", features="gap", exit=EXIT)
        chosen = {(f.network, f.exit): f.features for f in best_features(forests_of(turned))}
        assert (chosen["dense", EXIT], chosen["dense", "block1_conv2"]) == ("gap", "grid")

    def test_of_equals_the_fewest_features(self) -> None:
        rows = altered(hybrid_rows(), {"validation_accuracy": 0.8}, kind="forest")
        assert {f.features for f in best_features(forests_of(rows)) if f.exit} == {"gap"}

    def test_exits_stand_from_first_to_last(self) -> None:
        assert exits_of(forests_of(list(reversed(hybrid_rows())))) == list(EXITS)


def sentences(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers]


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_changes_no_answer(seed: int) -> None:
    rows, runs = hybrid_rows(replicates=3), lotteries(cnn=LATE, head=NEVER, lenet=EARLY)
    shuffled = list(rows)
    Random(seed).shuffle(shuffled)
    assert sentences(four_answers(shuffled, runs, EXIT)) == sentences(four_answers(rows, runs, EXIT))


@pytest.mark.parametrize("rows", [[], latencies(), hybrid_rows(replicates=1, networks=("ticket",))])
def test_however_little_there_is_every_question_has_an_answer_that_json_holds(rows: list[Row]) -> None:
    answers = four_answers(rows, {}, EXIT)
    assert len(answers) == 4
    for answer in answers:
        assert "ot known" in answer.lead or "cannot be compared" in answer.lead
        json.dumps(answer.entry, allow_nan=False)


def test_nothing_is_called_that_was_not_asked() -> None:
    """One paragraph a question, in the order of the issue; every number of the document is JSON."""
    answers = four_answers(hybrid_rows(), lotteries(cnn=LATE, head=LATE, lenet=EARLY), EXIT)
    assert ["degrade" in answers[0].question, "match or beat" in answers[1].question] == [True, True]
    assert ["cost" in answers[2].question, "feature maps" in answers[3].question] == [True, True]
    assert json.loads(json.dumps([answer.entry for answer in answers], allow_nan=False))[0]["answer"] == answers[0].text


class TestOneTicket:
    """A study speaks of one ticket, that of the target density, whatever the lotteries' verdicts speak of."""

    @pytest.mark.parametrize("drops", [LATE, EARLY, NEVER])
    def test_all_answers_have_the_round_of_the_target_density(self, drops: tuple[float, ...]) -> None:
        runs = lotteries(cnn=drops, head=drops, lenet=drops)
        answers = four_answers(hybrid_rows(networks=("base", "dense", "ticket")), runs, EXIT)
        rounds = [answers[1].numbers[name]["ticket"]["round"] for name in runs]
        assert [*rounds, answers[2].numbers["head"]["ticket"]["round"]] == [4] * 4
        assert [runs[name].ticket_round for name in runs] == [4] * 3
        assert answers[2].numbers["head"]["weights_kept"] == runs["head"].branch("ticket", 4)[0]["kept"]
        assert answers[1].text.count("ticket with 6.2% of the weights, round 4: ticket − dense") == 3

    def test_a_verdict_of_another_ticket_is_one_sentence_with_its_own_number(self) -> None:
        one = lotteries(cnn=LATE)
        assert one["cnn"].verdict.round == 3
        answer = contest(one)
        said = [sentence for sentence in answer.sentences if "round 3" in sentence]
        assert said == [
            s for s in answer.sentences if s.startswith("The lottery's verdict is of another ticket, with ")
        ]
        assert "with 12.5% of the weights, round 3: winning" in said[0]
        assert answer.lead.endswith("the CNN's ticket does not match dense (it is not within 1 point).")

    def test_the_networks_that_are_cut_are_of_that_round(self, tmp_path: Path) -> None:
        result = hybrid_result(tmp_path)
        late = {name: lottery_result(tmp_path / name, name, drops=LATE) for name in ("cnn", "head")}
        sources = sources_of(result.config, late, None)
        answers = four_answers(hybrid_rows(), {name: Lottery.of(name, late[name]) for name in late}, EXIT)
        assert sources.round == answers[1].numbers["cnn"]["ticket"]["round"] == 4
        assert sources.head_round == answers[1].numbers["head"]["ticket"]["round"] == 4

    @settings(max_examples=30)
    @given(
        drops=st.tuples(*[st.floats(-1, 4)] * 4),
        spread=st.floats(0.05, 2),
        replicates=st.integers(2, 6),
        seed=st.integers(0, 99),
    )
    def test_the_first_two_answers_never_contradict_each_other(
        self, drops: tuple[float, ...], spread: float, replicates: int, seed: int
    ) -> None:
        """What one shows to be below dense the other neither calls better nor, without saying so, as good."""
        one = {"cnn": lottery("cnn", replicates=replicates, drops=drops, spread=spread, seed=seed)}
        first, second = degradation(one), contest(one)
        below = first.numbers["cnn"]["sparsities"][-1]["degraded"]
        standing = second.numbers["cnn"]["standing"]
        if below:
            assert standing in ("matches dense", "is below dense", "does not match dense")
            assert standing != "matches dense" or "though it is below it" in second.lead
        assert below or standing != "is below dense"
        same = first.numbers["cnn"]["sparsities"][-1]["two_sided"] == second.numbers["cnn"]["test_difference"]["dense"]
        assert same


class TestHonestWords:
    @settings(max_examples=6)
    @given(spread=st.floats(0.05, 3), replicates=st.integers(1, 5), drop=st.floats(0, 3))
    def test_where_no_difference_is_shown_it_is_said_what_would_be(
        self, spread: float, replicates: int, drop: float
    ) -> None:
        runs = {
            name: lottery(name, replicates=replicates, drops=(drop,) * 4, spread=spread)
            for name in ("cnn", "lenet", "head")
        }
        rows = hybrid_rows(replicates, ("base", "dense", "ticket"), dict.fromkeys(EXITS, drop), spread=spread)
        for answer in four_answers(rows, runs, EXIT):
            shown = [s for s in answer.sentences if "o significant difference" in s or "No loss is shown" in s]
            context = " ".join(answer.sentences)
            assert not shown or "would be found in 80 % of such studies" in context
            assert not any(
                word in context for word in ("told apart", "±", "could not have been seen", "serve the forest")
            )

    def test_intervals_have_their_level_and_number(self) -> None:
        answers = four_answers(hybrid_rows(), lotteries(cnn=LATE, head=NEVER, lenet=EARLY), EXIT)
        for answer in answers:
            assert len(
                re.findall(r"[+−]\d+\.\d\d points \(95 % CI [+−]\d+\.\d\d to [+−]\d+\.\d\d, n = 5\)", answer.text)
            )

    def test_the_words_name_no_base_that_was_not_used(self) -> None:
        for answer in four_answers(hybrid_rows(), lotteries(cnn=LATE, head=NEVER), EXIT):
            assert "VGG" not in answer.text + answer.question


class TestSoundness:
    """What is no better than the most frequent class is named in headlines and tables, and matches nothing."""

    NOTHING = {"test_accuracy": MAJORITY, "validation_accuracy": MAJORITY}  # noqa: RUF012

    @pytest.mark.parametrize(("branch", "index"), [("ticket", 4), ("dense", 0)])
    def test_a_network_that_learned_nothing_matches_nothing(self, branch: str, index: int) -> None:
        one = lottery("cnn", drops=NEVER)
        rows = altered(list(one.rows), self.NOTHING, kind="training", branch=branch, round=index)
        answer = contest({"cnn": Lottery("cnn", "vgg11", 100.0, rows)})  # any difference is within this tolerance
        said = f"the CNN's ticket cannot match anything, its {branch} network learned nothing"
        assert answer.lead == f"On test, at the target density: {said}."
        assert answer.numbers["cnn"]["standing"] == "is undecided"
        assert answer.numbers["cnn"]["fault"] == f"its {branch} network learned nothing"

    def test_two_networks_that_learned_nothing_are_equal_and_no_match(self) -> None:
        rows = altered(list(lottery("cnn", drops=NEVER).rows), self.NOTHING, kind="training")
        answer = contest({"cnn": Lottery("cnn", "vgg11", 1.0, rows)})
        assert "cannot match anything, its dense network learned nothing" in answer.lead
        first = degradation({"cnn": Lottery("cnn", "vgg11", 1.0, rows)})
        assert "is not known, the dense network learned nothing" in first.text

    def test_a_training_that_diverged_without_nan(self) -> None:
        wild = self.NOTHING | {"train_loss": 50.0, "train_frequency_loss": 1.1}
        one = lottery("cnn", drops=NEVER)
        rows = altered(list(one.rows), wild, kind="training", branch="ticket", round=4, replicate=2)
        cnn = Lottery("cnn", "vgg11", 100.0, rows)
        assert "its ticket network diverged in replicate 2 (of 5)" in contest({"cnn": cnn}).lead
        assert "The ticket network diverged in replicate 2 (of 5)" in degradation({"cnn": cnn}).text
        assert rounds_table(cnn).rows[-1][0] == "93.8%, diverged in replicate 2 (of 5)"

    @pytest.mark.parametrize("network", ["dense", "ticket"])
    def test_maps_of_such_a_network_are_no_maps(self, network: str) -> None:
        rows = altered(hybrid_rows(), {"test_accuracy": MAJORITY}, kind="network", network=network)
        assert maps(rows).lead.startswith(f"Not known: the {network} network learned nothing")
        assert cost(rows, {}, EXIT).lead.startswith(f"Beware: the {network} network learned nothing. Against the exit")
        assert f"{network} network, whole, learned nothing" in [row[0] for row in baselines_table(rows).rows]

    def test_a_forest_that_learned_nothing_is_called_so(self) -> None:
        where = {"kind": "forest", "network": "ticket", "exit": EXIT}
        rows = altered(hybrid_rows(), {"test_accuracy": MAJORITY}, **where)
        named = [row[:2] for row in exits_table(rows).rows if "learned nothing" in row[0]]
        assert named == [("ticket, learned nothing", EXIT)]

    def test_sound_networks_and_older_rows_are_not_named(self) -> None:
        assert "learned nothing" not in str([answer.text for answer in four_answers(hybrid_rows(), {}, EXIT)])
        older = [{k: v for k, v in row.items() if "majority" not in k} for row in hybrid_rows()]
        assert "learned nothing" not in str(exits_table(older).rows)


class TestLooks:
    def test_a_later_look_needs_more(self) -> None:
        """What a first look at 5 replicates claims, one at 6 of the same spread, after a look at 5, need not."""
        first = lottery("cnn", drops=(0.0, 0.0, 0.0, 0.85), spread=0.1)
        later = [row for row in first.rows if row["kind"] != "look"] + [look_row(2)]
        standings = [
            contest({"cnn": Lottery("cnn", "vgg11", 1.0, rows)}).numbers["cnn"] for rows in (first.rows, later)
        ]
        assert standings[0]["one_sided"]["confidence"] < standings[1]["one_sided"]["confidence"]
        assert standings[0]["one_sided"]["lower"] > standings[1]["one_sided"]["lower"]
