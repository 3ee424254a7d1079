"""Modules: what is a weight in each of them, what is not, and what is named because it cannot be pruned."""

from __future__ import annotations

import itertools
import sys
import types
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from tombola.errors import PruningError
from tombola.pruning import Masks, UnsupportedParameterWarning, criteria, prunable_parameters, prune, schedules
from tombola.pruning.observe import output_weights

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def exact(masks: Masks, sparsity: float) -> None:
    assert masks.total - masks.kept == round(sparsity * masks.total)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestWhatIsAWeight:
    def test_linear_and_convolutions_of_every_kind(self) -> None:
        model = nn.ModuleList(
            [
                *(nn.Linear(4, 3), nn.Conv1d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv3d(1, 2, 2)),
                *(nn.ConvTranspose1d(2, 3, 2), nn.ConvTranspose2d(4, 2, 2, groups=2), nn.ConvTranspose3d(1, 2, 2)),
            ]
        )
        assert list(prunable_parameters(model)) == [f"{index}.weight" for index in range(7)]
        exact(prune(model, 0.7), 0.7)

    def test_biases_normalisations_and_embeddings_are_never_pruned_and_never_named(self) -> None:
        model = nn.Sequential(
            *(
                nn.Linear(4, 4),
                nn.LayerNorm((2, 4)),
                nn.BatchNorm1d(4),
                nn.GroupNorm(2, 4),
                nn.InstanceNorm1d(4, affine=True),
            ),
            *(nn.Embedding(5, 4), nn.EmbeddingBag(5, 4), nn.PReLU(4), nn.RMSNorm(4)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(prune(model, 0.5)) == ["0.weight"]

    def test_conv1d_of_hugging_face(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Conv1D(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.randn(6, 4))  # inputs, outputs

            def forward(self, x: Tensor) -> Tensor:
                return x @ self.weight

        model = nn.Sequential(Conv1D(), nn.Linear(4, 2))
        with pytest.warns(UnsupportedParameterWarning, match=r"0\.weight"):
            assert list(prune(model, 0.5)) == ["1.weight"]  # anybody's module of this name
        transformers = types.ModuleType("transformers.pytorch_utils")
        transformers.Conv1D = Conv1D  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "transformers.pytorch_utils", transformers)
        assert list(prune(model, 0.5)) == ["0.weight", "1.weight"]
        keep = prune(model, structure="2:4", protect=["0"])["1.weight"].keep
        assert keep.sum(1).tolist() == [2, 2]
        with pytest.raises(PruningError, match=r"0\.weight: its 6 inputs do not divide into groups of 4"):
            prune(model, structure="2:4")
        for name in criteria:
            if not criteria.get(name).outputs_only:
                data = [(torch.randn(3, 6), torch.tensor([0, 1, 1]))]
                exact(prune(model, 0.5, name, batches=data), 0.5)

    @pytest.mark.parametrize("separate", [False, True])
    def test_projections_of_attention(self, separate: bool) -> None:
        attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, **({"kdim": 6, "vdim": 4} if separate else {}))
        parts = ["q_proj_weight", "k_proj_weight", "v_proj_weight"] if separate else ["in_proj_weight"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            masks = prune(attention, 0.6)
        assert list(masks) == [*parts, "out_proj.weight"]
        exact(masks, 0.6)
        assert prune(attention, 0.2, protect=["out_proj"])["out_proj.weight"].sparsity == 0

    def test_nested_and_shared_modules_count_once(self) -> None:
        shared = nn.Linear(4, 4)
        model = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared, nn.ModuleDict({"deep": nn.Linear(4, 2)})))
        masks = prune(model, 0.5)
        assert list(masks) == ["0.weight", "1.2.deep.weight"]
        exact(masks, 0.5)

    @pytest.mark.usefixtures("few_rounds")
    @pytest.mark.parametrize("criterion", [name for name in criteria if not criteria.get(name).outputs_only])
    def test_tied_weights_count_once_and_fall_together(self, criterion: str) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
        model[2].weight = model[0].weight
        masks = prune(model, 0.5, criterion, batches=[(torch.rand(5, 4), torch.randint(3, (5,)))])
        assert list(masks) == ["0.weight", "4.weight"]
        assert (masks.total, masks.kept) == (28, 14)
        masks.apply_(model)
        assert torch.equal(model[2].weight != 0, masks["0.weight"].keep)

    def test_a_head_that_is_tied_to_an_embedding_is_an_embedding_and_named(self) -> None:
        model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False))
        model[2].weight = model[0].weight
        with pytest.warns(UnsupportedParameterWarning, match=r": 0\.weight; they are"):
            assert list(prune(model, 0.5)) == ["1.weight"]
        data = [(torch.randint(7, (3,)), torch.randint(7, (3,)))]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exact(prune(model, 0.5, "wanda", batches=data, protect=["0"]), 0.5)

    def test_lazy_modules_after_a_first_call_only(self) -> None:
        model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
        with pytest.raises(PruningError, match=r"0\.weight has no shape yet: run the model once on an example"):
            prune(model, 0.5)
        model(torch.randn(1, 2, 5, 5))
        exact(prune(model, 0.5, structure="weight"), 0.5)
        assert prune(model, 0.5, structure="filter")["0.weight"].kept == 36

    def test_the_meta_device_has_no_values(self) -> None:
        with pytest.raises(PruningError, match=r"0\.weight is on the meta device and has no values"):
            prune(nn.Sequential(nn.Linear(3, 3)).to("meta"), 0.5)

    def test_a_module_itself_may_be_the_layer(self) -> None:
        assert list(prune(nn.Linear(4, 4), 0.5)) == ["weight"]


class WithMatrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.randn(4, 4))


UNSUPPORTED: dict[str, tuple[Callable[[], nn.Module], str, list[str]]] = {
    "recurrent": (lambda: nn.LSTM(4, 3), r"1\.weight_ih_l0, 1\.weight_hh_l0;", ["1.*"]),
    "a bare matrix": (WithMatrix, r"1\.mixing;", ["1.mixing"]),
    "parametrised": (
        lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
        r"1\.parametrizations\.weight\.original0, 1\.parametrizations\.weight\.original1;",
        ["1.parametrizations.*"],
    ),
    "pruned by torch": (lambda: torch_prune.identity(nn.Linear(4, 3), "weight"), r"1\.weight_orig;", ["*_orig"]),
    "bilinear": (lambda: nn.Bilinear(2, 3, 4), r"1\.weight;", ["1"]),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
class TestUnsupported:
    def test_is_named_and_left_alone(self, kind: str) -> None:
        make, says, _ = UNSUPPORTED[kind]
        model = nn.Sequential(nn.Linear(4, 4), make())
        with pytest.warns(UnsupportedParameterWarning, match=says) as caught:
            masks = prune(model, 0.5)
        assert len(caught) == 1
        assert caught[0].filename == __file__  # the caller's line, not Tombola's
        assert list(masks) == ["0.weight"]
        exact(masks, 0.5)

    def test_is_not_named_where_protected(self, kind: str) -> None:
        make, _, protect = UNSUPPORTED[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            prune(nn.Sequential(nn.Linear(4, 4), make()), 0.5, protect=protect)

    def test_alone_is_an_error_that_names_it(self, kind: str) -> None:
        make, says, _ = UNSUPPORTED[kind]
        with pytest.raises(
            PruningError, match=rf"no Linear or convolution weight to prune; not supported: {says[:-1]}"
        ):
            prune(nn.Sequential(nn.ReLU(), make()), 0.5)


def test_many_unsupported_parameters_are_counted() -> None:
    with pytest.warns(UnsupportedParameterWarning, match=r"1\.weight_hh_l0, .* and 3 more; they are"):
        prune(nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3, num_layers=4)), 0.5)


