"""SynFlow against the sum over all paths, and what it is for: no layer is cut off."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from direct_scores import assert_one_line, assert_scores, score
from torch import nn

from tombola.errors import PruningError
from tombola.pruning import Masks, prune


class TestSynFlow:
    def test_is_the_sum_over_paths_of_an_mlp_without_biases(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        layers = [model[i].weight.detach().double().abs() for i in (0, 2, 4)]
        expected = [torch.zeros_like(layer) for layer in layers]
        for path in itertools.product(range(3), range(4), range(3), range(2)):
            product = math.prod(float(layers[k][path[k + 1], path[k]]) for k in range(3))
            for k in range(3):
                expected[k][path[k + 1], path[k]] += product
        found = score("synflow", model, [torch.randn(5, 3)])
        assert all(scores.dtype == torch.float64 for scores in found.values())
        assert_scores(found, dict(zip(found, expected, strict=True)))

    def test_convolutions_batch_norms_and_pools_are_paths_too(self) -> None:
        """Flow is conserved: what enters a layer's weights leaves them (Tanaka et al. 2020, theorem 1)."""
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2)),
        )
        with torch.no_grad():
            model(torch.randn(8, 2, 6, 6))
            nn.init.uniform_(model[1].weight, -1, 1)
        found = score("synflow", model, [torch.randn(5, 2, 6, 6)])
        totals = [float(scores.sum()) for scores in found.values()]
        assert totals == pytest.approx([totals[0]] * 3)

    @pytest.mark.parametrize("weight", ["normal", "tied", "float16", "negative"])
    def test_needs_no_data_but_a_shape(self, weight: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        if weight == "tied":
            model[2].weight = model[0].weight
        if weight == "float16":
            model.half()
        if weight == "negative":
            model[0].weight.data.abs_().neg_()
        dtype = model[0].weight.dtype
        masks = prune(model, 0.5, "synflow", batches=[torch.full((3, 4), math.nan, dtype=dtype)])
        assert masks.total - masks.kept == round(0.5 * masks.total)
        assert masks == prune(model, 0.5, "synflow", batches=[(torch.zeros(1, 4, dtype=dtype), None)])

    @pytest.mark.parametrize("seed", range(2))
    def test_at_99_percent_a_path_leads_from_input_to_output_where_one_shot_cuts_the_network(self, seed: int) -> None:
        torch.manual_seed(seed)
        widths = [20, *[40] * 9, 5]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        with torch.no_grad():
            for layer in layers[3:6]:
                layer.weight *= 0.1
        model = nn.Sequential(*itertools.chain.from_iterable((layer, nn.ReLU()) for layer in layers))
        data = [(torch.randn(32, 20), torch.randint(5, (32,)))]
        masks = prune(model, 0.99, "synflow", batches=data)
        assert masks.total - masks.kept == round(0.99 * masks.total)
        assert paths(masks) > 0
        assert paths(prune(model, 0.99, "magnitude")) == 0
        assert paths(prune(model, 0.99, "snip", batches=data)) == 0

    def test_a_negative_batch_norm_scale_counts_by_its_magnitude(self) -> None:
        def net(sign: float) -> nn.Module:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
            with torch.no_grad():
                model[1].weight.copy_(torch.tensor([sign * 0.5, 1.5, sign * 2.0, 0.7]))
            return model

        data = [torch.randn(2, 1, 4, 4)]
        found = score("synflow", net(-1), data)
        assert_scores(found, score("synflow", net(1), data))
        assert all(bool((scores > 0).all()) for scores in found.values())

    @pytest.mark.parametrize("dead", ["head", "scale"])
    def test_a_network_through_which_nothing_flows_is_refused(self, dead: str) -> None:
        """A head that starts from 0, or a batch norm: every score would be 0, and weights would go by position."""
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        nn.init.zeros_(model[3 if dead == "head" else 1].weight)
        with pytest.raises(PruningError, match=r"synflow.*all zeros") as caught:
            prune(model, 0.5, "synflow", batches=[torch.ones(2, 4)])
        assert_one_line(caught.value)

    def test_networks_in_which_paths_do_not_multiply_are_refused(self) -> None:
        for odd in (nn.Sigmoid(), nn.LayerNorm(4), nn.GELU(), nn.Softmax(1)):
            with pytest.raises(PruningError, match="synflow does not go with this network"):
                prune(nn.Sequential(nn.Linear(4, 4), odd, nn.Linear(4, 2)), 0.5, "synflow", batches=[torch.ones(1, 4)])

    def test_whole_numbers_are_no_inputs(self) -> None:
        with pytest.raises(PruningError, match="synflow needs inputs of real numbers"):
            prune(nn.Sequential(nn.Linear(4, 4)), 0.5, "synflow", batches=[torch.ones(1, 4, dtype=torch.long)])

    def test_a_flow_beyond_float64_is_an_error(self) -> None:
        model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(12)])
        for layer in model:
            nn.init.constant_(layer.weight, 1e30)
        with pytest.raises(PruningError, match="overflow float64"):
            prune(model, 0.5, "synflow", batches=[torch.ones(1, 4)])


def paths(masks: Masks) -> float:
    """How many paths of kept weights lead from the inputs to the outputs."""
    reach = torch.ones(next(iter(masks.values())).shape[1], dtype=torch.float64)
    for mask in masks.values():
        reach = mask.keep.double() @ reach
    return float(reach.sum())
