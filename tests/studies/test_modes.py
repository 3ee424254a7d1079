"""Modes of rewinding: each restarts from what it says, on the part of the recipe that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from small_study import SMALL_STUDY, run_lottery
from tombola.data import load_data
from tombola.models import build, load_model
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Masks
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.base.checks import failed_checks
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls.random import shuffled
from tombola.studies.lottery.curves import modes_chart
from tombola.studies.lottery.extract import extract
from tombola.studies.lottery.metrics import CHECKS, UNIT
from tombola.studies.lottery.networks import model_spec, replicate_seed
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind, is_rewound
from tombola.studies.lottery.stored import TRAINED, ReplicateFiles, stored_masks
from tombola.training import Recipe, Step, fit
from tombola.training.engine import DenseEngine
from tombola.training.sparse.engine import SparseEngine
from tombola.training.statistics import reestimate_statistics
from tombola.training.training import Training

MODES = ("init", "step:15it", "lr", "finetune")


def config(**changes: object) -> LotteryConfig:
    study = {**SMALL_STUDY, "replicates": 1, "rewind": list(MODES), **changes}
    return validate(study, LotteryConfig, "modes")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    return run_lottery(config(), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def files(result: Result) -> ReplicateFiles:
    return ReplicateFiles.of(result.folder.checkpoints, 0)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path)[0]


@pytest.mark.parametrize("text", ["init", "lr", "finetune", "step:15it", "step:2ep", "step:1ep5it"])
def test_text_and_back(text: str) -> None:
    assert str(Rewind.parse(text)) == text


def test_a_bare_number_is_iterations() -> None:
    assert Rewind.parse("step:500") == Rewind("step", Step(0, 500))


@pytest.mark.parametrize("text", ["", "step", "step:", "init:5", "lr:3ep", "warm", "step:-1it", None, 3])
def test_anything_else_is_no_mode(text: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (two kinds of message)
        Rewind.parse(text)  # type: ignore[arg-type]


class TestShared:
    def test_the_dense_network_is_trained_once_for_all_modes(self, result: Result) -> None:
        trainings = rows_of(result.rows, kind="training")
        assert len(rows_of(trainings, branch="dense")) == 1
        assert len(trainings) == 1 + 4 * 3 * 3
        assert not failed_checks(result.rows, UNIT, CHECKS)

    def test_the_first_masks_are_common_and_later_ones_are_not(self, result: Result) -> None:
        masks = {
            index: {row["masks_sha256"] for row in rows_of(result.rows, kind="training", branch="ticket", round=index)}
            for index in (1, 3)
        }
        assert len(masks[1]) == 1
        assert len(masks[3]) > 1

    def test_a_training_that_two_modes_share_is_run_once_and_counted_once(self, result: Result) -> None:
        shared = rows_of(result.rows, kind="training", branch="reinit", round=1)
        assert len({row["weights_sha256"] for row in shared}) == 1
        assert sorted(row["iterations_trained"] for row in shared) == [0, 0, 0, 40]

    def test_every_mode_has_a_verdict(self, result: Result) -> None:
        assert tuple(result.verdicts) == MODES
        assert len(modes_chart(result.summaries, MODES).series) == 4


class TestStep:
    def test_w_k_is_the_dense_network_after_k_iterations_to_the_bit(
        self, result: Result, files: ReplicateFiles
    ) -> None:
        seed = replicate_seed(result.config, 0)
        data = load_data(result.config.data, seed)
        model = build(model_spec(result.config, 0, data.input_shape, data.classes))
        training = Training(model, data, result.config.training, Masks.full(model), derive_seed(seed, "order", 0))
        for _ in range(15):
            training.advance()
        stored = tensors(files.state_at(Step(0, 15)))
        assert content_sha256(stored) == content_sha256(model.state_dict())
        assert content_sha256(stored) != content_sha256(tensors(files.initial))

    def test_its_tickets_train_the_rest_of_the_recipe(self, result: Result) -> None:
        for row in rows_of(result.rows, kind="training", rewind="step:15it"):
            assert row["iterations"] == 40
            # The reinit of round 1 has the masks, weights and order of the mode before, and is not trained again.
            reinit = 0 if row["round"] == 1 else 40
            assert row["iterations_trained"] == (reinit if row["branch"] == "reinit" else 25)

    def test_a_ticket_retrained_from_its_extracted_folder_gives_its_row(self, result: Result, tmp_path: Path) -> None:
        extract(result.folder.root, 0.27, tmp_path / "ticket", mode="step:15it")
        model, _, masks = load_model(tmp_path / "ticket")
        assert masks is not None
        seed = replicate_seed(result.config, 0)
        data = load_data(result.config.data, seed)
        fit(model, data, result.config.training, masks, derive_seed(seed, "order", 2), first=15)
        (row,) = rows_of(result.rows, kind="training", rewind="step:15it", round=2, branch="ticket")
        assert content_sha256(model.state_dict()) == row["weights_sha256"]

    def test_step_0_is_init(self, tmp_path: Path) -> None:
        outcome = run_lottery(config(rewind=["init", "step:0it"], controls=[]), tmp_path)
        hashes = [
            [row["weights_sha256"] for row in rows_of(outcome.rows, kind="training", rewind=mode)]
            for mode in ("init", "step:0it")
        ]
        assert hashes[0] == hashes[1]

    def test_a_step_at_or_after_the_end_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(Exception, match="step:40it is not before the end of training at 40 iterations"):
            run_lottery(config(rewind="step:40it"), tmp_path)
        assert not list(tmp_path.glob("*/manifest.json"))


class TestKeepingWeights:
    @pytest.mark.parametrize("mode", ["lr", "finetune"])
    def test_a_round_goes_on_from_the_weights_of_the_round_before(
        self, mode: str, result: Result, files: ReplicateFiles, tmp_path: Path
    ) -> None:
        extract(result.folder.root, 0.27, tmp_path / "ticket", mode=mode)
        model, _, masks = load_model(tmp_path / "ticket")
        assert masks is not None
        before = tensors(files.round(Rewind.parse(mode), 1) / TRAINED)
        assert is_rewound(model, before, masks)

    def test_lr_replays_the_whole_schedule_and_finetune_has_one_low_rate(self) -> None:
        recipe = Recipe(
            length="100it", evaluate_every="10it", learning_rate=0.1, schedule="step", milestones=["50it", "80it"]
        )
        replayed, low = (Rewind.parse(mode).recipe(recipe, 10) for mode in ("lr", "finetune"))
        assert [replayed.rate_at(i, 10) for i in (0, 50, 99)] == pytest.approx([0.1, 0.01, 0.001])
        assert [low.rate_at(i, 10) for i in (0, 50, 99)] == pytest.approx([0.001] * 3)
        assert Recipe(length="9it", evaluate_every="1it", learning_rate=0.5).fine_tuning(10).learning_rate == 0.05

    def test_lr_begins_at_iteration_0_with_the_first_rate(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Seen where it is used: the rates that each engine's optimizer is given, round by round."""
        rates: list[float] = []

        def watch(engine: type[DenseEngine] | type[SparseEngine]) -> None:
            original = engine.update

            def watched(self: Any, rate: float) -> None:
                rates.append(rate)
                original(self, rate)

            monkeypatch.setattr(engine, "update", watched)

        watch(DenseEngine)
        watch(SparseEngine)
        stepped = {**SMALL_STUDY["training"], "schedule": "step", "milestones": ["20it"]}
        run_lottery(config(rewind="lr", controls=[], training=stepped), tmp_path)
        one_training = [1e-2] * 20 + [1e-3] * 20
        assert rates == pytest.approx(one_training * 4)


