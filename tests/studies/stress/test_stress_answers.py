"""The answers follow the rows: what is built into made-up networks is found, and what is not is not claimed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stress_rows import Row, altered, stress_rows
from tombola.runs.configs import Config
from tombola.studies.stress.metrics import Value, null
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.contrasts import Answer, mean_over
from tombola.studies.stress.outcome.estimates import over_seeds
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import remarks
from tombola.studies.stress.outcome.steering import steered
from tombola.studies.stress.outcome.summarised import as_json, summarise

QUESTIONS = 5


class Adaptive(Config):
    """What a remark looks for in a config."""

    adaptive: bool = True


def answered(rows: list[Row]) -> dict[str, Answer]:
    """By the first distinct word of each question."""
    found = answers(summarise(Path(), None, rows))
    return dict(zip(("strategies", "levels", "size", "architectures", "tasks"), found, strict=True))


def remarked(rows: list[Row]) -> dict[str, str]:
    """What is said of each topic."""
    return {one.question: one.sentence for one in remarks(summarise(Path(), None, rows))}


def numbers_in(sentence: str) -> list[float]:
    return [float(found.replace("−", "-")) for found in re.findall(r"[+−]\d+\.\d+", sentence)]


class TestStrategies:
    def test_a_worse_one(self) -> None:
        answer = answered(stress_rows(cost={"entropy": 1.0}))["strategies"]
        assert answer.sentence.startswith("Random, a control, preserves more than entropy (entropy − random: +0.3")
        (pair,) = answer.numbers["tiny"]["pairs"]
        assert pair["shown"] == "above"
        assert pair["p_holm"] < 0.05

    def test_none(self) -> None:
        answer = answered(stress_rows())["strategies"]
        assert answer.sentence.startswith("No strategy is shown to preserve more than another: no difference shown")
        assert "(n = 3 seeds)" in answer.sentence

    def test_without_a_probe(self) -> None:
        rows = [row for row in stress_rows(cost={"random": 1.0}) if row["kind"] != "probe"]
        answer = answered(rows)["strategies"]
        assert answer.numbers["tiny"]["metric"] == "learning_area"
        assert answer.sentence.startswith("Entropy preserves more than random")

    def test_one(self) -> None:
        answer = answered(stress_rows(strategies=("entropy",)))["strategies"]
        assert answer.sentence.startswith("One strategy (entropy): there is none to compare it with.")


class TestLevels:
    def test_a_cost(self) -> None:
        answer = answered(stress_rows(cost={"entropy": 1.0, "random": 1.0}))["levels"]
        changes = answer.numbers["tiny"]["changes"]
        assert changes["learning_area"]["mean"] == pytest.approx(-0.4, abs=0.05)
        assert changes["adaptation_steps"]["shown"] == changes["probe_nats"]["shown"] == "above"
        assert changes["avg_recovery_rate"]["shown"] is None
        assert "recovery rate" in answer.sentence

    def test_one_level(self) -> None:
        assert answered(stress_rows(levels=(0.3,)))["levels"].sentence == "Nothing can be said with one level (0.3)."


class TestSize:
    def test_a_cost(self) -> None:
        """The made-up networks lose 32 % of a million parameters at level 1."""
        answer = answered(stress_rows(cost={"entropy": 0.64, "random": 0.64}, spread=0.001))["size"]
        assert answer.sentence.startswith("Yes, shown by score while learning and probe loss")
        assert answer.numbers["tiny"]["probe_nats"]["mean"] == pytest.approx(0.2, abs=0.01)

    def test_a_gain(self) -> None:
        helps = dict.fromkeys(("german", "names", "verse"), 0.3)
        answer = answered(stress_rows(helps=helps))["size"]
        assert answer.sentence.startswith("No, smaller networks adapt better, shown by score while learning")

    def test_nothing_removed(self) -> None:
        rows = altered(stress_rows(levels=(0.3,)), {"parameters_removed": 0}, kind="pruned")
        assert answered(rows)["size"].sentence.startswith("Not known: no removed parameters")


class TestArchitectures:
    def test_one(self) -> None:
        assert answered(stress_rows())["architectures"].sentence == "One architecture (tiny): nothing can be said."

    def test_one_that_loses_more(self) -> None:
        rows = stress_rows(models=("gpt2", "opt"), levels=(0.3,))
        for cycle in (1, 2):
            rows = altered(rows, {"nats": lambda nats: nats + 0.5}, kind="probe", cycle=cycle, model="opt")
        answer = answered(rows)["architectures"]
        assert answer.sentence.startswith("gpt2 keeps more than opt (gpt2 − opt: −1")
        assert answer.sentence.endswith("Models differ in size and pre-training as well as in architecture.")


class TestTasks:
    def test_one_that_is_learned_better(self) -> None:
        answer = answered(stress_rows(helps={"german": 0.3}))["tasks"]
        assert answer.sentence.startswith("Yes, in 6 of 18 comparisons with dense: german with entropy_0.1, +0.2")
        shown = {one["task"] for one in answer.numbers["comparisons"] if one["shown"]}
        assert shown == {"german"}

    def test_none(self) -> None:
        answer = answered(stress_rows())["tasks"]
        assert answer.sentence.startswith("No improvement is shown in 18 comparisons with dense (n = 3 seeds)")


def test_one_seed_concludes_nothing() -> None:
    found = answered(stress_rows(seeds=1, cost={"entropy": 1.0}))
    for question, answer in found.items():
        if question != "architectures":
            assert answer.sentence.startswith("Cannot be concluded with one seed."), question
    assert "cannot be judged with one seed" in remarked(stress_rows(seeds=1))["Is plasticity lost?"]


def test_sentences_carry_the_numbers() -> None:
    answer = answered(stress_rows(cost={"entropy": 1.0}))["levels"]
    for metric, one in answer.numbers["tiny"]["changes"].items():
        places = 1 if QUANTITIES[metric].unit == "steps" else 3
        assert {round(value, places) for value in (one["mean"], *one["ci"])} <= set(numbers_in(answer.sentence))


@settings(max_examples=10, deadline=None)
@given(kinds=st.sets(st.sampled_from(["phase", "score", "probe", "state", "function", "floor", "alone", "pruned"])))
def test_whatever_is_missing_there_is_an_answer(kinds: set[str]) -> None:
    """No row of some kind: no answer fails, none claims."""
    rows = [row for row in stress_rows(seeds=2, levels=(0.3,), draws=1) if row["kind"] not in kinds]
    result = summarise(Path(), None, rows)
    found = answers(result)
    assert len(found) == QUESTIONS
    assert all(one.sentence.endswith(".") for one in [*found, *remarks(result)])
    json.dumps(as_json(result), allow_nan=False)


class TestRemarks:
    def test_attention_that_does_not_matter(self) -> None:
        assert remarked(stress_rows(attention=0.01))["Does attention matter?"].startswith(
            "Attention does not matter in this model: all heads off cost 0.010 nats a token"
        )
        assert remarked(stress_rows(attention=0.5))["Does attention matter?"].startswith("Attention matters")

    def test_a_control_that_wins_is_a_finding(self) -> None:
        said = remarked(stress_rows(cost={"entropy": 1.0}))["Controls"]
        assert said.startswith("A control wins in 3 of 4 comparisons (n = 3 seeds), which is a finding: performance")

    def test_both_directions_of_entropy(self) -> None:
        rows = stress_rows(strategies=("entropy", "entropy_low"), cost={"entropy_low": 1.0})
        assert remarked(rows)["Controls"].startswith("A strategy beats its control in 3 of 4")

    def test_a_task_that_is_not_learned(self) -> None:
        rows = altered(stress_rows(), {"nats": 5.5}, kind="score", strategy="dense", task="verse", look="end")
        assert "does not learn verse" in remarked(rows)["Are the tasks learned?"]

    def test_lost_plasticity(self) -> None:
        topic = "Is plasticity lost?"
        assert remarked(stress_rows(lost=0.5))[topic].startswith("Loss of plasticity is shown in 8 of 8 groups")
        not_reached = "Loss of plasticity: onset not reached in these 2 cycles, in any of 8 groups."
        assert remarked(stress_rows())[topic].startswith(not_reached)

    def test_gradual_changes(self) -> None:
        assert "forgetting rate −0.300 of the learned gain" in remarked(stress_rows())["Abrupt and gradual changes"]

    def test_a_remedy(self) -> None:
        rows = stress_rows(remedies=("none", "reset_dormant"), levels=(0.3,))
        better = altered(rows, {"nats": lambda nats: nats - 1.0}, kind="probe", remedy="reset_dormant", of="network")
        said = remarked(better)["Remedies"]
        assert said.startswith("The remedy reset_dormant instead of none, mean over 3 groups")
        assert re.search(r"probe loss −(0\.9|1\.0)\d+ nats a token .*, shown", said)

    def test_what_is_the_same_of_every_model_is_said_once(self) -> None:
        found = answered(stress_rows(models=("tiny", "other"), levels=(0.3,)))
        assert found["levels"].sentence == "Nothing can be said with one level (0.3)."
        assert found["strategies"].sentence.startswith("tiny: ")

    def test_dead_networks(self) -> None:
        said = remarked(stress_rows(dead=("random",), levels=(0.3,)))["Dead networks"]
        assert said.endswith("random_0.3 (6 of 6 networks).")

    def test_a_search(self) -> None:
        said = remarked([*stress_rows(levels=(0.3,)), *pulls("bandit", -4.0), *pulls("random", -4.5)])["Search"]
        assert said.startswith("Bandit: mean reward −4.000 over 3 networks, most often entropy_0.3")
        assert "; chance: mean reward −4.500" in said
        assert said.endswith("whether one is better cannot be concluded.")

    def test_difficulty_is_told_where_it_followed(self) -> None:
        rows = stress_rows(levels=(0.3,), tasks=("german", "names"))
        learned = altered(rows, {"difficulty": 1}, kind="phase", training="names")
        harder = altered(learned, {"difficulty": 3}, kind="phase", training="names", visit=2, strategy="dense")
        said = [steered(summarise(Path(), Adaptive(), found))[0].sentence for found in (rows, learned, harder)]
        assert said[0] == "No task has levels of difficulty: none became harder."
        assert "names at level 1, its easiest, in all of them" in said[1]
        assert "names at level 3 with dense" in said[2]
        assert "1 with entropy_0.3" in said[2]
        assert steered(summarise(Path(), None, harder)) == []


def pulls(controller: str, reward: float) -> list[Row]:
    key: dict[str, Any] = {"kind": "pull", "model": "tiny", "level": 0.3, "draw": 0, "remedy": "none", "unit": None}
    return [
        {**key, "strategy": name, "seed": pull, "controller": controller, "pull": pull, "reward": reward}
        for pull, name in enumerate(("entropy", "entropy", "random"))
    ]


def test_a_mean_over_differences_is_of_seeds_that_have_all_of_them() -> None:
    """A level that one seed lacks would else be compared with another level of the others."""
    lower = {0: Value(1.0), 1: Value(2.0), 2: Value(9.0)}
    higher = {0: Value(3.0), 1: null("reached by nobody"), 3: Value(9.0)}
    found = mean_over([lower, higher])
    assert found == {
        0: Value(2.0, None, 2),
        1: Value(None, "1 of 2 differences missing: reached by nobody", 2, 1),
    }
    estimate = over_seeds(found)
    assert (estimate.mean, estimate.n, estimate.missing) == (2, 1, 1)
    assert estimate.reason == "one of 2 seeds has a value; 1 of 2 differences missing: reached by nobody"
    assert mean_over([]) == {}
