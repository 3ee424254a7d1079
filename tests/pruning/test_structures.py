"""Structures: which weights stand and fall together, against slow loops over single entries."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tombola.errors import ConfigError, PruningError
from tombola.pruning import Mask, Masks, prunable_parameters, prune
from tombola.pruning.criteria import Criterion, Needs, Scores, ScoringContext
from tombola.pruning.prunable import Layout, weight_layouts
from tombola.pruning.structures import make_structure, structures

Entry = tuple[int, ...]


class Conv1D(nn.Module):
    """As in transformers: a Linear layer whose weight is (inputs, outputs)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@pytest.fixture
def _transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("transformers.pytorch_utils")
    module.Conv1D = Conv1D  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.pytorch_utils", module)


INPUTS_BY_NEURONS = [[0.1, 0.9, 0.2, 0.8], [-0.2, 0.7, -0.1, -0.9], [0.1, -0.8, 0.1, 0.7]]
"""3 inputs × 4 neurons; neurons 0 and 2 are weak."""


class TestNeurons:
    @pytest.mark.usefixtures("_transformers")
    def test_the_weak_neurons_of_an_inputs_by_neurons_matrix_go(self) -> None:
        model = nn.Sequential(Conv1D(4, 3))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor(INPUTS_BY_NEURONS))
        keep = prune(model, 0.5, structure="neuron")["0.weight"].keep
        assert keep.tolist() == [[False, True, False, True]] * 3

    def test_the_same_matrix_as_torch_lays_it_out(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor(INPUTS_BY_NEURONS).T)
        keep = prune(model, 0.5, structure="neuron")["0.weight"].keep
        assert keep.T.tolist() == [[False, True, False, True]] * 3

    def test_convolutions_have_none_and_are_left_as_they_are(self) -> None:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4))
        masks = prune(model, 0.5, structure="neuron")
        assert masks["0.weight"].kept == 18
        assert masks["2.weight"].kept == 16


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.Conv1d(4, 6, 3),
    "2d": lambda: nn.Conv2d(4, 6, (3, 2)),
    "3d": lambda: nn.Conv3d(4, 6, (1, 2, 2)),
    "grouped": lambda: nn.Conv2d(4, 6, 2, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 2, groups=4),
    "transposed 1d": lambda: nn.ConvTranspose1d(4, 6, 3),
    "transposed 2d": lambda: nn.ConvTranspose2d(4, 6, 2),
    "transposed 3d": lambda: nn.ConvTranspose3d(4, 6, (2, 1, 2)),
    "transposed grouped": lambda: nn.ConvTranspose2d(4, 6, 2, groups=2),
}


