"""What makes a search cheap: patience, early birds; and what is said of its cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import own_models
from listening import Heard
from small_study import SMALL_STUDY, run_lottery
from tombola.data import DataConfig, load_data
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Masks, prune
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.studies.base.checks import failed_checks
from tombola.studies.base.timing import training_seconds
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.early_bird import EarlyBird, EarlyBirdConfig, candidates, mask_distance, settled
from tombola.studies.lottery.forecast import forecast
from tombola.studies.lottery.metrics import CHECKS, UNIT
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.rewind import Rewind
from tombola.studies.lottery.search_costs import cost_table, early_bird_line
from tombola.studies.lottery.stored import MASKS, ReplicateFiles
from tombola.training import Recipe, fit
from tombola.training.training import Training


def config(**changes: object) -> LotteryConfig:
    return validate({**SMALL_STUDY, "replicates": 1, **changes}, LotteryConfig, "search")


class TestPatience:
    def recipe(self, **changes: object) -> Recipe:
        return Recipe(**{"length": "2000it", "evaluate_every": "20it", "learning_rate": 0.02, "patience": 3, **changes})

    def test_stops_after_so_many_evaluations_without_a_lower_loss_and_gives_the_best_network(self) -> None:
        data = load_data(DataConfig(name="digits"), seed=0)
        model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=1, widths=(30,)))
        trained = fit(model, data, self.recipe(), Masks.full(model), seed=0)
        losses = [evaluation.loss for evaluation in trained.evaluations]
        assert trained.iteration < 2000
        assert losses.index(min(losses)) == len(losses) - 4
        assert content_sha256(model.state_dict()) == content_sha256(trained.early_stop_state)

    def test_a_training_killed_while_losing_patience_ends_the_same(self, tmp_path: Path) -> None:
        data = load_data(DataConfig(name="digits"), seed=0)

        def run(**options: object) -> str:
            model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=1, widths=(30,)))
            trained = fit(model, data, self.recipe(), Masks.full(model), 0, **options)  # type: ignore[arg-type]
            return content_sha256(model.state_dict()) + str(trained.evaluations)

        whole = run()
        stop = int(whole.rsplit("iteration=", 1)[1].split(",")[0])

        def kill(evaluation: object, total: int) -> None:
            if evaluation.iteration == stop - 20:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        options = {"checkpoint": tmp_path / "c.safetensors", "checkpoint_seconds": 0}
        with pytest.raises(KeyboardInterrupt):
            run(on_evaluation=kill, **options)
        assert run(**options) == whole

    def test_a_study_with_patience_says_what_was_trained(self, tmp_path: Path) -> None:
        training = {"length": "400it", "evaluate_every": "10it", "learning_rate": 0.02, "patience": 2}
        outcome = run_lottery(config(training=training), tmp_path)
        rows = rows_of(outcome.rows, kind="training")
        assert all(row["iterations_trained"] < 400 for row in rows)
        assert not failed_checks(outcome.rows, UNIT, CHECKS)
        table = cost_table(summarise(rows))
        assert table.rows[0][3] == "1.00"
        whole = sum(row["iterations_trained"] for row in rows) / rows[0]["iterations_trained"]
        assert float(table.rows[-1][3]) == pytest.approx(whole, abs=0.05)


class TestEarlyBird:
    def masks(self, share: float) -> Masks:
        torch.manual_seed(0)
        return prune(torch.nn.Linear(10, 10), share)

    def test_distance_is_the_fraction_of_weights_whose_masks_differ(self) -> None:
        full = self.masks(0.0)
        assert mask_distance(self.masks(0.5), self.masks(0.5), full) == 0
        assert mask_distance(self.masks(0.5), self.masks(0.7), full) == pytest.approx(0.2)

    def test_late_rounds_are_not_near_to_each_other_by_being_small(self) -> None:
        """Two unrelated masks of 5 % within 10 %: over all weights they would differ by 5 %, and pass for settled."""
        within = self.masks(0.9)
        one, other = (
            prune(torch.nn.Linear(10, 10), 0.95, criterion="random", masks=within, seed=seed) for seed in (1, 2)
        )
        assert mask_distance(one, other, within) > 0.2

    def test_settles_when_the_newest_is_near_to_each_of_the_window(self, tmp_path: Path) -> None:
        shares = iter([0.1, 0.3, 0.5, 0.52, 0.53, 0.99])
        bird = EarlyBird(
            EarlyBirdConfig(distance=0.05, window=2), self.masks(0.0), lambda: self.masks(next(shares)), tmp_path
        )
        for iteration in (10, 20, 30, 40, 50, 60):
            bird.look(iteration)
        found = settled(tmp_path)
        assert found is not None
        masks, iteration = found
        assert iteration == 50
        assert masks.sparsity == pytest.approx(0.53)
        assert len(candidates(tmp_path)) == 5  # and no look after it has settled

    def test_a_killed_training_that_looks_again_finds_the_same(self, tmp_path: Path) -> None:
        by_iteration = {10: 0.1, 20: 0.3, 30: 0.5, 40: 0.52, 50: 0.53}
        now = 0

        def candidate() -> Masks:
            return self.masks(by_iteration[now])

        for visited in ((10, 20, 30, 40), (20, 30, 40, 50)):  # killed after 40, continued from 10
            bird = EarlyBird(EarlyBirdConfig(distance=0.05, window=2), self.masks(0.0), candidate, tmp_path)
            for now in visited:
                bird.look(now)
        found = settled(tmp_path)
        assert found is not None
        assert found[1] == 50

    def test_a_study_takes_the_mask_that_settled_and_reports_the_saving(self, tmp_path: Path) -> None:
        outcome = run_lottery(config(early_bird={"distance": 0.3, "window": 1}, controls=[]), tmp_path)
        files = ReplicateFiles.of(outcome.folder.checkpoints, 0)
        (dense,) = rows_of(outcome.rows, kind="training", branch="dense")
        assert dense["early_bird_iteration"] in (20, 30, 40)
        bird, _ = load_tensors(files.round(Rewind("init"), 0) / "early-bird.safetensors")
        used, _ = load_tensors(files.round(Rewind("init"), 1) / MASKS)
        assert content_sha256(bird) == content_sha256(used)
        line = early_bird_line(outcome.rows)
        assert line is not None
        assert "% of the iterations" in line
        assert line in outcome.folder.report.read_text()
        assert not failed_checks(outcome.rows, UNIT, CHECKS)
        assert not list(outcome.folder.root.rglob("candidate-*"))

    def test_without_it_nothing_is_said(self, tmp_path: Path) -> None:
        outcome = run_lottery(config(controls=[]), tmp_path)
        assert early_bird_line(outcome.rows) is None


def test_a_forecast_counts_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = forecast(config(replicates=3, rewind=["init", "lr"]), workers=2)
    assert plan.trainings == 3 * (1 + 2 * 3 * 3)
    assert plan.rounds[0].density == 1
    assert plan.iterations == 40
    assert (
        plan.seconds
        == pytest.approx(  # two waves of three replicates; two modes of three networks a round
            2 * (plan.training_seconds + 6 * sum(plan.round_seconds[1:]))
        )
    )
    assert not list(tmp_path.iterdir())


def test_a_new_run_is_told_what_it_will_cost_and_a_begun_one_is_not(tmp_path: Path) -> None:
    heard = Heard()
    for replicates in (1, 2):
        run_lottery(config(replicates=replicates, controls=[]), tmp_path, watcher=heard)
    (line,) = heard.plans
    assert line is not None
    assert line.startswith("4 trainings, about ")
    assert line.endswith(" with 1 worker, starting and measuring on top; --dry-run shows the rounds")


def test_timing_asks_no_schedule_beyond_the_end() -> None:
    data = load_data(DataConfig(name="digits"), 0)
    model = own_models.dense()
    recipe = Recipe(length="3it", evaluate_every="1it", learning_rate=0.01, schedule="own_training:falling")
    assert training_seconds(Training(model, data, recipe, Masks.full(model), 0), 0.01) > 0


def test_a_forecast_takes_each_rounds_own_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that train densely cost what the dense network does; the others by their density."""
    probed: list[tuple[str, float]] = []

    def seconds(training: Training, sample: float) -> float:
        probed.append((training.engine.name, training.masks.density))
        return 10.0 if training.engine.name == "dense" else 8 * training.masks.density

    monkeypatch.setattr("tombola.studies.base.timing.training_seconds", seconds)
    rounds = {"densities": [0.95, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05], "distribution": "uniform"}
    plan = forecast(config(pruning=rounds, controls=[]), workers=1)
    assert plan.round_seconds == pytest.approx([10, 10, 10, 4, 3.2, 2.4, 1.6, 0.8, 0.4], rel=0.02)
    assert plan.seconds == pytest.approx(sum(plan.round_seconds))
    assert [engine for engine, _ in probed] == ["dense"] + ["sparse"] * 4
    assert [row[3] for row in plan.table().rows][:3] == ["10.00"] * 3  # as many decimals as the others
    probed.clear()
    dense = forecast(config(training={**SMALL_STUDY["training"], "engine": "dense"}), workers=1)
    assert dense.round_seconds == [10.0] * 4
    assert len(probed) == 1
