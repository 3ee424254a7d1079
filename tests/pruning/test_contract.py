"""The contract: every registered criterion, structure, distribution and schedule, alone and combined, on 3 networks.

Each combination is run, or refused by name. What is refused, and why, is written down below (`NO_SCORES`,
`UNDIVIDED`, `NO_PLAN`): a new refusal fails here.

What is covered where. Here every network × structure × criterion is really scored in two rounds under the distribution
`global`; all distributions × schedules then run on the scores of the dense network, frozen, to count exactly and
cheaply. `test_contract_rounds.py`: every criterion × distribution really scored in both of two rounds, the second under
the masks of the first, and SynFlow in all of its 100 rounds (here it has 5). `tests/training/test_evolution.py`: masks
that change while a network learns, gradual pruning by every criterion for weights and filters, SET and RigL.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re

import pytest
import torch
from contract_networks import NETWORKS, assert_same, batches, everything_of, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.errors import PruningError
from tombola.pruning import (
    Masks,
    PerLayerRates,
    criteria,
    distributions,
    prunable_parameters,
    prune,
    schedules,
    structures,
)
from tombola.pruning.criteria import Criterion, ScoreFunction, Scores, ScoringContext
from tombola.pruning.prunable import Layout, weight_layouts
from tombola.pruning.structures import Structure, make_structure

STRUCTURES = [*structures, "block:1x2"]
TARGET = 0.6
ROUNDS = 2

FIXED = ["2:4"]
"""Structures that fix every layer's sparsity."""
OUTPUTS_ONLY = ["fpgm", "bn-scale"]
"""Criteria that score whole outputs of a layer."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Combinations that make no sense, and what the error says. Empty: all."""

    says: str
    models: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()

    def covers(self, **chosen: str) -> bool:
        return all(not getattr(self, kind) or name in getattr(self, kind) for kind, name in chosen.items())


NO_SCORES = [
    Refusal(
        "criterion '{criteria}' scores whole outputs and does not go with the structure '{structures}'",
        criteria=tuple(OUTPUTS_ONLY),
        structures=tuple(name for name in STRUCTURES if name not in ("neuron", "filter")),
    ),
    Refusal(
        "no layer of the model has units of the structure '{structures}'",
        models=("transformer",),
        structures=("filter", "channel"),
    ),
    # The Linear layers of these are read by no batch norm, and LeNet-5 has none at all.
    Refusal("output.weight: no batch norm reads", models=("resnet8",), criteria=("bn-scale",), structures=("neuron",)),
    Refusal("conv_1.weight: no batch norm reads", models=("lenet5",), criteria=("bn-scale",), structures=("filter",)),
    Refusal("dense_1.weight: no batch norm reads", models=("lenet5",), criteria=("bn-scale",), structures=("neuron",)),
    Refusal("embed.weight: no batch norm reads", models=("transformer",), criteria=("bn-scale",)),
    Refusal("synflow does not go with this network", models=("transformer",), criteria=("synflow",)),
]
"""By network, criterion and structure: nothing to prune by."""

UNDIVIDED = {
    ("lenet5", "block:4x4"): "conv_1",
    ("lenet5", "block:1x2"): "conv_1",
    ("lenet5", "2:4"): "conv_1",
    ("resnet8", "block:4x4"): "conv_1",
    ("resnet8", "block:1x2"): "conv_1",
    ("resnet8", "2:4"): "conv_1",
    ("transformer", "block:4x4"): "embed",
    ("transformer", "2:4"): "embed",
}
"""The one layer whose shape does not divide: refused by its name, run once it is protected."""

NO_PLAN = [
    Refusal(
        "structure '{structures}' fixes every layer's sparsity", structures=tuple(FIXED), distributions=("erk", "rates")
    ),
    Refusal(
        "structure '{structures}' fixes every layer's sparsity", structures=tuple(FIXED), distributions=("per-output",)
    ),
    Refusal(
        "compares the weights of an output and does not go with the structure '{structures}'",
        structures=tuple(name for name in STRUCTURES if name != "weight"),
        distributions=("per-output",),
    ),
    Refusal("structure '{structures}' removes 0.5 of the weights", structures=tuple(FIXED)),
    Refusal("per-layer rates take no sparsity", distributions=("rates",)),
]
"""By structure, distribution and schedule: no way to spread a target of 0.6."""


def first_rule(rules: list[Refusal], **chosen: str) -> Refusal | None:
    return next((rule for rule in rules if rule.covers(**chosen)), None)