def entries(convolution: nn.Module) -> Iterator[tuple[int, int, Entry]]:
    """(output, input, index) of every entry of a convolution's weight, straight from torch's documentation."""
    groups, shape = convolution.groups, convolution.weight.shape
    for index in itertools.product(*(range(size) for size in shape)):
        if isinstance(convolution, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            source = index[0]
            target = source // (shape[0] // groups) * shape[1] + index[1]
        else:
            target = index[0]
            source = target // (shape[0] // groups) * shape[1] + index[1]
        yield target, source, index


@pytest.mark.parametrize("kind", CONVOLUTIONS)
class TestConvolutions:
    def convolution(self, kind: str) -> nn.Module:
        torch.manual_seed(len(kind))
        return CONVOLUTIONS[kind]()

    def test_entries_are_those_that_join_input_and_output(self, kind: str) -> None:
        """The loop that the other tests trust: an output depends on an input just where it says so."""
        convolution = self.convolution(kind)
        dimensions = convolution.weight.dim() - 2
        size = (5,) * dimensions
        joined = {(target, source) for target, source, _ in entries(convolution)}
        for source in range(convolution.in_channels):
            inputs = torch.zeros(1, convolution.in_channels, *size)
            inputs[0, source] = torch.rand(size)
            changed = convolution(inputs) - convolution(torch.zeros_like(inputs))
            reached = {t for t in range(convolution.out_channels) if changed[0, t].abs().max() > 1e-6}
            assert reached == {target for target, s in joined if s == source}

    @pytest.mark.parametrize("structure", ["filter", "channel"])
    def test_the_units_of_least_mean_magnitude_go(self, kind: str, structure: str) -> None:
        convolution = self.convolution(kind)
        units: dict[int, list[Entry]] = {}
        for target, source, index in entries(convolution):
            units.setdefault(target if structure == "filter" else source, []).append(index)
        weight = convolution.weight.detach()
        mean = {unit: sum(abs(float(weight[index])) for index in own) / len(own) for unit, own in units.items()}
        count = round(0.5 * len(units))
        expected = torch.ones_like(weight, dtype=torch.bool)
        for unit in sorted(units, key=mean.__getitem__)[:count]:
            for index in units[unit]:
                expected[index] = False
        keep = prune(nn.Sequential(convolution), 0.5, structure=structure)["0.weight"].keep
        assert torch.equal(keep, expected)

    def test_a_removed_filter_gives_its_bias_and_a_removed_channel_is_not_read(self, kind: str) -> None:
        convolution = self.convolution(kind)
        model = nn.Sequential(convolution)
        filters = prune(model, 0.5, structure="filter")
        channels = prune(model, 0.5, structure="channel")
        gone = {t for t, _, index in entries(convolution) if not filters["0.weight"].keep[index]}
        unread = {s for _, s, index in entries(convolution) if not channels["0.weight"].keep[index]}
        inputs = torch.randn(1, convolution.in_channels, *(5,) * (convolution.weight.dim() - 2))
        full = convolution.weight.detach().clone()
        filters.apply_(model)
        outputs = model(inputs)
        assert all(torch.all(outputs[:, t] == convolution.bias[t]) for t in gone)
        with torch.no_grad():
            convolution.weight.copy_(full)
        channels.apply_(model)
        other = inputs.clone()
        other[:, sorted(unread)] = 9.0
        torch.testing.assert_close(model(inputs), model(other))

    def test_n_of_m_keeps_n_along_the_inputs_at_every_kernel_position(self, kind: str) -> None:
        convolution = self.convolution(kind)
        if convolution.in_channels // convolution.groups % 2:
            with pytest.raises(PruningError, match=r"0\.weight: its 1 inputs do not divide into groups of 2"):
                prune(nn.Sequential(convolution), structure="1:2")
            return
        keep = prune(nn.Sequential(convolution), structure="1:2")["0.weight"].keep
        weight = convolution.weight.detach()
        groups: dict[Entry, list[Entry]] = {}
        for target, source, index in entries(convolution):
            groups.setdefault((target, source // 2, *index[2:]), []).append(index)
        for pair in groups.values():
            smaller, larger = sorted(pair, key=lambda index: abs(float(weight[index])))
            assert (bool(keep[smaller]), bool(keep[larger])) == (False, True)


class TestBlocks:
    @pytest.mark.parametrize(("rows", "columns"), [(2, 3), (1, 2), (4, 1), (4, 6)])
    def test_against_a_loop(self, rows: int, columns: int) -> None:
        torch.manual_seed(rows)
        model = nn.Sequential(nn.Linear(12, 8))
        weight = model[0].weight.detach()
        corners = list(itertools.product(range(0, 8, rows), range(0, 12, columns)))
        means = {(r, c): float(weight[r : r + rows, c : c + columns].abs().mean()) for r, c in corners}
        expected = torch.ones(8, 12, dtype=torch.bool)
        for r, c in sorted(corners, key=means.__getitem__)[: round(0.6 * len(corners))]:
            expected[r : r + rows, c : c + columns] = False
        keep = prune(model, 0.6, structure=f"block:{rows}x{columns}")["0.weight"].keep
        assert torch.equal(keep, expected)

    def test_a_convolution_is_the_matrix_that_unfold_multiplies(self) -> None:
        convolution = nn.Conv2d(2, 4, 3)
        keep = prune(nn.Sequential(convolution), 0.5, structure="block:2x3")["0.weight"].keep
        blocks = keep.flatten(1).reshape(2, 2, 6, 3).transpose(1, 2).flatten(2)
        assert torch.equal(blocks.all(-1), blocks.any(-1))
        assert int(blocks.any(-1).sum()) == 6

    def test_rows_are_outputs_in_transposed_layouts_too(self) -> None:
        layer = nn.ConvTranspose1d(3, 4, 1)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 1, 5, 5], [4, 4, 2, 2], [6, 6, 3, 3]]).unsqueeze(-1))
        keep = prune(nn.Sequential(layer), 0.5, structure="block:2x1")["0.weight"].keep.squeeze(-1)
        assert keep.tolist() == [[False, False, True, True], [True, True, False, False], [True, True, False, False]]


