"""What `prune` promises: exact, stable, never silent about a layer that would die."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from direct_scores import assert_one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune as torch_prune

from tombola.errors import ConfigError, PruningError
from tombola.pruning import Mask, Masks, PerLayerRates, criteria, prunable_parameters, prune
from tombola.pruning.prunable import weight_layouts
from tombola.pruning.structures import make_structure


def net(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers)


def with_weights(model: nn.Sequential, *weights: list) -> nn.Sequential:
    with torch.no_grad():
        for layer, values in zip(model, weights, strict=True):
            layer.weight.copy_(torch.tensor(values, dtype=torch.float32))
    return model


class TestExactness:
    @pytest.mark.parametrize("sparsity", [0, 0.1, 0.3, 0.9, 0.98, 0.999])
    @pytest.mark.parametrize("distribution", ["global", "uniform"])
    def test_not_only_at_one_half(self, sparsity: float, distribution: str) -> None:
        masks = prune(net(100, 50, 20), sparsity, distribution=distribution)
        assert masks.total - masks.kept == round(sparsity * 6000)

    def test_the_known_two_by_two(self) -> None:
        masks = prune(with_weights(net(2, 2), [[0.1, 0.9], [0.2, 0.8]]), 0.5)
        assert masks["0.weight"].keep.tolist() == [[False, True], [False, True]]

    @pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
    def test_all_equal_weights_go_by_position(self, sparsity: float) -> None:
        model = with_weights(net(5, 4), [[0.5] * 5] * 4)
        flat = prune(model, sparsity)["0.weight"].keep.flatten()
        count = round(sparsity * 20)
        assert flat.tolist() == [False] * count + [True] * (20 - count)

    def test_plus_and_minus_are_ties(self) -> None:
        model = with_weights(net(4, 1), [[-1.0, 1.0, -1.0, 1.0]])
        assert prune(model, 0.5)["0.weight"].keep.tolist() == [[False, False, True, True]]

    def test_a_live_zero_is_ranked_and_a_removed_weight_is_not(self) -> None:
        model = with_weights(net(4, 1), [[0.0, 3.0, 2.0, 1.0]])
        removed_largest = Masks({"0.weight": Mask(torch.tensor([[True, False, True, True]]))})
        masks = prune(model, 0.5, masks=removed_largest)
        assert masks["0.weight"].keep.tolist() == [[False, False, True, True]]

    def test_agrees_with_torch_on_weights_without_ties(self) -> None:
        model, peer = net(30, 20, 10, seed=5), net(30, 20, 10, seed=5)
        torch_prune.global_unstructured(
            [(layer, "weight") for layer in peer], pruning_method=torch_prune.L1Unstructured, amount=0.73
        )
        masks = prune(model, 0.73)
        for index, layer in enumerate(peer):
            assert torch.equal(masks[f"{index}.weight"].keep, layer.weight_mask.bool())

    def test_tied_weights_count_once(self) -> None:
        model = net(6, 6, 6)
        model[1].weight = model[0].weight
        masks = prune(model, 0.5)
        assert list(masks) == ["0.weight"]
        assert (masks.total, masks.kept) == (36, 18)


class TestLayersDoNotDieSilently:
    def test_a_zero_initialised_head_keeps_its_best_unit_and_the_total_stays_exact(self) -> None:
        model = net(20, 10, 3)
        nn.init.zeros_(model[1].weight)
        masks = prune(model, 0.9)
        assert masks["1.weight"].kept == 1
        assert masks.total - masks.kept == round(0.9 * 230)

    def test_min_keep_of_the_caller(self) -> None:
        model = net(20, 10, 3)
        nn.init.zeros_(model[1].weight)
        masks = prune(model, 0.9, min_keep=7)
        assert masks["1.weight"].kept == 7
        assert masks.total - masks.kept == round(0.9 * 230)

    @pytest.mark.parametrize("distribution", ["global", "uniform"])
    def test_a_target_that_kills_layers_names_them(self, distribution: str) -> None:
        with pytest.raises(PruningError, match=r"0\.weight, 1\.weight would die"):
            prune(net(3, 3, 2), 0.99, distribution=distribution)

    def test_a_rate_that_kills_a_layer_names_it(self) -> None:
        with pytest.raises(PruningError, match=r"1\.weight: removing 2 of 2"):
            prune(net(30, 1, 2), distribution=PerLayerRates(0.1, {"1": 0.9}))

    @given(st.integers(1, 5), st.floats(0, 0.9), st.integers(0, 50))
    @settings(max_examples=50)
    def test_every_layer_keeps_min_keep_at_any_sparsity(self, min_keep: int, sparsity: float, seed: int) -> None:
        model = net(9, 8, 7, seed=seed)
        with torch.no_grad():
            model[1].weight *= 1e-6
        masks = prune(model, sparsity, min_keep=min_keep)
        assert min(mask.kept for mask in masks.values()) >= min_keep
        assert masks.total - masks.kept == round(sparsity * masks.total)


class TestPerLayerRates:
    def test_the_papers_levels_are_arithmetic_on_266200_weights(self) -> None:
        """Frankle & Carbin 2019: rounds 3, 7, 9 and 15 leave 51.3, 21.1, 13.5 and 3.6 %."""
        model = net(784, 300, 100, 10)
        masks = Masks.full(model)
        assert masks.total == 266_200
        levels = {}
        for index in range(1, 16):
            masks = prune(model, masks=masks, distribution=PerLayerRates(0.2, {"2": 0.1}))
            levels[index] = round(100 * masks.density, 1)
        assert [levels[index] for index in (3, 7, 9, 15)] == [51.3, 21.1, 13.5, 3.6]

    def test_rates_are_of_the_survivors(self) -> None:
        model = net(10, 10)
        once = prune(model, distribution=PerLayerRates(0.5))
        assert prune(model, masks=once, distribution=PerLayerRates(0.5))["0.weight"].kept == 25

    def test_takes_no_global_sparsity(self) -> None:
        with pytest.raises(PruningError, match="per-layer rates take no sparsity"):
            prune(net(4, 4), 0.5, distribution=PerLayerRates(0.5))

    def test_unknown_layer(self) -> None:
        with pytest.raises(PruningError, match=r"no layer is called 'outptu'; layers: 0\.weight"):
            prune(net(4, 4), distribution=PerLayerRates(0.5, {"outptu": 0.1}))

    @pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), True, "0.2"])
    def test_rates_outside_0_1(self, rate: object) -> None:
        with pytest.raises(PruningError, match="prune rate"):
            PerLayerRates(rate)  # type: ignore[arg-type]


class TestRefusals:
    @pytest.mark.parametrize("sparsity", [-0.1, 1, 1.1, float("nan"), float("inf"), True, "0.5", [0.5]])
    def test_sparsity_outside_0_1(self, sparsity: object) -> None:
        with pytest.raises(PruningError, match="sparsity is the fraction"):
            prune(net(4, 4), sparsity)  # type: ignore[arg-type]

    def test_no_sparsity(self) -> None:
        with pytest.raises(PruningError, match="needs a sparsity"):
            prune(net(4, 4))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_broken_weights(self, value: float) -> None:
        model = net(4, 4)
        with torch.no_grad():
            model[0].weight[1, 2] = value
        with pytest.raises(PruningError, match=r"0\.weight holds NaN or infinite"):
            prune(model, 0.5)

    def test_nothing_to_prune(self) -> None:
        with pytest.raises(PruningError, match="no Linear or convolution weight"):
            prune(nn.Sequential(nn.ReLU(), nn.LayerNorm(3)), 0.5)

    def test_a_lazy_layer_before_its_first_call(self) -> None:
        with pytest.raises(PruningError, match="run the model once"):
            prune(nn.Sequential(nn.LazyLinear(3)), 0.5)

    def test_a_target_below_what_is_gone(self) -> None:
        model = net(10, 10)
        with pytest.raises(PruningError, match="removed units never come back"):
            prune(model, 0.3, masks=prune(model, 0.6))

    def test_masks_of_another_model(self) -> None:
        with pytest.raises(PruningError, match="do not belong to this model"):
            prune(net(4, 4), 0.5, masks=Masks.full(net(4, 4, 4)))

    def test_unknown_names_list_the_known(self) -> None:
        with pytest.raises(Exception, match=r"unknown criterion 'magnitud' .*did you mean 'magnitude'"):
            prune(net(4, 4), 0.5, criterion="magnitud")

    def test_rates_by_name_alone(self) -> None:
        with pytest.raises(PruningError, match="PerLayerRates"):
            prune(net(4, 4), 0.5, distribution="rates")

    @pytest.mark.parametrize(
        "scores", [{}, {"0.weight": torch.ones(2, 2)}, {"0.weight": torch.full((4, 4), torch.nan)}]
    )
    def test_scores_of_a_broken_criterion(self, scores: dict) -> None:
        with pytest.raises(PruningError, match=r"0\.weight: the criterion gave"):
            prune(net(4, 4), 0.5, criterion=lambda model, context: scores)


class TestWhatIsNoneOfThePieces:
    """Every argument of a wrong type is a line that speaks of it, not a traceback from within."""

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"model": nn.Linear}, "Module"),
            ({"model": lambda x: x}, "Module"),
            ({"model": None}, "Module"),
            ({"masks": {}}, "masks"),
            ({"masks": {"0.weight": torch.ones(4, 4, dtype=torch.bool)}}, "masks"),
            ({"criterion": None}, "criterion"),
            ({"criterion": 3}, "criterion"),
            ({"structure": None}, "structure"),
            ({"structure": 4}, "structure"),
            ({"structure": nn.Linear}, "structure"),
            ({"distribution": None}, "distribution"),
            ({"distribution": 0.5}, "distribution"),
            ({"loss": "mse"}, "loss"),
            ({"loss": None}, "loss"),
            ({"seed": "x"}, "seed"),
            ({"seed": 0.5}, "seed"),
            ({"protect": None}, "protect"),
            ({"protect": [3]}, "protect"),
            ({"min_keep": "1"}, "min_keep"),
            ({"min_keep": -1}, "min_keep"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_is_named(self, changes: dict[str, Any], says: str) -> None:
        options: dict[str, Any] = {"model": net(4, 4), "sparsity": 0.5, **changes}
        with pytest.raises((PruningError, ConfigError), match=says) as caught:
            prune(**options)
        assert_one_line(caught.value)

    @pytest.mark.parametrize("name", [name for name in criteria if name != "bn-scale"])  # no batch norm here
    def test_a_layer_without_inputs_is_left_as_it_is(self, name: str) -> None:
        model = with_empty()
        data = [(torch.randn(8, 4), torch.randint(5, (8,))) for _ in range(2)]
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        masks = prune(model, 1 / 3, name, structure, batches=data)
        assert masks["empty.weight"].shape == (5, 0)
        assert masks["empty.weight"].sparsity == 0
        if structure == "weight":
            assert masks.total - masks.kept == round(masks.total / 3)

    @pytest.mark.parametrize("distribution", ["uniform", "erk", PerLayerRates(0.25)])
    def test_a_layer_without_inputs_in_every_distribution(self, distribution: Any) -> None:
        sparsity = None if isinstance(distribution, PerLayerRates) else 0.25
        assert prune(with_empty(), sparsity, distribution=distribution).kept == 30

    def test_a_model_of_nothing_but_such_a_layer_is_refused(self) -> None:
        with pytest.raises(PruningError) as caught:
            prune(with_empty().empty, 0.5)
        assert_one_line(caught.value)

    @pytest.mark.parametrize("kind", [nn.Linear, nn.Conv1d])
    def test_complex_weights_are_refused_by_name(self, kind: Any) -> None:
        sizes = (4, 4) if kind is nn.Linear else (4, 4, 1)
        model = nn.Sequential(nn.Linear(4, 4), kind(*sizes, dtype=torch.complex64))
        with pytest.raises(PruningError, match=r"1\.weight.*complex64") as caught:
            prune(model, 0.5)
        assert_one_line(caught.value)


class WithEmpty(nn.Module):
    """A layer of no inputs beside two of some, as a network has whose features were all taken away."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5, bias=False), nn.Linear(5, 4, bias=False)
        self.empty = nn.Linear(0, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.pad(self.last(functional.relu(self.first(inputs))), (0, 1)) + self.empty(inputs[:, :0])


def with_empty() -> WithEmpty:
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # torch says that there is nothing to initialise
        return WithEmpty()


class TestUnitsAfterWeights:
    """What single weights lost within a filter that stays does not come back with it."""

    @pytest.mark.parametrize("structure", ["filter", "channel", "neuron", "block:2x2"])
    def test_no_single_weight_returns(self, structure: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 6))
        earlier = prune(model, 0.5, "random", seed=1)
        masks = prune(model, 0.5, structure=structure, masks=earlier)
        assert masks <= earlier
        assert masks.kept < earlier.kept
        units = make_structure(structure)
        for name, layout in weight_layouts(model).items():
            if units.fits(layout):
                alive = units.spread(units.alive(masks[name].keep, layout), layout)
                assert torch.equal(masks[name].keep, alive & earlier[name].keep)
            else:
                assert masks[name] == earlier[name]


class TestUniform:
    def test_layers_end_at_the_same_sparsity_to_the_unit(self) -> None:
        masks = prune(net(10, 7, 3), 0.5, distribution="uniform")
        assert [(mask.total, mask.kept) for mask in masks.values()] == [(70, 35), (21, 10)]
        assert masks.kept == 91 - round(45.5)

    def test_a_layer_pruned_further_before_stays_and_the_others_make_up_for_it(self) -> None:
        model = net(10, 10, 10)
        earlier = Masks({"0.weight": prune(net(10, 10), 0.9)["0.weight"], "1.weight": Mask.full((10, 10))})
        masks = prune(model, 0.6, distribution="uniform", masks=earlier)
        assert [mask.kept for mask in masks.values()] == [10, 70]


def test_a_new_criterion_is_a_function() -> None:
    """Ten lines for later criteria: any function of model and context serves."""

    def rows_last(model: nn.Module, context: object) -> dict[str, torch.Tensor]:
        return {n: -torch.arange(p.numel()).view(p.shape).float() for n, p in prunable_parameters(model).items()}

    masks = prune(net(4, 2), 0.5, criterion=rows_last)
    assert masks["0.weight"].keep.tolist() == [[True] * 4, [False] * 4]
