"""The distribution `per-output`: weights compete within their output, as in Wanda's paper."""

from __future__ import annotations

import pytest
import torch
from direct_scores import score
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning import Masks, prune
from tombola.pruning.prunable import weight_layouts

LAYERS = {
    "linear": (lambda: nn.Linear(12, 10), (5, 12)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, (2, 3), groups=2), (2, 4, 6, 6)),
    "transposed and grouped": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (2, 4, 5, 4)),
}


def outputs(layer: nn.Module, tensor: Tensor) -> list[Tensor]:
    """The entries of each output of a layer, laid out by hand."""
    if isinstance(layer, nn.ConvTranspose2d):  # (inputs, outputs of a group, kernel)
        return [part[:, o].flatten() for part in tensor.chunk(layer.groups) for o in range(tensor.shape[1])]
    return [row.flatten() for row in tensor]


@pytest.mark.parametrize("kind", LAYERS)
def test_wanda_as_in_its_paper(kind: str) -> None:
    """Of every output the same number of weights goes, those of the lowest |w| · ‖x‖."""
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make()
    model, data = nn.Sequential(layer), [torch.randn(shape)]
    masks = prune(model, 0.5, "wanda", distribution="per-output", batches=data)
    scores = score("wanda", model, data)["0.weight"]
    for row, keep in zip(outputs(layer, scores), outputs(layer, masks["0.weight"].keep), strict=True):
        assert set((~keep).nonzero().flatten().tolist()) == set(row.argsort()[: len(row) // 2].tolist())


@given(first=st.floats(0, 0.5), more=st.floats(0, 0.4), levels=st.sampled_from([1, 2, 1000]), seed=st.integers(0, 50))
@settings(max_examples=40)
def test_exact_in_all_and_alike_in_every_output(first: float, more: float, levels: int, seed: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(9, 5))
    masks = prune(model, first, "random", distribution="global", seed=seed)  # outputs that keep different numbers
    generator = torch.Generator().manual_seed(seed)
    given_scores = {n: torch.randint(levels, m.shape, generator=generator) / 7 for n, m in masks.items()}
    later = prune(model, first + more, lambda *_: given_scores, distribution="per-output", masks=masks)
    assert later <= masks
    assert later.total - later.kept == round((first + more) * later.total)
    for name, layout in weight_layouts(model).items():
        before = layout.canonical(masks[name].keep).flatten(0, 1).flatten(1).sum(1)
        after = layout.canonical(later[name].keep).flatten(0, 1).flatten(1).sum(1)
        touched = after[after < before]
        # An output that kept fewer already keeps them; all others end alike, to one weight.
        assert not len(touched) or int(touched.max()) <= int(after.max()) <= int(touched.min()) + 1


def test_no_output_is_left_without_inputs_where_one_ranking_leaves_many() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30))
    with torch.no_grad():
        model[0].weight[:10].mul_(1e-3)
    assert int(prune(model, 0.9, distribution="uniform")["0.weight"].keep.any(1).sum()) <= 20
    assert prune(model, 0.9, distribution="per-output")["0.weight"].keep.sum(1).tolist() == [2] * 30


@pytest.mark.parametrize("structure", ["neuron", "filter", "block:1x2"])
def test_other_structures_are_refused_by_name(structure: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(PruningError, match=f"'per-output' .* does not go with the structure '{structure}'"):
        prune(model, 0.5, structure=structure, distribution="per-output")


def test_protected_layers_keep_all() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    masks = prune(model, 0.4, distribution="per-output", protect=["0"])
    assert isinstance(masks, Masks)
    assert [mask.kept for mask in masks.values()] == [100, 20]
    assert masks["1.weight"].keep.sum(1).tolist() == [2] * 10
