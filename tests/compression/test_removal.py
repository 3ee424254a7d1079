"""Structured removal on the networks that couple units: what is left computes what the masked network does."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from removal_nets import NETS, network, resnet_b
from torch import Tensor, nn
from torch.nn import functional

from tombola import Masks, TombolaError, plan_removal, prune, remove_units
from tombola.compression.removal.verify import outputs
from tombola.errors import ModelError, PruningError
from tombola.models.removed import Kept, Removal, parameters, shrink
from tombola.pruning import NearlyEmptyLayerWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{NearlyEmptyLayerWarning.__module__}.NearlyEmptyLayerWarning")


CHANNELS = ("lenet5", "resnet, option B", "densenet")
"""Networks on which masks of input channels are tried, too: every structure costs a trace."""


def structures(name: str, model: nn.Module) -> list[str]:
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return ["filter", *(["channel"] if name in CHANNELS else [])] if convolutional else ["neuron"]


def assert_same_outputs(one: nn.Module, other: nn.Module, example: Any) -> None:
    """On numbers that removal itself never saw."""
    generator = torch.Generator().manual_seed(99)
    inputs = torch.randn(example.shape, generator=generator) if isinstance(example, Tensor) else example
    for expected, found in zip(outputs(one, inputs), outputs(other, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def masked(model: nn.Module, masks: Masks) -> nn.Module:
    copied = copy.deepcopy(model)
    masks.apply_(copied)
    return copied


@pytest.mark.parametrize("name", NETS)
def test_a_plan_removes_half_of_all_units_and_says_how_many_parameters_stay(name: str) -> None:
    model, example = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plan = plan_removal(model, 0.5, example)
    removed = remove_units(model, plan, example)
    assert removed.parameters_after == plan.parameters == parameters(removed.model) < removed.parameters_before
    assert all(group.after == group.before - group.before // 2 for group in removed.groups)
    assert removed.error < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    storages = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    assert not storages & {tensor.untyped_storage().data_ptr() for tensor in removed.model.state_dict().values()}


@pytest.mark.parametrize("name", NETS)
def test_what_masks_allow_goes_and_outputs_stay(name: str) -> None:
    model, example = network(name)
    for structure in structures(name, model):
        masks = prune(model, 0.5, structure=structure)
        removed = remove_units(model, masks, example)
        assert_same_outputs(masked(model, masks), removed.model, example)
        assert removed.masks.of(removed.model).removed_nonzeros(removed.model) == 0
        fresh = copy.deepcopy(model)
        shrink(fresh, removed.removal)
        fresh.load_state_dict(removed.model.state_dict())
        assert_same_outputs(removed.model, fresh, example)


def test_the_smaller_model_trains_on() -> None:
    model, example = network("squeeze-excite")
    model.train()
    small = remove_units(model, plan_removal(model, 0.4, example), example).model
    assert small.training
    small(example).square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_constants_of_masked_units_are_kept() -> None:
    """Masked filters still give their bias through ReLU: dropping it would move outputs."""
    model, example = network("lenet5")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.uniform_(module.bias, 0.5, 1.0)
    masks = prune(model, 0.5, structure="filter")
    removed = remove_units(model, masks, example)
    assert_same_outputs(masked(model, masks), removed.model, example)
    assert [group.after for group in removed.groups][:2] != [4, 6]
    dropped = copy.deepcopy(model)
    shrink(dropped, removed.removal)
    difference = outputs(dropped, example)[0] - outputs(removed.model, example)[0]
    assert float(difference.abs().max()) > 0.01


def test_one_unit_carries_the_constants_of_all_into_padded_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False))
    nn.init.uniform_(model[0].bias, 0.5, 1.0)
    masks = prune(model, 0.5, structure="filter", protect=["2"])
    kept = int(masks["0.weight"].keep.flatten(1).any(1).sum())
    removed = remove_units(model, masks, torch.randn(1, 3, 7, 7))
    assert [(group.before, group.after) for group in removed.groups] == [(8, kept + 1)]
    assert [(stayed.units, "carries constants" in stayed.reason) for stayed in removed.stayed] == [(1, True)]
    assert_same_outputs(masked(model, masks), removed.model, torch.randn(2, 3, 7, 7))


def test_a_unit_that_a_shortcut_gives_stays_and_says_so() -> None:
    model, example = network("resnet, option B")
    keep = {name: mask.keep.clone() for name, mask in Masks.full(model).items()}
    keep["0.weight"][:3] = False
    removed = remove_units(model, Masks.from_tensors(keep), example)
    assert removed.parameters_after == removed.parameters_before
    assert [(s.name, s.units) for s in removed.stayed] == [("0, 3.conv2", 3)]
    assert "another layer still gives it" in removed.stayed[0].reason
    keep["3.conv2.weight"][:2] = False  # now everywhere, but for what their batch norms add
    removed = remove_units(model, Masks.from_tensors(keep), example)
    assert next(g for g in removed.groups if g.name == "0, 3.conv2").after in (6, 7)


class Rolled(nn.Module):
    """Channels that an operation moves, which nobody has a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.third(functional.relu(self.second(torch.roll(self.first(inputs), 1, -1))))


