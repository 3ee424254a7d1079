"""Optimizers, schedules and losses of somebody's own: held, continued to the bit, and refused by name."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sparse_steps import kill_at, recipe
from torch import nn

import own_training
from own_training import Changed, Named, falling, smoothed
from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ModelError, StorageError, TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.runs.configs import validate
from tombola.training import Classification, Dynamic, LanguageModelling, Recipe, Tokens, fit
from tombola.training.flat import FlatParameters
from tombola.training.own import OwnOptimizer, own_functions
from tombola.training.trained import Trained

OWN = {
    "named": {"optimizer": "own_training:rmsprop"},
    "two rates": {"own": own_training.two_rates},
    "numbers of Python": {"own": own_training.odd, "learning_rate": 0.5},
    "contents": {"own": own_training.drifting},
    "torch's fused": {"own": own_training.fused},
    "torch's NAdam": {"own": own_training.nadam},
}


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), 0)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


def trained(data: Any, own: Any = None, schedule: Any = None, **more: Any) -> tuple[nn.Module, Trained]:
    model = network()
    kept = {name: more.pop(name) for name in ("checkpoint", "on_evaluation", "evolution") if name in more}
    masks = Masks.full(model) if "evolution" in kept else prune(model, 0.5)
    if "checkpoint" in kept:
        kept["checkpoint_seconds"] = 0.0
    chosen = recipe(**{"learning_rate": 1e-2, "ema": 0.3, **more})
    return model, fit(model, data, chosen, masks, 3, optimizer=own, schedule=schedule, **kept)


def bits(model: nn.Module) -> str:
    return content_sha256(model.state_dict())


@pytest.mark.parametrize("kind", OWN)
def test_masks_hold_and_a_killed_training_ends_as_if_it_had_not_been(
    kind: str, digits: DataSet, tmp_path: Path
) -> None:
    model, whole = trained(digits, **OWN[kind])
    assert whole.engine == "dense"
    assert whole.masks.removed_nonzeros(model) == 0
    assert whole.early_stop.accuracy > 0.3
    again = {"checkpoint": tmp_path / "checkpoint.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        trained(digits, **OWN[kind], **again, on_evaluation=kill_at(30))
    continued, _ = trained(digits, **OWN[kind], **again)
    assert bits(continued) == bits(model)


def test_a_peer_of_torch_learns_what_the_recipe_would(digits: DataSet) -> None:
    ours, _ = trained(digits, optimizer="sgd", momentum=0.9, engine="dense")
    theirs, _ = trained(digits, own=lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9))
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], tensor)


def test_a_checkpoint_is_none_of_another_function(digits: DataSet, tmp_path: Path) -> None:
    again = {"checkpoint": tmp_path / "checkpoint.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        trained(digits, own_training.odd, on_evaluation=kill_at(30), **again)
    with pytest.raises(StorageError, match="a checkpoint of another training"):
        trained(digits, own_training.rmsprop, **again)


OWN_CODE = """
import torch
from torch.nn import functional

def optimizer(parameters, rate):
    return torch.optim.SGD(parameters, lr=rate)

def schedule(iteration, total):
    return 1 - iteration / (2 * total)

def loss(logits, targets):
    return functional.cross_entropy(logits, targets)
