"""Dropout: silences in training, is not there in evaluation, and is as repeatable as everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from small_study import SMALL_STUDY, run_lottery
from tombola.data import DataConfig, load_data
from tombola.errors import ConfigError, TrainingError
from tombola.models import ModelConfig, ModelSpec, architectures, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.runs.configs import validate
from tombola.runs.rows import Row
from tombola.studies.lottery import replicate
from tombola.studies.lottery.config import LotteryConfig
from tombola.training import Recipe, fit
from tombola.training.trained import Evaluation

DROPPING = [name for name in architectures if architectures.get(name).drops_out]


def network(dropout: float = 0.5, architecture: str = "head", **fields: object) -> nn.Module:
    widths = fields.pop("widths", (40, 30))
    content = {"input_shape": (1, 8, 8), "classes": 10, "seed": 1, "widths": widths, "dropout": dropout, **fields}
    return build(validate({"architecture": architecture, **content}, ModelSpec, "test"))


def parts(model: nn.Module) -> list[nn.Dropout]:
    return [part for part in model.modules() if isinstance(part, nn.Dropout)]


@pytest.mark.parametrize("architecture", DROPPING)
def test_it_follows_every_hidden_dense_layer(architecture: str) -> None:
    spec = {"architecture": architecture, "input_shape": (1, 32, 32), "classes": 10, "seed": 0}
    plain, dropping = (build(validate(spec | {"dropout": fraction}, ModelSpec, "test")) for fraction in (0, 0.25))
    dense = sum(isinstance(module, nn.Linear) for module in dropping.modules())
    assert [part.p for part in parts(dropping)] == [0.25] * (dense - 1)
    assert not parts(plain)
    assert content_sha256(plain.state_dict()) == content_sha256(dropping.state_dict())  # the same first weights


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_it_silences_its_fraction_of_units_in_training(fraction: float) -> None:
    torch.manual_seed(0)
    after = parts(network(fraction).train())[0](torch.ones(1, 4000))
    assert float((after == 0).float().mean()) == pytest.approx(fraction, abs=0.04)
    assert after[after != 0].unique().item() == pytest.approx(1 / (1 - fraction))  # so that the mean stays


def test_it_changes_training_and_not_evaluation() -> None:
    plain, dropping = network(0.0), network(0.5)
    inputs = torch.rand(5, 1, 8, 8)
    assert torch.equal(plain.eval()(inputs), dropping.eval()(inputs))
    dropping.train()
    assert not torch.equal(dropping(inputs), dropping(inputs))


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_the_same_seed_trains_the_same_bits(sparsity: float) -> None:
    """And what a training learns is not what it learns without; on whatever engine the masks would have."""
    digits = load_data(DataConfig(name="digits"), seed=0)

    def trained(dropout: float, seed: int) -> str:
        model = network(dropout)
        masks = prune(model, sparsity) if sparsity else Masks.full(model)
        masks.apply_(model)
        fit(model, digits, Recipe(length="30it", evaluate_every="10it"), masks, seed)
        return content_sha256(model.state_dict())

    assert trained(0.5, 3) == trained(0.5, 3) != trained(0.5, 4)
    assert trained(0.5, 3) != trained(0.0, 3)


def test_sparse_kernels_that_do_not_know_it_are_refused_by_name() -> None:
    digits = load_data(DataConfig(name="digits"), seed=0)
    model = network(0.5)
    masks = prune(model, 0.9)
    masks.apply_(model)
    with pytest.raises(TrainingError) as caught:
        fit(model, digits, Recipe(length="2it", evaluate_every="1it", engine="sparse"), masks, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, "half", True])
def test_fractions_that_are_none(fraction: object) -> None:
    with pytest.raises(ConfigError, match="dropout"):
        validate({"architecture": "head", "dropout": fraction}, ModelConfig, "model")


def test_networks_without_hidden_dense_layers_refuse_it() -> None:
    with pytest.raises(ConfigError, match="resnet20 has no hidden dense layers to drop out from; leave dropout out"):
        validate({"architecture": "resnet20", "dropout": 0.5}, ModelConfig, "model")


def test_a_killed_lottery_with_dropout_ends_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"architecture": "head", "widths": [20, 10], "dropout": 0.4}
    content = SMALL_STUDY | {"model": model, "replicates": 1, "checkpoint_seconds": 0}
    config = validate(content, LotteryConfig, "test")

    def rows(out: Path) -> list[Row]:
        result = run_lottery(config, out)
        timed = ("seconds", "latency")
        return [{k: v for k, v in r.items() if k not in timed} for r in result.rows if r["kind"] != "latency"]

    whole = rows(tmp_path / "whole")
    real, seen = replicate.fit, [0]

    def killed(*arguments: object, **keywords: object) -> object:
        """The second training, a ticket's, dies in its midst."""
        seen[0] += 1
        evaluated = keywords.pop("on_evaluation")

        def dying(evaluation: Evaluation, total: int) -> None:
            evaluated(evaluation, total)  # type: ignore[operator]
            if seen[0] == 2 and evaluation.iteration == 20:
                raise KeyboardInterrupt

        return real(*arguments, on_evaluation=dying, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(replicate, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            run_lottery(config, tmp_path / "killed")
    assert seen[0] == 2
    assert rows(tmp_path / "killed") == whole
