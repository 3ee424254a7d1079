"""Whole trainings, compared to the bit: whatever is asked, whoever looks, however often they are killed and continued.

What a callback sees belongs to the end that is compared: an early bird, a figure or a person acts on it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.errors import TrainingError
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Masks, prune
from tombola.studies.lottery.early_bird import EarlyBird, EarlyBirdConfig, settled
from tombola.training import Recipe, fit
from tombola.training.evolution import Dynamic, Gradual
from tombola.training.metrics import evaluate
from tombola.training.trained import Evaluation
from tombola.training.training import Training

LENGTH, EVERY = 24, 4
CAPTURED = (0, 6, 12)


class Remembering(nn.Module):
    """Counts its batches in a buffer that `state_dict` leaves out, and lets the count into its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("met", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.met += 1
        return x * (1 + 0.01 * self.met)


def dense_chain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))


def convolutions() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def with_state() -> nn.Module:
    """Batch norm, dropout, a buffer that is not persistent, and a frozen layer: all that is not only weights."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), Remembering(), nn.Dropout(0.3),
        nn.Linear(256, 12), nn.ReLU(), nn.Linear(12, 10),
    )  # fmt: skip
    model[6].requires_grad_(False)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dense chain on kernels": (dense_chain, "sparse"),
    "convolutions on kernels": (convolutions, "sparse"),
    "dense chain": (dense_chain, "dense"),
    "with state": (with_state, "dense"),
}
EVOLUTIONS = {
    "gradual": Gradual(sparsity=0.8, begin="0it", end="12it", every="3it"),
    "set": Dynamic(method="set", sparsity=0.6, every="5it"),
    "rigl": Dynamic(method="rigl", sparsity=0.6, every="5it"),
}


@pytest.fixture(scope="module")
def digits() -> DataSet:
    data = load_data(DataConfig(name="digits", validation=100), 0)
    return DataSet(**{**vars(data), "train": data.train.first(300)})


@dataclass(frozen=True)
class Asked:
    """One training as it is asked for."""

    network: str
    recipe: Recipe
    evolution: Any = None

    def model(self) -> nn.Module:
        torch.manual_seed(4)
        return NETWORKS[self.network][0]()


@dataclass
class Killer:
    """Dies at the iterations named, each once, as a process does: before a step, or while somebody looks."""

    at: list[int] = field(default_factory=list)

    def __call__(self, iteration: int) -> None:
        if self.at and iteration >= self.at[0]:
            self.at.pop(0)
            raise KeyboardInterrupt


def whole_run(asked: Asked, data: DataSet, folder: Path, interval: float, kills: list[int], within: bool) -> Any:
    """The end of a training that is killed and continued until it ends, and all that was seen on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: dict[int, tuple[str, Evaluation]] = {}
    killer = Killer(kills)
    captured = {iteration: folder / f"captured-{iteration}.safetensors" for iteration in CAPTURED}
    while True:
        model = asked.model()
        masks = Masks.full(model) if asked.evolution else prune(model, 0.6)
        masks.apply_(model)
        bird = EarlyBird(EarlyBirdConfig(distance=0.5, window=2), masks, lambda: prune(model, 0.9), folder)  # noqa: B023

        def look(evaluation: Evaluation, total: int) -> None:
            state = content_sha256({**dict(model.named_parameters()), **dict(model.named_buffers())})  # noqa: B023
            now = (state, evaluation)
            assert seen.setdefault(evaluation.iteration, now) == now
            if asked.evolution is None:
                bird.look(evaluation.iteration)  # noqa: B023
            if within:
                killer(evaluation.iteration)

        try:
            with pytest.MonkeyPatch.context() as patch:
                if not within:
                    real = Training.advance
                    patch.setattr(Training, "advance", lambda run: (killer(run.iteration), real(run))[1])  # noqa: B023
                trained = fit(
                    model, data, asked.recipe, masks, 5, capture=captured, checkpoint=folder / "c.safetensors",
                    checkpoint_seconds=interval, on_evaluation=look, evolution=asked.evolution,
                )  # fmt: skip
        except KeyboardInterrupt:
            continue
        found = settled(folder)
        return {
            "model": content_sha256(dict(model.named_parameters()) | dict(model.named_buffers())),
            "early stop": (trained.early_stop, content_sha256(trained.early_stop_state)),
            "masks": content_sha256(trained.masks.to_tensors()),
            "evaluations": trained.evaluations,
            "iterations": trained.iteration,
            "captured": {i: content_sha256(load_tensors(path)[0]) for i, path in captured.items() if path.exists()},
            "bird": found and (found[1], content_sha256(found[0].to_tensors())),
            "seen": seen,
        }