class TestNOfM:
    @pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (3, 4), (2, 8)])
    def test_exactly_the_n_largest_of_every_m_inputs_stay(self, n: int, m: int) -> None:
        torch.manual_seed(m)
        model = nn.Sequential(nn.Linear(16, 5))
        keep = prune(model, structure=f"{n}:{m}")["0.weight"].keep
        for row, kept in zip(model[0].weight.detach(), keep, strict=True):
            for start in range(0, 16, m):
                largest = row[start : start + m].abs().topk(n).indices
                assert set(kept[start : start + m].nonzero().flatten().tolist()) == set(largest.tolist())

    def test_ties_go_by_position(self) -> None:
        model = nn.Sequential(nn.Linear(8, 1))
        nn.init.ones_(model[0].weight)
        assert prune(model, structure="2:4")["0.weight"].keep.tolist() == [[False, False, True, True] * 2]

    def test_weights_that_are_gone_are_among_those_that_go(self) -> None:
        model = nn.Sequential(nn.Linear(8, 1))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[9.0, 1, 2, 3, 9, 8, 7, 6]]))
        earlier = Masks({"0.weight": Mask(torch.tensor([[False, True, True, True, False, False, True, True]]))})
        keep = prune(model, structure="2:4", masks=earlier)["0.weight"].keep
        assert keep.tolist() == [[False, False, True, True, False, False, True, True]]

    def test_a_group_with_too_few_left_is_an_error(self) -> None:
        model = nn.Sequential(nn.Linear(8, 1))
        earlier = Masks({"0.weight": Mask(torch.tensor([[False, False, False, True] * 2]))})
        with pytest.raises(PruningError, match=r"0\.weight: a group of 4 weights has 1 left, fewer than the 2 of 2:4"):
            prune(model, structure="2:4", masks=earlier)

    def test_min_keep_holds_or_is_an_error(self) -> None:
        model = nn.Sequential(nn.Linear(4, 2))
        assert prune(model, structure="2:4", min_keep=4).kept == 4
        with pytest.raises(PruningError, match=r"0\.weight: 2:4 leaves 4 weights, fewer than min_keep=5"):
            prune(model, structure="2:4", min_keep=5)

    def test_its_own_sparsity_may_be_said_and_no_other(self) -> None:
        model = nn.Sequential(nn.Linear(4, 2))
        assert prune(model, 0.5, structure="2:4") == prune(model, structure="2:4")
        with pytest.raises(PruningError, match=r"'2:4' removes 0\.5 of the weights of every layer it takes, not 0\.6"):
            prune(model, 0.6, structure="2:4")


@pytest.mark.parametrize(
    ("structure", "says"),
    [
        ("block:4x4", "its 8×7 matrix does not divide into blocks of 4×4"),
        ("block:3x7", "its 8×7 matrix does not divide into blocks of 3×7"),
        ("2:4", "its 7 inputs do not divide into groups of 4"),
    ],
)
class TestShapesThatDoNotDivide:
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(7, 8), nn.Linear(84, 48))

    def test_are_errors_that_name_the_layer(self, structure: str, says: str) -> None:
        with pytest.raises(PruningError, match=rf"0\.weight: {says}"):
            prune(self.model(), None if structure == "2:4" else 0.5, structure=structure)

    def test_do_not_matter_where_protected(self, structure: str, says: str) -> None:
        masks = prune(self.model(), None if structure == "2:4" else 0.5, structure=structure, protect=["0"])
        assert masks["0.weight"].kept == 56
        assert masks["1.weight"].kept == 84 * 48 // 2


@pytest.mark.parametrize("name", ["block:0x4", "block:4", "blok:4x4", "4:2", "2:2", "0:4", "weights", "", "2:4:8"])
def test_unknown_structures(name: str) -> None:
    with pytest.raises(ConfigError, match="structure"):
        prune(nn.Sequential(nn.Linear(4, 4)), 0.5, structure=name)


