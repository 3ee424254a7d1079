"""Removal on networks of chance: whatever is joined to whatever, what is left computes what the masked network does."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tombola import Masks, plan_removal, remove_units
from tombola.compression.removal.verify import outputs
from tombola.errors import ModelError, PruningError
from tombola.models.removed import Kept, Removal, parameters, ranges, shrink

JOINED = ("plain", "residual", "dense", "grouped", "depth-wise", "gated", "branches")


class Chance(nn.Module):
    """A few blocks on small images, each joined to what is before it in one of the usual ways."""

    def __init__(self, blocks: list[tuple[str, int, bool, bool, bool]], flat: bool) -> None:
        super().__init__()
        self.kinds, self.flat = [block[0] for block in blocks], flat
        self.convs, self.others, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = 4
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        for kind, width, padded, bias, normed in blocks:
            kernel, after, groups = (
                (3, channels, 1) if kind in ("residual", "gated", "depth-wise") else (1, 2 * width, 1)
            )
            groups = channels if kind == "depth-wise" else 2 if kind == "grouped" and channels % 2 == 0 else 1
            kernel = 3 if padded or kind in ("residual", "gated", "depth-wise", "dense", "branches") else 1
            self.convs.append(nn.Conv2d(channels, after, kernel, padding=kernel // 2, bias=bias, groups=groups))
            self.others.append(nn.Conv2d(channels, after, 1) if kind in ("gated", "branches") else nn.Identity())
            self.norms.append(nn.BatchNorm2d(after) if normed else nn.Identity())
            channels = channels + after if kind == "dense" else after
        self.output = nn.Linear(channels * 25 if flat else channels, 3)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = functional.relu(self.stem(hidden))
        for kind, conv, other, norm in zip(self.kinds, self.convs, self.others, self.norms, strict=True):
            made = norm(conv(hidden))
            if kind == "residual":
                hidden = functional.relu(hidden + made)
            elif kind == "dense":
                hidden = torch.cat([hidden, functional.silu(made)], 1)
            elif kind == "gated":
                hidden = made * torch.sigmoid(other(hidden.mean((2, 3), keepdim=True)))
            elif kind == "branches":
                hidden = functional.max_pool2d(functional.relu(made) + other(hidden), 3, 1, 1)
            else:
                hidden = functional.hardswish(made)
        return self.output(hidden.flatten(1) if self.flat else hidden.mean((2, 3)))


block = st.tuples(st.sampled_from(JOINED), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans())
nets = st.builds(Chance, st.lists(block, min_size=1, max_size=3), st.booleans())
some = settings(max_examples=6, suppress_health_check=list(HealthCheck))


def shaken(model: nn.Module, seed: int) -> nn.Module:
    """With numbers of chance everywhere, statistics of batch norms, too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if tensor.dim() == 1 else -0.5))
    return model.eval()


def assert_close(one: nn.Module, other: nn.Module, inputs: Tensor) -> None:
    expected, found = outputs(one.double(), inputs.double())[0], outputs(other.double(), inputs.double())[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * max(1.0, float(expected.abs().max())))


@some
@given(model=nets, seed=st.integers(0, 9), rate=st.sampled_from([0.3, 0.6, 0.9]), rows=st.booleans())
def test_masked_and_removed_agree(model: Chance, seed: int, rate: float, rows: bool) -> None:
    """Whole rows or columns of every weight, or single weights: what may go goes and nothing changes."""
    shaken(model, seed)
    generator, keeps = torch.Generator().manual_seed(seed), {}
    for name, mask in Masks.full(model).items():
        shape = list(mask.shape)
        whole = [*shape[:1], *[1] * (len(shape) - 1)] if rows else [1, *shape[1:2], *[1] * (len(shape) - 2)]
        keeps[name] = (torch.rand(whole, generator=generator) >= rate).expand(shape).clone()
    masks = Masks.from_tensors(keeps)
    inputs = torch.randn(2, 2, 5, 5, generator=generator)
    removed = remove_units(model, masks, inputs)
    reference = copy.deepcopy(model)
    masks.apply_(reference)
    assert removed.masks.of(removed.model).removed_nonzeros(removed.model) == 0
    assert_close(reference, removed.model, inputs)


@some
@given(
    model=nets, seed=st.integers(0, 9), sparsity=st.floats(0, 0.9), round_to=st.integers(1, 3), anywhere=st.booleans()
)
def test_plans_hold(model: Chance, seed: int, sparsity: float, round_to: int, anywhere: bool) -> None:
    shaken(model, seed)
    inputs = torch.randn(2, 2, 5, 5)
    ranking = "global" if anywhere else "group"
    try:
        plan = plan_removal(model, sparsity, inputs, ranking=ranking, round_to=round_to)
    except PruningError as error:  # of groups with one unit none goes
        if "can go while each layer keeps" not in str(error):
            raise
        return
    removed = remove_units(model, plan, inputs)
    assert parameters(removed.model) == plan.parameters
    assert all(g.after % round_to == 0 or g.after == g.before for g in plan.groups if round_to == 1)
    lost, units = sum(g.before - g.after for g in plan.groups), sum(g.before for g in plan.groups)
    assert lost == round(sparsity * units) if round_to == 1 else lost <= round(sparsity * units)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_say_the_same(indices: set[int]) -> None:
    kept = Kept(indices=ranges(sorted(indices)), of=61, places=("a/0",))
    assert kept.index().tolist() == sorted(indices)
    with torch.device("meta"):
        assert kept.index().shape == (len(indices),)


def test_a_record_names_a_shared_tensor_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    twice = Removal(kept=(Kept(indices="0-1", of=3, places=("0.weight/0", "2.weight/0")),))
    with pytest.raises(ModelError, match=r"names one tensor twice, 0.weight and 2.weight"):
        shrink(model, twice)
    assert model[0].weight.shape == (3, 3)
