"""Learning from a teacher: by the formula, for every kind of answer, under masks, killed and resumed."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sparse_steps import kill_at, recipe
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import StorageError, TrainingError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import Classification, LanguageModelling, Tokens, fit
from tombola.training.distillation import Distilled


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), 0)


def network(seed: int) -> nn.Module:
    return build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=seed, widths=(20, 10)))


@pytest.fixture(scope="module")
def teacher(digits: DataSet) -> nn.Module:
    model = network(1)
    fit(model, digits, recipe(length="300it", evaluate_every="100it", learning_rate=1e-2), Masks.full(model), 0)
    return model


@settings(max_examples=30)
@given(st.floats(0.3, 20), st.floats(0, 1))
@example(14.25, 1.0)
def test_the_loss_is_hintons(digits: DataSet, temperature: float, weight: float) -> None:
    """Written out: sums over classes of p log(p / q), times the squared temperature, beside the cross-entropy.

    At a high temperature answers are nearly alike: the example lost the digits that are asked for in float32.
    """
    task, student = Classification(digits), network(0)
    batch = (digits.train.inputs[:7], digits.train.targets[:7])
    found = Distilled(task, network(1), temperature, weight).loss(student, batch).detach()
    with torch.no_grad():
        ours, theirs = (network(seed)(batch[0]).double() for seed in (0, 1))
    p, q = (theirs / temperature).softmax(1), (ours / temperature).softmax(1)
    distance = (p * (p / q).log()).sum(1).mean() * temperature**2
    wanted = (1 - weight) * functional.cross_entropy(ours, batch[1]) + weight * distance
    assert float(found) == pytest.approx(float(wanted), rel=1e-4, abs=1e-5)


def test_a_student_that_answers_like_its_teacher_learns_nothing_of_it(digits: DataSet, teacher: nn.Module) -> None:
    student = copy.deepcopy(teacher)
    batch = (digits.train.inputs[:9], digits.train.targets[:9])
    Distilled(Classification(digits), teacher, weight=1).loss(student, batch).backward()
    assert all(float(p.grad.abs().max()) < 1e-6 for p in student.parameters() if p.grad is not None)


def test_killed_and_resumed_to_the_bit_and_by_no_other_teacher(
    digits: DataSet, teacher: nn.Module, tmp_path: Path
) -> None:
    before = content_sha256(teacher.state_dict())

    def trained(taught: nn.Module = teacher, weight: float = 0.5, **more: Any) -> tuple[nn.Module, Any]:
        student = copy.deepcopy(teacher)
        masks = prune(student, 0.9)
        return student, fit(student, Distilled(Classification(digits), taught, 2, weight), recipe(), masks, 3, **more)

    student, whole = trained()
    assert whole.masks.removed_nonzeros(student) == 0
    again: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        trained(on_evaluation=kill_at(30), **again)
    for other in ({"taught": network(2)}, {"weight": 0.4}):
        with pytest.raises(StorageError, match="a checkpoint of another training"):
            trained(**other, **again)
    resumed, end = trained(**again)
    assert end.evaluations == whole.evaluations
    assert content_sha256(resumed.state_dict()) == content_sha256(student.state_dict())
    assert content_sha256(teacher.state_dict()) == before


def test_scores_and_early_stops_are_those_of_the_targets(digits: DataSet, teacher: nn.Module) -> None:
    task, student = Classification(digits), network(5)
    assert Distilled(task, teacher).scores(student, "validation").loss == task.scores(student, "validation").loss


def test_a_loss_of_ones_own_is_the_targets(digits: DataSet, teacher: nn.Module) -> None:
    distilled = Distilled(Classification(digits), teacher, weight=0.25)
    smooth = distilled.by_loss(smoothed)
    assert smooth is not None
    batch = (digits.train.inputs[:5], digits.train.targets[:5])
    student = network(4)
    difference = (smooth.loss(student, batch) - distilled.loss(student, batch)).detach()
    logits = student(batch[0]).detach()
    assert float(difference) == pytest.approx(
        0.75 * float(smoothed(logits, batch[1]) - functional.cross_entropy(logits, batch[1])), rel=1e-3, abs=1e-6
    )


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits, targets, label_smoothing=0.2)


class Bigrams(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.table(ids))}


def test_next_tokens(digits: DataSet) -> None:
    tokens = Tokens(torch.arange(90).reshape(10, 9) % 7)
    task, student, teacher = LanguageModelling(tokens, tokens, tokens), Bigrams(0), Bigrams(1)
    found = float(Distilled(task, teacher, 1, 1).loss(student, tokens.ids).detach())
    p, q = (model(tokens.ids[:, :-1])["logits"].softmax(2) for model in (teacher, student))
    assert found == pytest.approx(float((p * (p / q).log()).sum(2).mean().detach()), rel=1e-4)
    fit(
        student,
        Distilled(task, teacher),
        recipe(length="4it", evaluate_every="2it", batch_size=5),
        Masks.full(student),
        0,
    )


class Sums(LanguageModelling):
    """Somebody's task of numbers, which said so."""

    name = "sums"

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return functional.mse_loss(model(batch.float()).squeeze(1), batch.float().sum(1))


def test_numbers_are_compared_as_numbers() -> None:
    tokens = Tokens(torch.arange(90).reshape(10, 9) % 7)
    student, teacher = nn.Linear(9, 1), nn.Linear(9, 1)
    task = Sums(tokens, tokens, tokens)
    with pytest.raises(TrainingError, match=r"set `answers = 'numbers'` in its class"):
        Distilled(task, teacher, weight=1).loss(student, tokens.ids)
    task.answers = "numbers"
    found = Distilled(task, teacher, weight=1).loss(student, tokens.ids).detach()
    wanted = functional.mse_loss(student(tokens.ids.float()), teacher(tokens.ids.float())).detach()
    assert float(found) == pytest.approx(float(wanted))


@pytest.mark.parametrize(("temperature", "weight"), [(0, 0.5), (-1, 0.5), (math.nan, 0.5), (math.inf, 0.5), (1, 1.1)])
def test_what_is_no_temperature_or_weight(digits: DataSet, temperature: float, weight: float) -> None:
    with pytest.raises(TrainingError, match=r"take a number above 0|from 0 to 1"):
        Distilled(Classification(digits), network(0), temperature, weight)


def test_a_teacher_of_another_task_is_refused(digits: DataSet) -> None:
    other = build(ModelSpec(input_shape=(1, 8, 8), classes=3, seed=0, widths=(20, 10)))
    batch = (digits.train.inputs[:5], digits.train.targets[:5])
    with pytest.raises(TrainingError, match=r"answer differently \(\(5, 10\) and \(5, 3\)\)"):
        Distilled(Classification(digits), other).loss(network(0), batch)