RECIPES = st.builds(
    dict,
    optimizer=st.sampled_from(["sgd", "adam", "adamw"]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    patience=st.sampled_from([None, 1, 2]),
    schedule=st.sampled_from(["constant", "cosine"]),
    learning_rate=st.sampled_from([3e-3, 0.03, 0.1]),
    augmentation=st.sampled_from([(), ("flip", "crop")]),
)


@settings(max_examples=8, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    network=st.sampled_from(sorted(NETWORKS)),
    changes=RECIPES,
    evolution=st.sampled_from([None, None, *EVOLUTIONS]),
    interval=st.sampled_from([0.0, 1e9, 0.004]),
    kills=st.lists(st.integers(0, LENGTH - 1), max_size=4),
    within=st.booleans(),
)
def test_a_run_ends_and_shows_the_same_however_often_it_is_killed(
    network: str,
    changes: dict[str, Any],
    evolution: str | None,
    interval: float,
    kills: list[int],
    within: bool,
    digits: DataSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`interval` is between checkpoints: every evaluation, none, and in between."""
    engine = NETWORKS[network][1]
    chosen = None if evolution is None or engine == "sparse" else EVOLUTIONS[evolution]
    recipe = Recipe(length=f"{LENGTH}it", evaluate_every=f"{EVERY}it", batch_size=50, engine=engine, **changes)
    asked = Asked(network, recipe, chosen)
    folder = tmp_path_factory.mktemp("runs")
    expected = whole_run(asked, digits, folder / "whole", 1e9, [], within=True)
    assert whole_run(asked, digits, folder / "killed", interval, sorted(kills), within) == expected


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("patience", [None, 1])
def test_a_callback_sees_the_weights_that_were_evaluated(network: str, patience: int | None, digits: DataSet) -> None:
    """Also where the loss is not the lowest so far: learning too fast, it goes up and down."""
    model = Asked(network, Recipe(length="1it", evaluate_every="1it")).model()
    masks = prune(model, 0.5)
    losses: list[tuple[float, float]] = []

    def look(evaluation: Evaluation, total: int) -> None:
        losses.append((evaluation.loss, evaluate(model, digits.validation).loss))
        assert masks.removed_nonzeros(model) == 0

    recipe = Recipe(
        length="60it", evaluate_every="3it", learning_rate=0.1, engine=NETWORKS[network][1], patience=patience
    )
    fit(model, digits, recipe, masks, 5, on_evaluation=look)
    evaluated = [loss for loss, _ in losses]
    assert patience or any(later > earlier for earlier, later in itertools.pairwise(evaluated))
    assert [seen for _, seen in losses] == pytest.approx(evaluated, rel=1e-4)


def disturbing(model: nn.Module, examples: Examples, evaluation: Evaluation, total: int) -> None:
    """All that somebody who looks may do."""
    evaluate(model, examples)
    model.eval()
    model(examples.inputs[:4]).sum().backward()
    torch.rand(100)
    for parameter in model.parameters():
        parameter.grad = None
        parameter.requires_grad_(False)


@pytest.mark.parametrize("network", NETWORKS)
def test_who_looks_changes_nothing(network: str, digits: DataSet) -> None:
    """Modes, gradients, what learns and the random stream are put back."""
    recipe = Recipe(length="20it", evaluate_every="5it", engine=NETWORKS[network][1])
    ends = []
    for disturbed in (False, True):
        model = Asked(network, recipe).model()
        look = functools.partial(disturbing, model, digits.validation) if disturbed else None
        trained = fit(model, digits, recipe, prune(model, 0.5), 5, on_evaluation=look)
        ends.append((content_sha256(dict(model.named_parameters()) | dict(model.named_buffers())), trained.evaluations))
    assert ends[0] == ends[1]


def scaled(model: nn.Module) -> None:
    with torch.no_grad():
        model[-1].weight.mul_(1.001)


def assigned(model: nn.Module) -> None:
    model[-1].weight.data = model[-1].weight.data.clone()


def replaced(model: nn.Module) -> None:
    model[-1] = nn.Linear(model[-1].in_features, 10)


@pytest.mark.parametrize("change", [scaled, assigned, replaced])
@pytest.mark.parametrize("network", NETWORKS)
def test_weights_changed_by_who_looks_are_refused_by_name(
    network: str, change: Callable[[nn.Module], None], digits: DataSet
) -> None:
    """Otherwise one engine would go on from them and the other not, and a continued training from others."""
    recipe = Recipe(length="20it", evaluate_every="5it", engine=NETWORKS[network][1])
    model = Asked(network, recipe).model()
    name = f"{len(model) - 1}.weight"
    with pytest.raises(TrainingError, match=rf"^{name} was changed by .* iteration 5; a callback may look"):
        fit(model, digits, recipe, prune(model, 0.5), 5, on_evaluation=lambda *_: change(model))


@pytest.mark.parametrize("network", NETWORKS)
def test_an_error_of_who_looks_ends_the_training_with_the_weights_reached(network: str, digits: DataSet) -> None:
    recipe = Recipe(length="60it", evaluate_every="3it", learning_rate=0.1, engine=NETWORKS[network][1])
    model = Asked(network, recipe).model()
    seen: list[float] = []

    def look(evaluation: Evaluation, total: int) -> None:
        seen.append(evaluation.loss)
        model.eval()
        if len(seen) > 1 and seen[-1] > min(seen):
            raise LookupError("nothing to see here")

    with pytest.raises(LookupError, match="nothing to see here"):
        fit(model, digits, recipe, prune(model, 0.5), 5, on_evaluation=look)
    assert model.training
    assert evaluate(model, digits.validation).loss == pytest.approx(seen[-1], rel=1e-4)


def test_frozen_layers_stay_under_weight_decay(digits: DataSet) -> None:
    model = with_state()
    before = model[6].weight.detach().clone()
    masks = prune(model, 0.5)
    recipe = Recipe(length="8it", evaluate_every="4it", optimizer="sgd", momentum=0.9, weight_decay=0.1)
    fit(model, digits, recipe, masks, 5)
    assert torch.equal(model[6].weight, before * masks["6.weight"].keep)


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Flatten(), Extra(64, 10)), r"^1\._extra_state: the model keeps extra state"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False), "^there is nothing to train"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10).double()), r"^1\.weight: training needs float32 parameters$"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, affine=False, device="meta")),
            r"^2\.running_mean: training needs a model with all its tensors on one device",
        ),
    ],
)
def test_what_cannot_be_trained_and_continued_is_refused(model: nn.Module, says: str, digits: DataSet) -> None:
    with pytest.raises(TrainingError, match=says):
        fit(model, digits, Recipe(length="4it", evaluate_every="2it"), Masks.full(model), 5)