class TestControlsWhereWeightsStay:
    @pytest.mark.parametrize("mode", ["lr", "finetune"])
    def test_random_does_not_start_from_zeros(self, mode: str, result: Result, files: ReplicateFiles) -> None:
        """A shuffled mask over trained weights would mostly keep what earlier rounds had set to 0."""
        seed, index = replicate_seed(result.config, 0), 3
        data = load_data(result.config.data, seed)
        model = build(model_spec(result.config, 0, data.input_shape, data.classes))
        masks = stored_masks(files, Rewind.parse(mode), index, Masks.full(model))
        control = shuffled(masks, derive_seed(seed, "random", index))
        trained = tensors(files.round(Rewind.parse(mode), index - 1) / TRAINED)
        zeros = sum(int((trained[name][mask.keep] == 0).sum()) for name, mask in control.items())
        assert zeros > control.kept / 4  # what it would have started from
        (row,) = rows_of(result.rows, kind="training", rewind=mode, round=index, branch="random")
        control.apply_(model)  # W_0 instead
        fit(model, data, result.config.training, control, derive_seed(seed, "order", index))
        assert content_sha256(model.state_dict()) == row["weights_sha256"]


def test_two_names_of_one_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="step:1ep and step:21it are the same iteration"):
        run_lottery(config(rewind=["step:1ep", "step:21it"]), tmp_path)


def test_patience_waits_for_the_state_that_a_mode_rewinds_to(tmp_path: Path) -> None:
    training = {"length": "200it", "evaluate_every": "2it", "learning_rate": 0.5, "patience": 1}
    outcome = run_lottery(config(rewind="step:50it", controls=[], training=training), tmp_path)
    (dense,) = rows_of(outcome.rows, kind="training", branch="dense")
    assert 50 <= dense["iterations"] < 200
    assert not failed_checks(outcome.rows, UNIT, CHECKS)


def test_batch_norm_statistics_belong_to_the_network_evaluated(tmp_path: Path) -> None:
    """A small ResNet: a ticket's statistics are its own, stored with it, and it can be trained again to its row."""
    study = config(
        model={"architecture": "resnet20", "widths": [4, 4, 4], "initialisation": "kaiming-normal"},
        training={"length": "6it", "evaluate_every": "3it", "optimizer": "sgd", "learning_rate": 0.05},
        pruning={"densities": [0.5]},
        controls=[],
        rewind=["init", "step:2it", "lr"],
    )
    outcome = run_lottery(study, tmp_path)
    assert not failed_checks(outcome.rows, UNIT, CHECKS)
    seed = replicate_seed(study, 0)
    data = load_data(study.data, seed)
    for mode, first in (("init", 0), ("step:2it", 2), ("lr", 0)):
        folder = tmp_path / f"ticket-{first}-{mode[:2]}"
        extract(outcome.folder.root, 0.5, folder, mode=mode)
        model, _, masks = load_model(folder)
        assert masks is not None
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        reestimate_statistics(model, data, 2000)
        assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
        fit(model, data, study.training, masks, derive_seed(seed, "order", 1), first=first)
        (row,) = rows_of(outcome.rows, kind="training", rewind=mode)
        assert content_sha256(model.state_dict()) == row["weights_sha256"]
