"""Torch-Pruning as an oracle of how many parameters are left; `benchmarks/removal_peers.py` has more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from removal_nets import resnet_b
from torch import nn

from tombola import plan_removal
from tombola.models import ModelSpec, build
from tombola.models.removed import parameters

torch_pruning: Any = pytest.importorskip("torch_pruning")


def zoo(architecture: str, shape: tuple[int, ...], widths: tuple[int, ...] | None = None) -> nn.Module:
    return build(ModelSpec(architecture=architecture, widths=widths, input_shape=shape, classes=10, seed=0))


@pytest.mark.parametrize("name", ["lenet5", "vgg16", "resnet20"])
def test_as_many_parameters_are_left(name: str) -> None:
    if name == "lenet5":
        model, example = zoo("lenet5", (1, 32, 32)), torch.randn(2, 1, 32, 32)
    elif name == "vgg16":
        model, example = zoo("vgg16", (3, 32, 32), (8, 16, 32, 64, 64)), torch.randn(2, 3, 32, 32)
    else:
        model, example = resnet_b((16, 32, 64), blocks=3, classes=10), torch.randn(2, 3, 16, 16)
    ours = plan_removal(model, 0.5, example).parameters
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[[m for m in model.modules() if isinstance(m, nn.Linear)][-1]],
    )
    pruner.step()
    assert ours == parameters(model)
    if name == "lenet5":
        assert ours == 15_738
