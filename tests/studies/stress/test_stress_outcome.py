"""Every number of the outcome is recomputed from the rows, by other code; and what has no number has a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from stress_rows import TASKS, Row, altered, stress_rows
from tombola.studies.stress.outcome.estimates import ONE_SEED
from tombola.studies.stress.outcome.lives import Moment
from tombola.studies.stress.outcome.measured import DEAD, NOT_OF_THE_DEAD
from tombola.studies.stress.outcome.plasticity import Onset, after_correction
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.summarised import Stress, as_json, experiment_summaries, summarise

ROWS = stress_rows(cost={"entropy": 0.4}, lost=0.05, prune_cycles=2)
SEEDS = 3


def summarised(rows: Sequence[Row]) -> Stress:
    return summarise(Path(), None, rows)


@pytest.fixture(scope="module")
def result() -> Stress:
    return summarised(ROWS)


@pytest.fixture(scope="module")
def entries(result: Stress) -> dict[str, Any]:
    """As a program reads them."""
    found: dict[str, Any] = json.loads(json.dumps(as_json(result), allow_nan=False))
    return found


class ByHand:
    """One cell, read with nothing but loops over its rows."""

    def __init__(self, rows: Sequence[Row], strategy: str, level: float, draw: int, seed: int) -> None:
        where = {"strategy": strategy, "level": level, "draw": draw, "seed": seed, "remedy": "none"}
        own = [row for row in rows if all(row[name] == value for name, value in where.items())]
        self.rows = {kind: [row for row in own if row["kind"] == kind] for kind in {row["kind"] for row in own}}
        self.untrained = {
            row["task"]: row
            for row in rows
            if row["kind"] == "floor" and row["of"] == "untrained" and row["seed"] == seed
        }
        self.phases = self.rows["phase"]
        self.last = self.phases[-1]["phase"]

    def end(self, phase: int, task: str, column: str = "nats", prune_cycle: int | None = None) -> float:
        """At the end of a phase; with a prune cycle just after that pruning."""
        found = [
            row[column]
            for row in self.rows["score"]
            if (row["look"], row["phase"], row["task"]) == ("end", phase, task)
            and (row["training"] is None) == (prune_cycle is not None or phase == 0)
            and prune_cycle in (None, row["prune_cycle"])
        ]
        (value,) = found
        return float(-value if column in ("nats", "few_nats") else value)

    def before(self, phase: Row, task: str, column: str = "nats") -> float:
        begins = [row["phase"] for row in self.rows["phase"] if row["prune_cycle"] == phase["prune_cycle"]]
        cut = phase["prune_cycle"] if phase["phase"] == min(begins) else None
        return self.end(phase["phase"] - 1, task, column, cut)

    def visits(self, task: str) -> list[Row]:
        return [row for row in self.phases if row["training"] == task]

    def curve(self, phase: Row, task: str) -> tuple[list[float], list[float]]:
        looks = [
            (row["step_in_phase"], -row["nats"])
            for row in self.rows["score"]
            if (row["look"], row["phase"], row["task"]) == ("inside", phase["phase"], task)
        ]
        points = [(0, self.before(phase, task, "few_nats")), *sorted(looks)]
        return [step for step, _ in points], [score for _, score in points]

    def area(self, phase: Row) -> float:
        steps, scores = self.curve(phase, phase["training"])
        parts = [
            (steps[look] - steps[look - 1]) * mean([scores[look - 1], scores[look]]) for look in range(1, len(steps))
        ]
        return sum(parts) / steps[-1]

    def old_tasks(self, phase: Row) -> set[str]:
        return {row["training"] for row in self.phases if row["phase"] < phase["phase"]} - {phase["training"]}


def crossing(steps: Sequence[float], scores: Sequence[float], target: float) -> float:
    """By bisection in place of the formula."""
    last = next(look for look, score in enumerate(scores) if score >= target)
    return (
        steps[0]
        if last == 0
        else brentq(lambda step: np.interp(step, steps, scores) - target, steps[last - 1], steps[last], xtol=1e-12)
    )


def followed(cell: ByHand) -> list[str]:
    return [task for task in TASKS if cell.visits(task)[-1]["phase"] != cell.last]


def transfer(cell: ByHand, column: str) -> float:
    return mean(
        cell.end(cell.last, task, column) - cell.end(cell.visits(task)[-1]["phase"], task, column)
        for task in followed(cell)
    )


def forward(cell: ByHand, column: str, reference: Callable[[str], float]) -> float:
    first = {task: cell.visits(task)[0] for task in TASKS}
    return mean(
        cell.end(phase["phase"] - 1, task, column) - reference(task)
        for task, phase in first.items()
        if phase["phase"] > 1
    )


def forgotten(cell: ByHand, column: str) -> float:
    return mean(
        max(cell.end(phase, task, column) for phase in range(1, cell.last)) - cell.end(cell.last, task, column)
        for task in followed(cell)
    )


def forgetting_rate(cell: ByHand, dense: ByHand) -> float:
    rates = []
    for phase in cell.phases:
        task = phase["training"]
        same_cycle = [row["phase"] for row in cell.phases if row["prune_cycle"] == phase["prune_cycle"]]
        until = max(same_cycle)
        for later in cell.visits(task):
            if phase["phase"] < later["phase"] <= until:
                until = later["phase"] - 1
        if until > phase["phase"]:
            after, start = cell.end(phase["phase"], task), cell.end(0, task)
            rates.append((after - cell.end(until, task)) / (after - start))
    return mean(rates)


def recovered(cell: ByHand, visits: Callable[[int], bool]) -> float:
    rates = []
    for phase in cell.phases:
        if phase["visit"] > 1 and visits(phase["visit"]):
            task, before = phase["training"], cell.before(phase, phase["training"])
            peak = max(cell.end(row["phase"], task) for row in cell.visits(task) if row["phase"] < phase["phase"])
            rates.append((cell.end(phase["phase"], task) - before) / (peak - before))
    return mean(rates)


def recovered_alone(cell: ByHand, dense: ByHand) -> float:
    rates = []
    for row in cell.rows["alone"]:
        first, second = cell.visits(row["task"])[:2]
        before, peak = cell.before(second, row["task"]), cell.end(first["phase"], row["task"])
        rates.append((-row["nats"] - before) / (peak - before))
    return mean(rates)


def saved(cell: ByHand, dense: ByHand) -> float:
    found = []
    for task in TASKS:
        first, *later = cell.visits(task)
        steps, scores = cell.curve(first, task)
        target = (scores[0] + scores[-1]) / 2
        for phase in later:
            again = cell.curve(phase, task)
            found.append(1 - crossing(*again, target) / crossing(steps, scores, target))
    return mean(found)


def adapted(cell: ByHand, dense: ByHand) -> float:
    found = []
    for task in TASKS:
        _, scores = dense.curve(dense.visits(task)[0], task)
        found.append(crossing(*cell.curve(cell.visits(task)[0], task), (scores[0] + scores[-1]) / 2))
    return mean(found)


def gap(cell: ByHand, place: int) -> float:
    gaps = []
    for phase in cell.phases:
        curves = [cell.curve(phase, task)[1] for task in cell.old_tasks(phase)]
        if curves:
            gaps.append(mean(scores[place] - min(scores[1:]) for scores in curves))
    return mean(gaps)


def probes(cell: ByHand, of: str = "network", prune_cycle: int = 0) -> list[float]:
    """From a pruning on."""
    return [row["nats"] for row in cell.rows["probe"] if row["of"] == of and row["prune_cycle"] >= prune_cycle]


def functions(cell: ByHand) -> list[Row]:
    return [row for row in cell.rows["function"] if row["of"] == "network"]


Hand = Callable[[ByHand, ByHand], float]
HANDS: dict[str, Hand] = {
    "performance": lambda cell, dense: mean(cell.end(cell.last, task) for task in TASKS),
    "performance_nats": lambda cell, dense: mean(-cell.end(cell.last, task) for task in TASKS),
    "performance_accuracy": lambda cell, dense: mean(cell.end(cell.last, task, "accuracy") for task in TASKS),
    "performance_start": lambda cell, dense: mean(cell.end(0, task) for task in TASKS),
    "performance_start_accuracy": lambda cell, dense: mean(cell.end(0, task, "accuracy") for task in TASKS),
    "gain": lambda cell, dense: mean(
        cell.end(cell.visits(task)[0]["phase"], task) - cell.end(0, task) for task in TASKS
    ),
    "bwt": lambda cell, dense: transfer(cell, "nats"),
    "bwt_accuracy": lambda cell, dense: transfer(cell, "accuracy"),
    "fwt": lambda cell, dense: forward(cell, "nats", lambda task: -cell.untrained[task]["nats"]),
    "fwt_accuracy": lambda cell, dense: forward(cell, "accuracy", lambda task: cell.untrained[task]["accuracy"]),
    "fwt_start": lambda cell, dense: forward(cell, "nats", lambda task: cell.end(0, task)),
    "forgetting": lambda cell, dense: forgotten(cell, "nats"),
    "forgetting_accuracy": lambda cell, dense: forgotten(cell, "accuracy"),
    "avg_forgetting_rate": forgetting_rate,
    "avg_recovery_rate": lambda cell, dense: recovered(cell, lambda visit: True),
    "recovery_second": lambda cell, dense: recovered(cell, lambda visit: visit == 2),
    "recovery_alone": recovered_alone,
    "recovery_minus_alone": lambda cell, dense: (
        recovered(cell, lambda visit: visit == 2) - recovered_alone(cell, dense)
    ),
    "savings": saved,
    "adaptation_steps": adapted,
    "adaptation_tokens": lambda cell, dense: 1000 * adapted(cell, dense),
    "target_reached": lambda cell, dense: 1.0,
    "learning_area": lambda cell, dense: mean(cell.area(phase) for phase in cell.phases),
    "learning_area_vs_dense": lambda cell, dense: mean(
        cell.area(phase) - dense.area(other) for phase, other in zip(cell.phases, dense.phases, strict=True)
    ),
    "stability_gap": lambda cell, dense: gap(cell, -1),
    "stability_gap_before": lambda cell, dense: gap(cell, 0),
    "probe_nats": lambda cell, dense: probes(cell)[-1],
    "probe_start": lambda cell, dense: probes(cell)[0],
    "probe_change": lambda cell, dense: probes(cell)[-1] - probes(cell, prune_cycle=1)[0],
    "probe_minus_fresh": lambda cell, dense: probes(cell)[-1] - probes(cell, "fresh")[-1],
    **{
        name: lambda cell, dense, name=name: cell.rows["state"][-1][name]
        for name in ("dormant", "effective_rank", "weight_norm", "entropy")
    },
    **{
        name: lambda cell, dense, name=name: functions(cell)[-1][name]
        for name in ("kl", "js", "top1", "flips", "cosine", "cka")
    },
    "kl_start": lambda cell, dense: functions(cell)[0]["kl"],
    "top1_start": lambda cell, dense: functions(cell)[0]["top1"],
    **{
        name: lambda cell, dense, name=name: cell.rows["pruned"][-1][name]
        for name in ("reached", "parameters", "parameters_removed", "removal_error")
    },
}


def test_no_metric_is_left_out() -> None:
    assert [*HANDS] == [*QUANTITIES]


@pytest.mark.parametrize("metric", QUANTITIES)
@pytest.mark.parametrize(
    ("name", "strategy", "level", "draws"), [("entropy_0.3", "entropy", 0.3, 1), ("random_0.5", "random", 0.5, 2)]
)
def test_recomputed_from_rows(
    entries: dict[str, Any], metric: str, name: str, strategy: str, level: float, draws: int
) -> None:
    dense = [ByHand(ROWS, "dense", 0.0, 0, seed) for seed in range(SEEDS)]
    cells = [[ByHand(ROWS, strategy, level, draw, seed) for draw in range(draws)] for seed in range(SEEDS)]
    seeds = [mean(HANDS[metric](cell, dense[seed]) for cell in cells[seed]) for seed in range(SEEDS)]
    found = entries["pruning_results"][name]
    assert found[metric] == pytest.approx(mean(seeds), rel=1e-9)
    half = stats.t.ppf(0.975, SEEDS - 1) * np.std(seeds, ddof=1) / math.sqrt(SEEDS)
    estimate = found["estimates"][metric]
    assert estimate["ci"] == pytest.approx([mean(seeds) - half, mean(seeds) + half], rel=1e-6)
    assert (estimate["n"], estimate["missing"], estimate["reason"]) == (SEEDS, 0, None)
    if metric != "removal_error":
        own = [HANDS[metric](dense[seed], dense[seed]) for seed in range(SEEDS)]
        differences = [ours - theirs for ours, theirs in zip(seeds, own, strict=True)]
        assert found["minus_dense"][metric]["mean"] == pytest.approx(mean(differences), rel=1e-6, abs=1e-9)


def test_the_plainest_call_of_a_user(entries: dict[str, Any]) -> None:
    assert entries["pruning_results"]["entropy_0.3"]["avg_recovery_rate"] == pytest.approx(1.0, abs=0.1)
    assert [*entries["pruning_results"]][:2] == ["dense", "gradual"]


def test_loss_and_accuracy_stay_apart(entries: dict[str, Any]) -> None:
    found = entries["pruning_results"]["entropy_0.3"]
    assert found["performance"] == -found["performance_nats"]
    assert found["performance_accuracy"] < 1 < found["performance_nats"]


def test_names_of_several_models_and_remedies() -> None:
    names = as_json(
        summarised(stress_rows(models=("a", "b"), levels=(0.3,), remedies=("none", "reset_dormant"), seeds=1))
    )
    assert {"a/entropy_0.3", "b/entropy_0.3+reset_dormant", "a/dense"} <= set(names["pruning_results"])


def test_seeds_are_the_replicates_and_draws_are_not(result: Stress) -> None:
    group = result.group("tiny", "random", 0.3)
    assert group is not None
    assert (len(group.lives), group.draws, group.metrics["performance"].n) == (6, 2, 3)


def test_one_seed_has_no_interval() -> None:
    group = summarised(stress_rows(seeds=1, draws=5)).group("tiny", "random", 0.3)
    assert group is not None
    found = group.metrics["performance"]
    assert (found.low, found.high, found.n, found.reason) == (None, None, 1, ONE_SEED)
    assert found.mean is not None
    assert group.plasticity.onset.sentence == "cannot be judged with one seed"


class TestDead:
    ROWS = stress_rows(dead=("entropy",), seeds=2, levels=(0.3,))

    def test_rates_are_null_and_say_why(self) -> None:
        found = as_json(summarised(self.ROWS))["pruning_results"]["entropy_0.3"]
        assert found["dead"] == 2
        for metric in NOT_OF_THE_DEAD:
            assert (found[metric], found["estimates"][metric]["reason"]) == (None, DEAD), metric
        assert found["performance_nats"] == pytest.approx(6.2)

    def test_what_learns_is_not_dead(self) -> None:
        group = summarised(self.ROWS).group("tiny", "random", 0.3)
        assert group is not None
        assert group.dead == 0
        assert group.metrics["avg_recovery_rate"].mean is not None

    def test_without_floors_there_is_no_recovery_either(self) -> None:
        rows = [row for row in self.ROWS if row["kind"] != "floor"]
        group = summarised(rows).group("tiny", "entropy", 0.3)
        assert group is not None
        assert group.dead == 0
        for metric in ("avg_recovery_rate", "avg_forgetting_rate", "savings", "adaptation_steps", "fwt"):
            assert group.metrics[metric].mean is None
            assert group.metrics[metric].reason


class TestPairing:
    def test_targets_that_one_network_misses(self) -> None:
        rows = stress_rows(levels=(0.5,), tasks=("german", "names"))
        slow = altered(
            rows, {"nats": 9.0}, kind="score", strategy="entropy", look="inside", task="names", training="names"
        )
        result = summarised(slow)
        group, dense = result.group("tiny", "entropy", 0.5), result.dense("tiny")
        assert group is not None
        assert dense is not None
        steps = group.metrics["adaptation_steps"]
        assert (steps.asked, steps.missing, steps.reason) == (6, 3, "not reached in 40 steps")
        assert group.metrics["target_reached"].mean == 0.5
        german = dense.by_task["german"]["adaptation_steps"].mean
        own = group.by_task["german"]["adaptation_steps"].mean
        assert german is not None
        assert own is not None
        assert group.minus_dense["adaptation_steps"].mean == pytest.approx(own - german)

    def test_what_is_its_own_reference_has_no_difference(self, result: Stress) -> None:
        dense, random = result.dense("tiny"), result.group("tiny", "random", 0.3)
        assert dense is not None
        assert random is not None
        assert dense.minus_dense == random.minus_random == {}

    def test_a_reference_that_was_not_run(self) -> None:
        rows = [row for row in stress_rows(levels=(0.3,)) if row["strategy"] not in ("dense", "random")]
        group = summarised(rows).group("tiny", "entropy", 0.3)
        assert group is not None
        assert group.minus_dense["performance"].reason == "no dense network"
        assert group.minus_random["performance"].reason == "no random pruning at this level"
        assert group.metrics["adaptation_steps"].reason == "no dense network of this model and seed"
        assert group.metrics["performance"].mean is not None


class TestOnset:
    @pytest.mark.parametrize(("lost", "reached", "cycle"), [(0.5, True, 1), (0.0, False, None)])
    def test_verdict(self, lost: float, reached: bool, cycle: int | None) -> None:
        group = summarised(stress_rows(lost=lost, levels=(0.3,), cycles=3)).group("tiny", "entropy", 0.3)
        assert group is not None
        onset = group.plasticity.onset
        assert (onset.reached, onset.cycle, onset.cycles) == (reached, cycle, 3)
        assert (onset.sentence == "onset not reached in these 3 cycles (n = 3 seeds)") is not reached

    def test_the_first_cycle_that_is_shown(self) -> None:
        rows = stress_rows(levels=(0.3,), cycles=3)
        late = altered(rows, {"nats": lambda nats: nats + 1.0}, kind="probe", cycle=3, of="network")
        group = summarised(late).group("tiny", "entropy", 0.3)
        assert group is not None
        assert group.plasticity.onset.cycle == 3

    def test_probes_are_null_where_there_are_none(self) -> None:
        rows = [row for row in stress_rows(levels=(0.3,)) if row["kind"] != "probe"]
        group = summarised(rows).group("tiny", "entropy", 0.3)
        assert group is not None
        assert group.plasticity.onset.reached is None
        assert group.metrics["probe_change"].reason == "the probe was not run"

    def test_a_pruning_alone_is_no_onset(self) -> None:
        rows = stress_rows(levels=(0.3,), prune_cycles=2)
        cut = [row | {"nats": row["nats"] + 1.0} if _probed_after_second_pruning(row) else row for row in rows]
        group = summarised(cut).group("tiny", "entropy", 0.3)
        assert group is not None
        assert group.plasticity.onset.reached is False
        assert Moment(1, 2) not in group.plasticity.changes
        assert group.metrics["probe_change"].mean == pytest.approx(0, abs=0.3)

    def test_the_first_cycle_of_a_remedy_is_that_without_one_and_counts_once(self) -> None:
        rows = stress_rows(levels=(0.3,), remedies=("none", "reset_dormant"))
        result = summarised(rows)
        plain, treated = (result.group("tiny", "entropy", 0.3, remedy) for remedy in ("none", "reset_dormant"))
        assert plain is not None
        assert treated is not None
        assert min(plain.plasticity.onset.p) == 1
        assert 1 not in treated.plasticity.onset.p


def _probed_after_second_pruning(row: Row) -> bool:
    return (row["kind"], row["prune_cycle"], row.get("of")) == ("probe", 1, "network")


def test_what_happens_in_each_cycle(result: Stress) -> None:
    group = result.group("tiny", "entropy", 0.3)
    assert group is not None
    assert [*group.by_cycle] == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 3), (1, 4)]
    last = group.by_cycle[Moment(1, 4)]
    assert last["performance"] == group.metrics["performance"]
    assert group.by_cycle[Moment(1, 2)]["reached"].mean == group.metrics["reached"].mean
    assert "avg_recovery_rate" not in group.by_cycle[Moment(1, 2)]
    assert group.by_cycle[Moment(0, 1)]["avg_recovery_rate"].reason == "every task was learned once"


def test_looks_without_a_start_of_their_own() -> None:
    """A table whose first looks have no score on the few items: no curve, and the rest as before."""
    rows = altered(stress_rows(levels=(0.3,)), {"few_nats": None}, kind="score", look="end")
    group = summarised(rows).group("tiny", "entropy", 0.3)
    assert group is not None
    assert group.metrics["adaptation_steps"].mean is None
    assert group.metrics["savings"].mean is None
    assert group.metrics["avg_recovery_rate"].mean is not None


def test_a_column_carries_its_reason() -> None:
    change = {"removal_error": None, "removal_error_reason": "nothing was removed"}
    rows = [row | change if row["kind"] == "pruned" else row for row in stress_rows(levels=(0.3,))]
    group = summarised(rows).group("tiny", "entropy", 0.3)
    assert group is not None
    assert group.metrics["removal_error"].reason == "nothing was removed"


def test_floors(entries: dict[str, Any]) -> None:
    floors = entries["floors"]["tiny"]
    assert floors["untrained"]["nats"]["mean"] == pytest.approx(6.2)
    assert floors["all_off"]["nats"]["mean"] == pytest.approx(6.3)
    assert entries["pruning_results"]["entropy_0.3"]["function_floors"]["independent"]["kl"]["mean"] == 2.5


def test_every_network_has_its_summary(result: Stress) -> None:
    found = json.loads(json.dumps(experiment_summaries(result), allow_nan=False))
    assert len(found) == len(result.lives) == 3 * (2 + 3 + 3 * 2)
    first = found[0]
    cell = ByHand(ROWS, first["strategy"], first["level"], first["draw"], first["seed"])
    for phase, row in enumerate(first["scores_nats"]):
        assert row == pytest.approx([-cell.end(phase, task) for task in first["tasks"]])
    assert first["tasks"] == [phase["training"] for phase in first["phases"][:3]]


def test_null_always_has_a_reason(entries: dict[str, Any]) -> None:
    for name, found in entries["pruning_results"].items():
        for part in ("estimates", "minus_dense", "minus_random"):
            for metric, one in found[part].items():
                assert one["mean"] is not None or one["reason"], (name, part, metric)


def test_rows_in_another_order_come_to_the_same(entries: dict[str, Any]) -> None:
    """Cells are written as they end."""
    cells: dict[Any, list[Row]] = {}
    for row in ROWS:
        cells.setdefault((row["strategy"], row["level"], row["draw"], row["seed"]), []).append(row)
    other = as_json(summarised([row for key in reversed(cells) for row in cells[key]]))["pruning_results"]
    for name, found in entries["pruning_results"].items():
        assert other[name]["estimates"] == found["estimates"]
        assert other[name]["plasticity"]["onset"]["verdict"] == found["plasticity"]["onset"]["verdict"]


def test_what_chance_would_give_is_not_left_by_a_correction_over_groups() -> None:
    def onset(p: float | None) -> Onset:
        return Onset(None if p is None else p < 0.05, 1, 1, "said", {1: p})

    assert after_correction({"a": onset(0.03), "b": onset(0.04), "c": onset(None)}) == []
    assert after_correction({"a": onset(0.01), "b": onset(0.04), "c": onset(0.9)}) == ["a"]
    assert after_correction({}) == []