def test_an_unknown_operation_is_an_error_that_names_it_unless_protected() -> None:
    model, example = Rolled(), torch.randn(2, 6)
    with pytest.raises(PruningError, match=r"aten\.roll.*protect=\['first'\]"):
        plan_removal(model, 0.5, example)
    plan = plan_removal(model, 0.5, example, protect=["first"])
    assert [(group.name, group.after) for group in plan.groups if group.before != group.after] == [("second", 4)]
    masks = prune(model, 0.4, structure="neuron")
    with pytest.raises(PruningError, match=r"aten\.roll"):
        remove_units(model, masks, example)
    assert remove_units(model, masks, example, protect=["first"]).error < 1e-5


class Heads(nn.Module):
    """Attention whose own code keeps the number of heads, not their width: of fewer heads it makes narrower ones."""

    def __init__(self, tells: bool) -> None:
        super().__init__()
        self.heads = 4
        self.query, self.key, self.value, self.project = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down, self.norm = nn.Linear(16, 24), nn.Linear(24, 16), nn.LayerNorm(16)
        if tells:
            self.units_removed = lambda: setattr(self, "heads", self.query.out_features // 4)

    def forward(self, tokens: Tensor) -> Tensor:
        split = (layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self._three())
        tokens = tokens + self.project(functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return self.norm(tokens + self.down(functional.relu(self.up(tokens))))

    def _three(self) -> tuple[nn.Module, ...]:
        return self.query, self.key, self.value


@pytest.mark.parametrize("tells", [True, False])
def test_heads_go_only_from_code_that_is_told(tells: bool) -> None:
    torch.manual_seed(0)
    model, example = Heads(tells), torch.randn(2, 6, 16)
    plan = plan_removal(model, 0.5, example)
    changed = {group.name: (group.before, group.after) for group in plan.groups}
    heads = {"query, key, value": (4, 2)} if tells else {}
    assert changed == {**heads, "up": (24, 12)}
    removed = remove_units(model, plan, example)
    assert removed.error <= 1e-5
    assert removed.parameters_after == plan.parameters


class Counting(nn.Module):
    """A network whose code keeps the number of its channels."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.first, self.second, self.channels = nn.Conv2d(1, 6, 3), nn.Linear(6 * 9, 3), 6
        if own:
            self.units_removed = lambda: setattr(self, "channels", self.first.out_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).view(-1, self.channels * 9))


def test_sizes_in_the_models_own_code() -> None:
    example = torch.randn(1, 1, 5, 5)
    with pytest.raises(ModelError, match=r"units_removed"):
        plan_removal(Counting(own=False), 0.5, example)
    model = Counting(own=True)
    assert remove_units(model, plan_removal(model, 0.5, example), example).parameters_after == 30 + 84


def test_round_to_and_global_ranking() -> None:
    model, example = resnet_b((8, 12, 16)), torch.randn(2, 3, 16, 16)
    plan = plan_removal(model, 0.4, example, round_to=4)
    assert all(group.after % 4 == 0 and group.after >= group.before * 0.6 for group in plan.groups)
    anywhere = plan_removal(model, 0.5, example, ranking="global")
    units, left = sum(g.before for g in anywhere.groups), sum(g.after for g in anywhere.groups)
    assert units - left == round(0.5 * units)
    assert len({g.after / g.before for g in anywhere.groups}) > 1
    assert all(group.after for group in anywhere.groups)


def test_criteria_that_look_at_data() -> None:
    model, example = network("lenet5")
    batches = [(example, torch.tensor([0, 1]))]
    for criterion in ("taylor", "fpgm"):
        removed = remove_units(model, plan_removal(model, 0.5, example, criterion, batches=batches), example)
        assert removed.error < 1e-5


def test_the_lowest_units_go() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0])[:, None].expand(5, 4))
    removed = remove_units(model, plan_removal(model, 0.4, torch.randn(1, 4)), torch.randn(1, 4))
    assert removed.model[0].weight[:, 0].tolist() == [3.0, 5.0, 4.0]


def test_tied_layers_stay_tied() -> None:
    model, example = network("squeeze-excite")
    tied = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    tied[4].weight = tied[2].weight
    network_ = nn.Sequential(tied, nn.Linear(8, 3))
    small = remove_units(network_, plan_removal(network_, 0.5, torch.randn(2, 6)), torch.randn(2, 6)).model
    assert small[0][4].weight is small[0][2].weight
    assert tuple(small[0][2].weight.shape) == (4, 4)
    assert remove_units(model, plan_removal(model, 0.5, example), example).error < 1e-5


@pytest.mark.parametrize(
    ("indices", "of"), [("3-1", 8), ("0-9", 8), ("2,1", 8), ("1,1", 8), ("0-3,2-5", 8), ("0-99999999", 100_000_000)]
)
def test_records_that_fit_no_model_are_refused(indices: str, of: int) -> None:
    removal = Removal(kept=(Kept(indices=indices, of=of, places=("0.weight/0",)),))
    with pytest.raises(TombolaError):
        shrink(nn.Sequential(nn.Linear(4, 8)), removal)


def test_what_is_refused() -> None:
    model, example = network("lenet-300-100")
    with pytest.raises(PruningError, match="in \\[0, 1\\)"):
        plan_removal(model, 1.5, example)
    with pytest.raises(PruningError, match="ranking"):
        plan_removal(model, 0.5, example, ranking="layer")
    with pytest.raises(PruningError, match="Masks or a Plan"):
        remove_units(model, 0.5, example)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"torch\.export"):
        plan_removal(model, 0.5, torch.randn(2, 7))
    with pytest.raises(ModelError, match=r"on meta: give it as model\.cpu"):
        plan_removal(copy.deepcopy(model).to("meta"), 0.5, example)
    with pytest.raises(PruningError, match="do not belong"):
        remove_units(model, prune(nn.Linear(3, 2), 0.5), example)


def test_records_compose() -> None:
    model, example = network("lenet5")
    first = remove_units(model, plan_removal(model, 0.25, example), example)
    second = remove_units(first.model, plan_removal(first.model, 0.5, example), example)
    fresh = copy.deepcopy(model)
    shrink(fresh, first.removal.after(second.removal))
    shapes = [tuple(tensor.shape) for tensor in fresh.state_dict().values()]
    assert shapes == [tuple(tensor.shape) for tensor in second.model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), second.model.parameters(), strict=True))


def test_unstructured_masks_lose_dead_units_to_a_fixed_point() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))
    masks = prune(model, 0.97)
    removed = remove_units(model, masks, torch.randn(2, 40))
    assert removed.parameters_after < 0.7 * removed.parameters_before
    assert_same_outputs(masked(model, masks), removed.model, torch.randn(3, 40))
    again = remove_units(removed.model, removed.masks, torch.randn(2, 40))
    assert again.parameters_after == removed.parameters_after
    for group in itertools.islice(removed.groups, 2):
        assert group.after < group.before
