"""The rounds of a study as arithmetic, in each of their three forms."""

from __future__ import annotations

import pytest

from tombola.errors import ConfigError
from tombola.runs.configs import validate
from tombola.studies.lottery.config import LotteryConfig, PruningConfig
from tombola.studies.lottery.plan import plan_rounds

LENET = {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
PAPER = {"distribution": "rates", "rate": 0.2, "layer_rates": {"output": 0.1}, "target_density": 0.036}


def plan(sizes: dict[str, int] = LENET, **pruning: object) -> list:
    return plan_rounds(validate(pruning, PruningConfig, "pruning"), sizes)


def test_the_papers_rounds_on_lenet_300_100() -> None:
    rounds = plan(**PAPER)
    density = {planned.index: round(100 * planned.density, 1) for planned in rounds}
    assert [density[i] for i in (0, 3, 7, 9, 15)] == [100, 51.3, 21.1, 13.5, 3.6]
    assert len(rounds) == 16


def test_a_list_of_densities() -> None:
    rounds = plan(densities=[0.5, 0.1])
    assert [planned.kept for planned in rounds] == [266_200, 133_100, 26_620]


def test_a_global_rate_goes_on_to_the_target() -> None:
    rounds = plan(rate=0.5, target_density=0.125)
    assert [planned.kept for planned in rounds] == [266_200, 133_100, 66_550, 33_275]


@pytest.mark.parametrize("schedule", ["geometric", "linear", "cubic"])
def test_a_schedule_ends_on_its_target(schedule: str) -> None:
    rounds = plan(schedule=schedule, rounds=4, target_density=0.1)
    assert len(rounds) == 5
    assert rounds[-1].kept == 26_620


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({}, "give the rounds in one form"),
        ({"rate": 0.2, "densities": [0.5]}, "give the rounds in one form"),
        ({"rate": 0.2}, "target_density"),
        ({"densities": [0.5], "target_density": 0.5}, "target_density"),
        ({"densities": [0.5, 0.5]}, "must fall"),
        ({"densities": [1.0]}, "must fall"),
        ({"densities": [0.0]}, "densities.0"),
        ({"densities": [1.5]}, "densities.0"),
        ({"densities": ["nan"]}, "densities.0"),
        ({"rate": 0, "target_density": 0.5}, "rate"),
        ({"rate": 1, "target_density": 0.5}, "rate"),
        ({"rate": 0.2, "target_density": 0}, "target_density"),
        ({"rate": 0.2, "target_density": 1}, "nothing to prune"),
        ({"schedule": "geometric", "target_density": 0.1}, "rounds"),
        ({"schedule": "cubik", "rounds": 3, "target_density": 0.1}, "did you mean 'cubic'"),
        ({"distribution": "rates", "densities": [0.5]}, "needs `rate`"),
        ({"layer_rates": {"output": 0.1}, "rate": 0.2, "target_density": 0.5}, "belong to the distribution `rates`"),
        ({"schedule": "one-shot", "rounds": 2, "target_density": 0.1}, "round 2 would remove nothing"),
        ({"rate": 0.0001, "target_density": 0.0001}, "more than 1000 rounds"),
        ({"densities": [0.000001]}, "too few for 3 layers"),
        ({**PAPER, "layer_rates": {"outptu": 0.1}}, "no layer is called 'outptu'"),
        ({**PAPER, "rate": 0.9, "target_density": 1e-9}, "do not reach target_density 1e-09: in round"),
    ],
)
def test_rounds_that_make_no_sense_are_refused_before_anything_is_trained(pruning: dict, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        plan(**pruning)
    assert "\n" not in str(caught.value)


def study(**changes: object) -> LotteryConfig:
    content = {
        "name": "x",
        "data": {"name": "digits"},
        "training": {"length": "10it", "evaluate_every": "5it"},
        "pruning": {"densities": [0.5]},
        **changes,
    }
    return validate(content, LotteryConfig, "config")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicates": 0}, "replicates"),
        ({"name": "../x"}, "name"),
        ({"controls": ["random", "random"]}, "each control once"),
        ({"controls": ["shuffle"]}, "controls"),
        ({"rewind": "step"}, "rewind"),
        ({"rewind": "step:x"}, "rewind"),
        ({"rewind": []}, "rewind"),
        ({"rewind": ["lr", "lr"]}, "each mode of rewinding once"),
        ({"replicates": True}, "replicates cannot be true or false"),
        ({"tolerance": 0}, "tolerance"),
        ({"data": {"name": "mnits"}}, "did you mean 'mnist'"),
        ({"data": {"name": "idx"}}, "folder"),
        ({"model": {"architecture": "lenet"}}, "unknown architecture"),
        ({"model": {"widths": []}}, "widths"),
        ({"study": "stress"}, "study"),
    ],
)
def test_configs_that_make_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(**changes)


def test_what_changes_no_result_of_a_replicate_changes_no_name() -> None:
    identity = study().identity()
    assert study(replicates=9, checkpoint_seconds=1).identity() == identity
    assert study(tolerance=0.5).identity() != identity
    assert study(seed=1).identity() != identity
