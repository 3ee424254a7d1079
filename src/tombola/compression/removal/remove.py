"""`remove_units`: a smaller network that computes what the masked one does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import nn

from tombola.compression.removal.choosing import unprotected
from tombola.compression.removal.following import read
from tombola.compression.removal.groups import Grouped, Unit, group
from tombola.compression.removal.masked import Masked
from tombola.compression.removal.plan import Plan, does_not_run, masked_and_smaller
from tombola.compression.removal.result import GroupChange, Removed, Stayed, changes, cut_masks, removal_of
from tombola.compression.removal.trace import Example, trace
from tombola.compression.removal.verify import TOLERANCE, difference, with_statistics_of_chance
from tombola.errors import ModelError, PruningError, one_line_by_name
from tombola.models.removed import Removal, parameters, shrink
from tombola.pruning.copies import copy_of
from tombola.pruning.mask import Mask
from tombola.pruning.masks import Masks
from tombola.pruning.wrapped import unwrapped


def remove_units(model: nn.Module, what: Masks | Plan, example: Example, protect: Sequence[str] = ()) -> Removed:
    """A smaller copy of `model` without the units that masks leave without effect, or that a plan names.

    Proved at once: the smaller model gives what the masked one gives, also with batch-norm statistics of chance. Of a
    plan, *masked* means that nobody reads the unit. Constants that masked units still give (a bias that passes a ReLU
    or batch norm) are kept: they are added to the next bias, or one unit stays and carries them.

    Args:
        model: Any module that torch.export can trace; it is not changed.
        what: Masks, such as `prune(model, 0.5, structure="filter")` gives, or the plan of `plan_removal`.
        example: What the model is called with.
        protect: Layers that keep all units (for masks; a plan has its own).

    Returns:
        Removed: the model, its masks, the record, and which masked units had to stay and why.

    Raises:
        ModelError: where the model cannot be traced, or the smaller one does not run or gives something else.
        PruningError: for masks of another model, an unknown operation that meets a masked unit.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from tombola import prune
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> removed = remove_units(model, prune(model, 0.5, structure="neuron", protect=["2"]), torch.zeros(2, 8))
        >>> removed.parameters_before, removed.parameters_after
        (68, 24)
    """
    wrapped, model = model, unwrapped(model)
    if isinstance(what, Plan):
        return _planned(model, what, example)
    if not isinstance(what, Masks):
        raise PruningError(f"remove_units takes Masks or a Plan, not a {type(what).__name__}")
    masks = what.of(wrapped).of(model)
    traced = trace(model, example)
    problem = ModelError("the model has no units")
    for fixed_sizes in (False, True):
        grouped = group(read(traced, fixed_sizes=fixed_sizes))
        try:
            return _checked_masks(model, masks, grouped, example, protect)
        except PruningError:
            raise
        except Exception as error:  # the model's own code has the old sizes; or it has them and runs all the same
            problem = error if isinstance(error, ModelError) else does_not_run(one_line_by_name(error))
    raise problem


def _planned(model: nn.Module, plan: Plan, example: Example) -> Removed:
    gone, grouped = list(plan.gone), plan.grouped
    removal = removal_of(grouped, gone)

    masks = Masks.full(model) if plan.masks is None else plan.masks
    reference, smaller = masked_and_smaller(model, plan.masks, grouped, gone)
    error = _agree(reference, copy_of(smaller), example)
    if (other := with_statistics_of_chance(model)) is not None:
        error = max(error, _agree(*masked_and_smaller(other, plan.masks, grouped, gone), example))
    small_masks = cut_masks(masks.of(model), removal)
    return _result(model, smaller, small_masks, removal, changes(grouped, gone), (), error)


def _checked_masks(
    model: nn.Module, masks: Masks, grouped: Grouped, example: Example, protect: Sequence[str]
) -> Removed:
    reference, smaller, masked, gone = _under_masks(copy_of(model), masks, grouped, protect)
    error = _agree(reference, copy_of(smaller), example)
    if (other := with_statistics_of_chance(model)) is not None:  # other constants: the whole way again
        error = max(error, _agree(*_under_masks(other, masks, grouped, protect)[:2], example))
    removal = removal_of(grouped, gone)
    kept = Masks({name: Mask(masked.keeps[name]) for name in masks})
    stayed = _stayed(masked, masks, gone)
    return _result(model, smaller, cut_masks(kept, removal), removal, changes(grouped, gone), stayed, error)


def _under_masks(
    model: nn.Module, masks: Masks, grouped: Grouped, protect: Sequence[str]
) -> tuple[nn.Module, nn.Module, Masked, list[Unit]]:
    """The masked model, which `model` becomes, the smaller one, how it was found and what is gone."""
    training = [module.training for module in model.modules()]
    reference = model.eval()
    masks.apply_(reference)
    smaller = copy_of(reference)
    open_ = {unit.label for g in unprotected(reference, grouped, protect, _is_masked(masks)) for unit in g.units}
    pinned = {u.label: "its layer is protected" for g in grouped.free for u in g.units if u.label not in open_}
    masked = Masked(grouped, smaller, {name: mask.keep.clone() for name, mask in masks.items()}, pinned)
    gone = masked.removable()
    masked.fold(gone)
    shrink(smaller, removal_of(grouped, gone))
    for module, mode in zip(smaller.modules(), training, strict=True):
        module.training = mode
    return reference, smaller, masked, gone


def _stayed(masked: Masked, masks: Masks, gone: Sequence[Unit]) -> tuple[Stayed, ...]:
    labels = {unit.label for unit in gone}
    is_masked = _is_masked(masks)
    found: Counter[tuple[str, str]] = Counter()
    for group_ in masked.grouped.groups:
        for unit in group_.units:
            if unit.label not in labels and is_masked(unit):
                reason = unit.lock.reason if unit.lock is not None else masked.reason(unit)
                found[group_.name, reason] += 1
    return tuple(Stayed(name, count, reason) for (name, reason), count in found.items())


def _is_masked(masks: Masks) -> Callable[[Unit], bool]:
    """Whether masks remove all that some layer computes of a unit, or all that some layer reads of it."""

    def is_masked(unit: Unit) -> bool:
        for (tensor, dim), indices in unit.places.items():
            keep = masks[tensor].keep if tensor in masks else None
            if keep is not None and not bool(keep.index_select(dim, torch.from_numpy(indices)).any()):
                return True
        return False

    return is_masked


def _agree(reference: nn.Module, smaller: nn.Module, example: Example) -> float:
    error = difference(reference, smaller, example)
    if not error <= TOLERANCE:
        raise ModelError(f"its outputs differ from the masked model's by {error:.1e} of the largest one")
    return error


def _result(
    model: nn.Module,
    smaller: nn.Module,
    masks: Masks,
    removal: Removal,
    groups: tuple[GroupChange, ...],
    stayed: tuple[Stayed, ...],
    error: float,
) -> Removed:
    before, after = parameters(model), parameters(smaller)
    return Removed(smaller, masks, removal, groups, stayed, before, after, error)
