"""Whole layers that go: what is left gives what the network gives when they are passed by."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from removal_nets import network, resnet_b
from test_removal_families import language_model
from torch import Tensor, nn

from tombola import load_model, plan_removal, prune, removable_layers, remove_layers, remove_units, save_model
from tombola.compression.removal.verify import outputs
from tombola.errors import ModelError, PruningError
from tombola.models import ModelSpec, build
from tombola.models.removed import Removal, shrink


class PassedBy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.marker = nn.Identity()

    def forward(self, inputs: Tensor, *_: object, **__: object) -> Tensor:
        return self.marker(inputs)


@pytest.mark.parametrize("name", ["resnet, option B", "vgg11", "encoder"])
def test_the_smaller_network_is_the_one_with_layers_passed_by(name: str) -> None:
    model, example = network(name)
    candidates = removable_layers(model, example)
    assert all(0 <= layer.influence <= 2 for layer in candidates)
    assert [layer.influence for layer in candidates] == sorted(layer.influence for layer in candidates)
    chosen = candidates[-1].name if name == "encoder" else candidates[0].name
    removed = remove_layers(model, [chosen], example)
    expected = copy.deepcopy(model)
    expected.set_submodule(chosen, PassedBy())
    for one, other in zip(outputs(expected, example), outputs(removed.model, example), strict=True):
        assert torch.equal(one, other)
    parameters = next(layer.parameters for layer in candidates if layer.name == chosen)
    assert removed.parameters_before - removed.parameters_after == parameters
    assert not any(key.startswith(f"{chosen}.") for key in removed.masks)


def test_residual_blocks_of_the_same_width_can_go_and_others_cannot() -> None:
    model, example = network("resnet20, padded")
    names = {layer.name for layer in removable_layers(model, example)}
    assert {"stage_1.block_1", "stage_2.block_2", "stage_3.block_3"} <= names
    assert not names & {"stage_2.block_1", "stage_2", "conv_1", "output"}


def test_by_number_and_with_masks_and_units() -> None:
    model, example = resnet_b((8, 8, 12), blocks=2).eval(), torch.randn(4, 3, 16, 16)
    masks = prune(model, 0.4)
    removed = remove_layers(model, 2, example, masks)
    assert len(removed.removal.bypassed) == 2
    assert removed.masks.of(removed.model).removed_nonzeros(removed.model) == 0
    small = remove_units(removed.model, plan_removal(removed.model, 0.5, example), example)
    both = removed.removal.after(small.removal)
    fresh = copy.deepcopy(model)
    shrink(fresh, both)
    fresh.load_state_dict(small.model.state_dict())
    assert torch.equal(outputs(fresh, example)[0], outputs(small.model, example)[0])


def test_layers_of_a_language_model() -> None:
    model, example = language_model("llama"), {"input_ids": torch.arange(14).view(2, 7)}
    removed = remove_layers(model, ["model.layers.0"], example)
    assert removed.error == 0.0
    assert removed.parameters_after < removed.parameters_before


def test_saved_and_loaded(tmp_path: Path) -> None:
    spec = ModelSpec(architecture="resnet20", widths=(4, 4, 8), input_shape=(3, 8, 8), classes=4, seed=1)
    model, example = build(spec), torch.randn(2, 3, 8, 8)
    removed = remove_layers(model, ["stage_1.block_2"], example)
    save_model(tmp_path / "small", spec.without_units(removed.removal), removed.model)
    loaded, found, _ = load_model(tmp_path / "small")
    assert found.removed is not None
    assert found.removed.bypassed == ("stage_1.block_2",)
    assert torch.equal(outputs(loaded, example)[0], outputs(removed.model, example)[0])


def test_what_is_refused() -> None:
    model, example = network("resnet20, padded")
    with pytest.raises(PruningError, match="cannot go whole"):
        remove_layers(model, ["output"], example)
    with pytest.raises(PruningError, match="within another"):
        remove_layers(model, ["stage_1.block_1", "stage_1.block_1.conv_1"], example)
    with pytest.raises(PruningError, match="ask for 1 or more"):
        remove_layers(model, 0, example)
    with pytest.raises(PruningError, match="no layer of the network can go whole"):
        remove_layers(torch.nn.Sequential(torch.nn.Linear(4, 3)), 1, torch.randn(2, 4))
    with pytest.raises(PruningError, match="99 layers cannot go"):
        remove_layers(model, 99, example)
    with pytest.raises(ModelError, match="no layer 'nowhere'"):
        shrink(copy.deepcopy(model), Removal(bypassed=("nowhere",)))
