"""The contract, really scored: every criterion under every distribution, the second round under the first's masks.

`test_contract.py` runs schedules and distributions on frozen scores; its docstring says what is covered where.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from contract_networks import assert_same, everything_of
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning import Masks, PerLayerRates, criteria, distributions, prunable_parameters, prune
from tombola.pruning.criteria import Criterion, Scores, ScoringContext

TARGETS = (0.3, 0.6)


def network() -> nn.Module:
    """In which all criteria go: paths multiply, a batch norm reads every layer; untrained, one batch seen."""
    torch.manual_seed(2)
    layers = [nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(10, 4), nn.BatchNorm1d(4))
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    model(batches()[0][0])
    return model


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(6, 8, generator=generator), torch.randint(4, (6,), generator=generator)) for _ in range(2)]


class Listener:
    """A criterion that remembers under which masks it was asked, and what it said."""

    def __init__(self, criterion: Criterion, rounds: int) -> None:
        self.heard: list[tuple[Masks | None, Scores]] = []
        self._function = criterion.score
        self.criterion = dataclasses.replace(criterion, score=self._score, rounds=rounds)

    def _score(self, model: nn.Module, context: ScoringContext) -> Scores:
        scores = self._function(model, context)
        self.heard.append((context.masks, scores))
        return scores


@pytest.mark.parametrize("distribution", distributions)
@pytest.mark.parametrize("name", criteria)
def test_two_rounds_each_scored_under_the_masks_so_far(name: str, distribution: str) -> None:
    """What goes is what scores lowest *then*: in its layer, and under `global` in the network."""
    model = network()
    before = everything_of(model)
    structure = "neuron" if criteria.get(name).outputs_only else "weight"
    if distribution == "per-output" and structure == "neuron":
        with pytest.raises(
            PruningError, match=r"the distribution 'per-output' .* does not go with the structure 'neuron'"
        ):
            prune(model, 0.3, name, structure, distribution, batches=batches())
        return
    listener = Listener(criteria.get(name), min(3, criteria.get(name).rounds))
    chosen = PerLayerRates(0.3) if distribution == "rates" else distribution
    masks: Masks | None = None
    for target in TARGETS:
        sparsity = None if distribution == "rates" else target
        masks = prune(model, sparsity, listener.criterion, structure, chosen, masks, batches(), seed=7)
        if sparsity is not None:
            units = torch.cat(
                [mask.keep.any(1) if structure == "neuron" else mask.keep.flatten() for mask in masks.values()]
            )
            assert int((~units).sum()) == round(target * len(units))
    assert masks is not None
    assert_same(before, everything_of(model))
    assert listener.heard[0][0] is None
    states = [asked or Masks.full(model) for asked, _ in listener.heard] + [masks]
    if distribution != "rates":  # which take no sparsity and so know no rounds within a pruning
        assert len(listener.heard) == len(TARGETS) * listener.criterion.rounds
    for (earlier, later), (_, scores) in zip(itertools.pairwise(states), listener.heard, strict=True):
        assert later <= earlier
        assert later.kept < earlier.kept
        gone = {n: scores[n][earlier[n].keep & ~later[n].keep] for n in scores}
        left = {n: scores[n][later[n].keep] for n in scores}
        for layer in scores:
            if distribution == "per-output":
                assert_lowest_of_each_output(scores[layer], earlier[layer].keep, later[layer].keep)
            else:
                assert not len(gone[layer]) or gone[layer].max() <= left[layer].min()
        if distribution == "global":  # but for layers that gave all they could
            free = [n for n in scores if later[n].kept > (scores[n].shape[1] if structure == "neuron" else 1)]
            assert torch.cat([gone[n] for n in scores]).max() <= torch.cat([left[n] for n in free]).min()
    assert_scored_anew(model, name, listener)


def assert_lowest_of_each_output(scores: Tensor, earlier: Tensor, later: Tensor) -> None:
    """In every output the lowest go, and all outputs end alike."""
    for values, before, after in zip(scores, earlier, later, strict=True):
        gone, left = values[before & ~after], values[after]
        assert not len(gone) or not len(left) or gone.max() <= left.min()
    kept = later.sum(1)
    assert int(kept.max() - kept.min()) <= 1


def assert_scored_anew(model: nn.Module, name: str, listener: Listener) -> None:
    """The scores of a later round are those of a network from which the removed weights are gone for good."""
    later, scores = listener.heard[-1]
    assert later is not None
    gone = network()
    later.apply_(gone)
    structure = "neuron" if criteria.get(name).outputs_only else "weight"
    again = Listener(criteria.get(name), 1)
    prune(gone, TARGETS[-1], again.criterion, structure, masks=later, batches=batches(), seed=7)
    for layer in prunable_parameters(model):
        keep = later[layer].keep
        torch.testing.assert_close(again.heard[0][1][layer][keep], scores[layer][keep])
    if criteria.get(name).needs.name == "GRADIENTS":  # and no longer those of the dense network
        dense = listener.heard[0][1]
        assert any(not torch.allclose(dense[n][later[n].keep], scores[n][later[n].keep], rtol=1e-2) for n in scores)


def test_synflow_in_its_own_hundred_rounds() -> None:
    """Each round is scored under the masks of the one before, on a geometric schedule from dense to the target."""
    model = network()
    listener = Listener(criteria.get("synflow"), criteria.get("synflow").rounds)
    masks = prune(model, 0.9, listener.criterion, batches=batches())
    assert len(listener.heard) == 100
    once = dataclasses.replace(criteria.get("synflow"), rounds=1)
    expected: Masks | None = None
    for index, (asked, _) in enumerate(listener.heard):
        assert (expected is None) == (asked is None)
        if expected is not None and asked is not None:
            assert expected.kept == round(0.1 ** (index / 100) * masks.total)
            assert all(asked[name] == expected[name] for name in asked)
        expected = prune(model, 1 - 0.1 ** ((index + 1) / 100), once, masks=expected, batches=batches())
    assert expected is not None
    assert all(masks[name] == expected[name] for name in masks)
    assert masks.total - masks.kept == round(0.9 * masks.total)
    alive = torch.ones(8, dtype=torch.float64)
    for mask in masks.values():
        alive = mask.keep.double() @ alive
    assert alive.sum() > 0