class TestPrecision:
    def net(self, *dtypes: torch.dtype) -> nn.Sequential:
        kinds = itertools.cycle(dtypes)
        return nn.Sequential(
            *(nn.Conv2d(2, 4, 3).to(next(kinds)), nn.Flatten(), nn.Linear(64, 30).to(next(kinds))),
            *(nn.ReLU(), nn.Linear(30, 20).to(next(kinds)), nn.ReLU(), nn.Linear(20, 3).to(next(kinds))),
        )

    @pytest.mark.usefixtures("few_rounds")
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("criterion", criteria)
    def test_every_criterion_in_every_precision(self, dtype: torch.dtype, criterion: str) -> None:
        model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)).to(
            dtype
        )
        data = [(torch.rand(2, 2, 6, 6, dtype=dtype), torch.tensor([0, 1]))]
        structure = "filter" if criteria.get(criterion).outputs_only else "weight"
        masks = prune(model, 0.5, criterion, structure, batches=data)
        units = [8, 8 * 18 + 3 * 128][structure == "weight"]
        kept = masks["0.weight"].kept / 18 if structure == "filter" else masks.kept
        assert kept == units - round(0.5 * units)

    @pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
    @pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.9, 0.98])
    def test_counts_are_exact_in_a_model_of_mixed_precision(self, distribution: str, sparsity: float) -> None:
        model = self.net(*FLOATS)
        masks = prune(model, sparsity, distribution=distribution)
        exact(masks, sparsity)
        further = prune(model, 0.99, distribution=distribution, masks=masks)
        exact(further, 0.99)
        assert further <= masks

    def test_mixed_precision_is_ranked_by_value(self) -> None:
        """As one stable sort of all weights in float64."""
        model = self.net(torch.bfloat16, torch.float16, torch.float64, torch.float32)
        masks = prune(model, 0.6)
        values = torch.cat([p.detach().double().abs().flatten() for p in prunable_parameters(model).values()])
        keep = torch.ones(len(values), dtype=torch.bool)
        keep[torch.sort(values, stable=True).indices[: round(0.6 * len(values))]] = False
        assert torch.equal(torch.cat([mask.keep.flatten() for mask in masks.values()]), keep)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_weights_that_are_broken_are_named(self, dtype: torch.dtype) -> None:
        for value in (float("nan"), float("inf"), -float("inf")):
            model = self.net(dtype)
            with torch.no_grad():
                model[2].weight[3, 5] = value
            with pytest.raises(PruningError, match=r"2\.weight holds NaN or infinite weights"):
                prune(model, 0.5)

    def test_channels_last_weights(self) -> None:
        model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 3))
        expected = prune(model, 0.5), prune(model, 0.5, structure="filter"), prune(model, structure="1:2")
        model.to(memory_format=torch.channels_last)
        assert (prune(model, 0.5), prune(model, 0.5, structure="filter"), prune(model, structure="1:2")) == expected


class TestRounds:
    def net(self) -> nn.Sequential:
        return nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))

    @pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9, 0.98])
    @pytest.mark.parametrize("rounds", [1, 3, 7])
    def test_a_fixed_share_of_the_survivors_each_round_reaches_the_target(self, sparsity: float, rounds: int) -> None:
        """Per-round fraction 1 - (1 - s)^(1/n), the geometric schedule, ends at s to the weight."""
        model = self.net()
        fraction = 1 - (1 - sparsity) ** (1 / rounds)
        masks = Masks.full(model)
        for target in schedules.get("geometric")(sparsity, rounds):
            before = masks
            masks = prune(model, target, masks=masks)
            assert masks <= before
            assert before.kept - masks.kept == pytest.approx(fraction * before.kept, abs=1)
        exact(masks, sparsity)

    def test_store_prune_reset_gives_initial_times_mask(self) -> None:
        model = self.net()
        initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        masks = prune(model, 0.8)
        model.load_state_dict(initial)
        masks.apply_(model)
        for name, parameter in model.named_parameters():
            expected = initial[name] * masks[name].keep if name in masks else initial[name]
            assert torch.equal(parameter, expected)

    def test_masks_of_rounds_are_independent(self) -> None:
        """Also of a layer that lost nothing: an update of the later masks does not reach the earlier ones."""
        model = self.net()
        first = prune(model, 0.3)
        second = prune(model, 0.35, masks=first, protect=["2"])
        assert second["2.weight"] == first["2.weight"]
        kept = first["2.weight"].kept
        second["2.weight"].update(prune(model, 0.9)["2.weight"] & second["2.weight"])
        assert first["2.weight"].kept == kept


class TestTheLayersOfTheOutputs:
    """`output_weights`: what structures that remove whole outputs do well to spare."""

    @pytest.mark.parametrize(
        ("tail", "expected"),
        [
            ([nn.Flatten(), nn.Linear(4 * 36, 3)], ["3.weight"]),
            ([nn.Flatten(), nn.Linear(4 * 36, 3), nn.LogSoftmax(1)], ["3.weight"]),
            ([nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()], ["2.weight"]),
            ([nn.Conv2d(4, 3, 6), nn.Flatten()], ["2.weight"]),
            (
                [nn.Flatten(), nn.Linear(4 * 36, 5), nn.Unflatten(1, (5, 1)), nn.MaxPool1d(1), nn.Flatten()],
                ["3.weight"],
            ),
        ],
    )
    def test_is_found_behind_what_has_no_weights(self, tail: list[nn.Module], expected: list[str]) -> None:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *tail).train()
        assert output_weights(model, torch.rand(2, 1, 8, 8)) == expected
        assert all(module.training for module in model.modules())
        assert not any(module._forward_hooks for module in model.modules())
