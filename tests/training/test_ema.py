"""Averaged weights: torch's own, held by masks, resumed to the bit, and without effect on the raw ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sparse_steps import kill_at, recipe
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ConfigError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import Dynamic, Gradual, fit
from tombola.training.ema import Average, decay_of
from tombola.training.metrics import evaluate
from tombola.training.trained import Evaluation, Trained
from tombola.training.training import Training


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), seed=0)


def chain() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))


class Counts(nn.Module):
    """Writes a buffer and draws a number at every call, in evaluation, too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + 1e-3 * torch.rand(())


def with_memory() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), Counts()),
        nn.Linear(144, 10),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], dict[str, Any]]] = {
    "written out": (chain, {"engine": "dense"}, {}),
    "sparse": (chain, {"engine": "sparse"}, {}),
    "autograd": (with_memory, {}, {}),
    "rigl": (chain, {}, {"evolution": Dynamic(method="rigl", sparsity=0.7, every="7it", fraction=0.5)}),
    "gradual": (with_memory, {}, {"evolution": Gradual(sparsity=0.7, every="10it", end="40it")}),
    "patience": (chain, {"patience": 1, "learning_rate": 0.1, "length": "300it", "engine": "dense"}, {}),
}


def trained(case: str, data: DataSet, ema: float | None, **more: Any) -> tuple[nn.Module, Trained]:
    make, options, keywords = CASES[case]
    model = make()
    masks = Masks.full(model) if "evolution" in keywords else prune(model, 0.7)
    return model, fit(model, data, recipe(**options, ema=ema), masks, 5, **keywords, **more)


@pytest.mark.parametrize("case", CASES)
def test_raw_weights_are_those_without_averages(case: str, digits: DataSet) -> None:
    (plain, without), (model, averaging) = (trained(case, digits, ema) for ema in (None, 0.3))
    assert content_sha256(model.state_dict()) == content_sha256(plain.state_dict())
    assert content_sha256(averaging.early_stop_state) == content_sha256(without.early_stop_state)
    assert [look.loss for look in averaging.evaluations] == [look.loss for look in without.evaluations]
    assert without.averaged is None
    assert not any(look.averaged for look in without.evaluations)


@pytest.mark.parametrize("case", CASES)
def test_masks_hold_in_the_average_and_it_is_another_network(case: str, digits: DataSet) -> None:
    model, found = trained(case, digits, 0.3)
    assert found.averaged is not None
    raw = content_sha256(model.state_dict())
    for state in (found.averaged.state, found.averaged.early_stop_state):
        model.load_state_dict(state)
        assert found.masks.removed_nonzeros(model) == 0
        assert content_sha256(state) != raw


@pytest.mark.parametrize("case", CASES)
def test_a_killed_training_ends_with_the_same_average(case: str, digits: DataSet, tmp_path: Path) -> None:
    _, whole = trained(case, digits, 0.3)
    again: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        trained(case, digits, 0.3, on_evaluation=kill_at(20), **again)
    _, resumed = trained(case, digits, 0.3, **again)
    assert resumed.evaluations == whole.evaluations
    assert resumed.averaged is not None
    assert whole.averaged is not None
    assert resumed.averaged.early_stop == whole.averaged.early_stop
    for mine, theirs in zip(
        (resumed.averaged.state, resumed.averaged.early_stop_state),
        (whole.averaged.state, whole.averaged.early_stop_state),
        strict=True,
    ):
        assert content_sha256(mine) == content_sha256(theirs)


@pytest.mark.parametrize("case", ["written out", "sparse", "autograd"])
def test_averages_are_those_of_torch(case: str, digits: DataSet) -> None:
    make, options, _ = CASES[case]
    model = make()
    chosen = recipe(**options, ema=0.4)
    training = Training(model, digits, chosen, prune(model, 0.7), 5)
    assert training.average is not None
    decay = decay_of(0.4, training.total)

    def averaging(mean: Tensor, value: Tensor, updates: Tensor) -> Tensor:
        kept = min(decay, int(updates) / (int(updates) + 1))
        return kept * mean + (1 - kept) * value

    peer = AveragedModel(model, avg_fn=averaging, use_buffers=True)
    for _ in range(30):
        training.advance()
        training.engine.write_back()
        peer.update_parameters(model)
    with training.average.in_place():
        for (name, mine), theirs in zip(model.state_dict().items(), peer.module.state_dict().values(), strict=True):
            if mine.is_floating_point():  # torch rounds what it averages of whole numbers
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6, msg=name)


class Given(nn.Module):
    """Learns what it is given, weights and buffers alike."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = torch.zeros(60)
        self.register_buffer("seen", torch.zeros(60))

    def write_back(self) -> None: ...


@pytest.mark.parametrize("ema", [0.1, 0.5, 1.0])
def test_no_iterate_weighs_more_than_one_of_the_window(ema: float) -> None:
    """An iterate that is 1 at its own place shows what it weighs; until the window is full, all weigh the same."""
    learner, total = Given(), 60
    average, window = Average(learner, learner, decay_of(ema, total)), round(ema * total)
    for number in range(total):
        learner.vector.zero_()[number] = 1
        learner.seen.copy_(learner.vector)
        average.update()
        if number < window:
            expected = torch.zeros(60)
            expected[: number + 1] = 1 / (number + 1)
            torch.testing.assert_close(average.values, expected)
    assert average.values.sum().item() == pytest.approx(1)
    assert average.values.max().item() == pytest.approx(1 / window)
    assert torch.equal(average.buffers["seen"], average.values)


def test_the_window_is_a_fraction_of_the_training() -> None:
    assert decay_of(0.5, 100) == pytest.approx(0.98)
    assert decay_of(1.0, 1) == decay_of(0.001, 100) == 0  # the last weights alone


def test_it_is_evaluated_beside_the_raw_weights(digits: DataSet) -> None:
    """What was said of the average is true of the state that is given; who looks finds the raw weights."""
    seen: list[tuple[Evaluation, float]] = []
    model = chain()

    def look(evaluation: Evaluation, total: int) -> None:
        seen.append((evaluation, evaluate(model, digits.validation).loss))

    found = fit(model, digits, recipe(ema=0.5, engine="sparse"), prune(model, 0.7), 5, on_evaluation=look)
    for evaluation, loss in seen:
        assert loss == pytest.approx(evaluation.loss, rel=1e-4)
        assert evaluation.averaged is not None
        assert evaluation.averaged.loss != evaluation.loss
    assert found.averaged is not None
    best = min(evaluation.averaged.loss for evaluation, _ in seen if evaluation.averaged is not None)
    assert found.averaged.early_stop.loss == best
    model.load_state_dict(found.averaged.early_stop_state)
    assert evaluate(model, digits.validation).loss == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("ema", [0, -0.1, 1.5])
def test_a_window_that_is_no_fraction_is_refused(ema: float) -> None:
    with pytest.raises(ConfigError, match=r"^Recipe: ema: "):
        recipe(ema=ema)
