"""`plan_removal`: which units a model is to lose, before any goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional

from tombola.compression.removal.choosing import Choice, choose, silence
from tombola.compression.removal.following import read
from tombola.compression.removal.groups import Grouped, Unit, group, places_of
from tombola.compression.removal.result import GroupChange, Stayed, changes, removal_of
from tombola.compression.removal.trace import Example, trace
from tombola.compression.removal.verify import TOLERANCE, difference
from tombola.errors import ModelError, one_line_by_name
from tombola.models.removed import parameters, shrink
from tombola.pruning.copies import copy_of
from tombola.pruning.criteria import Criterion, Loss
from tombola.pruning.masks import Masks
from tombola.pruning.wrapped import unwrapped


@dataclass(frozen=True)
class Plan:
    """What is to go of a model: made by `plan_removal`, done by `remove_units`.

    `parameters` is how many the smaller model will have.
    """

    groups: tuple[GroupChange, ...]
    bound: tuple[Stayed, ...]
    parameters: int
    grouped: Grouped
    gone: tuple[Unit, ...]
    masks: Masks | None


def plan_removal(
    model: nn.Module,
    sparsity: float,
    example: Example,
    criterion: str | Criterion = "magnitude",
    *,
    ranking: str = "group",
    round_to: int = 1,
    masks: Masks | None = None,
    protect: Sequence[str] = (),
    batches: Iterable[Any] | None = None,
    loss: Loss = functional.cross_entropy,
    seed: int = 0,
) -> Plan:
    """Which units (neurons, channels, heads) a model is to lose. Nothing is changed.

    A unit is everything that must go together: a channel of a residual stream in every layer that writes or reads it.
    Units that cannot go (the model's own outputs, what a layer norm takes together) are not counted.

    Args:
        model: Any module that torch.export can trace.
        sparsity: The fraction of the units that can go, in [0, 1).
        example: What the model is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        criterion: What a weight is worth; a unit is worth the mean over the weights that compute it.
        ranking: `group`: every group of coupled layers loses that fraction; `global`: all units compete.
        round_to: What stays of a group is a multiple of this number.
        masks: Of a model that is pruned already.
        protect: Names or patterns of layers that keep all units.
        batches: For criteria that need gradients or activations.
        loss: For such criteria.
        seed: For criteria that use chance.

    Returns:
        Plan: `groups` with units before and after, `bound` with what cannot go and why, `parameters` in the end.

    Raises:
        ModelError: where the model cannot be traced.
        PruningError: for an operation that is not known and meets units, naming it; where nothing can go.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> plan = plan_removal(model, 0.5, torch.zeros(2, 8))
        >>> plan.groups, plan.parameters
        ((GroupChange(name='0', before=6, after=3),), 35)
    """
    model = unwrapped(model)
    masks = None if masks is None else masks.of(model)
    choice = Choice(sparsity, criterion, ranking, round_to, tuple(protect), batches, loss, seed)
    traced = trace(model, example)
    problem: ModelError | None = None
    for fixed_sizes in (False, True):
        grouped = group(read(traced, fixed_sizes=fixed_sizes))
        gone = choose(model, grouped, choice, masks)
        reference, smaller = masked_and_smaller(model, masks, grouped, gone)
        number = parameters(smaller)
        try:
            error = difference(reference, smaller, example)
        except Exception as raised:  # the model's own code has the old sizes
            problem = does_not_run(one_line_by_name(raised))
            continue
        if not error <= TOLERANCE:  # it has them, and runs all the same: of fewer heads it makes smaller ones
            problem = ModelError(
                f"the smaller model's outputs differ from the masked one's by {error:.1e} of the largest: its own code "
                "keeps a number of units; give the module that does a method units_removed() that sets it anew, or "
                "protect its layers"
            )
            continue
        bound = tuple(Stayed(g.name, len(g.units), g.units[0].lock.reason) for g in grouped.bound if g.units[0].lock)
        return Plan(changes(grouped, gone), bound, number, grouped, tuple(gone), masks)
    assert problem is not None
    raise problem


def masked_and_smaller(
    model: nn.Module, masks: Masks | None, grouped: Grouped, gone: Sequence[Unit]
) -> tuple[nn.Module, nn.Module]:
    """Copies of a model: one in which nobody reads the units that go, and one in which they are gone."""
    reference = copy_of(model)
    if masks is not None:
        masks.apply_(reference)
    smaller = copy_of(reference)
    silence(reference, places_of(gone), grouped)
    shrink(smaller, removal_of(grouped, gone))
    return reference, smaller


def does_not_run(problem: str) -> ModelError:
    """Of a model whose own code has sizes in it that nobody can change."""
    return ModelError(
        f"the smaller model does not run: {problem}; its own code keeps a number of units: give the module that does "
        "a method units_removed() that sets it anew, or protect its layers"
    )
