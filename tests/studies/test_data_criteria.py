"""Criteria that see data, in the lottery study: each round is scored on training batches of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_study import SMALL_STUDY, run_lottery
from tombola.data import load_data
from tombola.errors import ConfigError
from tombola.models import ModelSpec, build
from tombola.models.tensors import load_tensors
from tombola.pruning import Masks, criteria, prune
from tombola.pruning.criteria import Needs
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.base.checks import failed_checks
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.forecast import quick_forecast
from tombola.studies.lottery.metrics import CHECKS, UNIT
from tombola.studies.lottery.networks import replicate_seed
from tombola.studies.lottery.result import Result
from tombola.training.batches import draw_batches

SEEING = ("wanda", "taylor", "movement", "synflow")
"""One of each kind: activations, gradients, steps on the batches, an example input."""
TRAINING = {**SMALL_STUDY["training"], "length": "20it"}


def study(out: Path, criterion: str, **changes: object) -> Result:
    asked = {
        **SMALL_STUDY,
        "replicates": 1,
        "controls": [],
        "training": TRAINING,
        "pruning": {"criterion": criterion, "densities": [0.5, 0.2], "score_batches": 3},
        **changes,
    }
    return run_lottery(validate(asked, LotteryConfig, "small"), out)


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize("criterion", SEEING)
def test_every_round_is_what_prune_says_of_the_trained_network(criterion: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    result = study(tmp_path, criterion)
    assert failed_checks(result.rows, UNIT, CHECKS) == []
    rounds = {row["round"]: row for row in rows_of(result.rows, kind="training")}
    assert [rounds[index]["kept"] for index in (1, 2)] == [rounds[index]["kept_asked"] for index in (1, 2)]

    seed = replicate_seed(result.config, 0)
    data = load_data(result.config.data, seed)
    model = build(ModelSpec(input_shape=data.input_shape, classes=data.classes, seed=0, widths=(20, 10)))
    replicate = result.folder.checkpoints / "replicate-00"
    masks = Masks.full(model)
    for index, before in ((1, "dense/round-00"), (2, "init/round-01")):
        model.load_state_dict(load_tensors(replicate / before / "trained.safetensors")[0])
        chance = derive_seed(seed, "criterion", index)
        count = 1 if criteria.get(criterion).needs is Needs.EXAMPLE else 3
        batches = list(draw_batches(data.train, result.config.training.batch_size, count, chance))
        asked = {"masks": masks, "batches": batches, "seed": chance}
        masks = prune(model, (0.5, 0.8)[index - 1], criterion=criterion, **asked)
        stored = load_tensors(replicate / f"init/round-{index:02d}" / "masks.safetensors")[0]
        assert masks == Masks.from_tensors(stored).of(model)


def test_early_birds_see_the_same_batches_at_every_look(tmp_path: Path) -> None:
    """So that a mask which settles does so because the network does."""
    result = study(tmp_path, "taylor", early_bird={"distance": 0.9, "window": 1})
    found = [row["early_bird_iteration"] for row in rows_of(result.rows, kind="training") if row["round"] < 2]
    assert all(iteration is not None for iteration in found)


def test_criteria_of_whole_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fpgm scores whole outputs, and a lottery study prunes single weights"):
        study(tmp_path, "fpgm")


def test_a_search_is_timed_before_it_runs() -> None:
    """With masks by magnitude: there are no scores yet."""
    asked = {**SMALL_STUDY, "pruning": {"criterion": "snip", "densities": [0.5, 0.01]}}
    assert quick_forecast(validate(asked, LotteryConfig, "small"), 1).seconds > 0
