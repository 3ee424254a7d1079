"""What two networks differ in: nothing where they are one, and otherwise what a direct computation gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tombola import Masks, diff, prune
from tombola.errors import ModelError, PruningError


def network(seed: int, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


@given(st.integers(0, 100), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_it_is_what_is_computed_directly(seed: int, first: float, second: float) -> None:
    a, b = network(seed), network(seed + 1)
    masks_a, masks_b = prune(a, first), prune(b, second)
    masks_a.apply_(a)
    masks_b.apply_(b)
    found = diff(a, b, masks_a, masks_b)
    for layer in found.layers:
        keep_a, keep_b = masks_a[layer.layer].keep, masks_b[layer.layer].keep
        x, y = a.get_parameter(layer.layer).detach(), b.get_parameter(layer.layer).detach()
        both = keep_a & keep_b
        assert (layer.density_a, layer.density_b) == (masks_a[layer.layer].density, masks_b[layer.layer].density)
        assert layer.overlap == pytest.approx(int(both.sum()) / int((keep_a | keep_b).sum()))
        assert layer.change == pytest.approx(float((y - x).norm() / x.norm()), rel=1e-5)
        flipped = (x.sign() != y.sign())[both]
        assert layer.flips == (pytest.approx(float(flipped.float().mean())) if len(flipped) else None)
    assert found.total.weights == masks_a.total
    assert found.total.density_b == pytest.approx(masks_b.density)


def test_chance_is_what_unrelated_masks_have() -> None:
    a = nn.Linear(400, 400)
    chance = torch.Generator().manual_seed(0)
    masks = [Masks.from_tensors({"weight": torch.rand(400, 400, generator=chance) < p}) for p in (0.3, 0.1)]
    (layer,) = diff(a, a, *masks).layers
    assert layer.by_chance == pytest.approx(0.03 / 0.37, rel=0.01)
    assert layer.overlap == pytest.approx(layer.by_chance, rel=0.03)


def test_a_network_and_itself() -> None:
    a, inputs = network(0), torch.randn(700, 8)
    before = {name: tensor.clone() for name, tensor in a.state_dict().items()}
    targets = a.eval()(inputs).argmax(1)
    a.train()
    found = diff(a, a, inputs=inputs, targets=targets)
    assert found.outputs is not None
    assert (found.total.overlap, found.total.change, found.total.flips, found.others) == (1, 0, 0, 0)
    assert (found.outputs.largest, found.outputs.agreement, found.outputs.accuracy_a) == (0, 1, 1)
    assert a.training
    assert all(torch.equal(before[name], tensor) for name, tensor in a.state_dict().items())


def test_outputs_on_the_same_examples() -> None:
    a, b, inputs = network(0), network(0), torch.randn(30, 8)
    b[3].bias.data[1] += 100.0
    found = diff(a, b, inputs=inputs, targets=torch.full((30,), 1)).outputs
    assert found is not None
    a.eval()
    assert found.largest == pytest.approx(100, rel=1e-5)
    assert found.accuracy_b == 1
    assert found.agreement == found.accuracy_a == pytest.approx(float((a(inputs).argmax(1) == 1).float().mean()))
    scaled = diff(a, b, inputs=inputs, inputs_b=inputs * 0).outputs
    assert scaled is not None
    assert scaled.largest != found.largest
    assert scaled.accuracy_a is None


def test_what_cannot_be_compared() -> None:
    a, none = network(0), torch.zeros(0, 8)
    with pytest.raises(ModelError, match=r"of different layers: they differ in 0\.weight"):
        diff(a, network(0, width=7))
    with pytest.raises(ModelError, match="does not take these inputs"):
        diff(a, a, inputs=torch.zeros(3, 9))
    with pytest.raises(ModelError, match="one at least"):
        diff(a, a, inputs=none)
    with pytest.raises(PruningError):
        diff(a, a, prune(nn.Linear(2, 2), 0.5))
    removed = Masks.from_tensors({n: torch.zeros_like(m.keep) for n, m in Masks.full(a).items()})
    total = diff(a, a, removed, removed).total
    assert (total.overlap, total.by_chance, total.change, total.flips) == (None, None, None, None)
