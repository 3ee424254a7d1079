"""Layers left nearly empty are warned about by name, once, and no others are; parameters passed over are named."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tombola.pruning import Mask, Masks, NearlyEmptyLayerWarning, UnsupportedParameterWarning, nearly_empty, prune
from tombola.pruning.prunable import weight_layouts
from tombola.pruning.structures import make_structure


def mobile(width: int = 64) -> nn.Sequential:
    """Depthwise and pointwise convolutions in turns."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1)]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU(), nn.Conv2d(width, width, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def shrunk(model: nn.Sequential, *indices: int) -> nn.Sequential:
    """With layers whose weights are all smaller than the others', as training leaves them."""
    for index in indices:
        with torch.no_grad():
            model[index].weight.mul_(1e-3)
    return model


def warned(model: nn.Module, sparsity: float, **options: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prune(model, sparsity, **options)  # type: ignore[arg-type]
    ours = [w for w in caught if w.category is NearlyEmptyLayerWarning]
    assert all(w.filename == __file__ for w in ours)
    assert all("\n" not in str(w.message) for w in ours)
    return [str(w.message) for w in ours]


def test_the_default_names_every_layer_that_it_nearly_empties_in_one_warning() -> None:
    model = shrunk(mobile(), 3, 6, 9)
    (said,) = warned(model, 0.9)
    assert "3 layers are left nearly empty: 3.weight (1 of 4096 weights)" in said
    assert "6.weight (1 of 4096 weights), 9.weight (1 of 4096 weights);" in said
    assert "distribution='erk', criterion='lamp', protect=" in said
    assert warned(model, 0.9, distribution="erk") == []
    assert warned(model, 0.9, criterion="lamp") == []


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_layers_that_are_small_or_depthwise_by_design_are_not_named(
    sparsity: float, distribution: str, criterion: str
) -> None:
    tiny = nn.Sequential(nn.Linear(1, 64), nn.Linear(64, 3), nn.Linear(3, 1), nn.Linear(1, 1))
    grouped = nn.Sequential(
        nn.Conv1d(64, 64, 4, groups=64), nn.Conv1d(64, 8, 1, groups=8), nn.ConvTranspose2d(64, 4, 2)
    )
    for model in (mobile(), tiny, grouped):
        assert warned(model, sparsity, distribution=distribution, criterion=criterion) == []


def test_dense_layers_are_not_empty_however_small() -> None:
    tiny = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 40), nn.Linear(40, 1), nn.Conv2d(30, 30, 1, groups=30))
    assert nearly_empty(Masks.full(tiny), weight_layouts(tiny)) == []


@pytest.mark.parametrize(
    ("layer", "kept", "empty"),
    [
        (lambda: nn.Linear(100, 100), 99, True),  # fewer than one input for each output, and below 1 %
        (lambda: nn.Linear(100, 100), 100, False),
        (lambda: nn.Linear(50, 40), 39, True),  # 2 %, fewer than one input for each output
        (lambda: nn.Linear(50, 40), 40, False),
        (lambda: nn.Linear(1000, 4), 30, True),  # below 1 %
        (lambda: nn.Linear(1000, 4), 40, False),
        (lambda: nn.Linear(30, 1), 1, True),  # one of many
        (lambda: nn.Linear(5, 1), 1, False),  # one of five
        (lambda: nn.Linear(5, 1), 0, True),
        (lambda: nn.Conv2d(40, 40, 3), 200, True),  # below 2 %, in fewer than 40 connections
        (lambda: nn.ConvTranspose2d(50, 4, 1), 4, False),  # 4 outputs, whatever the order of the axes
        (lambda: nn.Conv2d(64, 64, 3, groups=64), 5 * 9, True),  # 5 of 64 channels
        (lambda: nn.Conv2d(64, 64, 3, groups=64), 6 * 9, False),
    ],
)
def test_where_the_line_is(layer: Callable[[], nn.Module], kept: int, empty: bool) -> None:
    """The first entries are kept, so that connections are as few as the weights allow."""
    model = nn.Sequential(layer())
    keep = torch.zeros_like(model[0].weight, dtype=torch.bool)
    keep.view(-1)[:kept] = True
    found = nearly_empty(Masks({"0.weight": Mask(keep)}), weight_layouts(model))
    assert [(layer.name, layer.kept) for layer in found] == ([("0.weight", kept)] if empty else [])


def test_filters_are_counted_as_filters() -> None:
    model = shrunk(mobile(), 3)
    (said,) = warned(model, 0.2, structure="filter", criterion="l2-norm")
    assert "1 layer is left nearly empty: 3.weight (1 of 64 filters)" in said
    masks = prune(model, 0.5, structure="filter", distribution="uniform")
    assert nearly_empty(masks, weight_layouts(model), make_structure("filter")) == []


def test_a_warning_is_of_the_end_not_of_every_round() -> None:
    model = nn.Sequential(nn.Linear(20, 30, bias=False), nn.ReLU(), nn.Linear(30, 2, bias=False))
    assert len(warned(model, 0.99, criterion="synflow", batches=[torch.ones(1, 20)])) <= 1


class Experts(nn.Module):
    """A mixture of experts as transformers' models hold it: three axes, one of them the expert."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(8, 16, 64))
        self.down_proj = nn.Parameter(torch.randn(8, 32, 16))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(8, 64))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(16, 8), Experts()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def test_experts_are_named_with_what_they_hold() -> None:
    """Largest first, so that a list cut short names what matters, and how much of the model it is."""
    model = nn.Sequential(nn.Linear(16, 16), *(Block() for _ in range(3)), nn.LSTM(4, 4), nn.Bilinear(2, 2, 2))
    total = sum(p.numel() for p in model.parameters())
    left = total - 16 * 16 - 16 - 3 * (16 * 8 + 8) - 2 * 16 - 2
    with pytest.warns(UnsupportedParameterWarning) as caught:
        masks = prune(model, 0.5)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert said.startswith("left as they are: 1.experts.gate_up_proj, 2.experts.gate_up_proj, 3.experts.gate_up_proj, ")
    assert f"not pruned and not counted ({left:,} of {total:,} parameters, {left / total:.0%})" in said
    assert list(masks) == ["0.weight", "1.router.weight", "2.router.weight", "3.router.weight"]