def refusal(rules: list[Refusal], **chosen: str) -> str | None:
    """The pattern of the error to expect, from the first rule that covers the choice."""
    rule = first_rule(rules, **chosen)
    return None if rule is None else re.escape(rule.says.format(**chosen))


def test_every_written_refusal_is_of_something() -> None:
    scored = itertools.product(NETWORKS, criteria, STRUCTURES)
    planned = itertools.product(STRUCTURES, distributions, schedules)
    used = [first_rule(NO_SCORES, models=m, criteria=c, structures=s) for m, c, s in scored]
    used += [first_rule(NO_PLAN, structures=s, distributions=b, schedules=x) for s, b, x in planned]
    assert all(any(rule is other for other in used) for rule in (*NO_SCORES, *NO_PLAN))


def affordable(name: str) -> Criterion:
    """The criterion; SynFlow in 5 rounds, not its 100."""
    criterion = criteria.get(name)
    return dataclasses.replace(criterion, rounds=min(5, criterion.rounds))


class Recorder:
    """A criterion that remembers its first scores, those of the dense network."""

    def __init__(self, criterion: Criterion) -> None:
        self.scores: Scores = {}
        self.criterion = dataclasses.replace(criterion, score=self._score)
        self._function = criterion.score

    def _score(self, model: nn.Module, context: ScoringContext) -> Scores:
        scores = self._function(model, context)
        self.scores = self.scores or scores
        return scores

    @property
    def plain(self) -> ScoreFunction:
        return lambda model, context: self.scores


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with a structure, and how their units are counted."""

    model: nn.Module
    structure: Structure
    protect: tuple[str, ...] = ()

    @functools.cached_property
    def layouts(self) -> dict[str, Layout]:
        shut = {f"{name}.weight" for name in self.protect}
        fitting = weight_layouts(self.model).items()
        return {name: layout for name, layout in fitting if self.structure.fits(layout) and name not in shut}

    def alive(self, masks: Masks) -> dict[str, Tensor]:
        return {name: self.structure.alive(masks[name].keep, layout) for name, layout in self.layouts.items()}

    def assert_sound(self, masks: Masks, earlier: Masks | None, target: float | None) -> None:
        """Exact, nested, no layer dead, what has no units untouched, no storage of anything else."""
        alive = self.alive(masks)
        if target is not None:
            total = sum(units.numel() for units in alive.values())
            assert total - sum(int(units.sum()) for units in alive.values()) == round(target * total)
        if self.structure.sparsity is not None:
            assert all(masks[name].kept == round((1 - self.structure.sparsity) * masks[name].total) for name in alive)
        assert all(units.any() for units in alive.values())
        assert all(mask.kept == mask.total for name, mask in masks.items() if name not in alive)
        for name, units in alive.items():  # units go whole
            before = torch.ones_like(masks[name].keep) if earlier is None else earlier[name].keep
            assert torch.equal(masks[name].keep, self.structure.spread(units, self.layouts[name]) & before)
        tensors = [mask.keep for mask in masks.values()]
        others = [*self.model.parameters(), *(mask.keep for mask in (earlier or {}).values())]
        assert_no_shared_storage(tensors, others)


def assert_no_shared_storage(tensors: list[Tensor], others: list[Tensor]) -> None:
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors]
    assert len(set(storages)) == len(storages)
    assert not {tensor.untyped_storage().data_ptr() for tensor in others} & set(storages)


@pytest.mark.parametrize("criterion", criteria)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("model", NETWORKS)
def test_every_combination_is_run_or_refused(model: str, structure: str, criterion: str) -> None:
    layer = UNDIVIDED.get((model, structure))
    case = Case(network(model), make_structure(structure), () if layer is None else (layer,))
    recorder = Recorder(affordable(criterion))
    asked = {"sparsity": None if structure in FIXED else 0.4, "structure": structure, "batches": batches(model)}
    before = everything_of(case.model)
    says = refusal(NO_SCORES, models=model, criteria=criterion, structures=structure)
    if says is not None:
        with pytest.raises(PruningError, match=says):
            prune(case.model, criterion=criterion, **asked, protect=case.protect)
        assert_same(before, everything_of(case.model))
        return
    if layer is not None:
        with pytest.raises(PruningError, match=rf"{layer}\.weight: its .* do(es)? not divide into"):
            prune(case.model, criterion=criterion, **asked)
    end_to_end(case, recorder, model)
    for distribution, schedule in itertools.product(distributions, schedules):
        says = refusal(NO_PLAN, structures=structure, distributions=distribution, schedules=schedule)
        if says is None:
            spread_over_rounds(case, recorder.plain, distribution, schedule)
        else:
            with pytest.raises(PruningError, match=says):
                spread_over_rounds(case, recorder.plain, distribution, schedule)
    if structure not in FIXED:
        rates_over_rounds(case, recorder.plain)
    assert_same(before, everything_of(case.model))


def end_to_end(case: Case, recorder: Recorder, model: str) -> None:
    """Really scored, twice the same; and again under the masks of the first time."""
    options = {"criterion": recorder.criterion, "structure": case.structure, "batches": batches(model)}
    options["protect"] = case.protect
    first, more = (None, None) if case.structure.sparsity else (0.4, 0.5)
    masks = prune(case.model, first, **options)
    case.assert_sound(masks, None, first)
    scores = list(recorder.scores.values())
    assert_no_shared_storage([score for score in scores if score.numel()], [*case.model.parameters()])
    assert masks == prune(case.model, first, **options)
    again = prune(case.model, more, **options, masks=masks)
    case.assert_sound(again, masks, more)


def spread_over_rounds(case: Case, scores: ScoreFunction, distribution: str, schedule: str) -> None:
    masks: Masks | None = None
    chosen = PerLayerRates(0.2) if distribution == "rates" else distribution
    for target in schedules.get(schedule)(TARGET, 1 if schedule == "one-shot" else ROUNDS):
        new = prune(case.model, target, scores, case.structure, chosen, masks, protect=case.protect)
        case.assert_sound(new, masks, target)
        masks = new
    assert masks is not None


def rates_over_rounds(case: Case, scores: ScoreFunction) -> None:
    """Each layer loses its share of the survivors, to the unit."""
    masks = Masks.full(case.model)
    rates = PerLayerRates(0.3, {next(iter(case.layouts)): 0.1})
    for _ in range(ROUNDS):
        new = prune(case.model, None, scores, case.structure, rates, masks, protect=case.protect)
        case.assert_sound(new, masks, None)
        for index, (now, before) in enumerate(zip(case.alive(new).values(), case.alive(masks).values(), strict=True)):
            assert int(now.sum()) == int(before.sum()) - round((0.3 if index else 0.1) * int(before.sum()))
        masks = new


@functools.cache
def plain_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(13, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))


def scores_of_levels(levels: int, seed: int) -> ScoreFunction:
    """Scores of so many distinct values: with few of them ties are the rule."""

    def score(model: nn.Module, context: ScoringContext) -> Scores:
        generator = torch.Generator().manual_seed(seed)
        shapes = {name: p.shape for name, p in prunable_parameters(model).items()}
        return {name: torch.randint(levels, shape, generator=generator) / levels for name, shape in shapes.items()}

    return score


@pytest.mark.parametrize("distribution", [name for name in distributions if name != "rates"])
@given(
    sparsity=st.floats(0, 0.93),
    further=st.floats(0, 0.03),
    levels=st.sampled_from([1, 3, 10**6]),
    min_keep=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_exactly_round_s_n_go_at_any_sparsity(
    distribution: str, sparsity: float, further: float, levels: int, min_keep: int, seed: int
) -> None:
    options = {"distribution": distribution, "min_keep": min_keep}
    masks = prune(plain_net(), sparsity, scores_of_levels(levels, seed), **options)
    assert masks.total - masks.kept == round(sparsity * masks.total)
    assert all(mask.kept >= min_keep for mask in masks.values())
    more = prune(plain_net(), sparsity + further, scores_of_levels(levels, seed + 1), **options, masks=masks)
    assert more.total - more.kept == round((sparsity + further) * more.total)
    assert more <= masks


@pytest.mark.parametrize("schedule", schedules)
@given(target=st.floats(0, 0.999), start=st.floats(0, 0.999), rounds=st.integers(1, 40))
@settings(max_examples=60)
def test_schedules_never_fall_and_end_on_the_target_itself(
    schedule: str, target: float, start: float, rounds: int
) -> None:
    start = min(start, target)
    sparsities = schedules.get(schedule)(target, rounds, start)
    assert len(sparsities) == rounds
    assert sparsities[-1] == target
    steps = [start, *sparsities]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(steps))


def test_every_criterion_says_in_a_sentence_what_it_is() -> None:
    for name in criteria:
        assert 10 < len(criteria.get(name).description) < 200
