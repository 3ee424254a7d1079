"""Tasks: `fit` trains whatever gives batches, a loss and scores; fast paths take the tasks they know and no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sparse_steps import kill_at, random_masks, recipe
from torch import Tensor, nn
from torch.nn import functional

import own_training
from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import StorageError, TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import Gradual, fit
from tombola.training.batches import Order
from tombola.training.classification import Classification
from tombola.training.code import own_sha256
from tombola.training.engine import DenseEngine
from tombola.training.gradients import linear_chain
from tombola.training.task import Measure, Part, Scored, Task, without_augmentation
from tombola.training.training import Training


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), seed=0)


def chain(inputs: int = 64, outputs: int = 10) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 40), nn.ReLU(), nn.Linear(40, outputs))


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits, targets, label_smoothing=0.1)


class Sines(Task):
    """A line of somebody's own: y = sin(3 x), with batches that are no pair of tensors."""

    name = "regression"
    compares = Measure("error", higher_is_better=False)

    def __init__(self) -> None:
        x = torch.linspace(-1, 1, 90)[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
        self.parts = dict(zip(("train", "validation", "test"), x[:, None].split([60, 15, 15]), strict=True))
        self.criterion_loss = functional.mse_loss

    @property
    def checksum(self) -> str:
        return content_sha256(self.parts)

    def identity(self) -> tuple[str, ...]:
        return (self.checksum,)

    def count(self, part: Part) -> int:
        return len(self.parts[part])

    def batches(self, size: int, seed: int, augmentation: Sequence[str] = ()) -> Any:
        without_augmentation(self, augmentation)
        task, order = self, Order(60, size, seed)

        class Source:
            per_epoch = -(-60 // size)

            def at(self, iteration: int) -> dict[str, Tensor]:
                return {"x": task.parts["train"][order.at(iteration)]}

        source = Source()
        source.size = size  # type: ignore[attr-defined]
        return source

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return functional.mse_loss(model(batch["x"]), torch.sin(3 * batch["x"]))

    def scores(self, model: nn.Module, part: Part) -> Scored:
        with torch.no_grad():
            loss = float(self.loss(model, {"x": self.parts[part]}))
        return Scored(loss, {"error": loss**0.5}, self.count(part))

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        x = self.parts["train"]
        return [(x, torch.sin(3 * x))] * count

    def inputs(self, count: int, size: int) -> list[Any]:
        return list(self.parts["train"][:count].split(size))


class TestATaskOfOnesOwn:
    def test_is_trained_killed_and_resumed_to_the_bit(self, tmp_path: Path) -> None:
        whole, killed = chain(1, 1), chain(1, 1)
        masks, checkpoint = prune(whole, 0.4), tmp_path / "checkpoint.safetensors"
        chosen = recipe(length="300it", evaluate_every="50it", learning_rate=2e-2, batch_size=20)
        trained = fit(whole, Sines(), chosen, masks, 5)
        last = trained.evaluations[-1]
        assert last.loss < 0.1 * Sines().scores(chain(1, 1), "validation").loss
        assert last.values == {"error": last.loss**0.5}
        assert masks.removed_nonzeros(whole) == 0
        again: dict[str, Any] = {"checkpoint": checkpoint, "checkpoint_seconds": 0}
        with pytest.raises(KeyboardInterrupt):
            fit(killed, Sines(), chosen, masks, 5, on_evaluation=kill_at(200), **again)
        killed = chain(1, 1)
        assert fit(killed, Sines(), chosen, masks, 5, **again).evaluations == trained.evaluations
        assert content_sha256(killed.state_dict()) == content_sha256(whole.state_dict())

    def test_takes_no_fast_path(self) -> None:
        """Although the network is a chain that both know."""
        model = chain(1, 1)
        assert linear_chain(model) is not None
        training = Training(model, Sines(), recipe(), random_masks(model, [0.1, 0.1]), 0)
        assert isinstance(training.engine, DenseEngine)
        said = "the engine sparse knows classification only, and this task is regression; set the engine to auto"
        with pytest.raises(TrainingError, match=said):
            fit(model, Sines(), recipe(engine="sparse"), random_masks(model, [0.1, 0.1]), 0)

    def test_has_its_own_loss_in_gradual_pruning(self) -> None:
        """The cross-entropy of one output is 0 everywhere, and a criterion would refuse it."""
        model = chain(1, 1)
        evolution = Gradual(criterion="taylor", sparsity=0.5, every="20it", end="40it")
        assert fit(model, Sines(), recipe(), Masks.full(model), 0, evolution=evolution).masks.sparsity == 0.5

    def test_refuses_augmentation(self) -> None:
        with pytest.raises(TrainingError, match="augmentation is for images, this task is regression: leave 'flip'"):
            fit(chain(1, 1), Sines(), recipe(augmentation=("flip",)), Masks({}), 0)


class Smoothed(Classification):
    """A loss of its own, beside what the constructor is given."""

    weight = 0.1

    def __init__(self, data: DataSet) -> None:
        super().__init__(data)
        self.smoothing = self.weight

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        return functional.cross_entropy(model(inputs), targets, label_smoothing=self.smoothing)


class Smoothest(Smoothed):
    """Other code with the same attributes."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return 2 * super().loss(model, batch)


class Halved(Classification):
    """Other batches, and the loss that the recipe names."""

    def batches(self, size: int, seed: int, augmentation: Sequence[str] = ()) -> Any:
        return super().batches(size // 2, seed, augmentation)


class TestAClassOfOnesOwnOfClassification:
    def test_takes_no_fast_path(self, digits: DataSet) -> None:
        model, task = chain(), Smoothed(digits)
        masks = random_masks(model, [0.1, 0.1])
        training = Training(model, task, recipe(), masks, 0)
        assert isinstance(training.engine, DenseEngine)
        training.engine.gradients(0)
        reference = chain()
        masks.apply_(reference)
        task.loss(reference, task.batches(60, 0).at(0)).backward()
        for mine, exact in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, exact.grad)
        with pytest.raises(TrainingError, match=r"cross-entropy only, and this task has a class of its own .*Smoothed"):
            fit(model, task, recipe(engine="sparse"), masks, 0)

    def test_stays_what_it_is_on_its_way_into_a_training(self, digits: DataSet) -> None:
        named = recipe(loss="own_training:smoothed")
        training = Training(chain(), Halved(digits), named, Masks.full(chain()), 0)
        assert isinstance(training.task, Halved)
        assert training.task.criterion_loss is own_training.smoothed
        assert training.batches.size == 30
        assert isinstance(Smoothed(digits).on(torch.device("cpu")), Smoothed)
        with pytest.raises(TrainingError, match="this task has its own"):  # which would pass the recipe's by
            Training(chain(), Smoothed(digits), named, Masks.full(chain()), 0)

    def test_a_checkpoint_of_other_settings_or_other_code_is_refused(self, digits: DataSet, tmp_path: Path) -> None:
        checkpoint, model = tmp_path / "checkpoint.safetensors", chain()
        again: dict[str, Any] = {"checkpoint": checkpoint, "checkpoint_seconds": 0}
        with pytest.raises(KeyboardInterrupt):
            fit(model, Smoothed(digits), recipe(), Masks.full(model), 0, on_evaluation=kill_at(20), **again)
        other = Smoothed(digits)
        other.smoothing = 0.5
        for task in (other, Classification(digits), Smoothest(digits)):
            with pytest.raises(StorageError):
                fit(chain(), task, recipe(), Masks.full(model), 0, **again)
        fit(chain(), Smoothed(digits), recipe(), Masks.full(model), 0, **again)


def test_what_is_somebodys_own_in_a_task(digits: DataSet) -> None:
    assert own_sha256(Classification(digits)) == own_sha256(Classification(digits, functional.nll_loss)) == ""
    assert own_sha256(Classification(digits, smoothed)) != ""
    task, known = Smoothed(digits), own_sha256(Smoothed(digits))
    task._cache, task.device = 3, torch.device("meta")  # type: ignore[attr-defined]
    assert own_sha256(task) == known
    for value in (0.2, torch.ones(3), nn.ReLU(), smoothed, [0.1, {"a": 1}], Sines):
        task.smoothing = value  # type: ignore[assignment]
        found = own_sha256(task)
        assert found != known
        known = found


class TestClassificationByALossOfOnesOwn:
    def test_takes_no_fast_path(self, digits: DataSet) -> None:
        model, task = chain(), Classification(digits, smoothed)
        masks = random_masks(model, [0.1, 0.1])
        training = Training(model, task, recipe(), masks, 0)
        assert isinstance(training.engine, DenseEngine)
        training.engine.gradients(0)
        reference = chain()
        masks.apply_(reference)
        task.loss(reference, task.batches(60, 0).at(0)).backward()
        for mine, exact in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, exact.grad)
        with pytest.raises(TrainingError, match="knows the cross-entropy only"):
            fit(model, task, recipe(engine="sparse"), masks, 0)

    def test_is_measured_by_that_loss(self, digits: DataSet) -> None:
        """Of all examples, whose chunks are not of one size."""
        model = chain()
        loss = Classification(digits, smoothed).scores(model, "train").loss
        assert len(digits.train) > 1_000
        assert loss == pytest.approx(smoothed(model(digits.train.inputs), digits.train.targets).item(), rel=1e-5)
        assert loss != Classification(digits).scores(model, "train").loss

    def test_is_another_training(self, digits: DataSet, tmp_path: Path) -> None:
        path, masks = tmp_path / "checkpoint.safetensors", Masks.full(chain())
        fit(chain(), Classification(digits, smoothed), recipe(), masks, 0, checkpoint=path, checkpoint_seconds=0)
        with pytest.raises(StorageError, match="checkpoint of another training"):
            fit(chain(), digits, recipe(), masks, 0, checkpoint=path)


def test_classification_says_which_answers_are_right(digits: DataSet) -> None:
    scored = Classification(digits).scores(chain(), "test")
    assert scored.each is not None
    assert scored.each.mean().item() == pytest.approx(scored.accuracy)