class TestProtection:
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        stage = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
        return nn.ModuleDict({"first": nn.Linear(6, 5), "stage_1": stage, "last": nn.Linear(5, 2)})

    @pytest.mark.parametrize(
        ("protect", "kept_whole"),
        [
            (["last"], {"last.weight"}),
            (["last.weight"], {"last.weight"}),
            (["stage_1.*"], {"stage_1.0.weight", "stage_1.1.weight"}),
            (["first", "*.1"], {"first.weight", "stage_1.1.weight"}),
        ],
    )
    @pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
    def test_protected_layers_keep_all_and_the_total_stays_exact(
        self, protect: list[str], kept_whole: set[str], distribution: str
    ) -> None:
        masks = prune(self.model(), 0.3, distribution=distribution, protect=protect)
        assert all(masks[name].kept == masks[name].total for name in kept_whole)
        assert masks.total - masks.kept == round(0.3 * masks.total)

    def test_what_matches_nothing_is_an_error(self) -> None:
        with pytest.raises(PruningError, match=r"no layer is called 'fisrt' \(did you mean 'first'\?\)"):
            prune(self.model(), 0.4, protect=["last", "fisrt"])
        with pytest.raises(PruningError, match=r"no layer is called 'stage_2\.\*'"):
            prune(self.model(), 0.4, protect=["stage_2.*"])

    def test_a_bare_string_is_an_error(self) -> None:
        with pytest.raises(PruningError, match=r"write protect=\['last'\]"):
            prune(self.model(), 0.4, protect="last")

    def test_everything_protected_is_an_error(self) -> None:
        with pytest.raises(PruningError, match="every layer with units of the structure 'weight' is protected"):
            prune(self.model(), 0.4, protect=["*"])

    def test_too_little_left_to_prune_names_the_rest(self) -> None:
        with pytest.raises(PruningError, match=r"protected layers their 80; the layers last\.weight would die"):
            prune(self.model(), 0.4, protect=["first", "stage_1.*"])

    def test_protected_layers_keep_what_earlier_masks_left_of_them(self) -> None:
        model = self.model()
        earlier = prune(model, 0.3)
        masks = prune(model, 0.5, masks=earlier, protect=["first"])
        assert masks["first.weight"] == earlier["first.weight"]


class TestPooling:
    def test_removed_weights_count_0_in_a_units_mean(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[9.0, 1.0], [2.0, 2.0]]))
        earlier = Masks({"0.weight": Mask(torch.tensor([[False, True], [True, True]]))})
        masks = prune(model, 0.5, structure="neuron", masks=earlier)
        assert masks["0.weight"].keep.tolist() == [[False, False], [True, True]]

    @pytest.mark.parametrize("criterion", ["l1-norm", "l2-norm", "fpgm"])
    def test_a_units_joint_score_is_not_thinned_by_its_removed_weights(self, criterion: str) -> None:
        """Neuron 0 holds one weight of 3, neuron 1 two of 1: by either norm and by distance the second goes."""
        model = nn.Sequential(nn.Linear(3, 3, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[7.0, 0.0, 3.0], [1.0, 1.0, 0.0], [1.0, 1.1, 0.0]]))
        earlier = Masks(
            {"0.weight": Mask(torch.tensor([[False, False, True], [True, True, True], [True, True, True]]))}
        )
        masks = prune(model, 1 / 3, criterion, "neuron", masks=earlier)
        assert masks["0.weight"].keep.any(1).tolist() == [True, False, True]

    def test_units_of_half_precision_are_told_apart(self) -> None:
        """In float16 a sum of 4096 weights of 16 to 17 is out of range, and in bfloat16 a mean has 3 digits."""
        for dtype in (torch.float16, torch.bfloat16):
            model = nn.Sequential(nn.Linear(4096, 3, bias=False)).to(dtype)
            nn.init.constant_(model[0].weight, 16.0)
            with torch.no_grad():
                model[0].weight[1, 7] = 15.5
            masks = prune(model, 1 / 3, "l1-norm", "neuron")
            assert masks["0.weight"].keep.any(1).tolist() == [True, False, True]
            assert prune(model, 1 / 3, "magnitude", "neuron") == masks

    @pytest.mark.parametrize("joint", [True, False])
    def test_scores_of_a_function_of_ones_own(self, joint: bool) -> None:
        """What carries a unit's joint score says so: `of_units`."""

        def sums(model: nn.Module, context: ScoringContext) -> Scores:
            return {name: context.sum_over_units(name, p.detach()) for name, p in context.scored(model).items()}

        model = nn.Sequential(nn.Linear(2, 2, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[0.0, 5.0], [2.0, 2.0]]))
        earlier = Masks({"0.weight": Mask(torch.tensor([[False, True], [True, True]]))})
        criterion = Criterion("sums", sums, Needs.WEIGHTS, of_units=joint)
        keep = prune(model, 0.5, criterion, "neuron", masks=earlier)["0.weight"].keep.any(1)
        assert keep.tolist() == ([True, False] if joint else [False, True])


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    outputs, inputs = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    if draw(st.booleans()):
        transposed = draw(st.booleans())
        return Layout(torch.Size((inputs, outputs) if transposed else (outputs, inputs)), inputs_first=transposed)
    groups, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    kernel = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    first, second = (groups * inputs, outputs) if transposed else (groups * outputs, inputs)
    return Layout(torch.Size((first, second, *kernel)), "convolution", groups, transposed)


