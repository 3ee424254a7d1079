"""Dead units: counted to a fixed point, constants kept, outputs equal; and gone for good by `remove_units`."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola import Masks, dead_units, prune, remove_units
from tombola.compression.cost import count_flops
from tombola.compression.dead import units_of_chain
from tombola.errors import ModelError, PruningError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256

pytestmark = pytest.mark.filterwarnings("ignore::tombola.pruning.emptied.NearlyEmptyLayerWarning")


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Biases and statistics that are not those of a network that has just been made."""
    chance = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not name.endswith("weight"):
            tensor.data += torch.rand(tensor.shape, generator=chance)
    return model


def masked(model: nn.Module, masks: Masks, inputs: Tensor) -> Tensor:
    reference = copy.deepcopy(model).eval()
    masks.apply_(reference)
    with torch.no_grad():
        return reference(inputs)


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(inputs)


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())))


@given(st.integers(0, 10_000), st.floats(0.5, 0.95))
@settings(max_examples=8)
def test_chains_as_their_masks_say(seed: int, sparsity: float) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    masks, inputs = prune(model, sparsity, "random", min_keep=4, seed=seed), torch.randn(50, 9)
    before = content_sha256(model.state_dict())
    found, chain = dead_units(model, masks, inputs[:2]), units_of_chain(model, masks)
    assert found.model.training
    assert content_sha256(model.state_dict()) == before
    assert chain is not None
    if chain.dead < 12 and all(layer.dead < layer.units - 1 for layer in found.layers):  # else the last one stays
        assert (found.masks.kept, found.units, found.dead) == (chain.weights, chain.units, chain.dead)
    expected = masked(model, masks, inputs)
    assert close(outputs(found.model, inputs), expected)
    assert found.masks <= masks
    assert found.masks.removed_nonzeros(found.model) == 0
    removed = remove_units(model, masks, inputs[:2])
    assert close(outputs(removed.model, inputs), expected)
    sizes = [9, *(layer.units - layer.dead for layer in found.layers), 3]
    announced = sum((before + 1) * after for before, after in itertools.pairwise(sizes))
    assert removed.parameters_after == sum(p.numel() for p in removed.model.parameters()) == announced


@pytest.mark.parametrize("architecture", ["lenet5", "resnet20"])
def test_convolutions_pools_and_residuals(architecture: str) -> None:
    spec = ModelSpec(architecture=architecture, input_shape=(1, 28, 28), classes=10, seed=1)
    model, inputs = shaken(build(spec)), torch.randn(4, 1, 28, 28)
    masks = prune(model, 0.985)
    found = dead_units(model, masks, inputs[:2])
    assert 10 < found.dead < found.units
    assert found.masks.kept < masks.kept
    expected = masked(model, masks, inputs)
    assert close(outputs(found.model, inputs), expected)
    removed = remove_units(model, masks, inputs[:2])
    assert removed.parameters_after == sum(p.numel() for p in removed.model.parameters()) < removed.parameters_before
    assert close(outputs(removed.model, inputs), expected)
    assert removed.masks.kept == found.masks.kept
    flops = count_flops(model, (1, 28, 28), masks)
    assert count_flops(model, (1, 28, 28), found.masks).effective < flops.effective
    assert count_flops(removed.model, (1, 28, 28), removed.masks).effective == pytest.approx(
        count_flops(model, (1, 28, 28), found.masks).effective
    )


def convolutional(padding: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=padding),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


@pytest.mark.parametrize("padding", [0, 1])
def test_a_constant_that_meets_a_border_of_zeros_stays(padding: int) -> None:
    model, inputs = convolutional(padding), torch.randn(3, 1, 12, 12)
    model(inputs)
    shaken(model)
    keep = {name: mask.keep for name, mask in Masks.full(model).items()}
    keep["0.weight"][:2] = False  # two channels that are constants
    masks = Masks.from_tensors(keep)
    found = dead_units(model, masks, inputs)
    assert [layer.dead for layer in found.layers if layer.name == "0"] == [2 - padding]
    assert close(outputs(found.model, inputs), masked(model, masks, inputs))
    alive = found.masks["4.weight"].keep[:, :2].transpose(0, 1).flatten(1).any(1)
    assert int(alive.sum()) == padding  # one carries the constants of both


def test_dead_to_a_fixed_point_and_by_whom() -> None:
    model = shaken(nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.ReLU())), nn.Linear(6, 2)))
    keep = {name: mask.keep for name, mask in Masks.full(model).items()}
    keep["8.weight"][:, 0] = False  # nobody reads unit 0 of the last hidden layer,
    for name in ("2.weight", "4.weight", "6.weight"):
        keep[name][1:, 0] = False  # which alone reads unit 0 of the layer before, and so on
    found = dead_units(model, Masks.from_tensors(keep), torch.zeros(1, 6))
    assert [layer.dead for layer in found.layers] == [1, 1, 1, 1]
    assert dead_units(model, Masks.full(model), torch.zeros(1, 6)).dead == 0


def test_what_cannot_be_followed_is_one_line() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layer(inputs) if float(inputs.sum()) > 0 else inputs

    with pytest.raises(ModelError, match="cannot be traced") as caught:
        dead_units(Own(), Masks.full(Own()), torch.ones(1, 4))
    assert "\n" not in str(caught.value)
    with pytest.raises(PruningError):
        dead_units(nn.Linear(2, 2), Masks.full(nn.Linear(3, 3)), torch.ones(1, 2))
    assert units_of_chain(Own(), Masks.full(Own())) is None
