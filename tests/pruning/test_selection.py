"""Choosing exactly k: as a stable sort would, whatever the numbers; and shares that add up."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import PruningError
from tombola.pruning import selection
from tombola.pruning.distributions import LayerUnits, distributions
from tombola.pruning.selection import Pool, apportion, lowest, lowest_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
AWKWARD = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 6e-8, -6e-8, 1e-40, -1e-40, 5e-324, -5e-324, 1e300, -1e300]

numbers = st.one_of(
    st.sampled_from(AWKWARD),
    st.floats(allow_nan=False),
    st.floats(-2, 2, allow_nan=False),
    st.floats(1, 1 + 1e-6),  # apart in their last bits only
)


@pytest.fixture(autouse=True, params=[selection.FEW, 0], ids=["ranked", "counted"])
def _small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few numbers fill several pieces, and are counted as many would be."""
    monkeypatch.setattr(selection, "PIECE", 7)
    monkeypatch.setattr(selection, "FEW", request.param)


given_with_pieces = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    values = draw(st.lists(numbers, min_size=1, max_size=25))
    scores = torch.tensor(values, dtype=torch.float64).to(draw(st.sampled_from(DTYPES)))
    if draw(st.booleans()):
        return Pool(scores)
    among = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    return Pool(scores, torch.tensor(among))


def places(pool: Pool) -> list[int]:
    """Positions that take part."""
    return [i for i in range(len(pool.scores)) if pool.among is None or bool(pool.among[i])]


@given(pools(), st.data())
@given_with_pieces
def test_lowest_is_a_stable_sort(pool: Pool, data: st.DataObject) -> None:
    ranked = sorted(places(pool), key=lambda i: float(pool.scores[i]))
    count = data.draw(st.integers(0, len(ranked)))
    chosen = lowest(pool.scores, count, pool.among)
    assert chosen.dtype == torch.bool
    assert set(chosen.nonzero().flatten().tolist()) == set(ranked[:count])


@given(st.lists(pools(), min_size=1, max_size=4), st.data())
@given_with_pieces
def test_lowest_of_is_a_stable_sort_of_all(several: list[Pool], data: st.DataObject) -> None:
    entries = [(number, i) for number, pool in enumerate(several) for i in places(pool)]
    ranked = sorted(entries, key=lambda entry: float(several[entry[0]].scores[entry[1]]))
    count = data.draw(st.integers(0, len(ranked)))
    expected = [sum(number == chosen for chosen, _ in ranked[:count]) for number in range(len(several))]
    assert lowest_of(several, count) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("piece", [7, 64, 1 << 17])