def dividing(name: str, layout: Layout) -> str:
    """A structure of this kind that the layout divides into."""
    if name.startswith("block"):
        return f"block:{layout.outputs}x{layout.kernel_positions}"
    return f"1:{layout.inputs}" if ":" in name and layout.inputs > 1 else name


@pytest.mark.parametrize("name", structures)
@given(layout=layouts(), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_to_units_and_back_and_every_weight_in_one_unit(name: str, layout: Layout, seed: int) -> None:
    structure = make_structure(dividing(name, layout))
    if not structure.fits(layout):
        return
    tensor = torch.arange(layout.shape.numel()).view(layout.shape)
    units = structure.to_units(tensor, layout)
    assert units.numel() == layout.shape.numel()
    assert torch.equal(structure.from_units(units, layout), tensor)
    chosen = torch.rand(len(units), generator=torch.Generator().manual_seed(seed)) < 0.5
    keep = structure.spread(chosen, layout)
    assert keep.shape == layout.shape
    assert torch.equal(structure.alive(keep, layout), chosen)
    sums = structure.to_units(structure.sum_over_units(tensor.double(), layout), layout)
    assert torch.equal(sums, units.double().sum(1, keepdim=True).expand_as(sums))


class TestAgreementWithTorch:
    """On weights without ties `torch.nn.utils.prune` removes the very same ones."""

    def model(self) -> nn.Sequential:
        torch.manual_seed(4)
        return nn.Sequential(
            *(nn.Conv2d(3, 10, 3), nn.Conv1d(4, 10, 3), nn.Conv2d(4, 20, 3, groups=2)),
            *(nn.Linear(15, 10), nn.Linear(10, 30)),
        )

    def assert_equal(self, masks: Masks, peer: nn.Sequential) -> None:
        removed = {name: mask for name, mask in masks.items() if mask.kept < mask.total}
        pruned = {f"{i}.weight": layer.weight_mask for i, layer in enumerate(peer) if hasattr(layer, "weight_mask")}
        assert list(removed) == list(pruned)
        assert all(torch.equal(mask.keep, pruned[name].bool()) for name, mask in removed.items())

    @pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.9])
    def test_l1_unstructured_is_magnitude_uniform(self, sparsity: float) -> None:
        model, peer = self.model(), self.model()
        for layer in peer:
            torch_prune.l1_unstructured(layer, "weight", round(sparsity * layer.weight.numel()))
        masks = Masks.full(model)
        for name in masks:  # one layer at a time: `uniform` rounds the total, torch each layer
            target = round(sparsity * masks[name].total) / masks.total + masks.sparsity
            others = [other for other in masks if other != name]
            masks = prune(model, target, distribution="uniform", masks=masks, protect=others)
        self.assert_equal(masks, peer)

    @pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.8])
    @pytest.mark.parametrize("structure", ["filter", "neuron"])
    def test_ln_structured_is_the_l2_norm_uniform(self, sparsity: float, structure: str) -> None:
        model, peer = self.model(), self.model()
        for layer in peer:
            if isinstance(layer, nn.Linear) == (structure == "neuron"):
                torch_prune.ln_structured(layer, "weight", sparsity, n=2, dim=0)
        self.assert_equal(prune(model, sparsity, "l2-norm", structure, "uniform"), peer)

    @pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.9])
    def test_global_unstructured_is_magnitude_global(self, sparsity: float) -> None:
        model, peer = self.model(), self.model()
        torch_prune.global_unstructured(
            [(layer, "weight") for layer in peer], torch_prune.L1Unstructured, amount=sparsity
        )
        self.assert_equal(prune(model, sparsity, min_keep=0), peer)

    def test_weights_have_no_ties(self) -> None:
        for parameter in prunable_parameters(self.model()).values():
            assert len(parameter.abs().unique()) == parameter.numel()


def test_layouts_know_outputs_and_inputs() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Conv2d(4, 6, (3, 2), groups=2), nn.ConvTranspose1d(4, 6, 3, groups=2))
    read = {n: (x.groups, x.outputs, x.inputs, x.kernel, x.kernel_positions) for n, x in weight_layouts(model).items()}
    assert read == {
        "0.weight": (1, 5, 3, (), 1),
        "1.weight": (2, 3, 2, (3, 2), 6),
        "2.weight": (2, 3, 2, (3,), 3),
    }
