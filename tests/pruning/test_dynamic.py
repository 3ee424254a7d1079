"""One update of the topology: constant counts, the choice of a stable sort, clear refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import PruningError
from tombola.pruning import Mask, Masks
from tombola.pruning.dynamic import cosine_fraction, regrow

Layer = tuple[list[bool], list[float], list[float]]


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A mask and scores; few distinct values, so that ties are the rule, with infinities and both zeros."""
    size = draw(st.integers(1, 40))
    score = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, math.inf])
    keep = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    drop = draw(st.lists(score, min_size=size, max_size=size))
    return keep, drop, draw(st.lists(score, min_size=size, max_size=size))


def by_sorting(layer: Layer, fraction: float) -> list[bool]:
    """The same update, written with stable sorts."""
    keep, drop, grow = layer
    count = round(fraction * sum(keep))
    active = {i for i, kept in enumerate(keep) if kept}
    active -= set(sorted(sorted(active), key=lambda i: drop[i])[:count])
    inactive = [i for i in range(len(keep)) if i not in active]
    active |= set(sorted(inactive, key=lambda i: -grow[i])[:count])
    return [i in active for i in range(len(keep))]


def tensors(several: list[Layer], part: int) -> dict[str, Tensor]:
    return {f"layer{i}": torch.tensor(layer[part]) for i, layer in enumerate(several)}


@given(st.lists(layers(), min_size=1, max_size=3), st.floats(0, 1))
def test_each_layer_is_updated_as_stable_sorts_would_and_keeps_its_density(
    several: list[Layer], fraction: float
) -> None:
    masks = Masks.from_tensors(tensors(several, 0))
    before = masks.to_tensors()
    new = regrow(masks, tensors(several, 1), tensors(several, 2), fraction)
    assert list(new) == list(masks)
    assert [mask.kept for mask in new.values()] == [mask.kept for mask in masks.values()]
    assert [mask.keep.tolist() for mask in new.values()] == [by_sorting(layer, fraction) for layer in several]
    assert all(torch.equal(masks[name].keep, before[name]) for name in masks)


def test_any_shape_also_where_memory_is_not_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (6, 4, 3, 3)
    keep = torch.rand(shape, generator=generator) < 0.4
    drop, grow = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
    mask = regrow(
        Masks({"conv": Mask(keep)}),
        {"conv": drop.to(memory_format=torch.channels_last)},
        {"conv": grow.to(memory_format=torch.channels_last)},
        0.5,
    )["conv"]
    expected = by_sorting((keep.flatten().tolist(), drop.flatten().tolist(), grow.flatten().tolist()), 0.5)
    assert mask.keep.flatten().tolist() == expected
    assert mask.shape == shape


def test_ties_go_by_position() -> None:
    keep = torch.tensor([True, True, True, True, False, False, False, False])
    equal = {"w": torch.ones(8)}
    new = regrow(Masks({"w": Mask(keep)}), equal, {"w": torch.tensor([0.0] * 4 + [1.0] * 4)}, 0.5)
    assert new["w"].keep.tolist() == [False, False, True, True, True, True, False, False]


def test_a_dropped_weight_of_high_growth_score_comes_back_at_once() -> None:
    keep = torch.tensor([True, True, False, False])
    new = regrow(Masks({"w": Mask(keep)}), {"w": torch.arange(4.0)}, {"w": torch.tensor([9.0, 0, 1, 2])}, 0.5)
    assert new["w"].keep.tolist() == keep.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_dense_and_empty_layers_stay_as_they_are(fraction: float) -> None:
    masks = Masks({"dense": Mask.full((3, 4)), "empty": Mask(torch.zeros(5, dtype=torch.bool))})
    scores = {"dense": torch.rand(3, 4), "empty": torch.rand(5)}
    new = regrow(masks, scores, scores, fraction)
    assert all(new[name] == masks[name] for name in masks)


GOOD = {"w": torch.rand(2, 3)}


@pytest.mark.parametrize(
    ("drop", "grow", "fraction", "message"),
    [
        (GOOD, GOOD, 1.1, r"in \[0, 1\], not 1\.1"),
        (GOOD, GOOD, -0.1, r"in \[0, 1\]"),
        (GOOD, GOOD, math.nan, r"in \[0, 1\], not nan"),
        (GOOD, GOOD, True, r"in \[0, 1\], not True"),
        ({}, GOOD, 0.5, "drop scores do not belong to these masks: they differ in w"),
        (GOOD, {**GOOD, "v": torch.rand(2)}, 0.5, "grow scores do not belong to these masks: they differ in v"),
        (GOOD, {"w": torch.rand(3, 2)}, 0.5, r"w: grow scores of shape \(3, 2\) do not fit a mask of shape \(2, 3\)"),
        ({"w": torch.full((2, 3), math.nan)}, GOOD, 0.5, "w: NaN drop scores"),
        (GOOD, {"w": torch.ones(2, 3, dtype=torch.int64)}, 0.5, "w: grow scores are floating-point numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(drop: dict, grow: dict, fraction: float, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        regrow(Masks({"w": Mask.full((2, 3))}), drop, grow, fraction)


def test_the_share_falls_as_a_cosine() -> None:
    """alpha/2 (1 + cos(pi t / T_end)): all of it at 0, half at half time, none from the end on."""
    assert cosine_fraction(0.3, 0, 100) == 0.3
    assert cosine_fraction(0.3, 50, 100) == pytest.approx(0.15)
    assert cosine_fraction(0.3, 25, 100) == pytest.approx(0.15 * (1 + math.sqrt(0.5)))
    assert cosine_fraction(0.3, 100, 100) == cosine_fraction(0.3, 500, 100) == cosine_fraction(0.3, 0, 0) == 0
