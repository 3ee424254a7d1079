"""Masks of one tensor and of a model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tombola.errors import PruningError
from tombola.pruning import Mask, Masks

keeps = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.lists(st.integers(0, 4), max_size=5).map(
        lambda shape: torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    )
)


@given(keeps)
def test_apply_zeroes_what_is_removed_and_keeps_the_bits_of_the_rest(keep: torch.Tensor) -> None:
    mask = Mask(keep)
    tensor = torch.randn(keep.shape)
    applied = mask.apply(tensor)
    assert torch.equal(applied[keep], tensor[keep])
    assert not applied[~keep].any()
    assert mask.kept == int(keep.sum())
    assert mask.sparsity == pytest.approx(1 - mask.density)
    in_place = tensor.clone()
    assert mask.apply_(in_place) is in_place
    assert torch.equal(in_place, applied)


@given(keeps, st.integers(0, 99))
def test_and_keeps_what_both_keep(keep: torch.Tensor, seed: int) -> None:
    other = torch.rand(keep.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    both = Mask(keep) & Mask(other)
    assert torch.equal(both.keep, keep & other)
    assert both <= Mask(keep)
    assert both <= Mask(other)


def test_removed_infinities_and_nans_become_exactly_zero() -> None:
    mask = Mask(torch.tensor([True, False, False]))
    assert mask.apply(torch.tensor([1.0, float("nan"), float("inf")])).tolist() == [1.0, 0.0, 0.0]


def test_apply_in_place_on_a_parameter_that_needs_gradients() -> None:
    parameter = nn.Parameter(torch.ones(2))
    Mask(torch.tensor([True, False])).apply_(parameter)
    assert parameter.tolist() == [1.0, 0.0]


def test_update_may_only_remove() -> None:
    mask = Mask(torch.tensor([True, True, False]))
    mask.update(Mask(torch.tensor([True, False, False])))
    assert mask.kept == 1
    with pytest.raises(PruningError, match="bring back 1 removed weight"):
        mask.update(Mask(torch.tensor([True, False, True])))
    assert mask.keep.tolist() == [True, False, False]


@pytest.mark.parametrize("use", ["apply", "apply_", "update", "and", "le"])
def test_a_wrong_shape_is_an_error(use: str) -> None:
    mask, other = Mask.full((2, 3)), Mask.full((3, 2))
    calls = {
        "apply": lambda: mask.apply(torch.ones(6)),
        "apply_": lambda: mask.apply_(torch.ones(2, 3, 1)),
        "update": lambda: mask.update(other),
        "and": lambda: mask & other,
        "le": lambda: mask <= other,
    }
    with pytest.raises(PruningError, match=r"mask of shape \(2, 3\) does not fit"):
        calls[use]()


@pytest.mark.parametrize("keep", [torch.ones(2), torch.ones(2, dtype=torch.uint8), [True], None])
def test_only_boolean_tensors_are_masks(keep: object) -> None:
    with pytest.raises(PruningError, match="a mask is a boolean tensor"):
        Mask(keep)  # type: ignore[arg-type]


def test_a_mask_shares_no_storage_with_what_it_was_made_from() -> None:
    keep = torch.tensor([True, True])
    mask = Mask(keep)
    keep[0] = False
    assert mask.kept == 2


def test_an_empty_tensor_is_dense() -> None:
    assert Mask.full((0, 3)).density == 1


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_masks_know_only_linear_and_convolution_weights() -> None:
    masks = Masks.full(model())
    assert [(layer.name, layer.shape, layer.total, layer.kept) for layer in masks.table()] == [
        ("0.weight", (2, 1, 3, 3), 18, 18),
        ("3.weight", (3, 8), 24, 24),
    ]
    assert (masks.total, masks.sparsity) == (42, 0)


def test_masks_to_tensors_and_back() -> None:
    masks = Masks.full(model())
    tensors = masks.to_tensors()
    tensors["3.weight"][0] = False
    changed = Masks.from_tensors(tensors)
    assert (masks.kept, changed.kept) == (42, 34)
    assert changed <= masks
    assert not masks <= changed
    assert (masks & changed) == changed


def test_apply_to_a_model_and_see_whether_it_holds() -> None:
    network = model()
    nn.init.ones_(network[3].weight)
    tensors = Masks.full(network).to_tensors()
    tensors["3.weight"][1] = False
    masks = Masks.from_tensors(tensors)
    assert masks.removed_nonzeros(network) == 8
    masks.apply_(network)
    assert masks.removed_nonzeros(network) == 0
    with torch.no_grad():
        network[3].weight[1, 0] = float("nan")
    assert masks.removed_nonzeros(network) == 1


def test_masks_of_another_model_are_refused() -> None:
    masks = Masks.full(model())
    with pytest.raises(PruningError, match="do not belong to this model"):
        masks.apply_(nn.Sequential(nn.Linear(8, 3)))
    with pytest.raises(PruningError, match="does not fit"):
        masks.apply_(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9, 3)))
    with pytest.raises(PruningError, match="different models"):
        masks & Masks.full(nn.Sequential(nn.Linear(8, 3)))
