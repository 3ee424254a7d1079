"""Networks that learned nothing, or diverged without becoming NaN: named, and they match nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from small_study import SMALL_STUDY, run_lottery
from studies.test_verdict import study
from tombola.runs.rows import rows_of
from tombola.studies.base.soundness import UNSHOWN, fault_of, faults_of, frequency_loss, majority_accuracy
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.verdict import judge
from tombola.studies.single.comparison import summarise as summarise_comparison
from tombola.studies.single.comparison_report import lead as lead_of_comparison
from tombola.studies.single.config import CompareConfig
from tombola.studies.single.report import lead

MAJORITY = 0.6


def rows_with(faulty: dict[str, object], accuracy: float = MAJORITY, loss: float = 0.67) -> list[dict]:
    """A study whose networks are good, but for the trainings that have all the columns of `faulty`."""
    rows = study(np.random.default_rng(0), replicates=5, rounds=2, spread=0.1)
    for row in rows:
        bad = all(row[key] == value for key, value in faulty.items())
        for part in ("validation", "test"):
            row[f"{part}_majority_accuracy"] = MAJORITY
            row[f"{part}_accuracy"] = accuracy if bad else row[f"{part}_accuracy"]
        row |= {"train_loss": loss if bad else 0.01, "train_frequency_loss": 0.67}
    return rows


def test_good_networks_are_judged_as_ever() -> None:
    assert judge(rows_with({"branch": "nobody"}), 1.0).outcome == "winning"


def test_where_dense_and_tickets_learned_nothing_nothing_matches() -> None:
    """All networks answer the most frequent class: differences are 0, and the ticket was called matching."""
    rows = rows_with({"kind": "training"})
    verdict = judge(rows, 1.0)
    assert verdict.outcome == "undecided"
    assert verdict.sentence.startswith("Undecided: the dense network learned nothing")
    assert verdict.faults == {"dense": "learned nothing"}


@pytest.mark.parametrize(("loss", "named"), [(0.67, "learned nothing"), (9e3, "diverged")])
def test_a_ticket_that_learned_nothing_or_diverged_does_not_win(loss: float, named: str) -> None:
    verdict = judge(rows_with({"branch": "ticket"}, loss=loss), 1.0)
    assert verdict.outcome == "not winning"
    assert f"the ticket with 80.0% of the weights {named}" in verdict.sentence


def test_one_replicate_that_diverged_is_named_and_keeps_a_ticket_from_matching() -> None:
    """Beside a wide tolerance: the mean alone would pass."""
    faulty = {"branch": "ticket", "round": 1, "replicate": 3}
    verdict = judge(rows_with(faulty, loss=50.0), 60.0)
    assert verdict.outcome == "undecided"
    assert "diverged in replicate 3 (of 5)" in verdict.sentence


def test_a_diverged_dense_training_gives_nothing_to_match() -> None:
    verdict = judge(rows_with({"branch": "dense", "replicate": 1}, loss=50.0), 1.0)
    assert "the dense network diverged in replicate 1 (of 5)" in verdict.sentence


def test_a_control_that_learned_nothing_is_named_in_the_headline() -> None:
    verdict = judge(rows_with({"branch": "random"}), 1.0)
    assert verdict.outcome == "winning"
    assert verdict.sentence.endswith("The control random learned nothing.")


@pytest.mark.parametrize(("accuracy", "fault"), [(0.6, "learned nothing"), (0.61, UNSHOWN), (0.7, None)])
def test_better_than_the_majority_class_means_by_more_than_chance(accuracy: float, fault: str | None) -> None:
    row = {"test_accuracy": accuracy, "test_majority_accuracy": 0.6, "test_examples": 500}
    assert fault_of(row) == fault
    assert fault_of({"test_accuracy": 0.6}) is None  # a table without the columns says nothing


def test_a_diverged_loss_is_named_whatever_the_accuracy() -> None:
    good = {"test_accuracy": 0.3, "test_majority_accuracy": 0.1, "test_examples": 1000}
    assert fault_of(good | {"train_loss": 1e6, "train_frequency_loss": 2.3}) == "diverged"


def test_few_test_examples_say_more_together() -> None:
    """Perfect on 50 examples, 49 of one class: one replicate cannot show that it learned, ten can."""
    row = {"test_accuracy": 1.0, "test_majority_accuracy": 0.98, "test_examples": 50}
    rows = [row | {"replicate": number} for number in range(10)]
    assert faults_of(rows[:1]) == UNSHOWN
    assert faults_of(rows) is None


def test_of_networks_that_guess_at_most_5_percent_count_as_having_learned() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(500, MAJORITY, 4000) / 500
    rows = [{"test_accuracy": a, "test_majority_accuracy": MAJORITY, "test_examples": 500} for a in right]
    assert np.mean([fault_of(row) is None for row in rows]) <= 0.055


def test_the_majority_class_and_class_frequencies() -> None:
    targets = torch.tensor([2, 0, 2, 2])
    assert majority_accuracy(targets) == 0.75
    assert frequency_loss(targets) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert frequency_loss(torch.tensor([3, 3])) == 0


def test_a_run_whose_training_diverges_says_so(tmp_path: Path) -> None:
    """A learning rate of 300 with plain SGD: numbers stay finite, the network is at chance."""
    diverging = SMALL_STUDY["training"] | {"optimizer": "sgd", "learning_rate": "300", "length": "40it"}
    tiny = SMALL_STUDY | {"training": diverging, "pruning": {"densities": [0.5]}, "controls": []}
    result = run_lottery(LotteryConfig(**tiny), tmp_path)
    assert result.verdict.outcome == "undecided"
    assert result.verdict.sentence.startswith("Undecided: the dense network")
    dense = summarise(rows_of(result.rows, branch="dense"))[0]
    assert dense.fault is not None
    assert dense.fault in (result.folder.results / "summary.md").read_text()


def stage(name: str, accuracy: float) -> dict:
    counts = {"kept": 5, "weights": 10, "sparsity": 0.5, "test_examples": 500, "test_majority_accuracy": MAJORITY}
    return {"kind": "stage", "stage": name, "test_accuracy": accuracy, **counts}


def test_a_single_model_that_learned_nothing_is_named_in_its_headline() -> None:
    said = lead([stage("before", 0.9), stage("pruned", 0.6)])
    assert "The network pruned learned nothing: test accuracy 60.00%, 60.00% of always answering" in said
    assert "learned nothing" not in lead([stage("before", 0.9), stage("pruned", 0.85)])


def test_a_comparison_names_ways_and_parents_that_learned_nothing() -> None:
    config = CompareConfig(
        name="x",
        data={"name": "digits"},
        training={"length": "1ep", "evaluate_every": "1ep"},
        criteria=("magnitude", "random"),
        sparsities=(0.5,),
    )
    (structure,), (distribution,) = config.structures, config.distributions
    where = {
        "structure": structure,
        "distribution": distribution,
        "sparsity": 0.5,
        "refused": None,
        "units": 10,
        "units_kept": 5,
    }
    rows = []
    for replicate in range(2):
        rows.append(stage("parent", 0.9) | {"replicate": replicate, "validation_accuracy": 0.9})
        for criterion, accuracy in (("magnitude", 0.88), ("random", 0.6)):
            more = {"validation_accuracy": accuracy, "pruned_test_accuracy": accuracy, "flops_dense": 2}
            names = {"kind": "way", "replicate": replicate, "criterion": criterion, "flops_effective": 1}
            rows.append(stage("fine-tuned", accuracy) | where | more | names)
    comparison = summarise_comparison(Path("x"), config, rows)
    assert comparison.settings[0].sentence.endswith("No better than the most frequent class: random learned nothing.")
    assert comparison.parent_fault is None
    blind = [row | {"test_accuracy": 0.6} if row["kind"] == "stage" else row for row in rows]
    said = lead_of_comparison(summarise_comparison(Path("x"), config, blind))
    assert said.startswith("Nothing to lose: the parent learned nothing.")