@pytest.mark.parametrize("levels", [1, 5, 10**9])
def test_large_tensors_against_torch(
    dtype: torch.dtype, piece: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "PIECE", piece)
    size = 3 * min(piece, 500) + 5
    generator = torch.Generator().manual_seed(levels)
    scores = ((torch.rand(size, generator=generator) * levels).floor() / levels - 0.3).to(dtype)
    order = torch.sort(scores, stable=True).indices
    for count in (0, 1, size // 3, size - 1, size):
        expected = torch.zeros(size, dtype=torch.bool)
        expected[order[:count]] = True
        assert torch.equal(lowest(scores, count), expected)
        halves = [Pool(scores[: size // 2]), Pool(scores[size // 2 :])]
        assert lowest_of(halves, count) == [int(expected[: size // 2].sum()), int(expected[size // 2 :].sum())]


def test_numbers_that_half_precision_cannot_tell_apart_are_told_apart_across_pools() -> None:
    """1.0 in half precision and 1 + 2⁻²³ in single: the pool that comes second holds the lower."""
    assert lowest_of([Pool(torch.tensor([1 + 2**-23])), Pool(torch.tensor([1.0], dtype=torch.float16))], 1) == [0, 1]
    above = torch.tensor([1 + 2**-40], dtype=torch.float64)
    assert lowest_of([Pool(above), Pool(torch.tensor([1.0]))], 1) == [0, 1]


def test_the_scores_are_left_alone() -> None:
    scores = torch.tensor([-0.0, 2.0, -1.0])
    bits = scores.view(torch.int32).clone()
    lowest(scores, 2)
    lowest_of([Pool(scores)], 2)
    assert torch.equal(scores.view(torch.int32), bits)


bounds = st.lists(
    st.tuples(st.integers(0, 50) | st.floats(0, 9), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6
)


@given(bounds, st.data())
@settings(max_examples=150)
def test_apportion_is_exact_within_bounds_and_fair(layers: list[tuple[float, int, int]], data: st.DataObject) -> None:
    weights = [weight for weight, _, _ in layers]
    lower = [min(a, b) for _, a, b in layers]
    upper = [max(a, b) for _, a, b in layers]
    total = data.draw(st.integers(sum(lower), sum(upper)))
    shares = apportion(total, weights, lower, upper)
    assert sum(shares) == total
    assert all(low <= share <= high for share, low, high in zip(shares, lower, upper, strict=True))
    for i, j in itertools.permutations(range(len(layers)), 2):
        # Between layers that no bound holds, shares are in proportion, up to the rounding of both.
        free = all(lower[k] < shares[k] < upper[k] and weights[k] for k in (i, j))
        assert not free or shares[i] - 1 <= Fraction(weights[i]) / Fraction(weights[j]) * (shares[j] + 1)


def test_apportion_by_hand() -> None:
    assert apportion(10, [1, 1, 1], [0, 0, 0], [9, 9, 9]) == [4, 3, 3]
    assert apportion(10, [3, 1, 1], [0, 0, 0], [4, 9, 9]) == [4, 3, 3]
    assert apportion(10, [8, 1, 1], [0, 3, 0], [9, 9, 9]) == [6, 3, 1]
    assert apportion(3, [0, 0], [0, 0], [5, 5]) == [2, 1]
    with pytest.raises(ValueError, match="does not fit"):
        apportion(5, [1, 1], [0, 0], [2, 2])


SHAPES = {"narrow": (4, 3, 3, 3), "middle": (64, 32, 3, 3), "wide": (128, 64, 3, 3), "dense": (10, 128)}


def layers_of(shapes: dict[str, tuple[int, ...]]) -> list[LayerUnits]:
    def one(name: str, shape: tuple[int, ...]) -> LayerUnits:
        size = torch.Size(shape)
        return LayerUnits(name, torch.rand(size.numel()), torch.ones(size.numel(), dtype=torch.bool), size)

    return [one(name, shape) for name, shape in shapes.items()]


def erk_densities(shapes: dict[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """ε·(Σ dimensions)/(Π dimensions), as in RigL's code: what would be over 1 is dense, and ε is found again."""
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        kept = (1 - sparsity) * sum(sizes.values()) - sum(sizes[name] for name in dense)
        epsilon = kept / sum(raw[name] * sizes[name] for name in shapes if name not in dense)
        over = {name for name in shapes if name not in dense and epsilon * raw[name] > 1}
        if not over:
            return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        dense |= {max(over, key=raw.__getitem__)}


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.95, 0.99])
def test_erk_follows_the_formula(sparsity: float) -> None:
    layers = layers_of(SHAPES)
    removed = distributions.get("erk")()(layers, sparsity, 1)
    assert sum(removed) == round(sparsity * sum(layer.total for layer in layers))
    for layer, count, density in zip(layers, removed, erk_densities(SHAPES, sparsity).values(), strict=True):
        assert abs(layer.total - count - density * layer.total) < 1.5


def test_erk_of_structured_units_has_the_same_densities() -> None:
    """32 filters of a (32, 16, 3, 3) kernel have the density that its weights would have."""

    def filters(shape: tuple[int, ...]) -> LayerUnits:
        return LayerUnits("conv", torch.rand(shape[0]), torch.ones(shape[0], dtype=torch.bool), torch.Size(shape))

    layers = [filters((320, 160, 3, 3)), filters((640, 320, 3, 3))]
    removed = distributions.get("erk")()(layers, 0.7, 1)
    densities = [1 - count / layer.total for count, layer in zip(removed, layers, strict=True)]
    ratio = (sum((320, 160, 3, 3)) / (320 * 160)) / (sum((640, 320, 3, 3)) / (640 * 320))
    assert densities[0] / densities[1] == pytest.approx(ratio, rel=0.02)


def test_erk_of_one_round_after_another_is_erk() -> None:
    """Earlier rounds do not change where a target ends, as long as no layer lost more than it should."""
    layers = layers_of(SHAPES)
    erk = distributions.get("erk")()
    once = erk(layers, 0.9, 1)
    first = erk(layers, 0.6, 1)
    survivors = [
        LayerUnits(layer.name, layer.scores, torch.arange(layer.total) >= count, layer.shape)
        for layer, count in zip(layers, first, strict=True)
    ]
    then = erk(survivors, 0.9, 1)
    assert [a + b for a, b in zip(first, then, strict=True)] == once


@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
def test_what_cannot_be_met_names_the_layers(distribution: str) -> None:
    with pytest.raises(PruningError, match="narrow, middle, wide, dense would die"):
        distributions.get(distribution)()(layers_of(SHAPES), 0.99, 3000)


def test_scores_are_only_read_where_units_are_alive() -> None:
    """Removed units may hold any score, the lowest too: they are never ranked again."""
    alive = torch.tensor([True, False, True, True])
    layer = LayerUnits("layer", torch.tensor([3.0, -9.0, 1.0, 2.0]), alive, torch.Size((4, 1)))
    assert distributions.get("global")()([layer], 0.5, 1) == [1]
    assert lowest(layer.scores, 1, layer.pool.among).tolist() == [False, False, True, False]


def reference_lowest(scores: Tensor, count: int) -> Tensor:
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[torch.argsort(scores, stable=True)[:count]] = True
    return chosen


@pytest.mark.parametrize("size", [(1 << 17) - 1, 1 << 17, (1 << 17) + 1])
def test_around_the_real_size_of_a_piece(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    scores = torch.randint(0, 100, (size,), generator=torch.Generator().manual_seed(size)).float()
    assert torch.equal(lowest(scores, size // 2), reference_lowest(scores, size // 2))