"""


@pytest.mark.parametrize(
    ("role", "before", "after"),
    [
        ("own", "lr=rate", "lr=rate / 2"),
        ("schedule", "2 * total", "3 * total"),
        ("loss", "targets)\n", "targets) * 2\n"),
    ],
)
def test_nor_is_it_one_of_the_same_function_edited(
    role: str, before: str, after: str, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = {"checkpoint": tmp_path / "checkpoint.safetensors"}

    def train(source: str, **more: Any) -> Trained:
        (tmp_path / "edited_code.py").write_text(source)
        module = types.ModuleType("edited_code")
        module.__file__ = str(tmp_path / "edited_code.py")
        exec(compile(source, module.__file__, "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, "edited_code", module)
        if role == "loss":
            return trained(Classification(digits, module.loss), **again, **more)[1]
        return trained(digits, **{role: getattr(module, {"own": "optimizer"}.get(role, role))}, **again, **more)[1]

    with pytest.raises(KeyboardInterrupt):
        train(OWN_CODE, on_evaluation=kill_at(30))
    with pytest.raises(StorageError, match="or of your own code before an edit"):
        train(OWN_CODE.replace(before, after))
    assert train(OWN_CODE).early_stop.accuracy > 0.1


def of_a_factor(factor: float) -> Any:
    return lambda iteration, total: factor


class TestFunctionsWithoutAName:
    """Under one name they may do something else when a training goes on."""

    @pytest.mark.parametrize(
        "functions",
        [
            {"own": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate)},
            {"own": functools.partial(torch.optim.SGD, momentum=0.5)},
            {"schedule": of_a_factor(0.5)},
            {"schedule": functools.partial(own_training.below, 0.5)},
        ],
    )
    def test_are_refused_beside_a_checkpoint(self, functions: Any, digits: DataSet, tmp_path: Path) -> None:
        trained(digits, **functions, length="1it")
        role = "optimizer" if "own" in functions else "schedule"
        with pytest.raises(
            TrainingError, match=rf"^the {role} .*a checkpoint knows functions by their names and the code"
        ):
            trained(digits, **functions, checkpoint=tmp_path / "checkpoint.safetensors")

    @pytest.mark.parametrize(
        "loss", [nn.CrossEntropyLoss(label_smoothing=0.1), lambda logits, targets: smoothed(logits, targets)]
    )
    def test_so_are_losses(self, loss: Any, digits: DataSet, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"^the loss .*: give it a function of a module"):
            trained(Classification(digits, loss), checkpoint=tmp_path / "checkpoint.safetensors")

    def test_a_recipe_gives_them_one(self, digits: DataSet, tmp_path: Path) -> None:
        names = {"optimizer": "own_training:gentle", "loss": "own_training:smoothing", "length": "1it"}
        trained(digits, **names, checkpoint=tmp_path / "checkpoint.safetensors")


def test_it_sees_the_gradients_of_the_pruned_network(digits: DataSet) -> None:
    seen = []

    def change(optimizer: Changed, parameter: nn.Parameter) -> None:
        seen.append((parameter.grad == 0).float().mean().item())

    trained(digits, lambda parameters, rate: Changed([parameters[0]], change))
    assert min(seen) > 0.4  # half of the weights are removed


def test_weights_that_come_back_are_met_anew() -> None:
    """What is kept of them is 0 afterwards, and what is kept of the others is as it was."""
    model = network()
    flat = FlatParameters(model)
    optimizer = OwnOptimizer(lambda parameters, rate: torch.optim.Adam(parameters, lr=rate), flat, recipe())
    flat.gradients.normal_()
    optimizer.step(0.1)
    before = {name: tensor.clone() for name, tensor in optimizer.state.items()}
    back = torch.rand_like(flat.values) < 0.3
    optimizer.forget(back)
    parts = back.split([parameter.numel() for parameter in model.parameters()])
    for number, (parameter, part) in enumerate(zip(model.parameters(), parts, strict=True)):
        for key in ("exp_avg", "exp_avg_sq"):
            name = f"{number}|{key}|there"
            expected = before[name].masked_fill(part.view(parameter.shape), 0)
            assert torch.equal(optimizer.state[name], expected)
            assert not torch.equal(before[name], expected)


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_masks_may_change(method: Any, digits: DataSet, tmp_path: Path) -> None:
    evolution = Dynamic(method=method, sparsity=0.5, every="10it", until=1.0)
    model, whole = trained(digits, own_training.odd, evolution=evolution)
    assert whole.masks.removed_nonzeros(model) == 0
    again = {"checkpoint": tmp_path / "checkpoint.safetensors", "evolution": evolution}
    with pytest.raises(KeyboardInterrupt):
        trained(digits, own_training.odd, **again, on_evaluation=kill_at(30))
    assert bits(trained(digits, own_training.odd, **again)[0]) == bits(model)


CHANGES: dict[str, Callable[[Changed, nn.Parameter], None]] = {}


KEEPS: dict[str, Any] = {}


def changing(parameters: Named, rate: float) -> torch.optim.Optimizer:
    optimizer = Changed(parameters, CHANGES["asked"])
    optimizer._kept = KEEPS.get("attribute")
    optimizer.param_groups[0] |= {"kept": KEEPS.get("group"), "past": []}
    return optimizer


STEPS: list[nn.Parameter] = []


def noted(optimizer: Changed, parameter: nn.Parameter) -> None:
    STEPS.append(parameter)


def moved(optimizer: Changed, parameter: nn.Parameter) -> None:
    parameter.data = parameter.data * 0.9


def without_gradient(optimizer: Changed, parameter: nn.Parameter) -> None:
    parameter.grad = None


def counted(optimizer: Changed, parameter: nn.Parameter) -> None:
    optimizer.count += 1


def hidden(optimizer: Changed, parameter: nn.Parameter) -> None:
    optimizer._t = getattr(optimizer, "_t", 0) + 1


def grown(optimizer: Changed, parameter: nn.Parameter) -> None:
    optimizer.param_groups[0]["past"].append(1)


def listed(optimizer: Changed, parameter: nn.Parameter) -> None:
    optimizer.state[parameter]["past"] = [1, 2]


def named(optimizer: Changed, parameter: nn.Parameter) -> None:
    optimizer.state["all"] = {"step": 1}  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (moved, r"puts another tensor in the place of 1\.weight or its gradient"),
        (without_gradient, r"puts another tensor in the place of 1\.weight or its gradient"),
        (counted, "changes 'count', which it keeps beside its state"),
        (hidden, "changes '_t', which it keeps beside its state"),
        (grown, "keeps a list as 'past', which no checkpoint holds"),
        (listed, "keeps a list as 'past', which no checkpoint holds"),
        (named, "keeps state of something that is no parameter"),
    ],
)
def test_what_cannot_be_held_or_saved_is_refused(
    change: Callable[..., None], says: str, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANGES, "asked", change)
    with pytest.raises(TrainingError, match=rf"^the optimizer test_own:changing {says}"):
        trained(digits, changing, checkpoint=tmp_path / "checkpoint.safetensors")


KEPT = [np.zeros(3), deque([1]), torch.Generator(), random.Random(3), torch.optim.SGD(network().parameters())]


@pytest.mark.parametrize(
    "value", [*KEPT, [{"deep": (1, KEPT[1])}], of_a_factor(0.5)], ids=lambda value: str(type(value))
)
@pytest.mark.parametrize("place", ["attribute", "group"])
def test_what_cannot_be_looked_into_is_refused_before_training(
    value: Any, place: str, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANGES, "asked", noted)
    monkeypatch.setitem(KEEPS, place, value)
    trained(digits, changing, length="1it")  # who asks for no checkpoint may keep anything
    STEPS.clear()
    with pytest.raises(TrainingError, match=r"changing keeps a \w+ in '_?kept', and nobody can see whether it changes"):
        trained(digits, changing, checkpoint=tmp_path / "checkpoint.safetensors")
    assert not STEPS


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda parameters, rate: 3, "gives a int, not a torch.optim.Optimizer"),
        (
            lambda parameters, rate: torch.optim.SGD(network().parameters()),
            "trains parameters that were not given to it",
        ),
        (lambda parameters, rate: torch.optim.LBFGS([p for _, p in parameters]), "fails: TypeError"),
        (lambda parameters: None, "cannot be made: TypeError"),
    ],
)
def test_what_is_no_optimizer_is_refused(make: Any, says: str, digits: DataSet) -> None:
    with pytest.raises(TrainingError, match=says):
        trained(digits, make)


class TestSchedule:
    @pytest.mark.parametrize("engine", ["dense", "sparse"])
    def test_it_multiplies_the_rate(self, digits: DataSet, engine: str) -> None:
        plain, _ = trained(digits, engine=engine)
        same, _ = trained(digits, schedule=lambda iteration, total: 1, engine=engine)
        assert bits(same) == bits(plain)
        falling_by_name = fit_by_name(digits, schedule="own_training:falling", engine=engine)
        falling_by_hand, _ = trained(digits, schedule=falling, engine=engine)
        assert falling_by_name == bits(falling_by_hand) != bits(plain)

    @pytest.mark.parametrize("given", [float("nan"), -1.0, "much"])
    def test_a_factor_that_is_none_is_refused(self, digits: DataSet, given: Any) -> None:
        with pytest.raises(TrainingError, match=r"^the schedule (gives|fails)"):
            trained(digits, schedule=lambda iteration, total: given)

    def test_fine_tuning_is_at_one_low_rate(self) -> None:
        low = recipe(schedule="own_training:falling", learning_rate=1e-2).fine_tuning(10)
        assert (low.schedule, low.learning_rate) == ("constant", 1e-3)
        assert recipe(schedule="own_training:falling", learning_rate=1e-2).rate_at(30, 10) == pytest.approx(5e-3)


def fit_by_name(data: Any, **more: Any) -> str:
    model = network()
    fit(model, data, recipe(**{"learning_rate": 1e-2, "ema": 0.3, **more}), prune(model, 0.5), 3)
    return bits(model)


class TestLoss:
    def test_a_recipe_names_what_a_task_takes(self, digits: DataSet) -> None:
        by_task, _ = trained(Classification(digits, loss=smoothed))
        assert fit_by_name(digits, loss="own_training:smoothed") == bits(by_task) != fit_by_name(digits)

    def test_a_task_with_a_loss_of_its_own_takes_no_other(self, digits: DataSet) -> None:
        tokens = Tokens(torch.arange(30).reshape(3, 10) % 7)
        for task in (LanguageModelling(tokens, tokens, tokens), Classification(digits, loss=smoothed)):
            with pytest.raises(TrainingError, match="this task has its own: leave it out"):
                fit_by_name(task, loss="own_training:smoothed")


class TestNames:
    @pytest.mark.parametrize("key", ["optimizer", "schedule", "loss"])
    def test_what_is_neither_known_nor_a_function_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match=f"(?s){key}.*package.module:function of your own"):
            recipe(**{key: "adm"})

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"optimizer": "own_training:odd", "weight_decay": 0.1}, "weight_decay belongs to sgd, adam and adamw"),
            ({"optimizer": "own_training:odd", "momentum": 0.1}, "momentum belongs to sgd"),
            ({"schedule": "own_training:falling", "warmup": "3it"}, "warmup belongs to constant, step and cosine"),
        ],
    )
    def test_settings_that_would_be_left_unused_are_refused(self, settings: Any, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            recipe(**settings)

    def test_and_so_they_are_beside_functions(self, digits: DataSet) -> None:
        with pytest.raises(TrainingError, match="momentum and weight_decay belong to the recipe's optimizers"):
            trained(digits, own_training.odd, weight_decay=0.1)

    def test_a_function_that_is_not_there_is_one_line(self, digits: DataSet) -> None:
        with pytest.raises(ModelError, match="own_training has no function 'adm'"):
            fit_by_name(digits, optimizer="own_training:adm")

    def test_kernels_know_none_of_them(self, digits: DataSet) -> None:
        for more in ({"optimizer": "own_training:odd"}, {"loss": "own_training:smoothed"}):
            with pytest.raises(TrainingError, match=r"^the engine sparse knows the"):
                fit_by_name(digits, engine="sparse", **more)

    def test_a_config_says_whose_code_it_runs(self) -> None:
        content = {"length": "1ep", "evaluate_every": "1ep", "optimizer": "a.b:c", "loss": "a:d", "schedule": "a.b:c"}
        assert own_functions(validate(content, Recipe, "test")) == ["a.b:c", "a:d"]
        assert own_functions(recipe()) == []
