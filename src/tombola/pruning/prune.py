"""`prune`: the verb. Score, pool to units, share the target over layers, remove the lowest; nothing else."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from tombola.errors import PruningError
from tombola.pruning.criteria import (
    Criterion,
    Loss,
    Needs,
    ScoreFunction,
    Scores,
    ScoringContext,
    checked_batches,
    make_criterion,
)
from tombola.pruning.criteria.network import at_least_float32
from tombola.pruning.distributions import Distribution, LayerUnits, PerOutput, make_distribution
from tombola.pruning.emptied import nearly_empty, warn_of_nearly_empty
from tombola.pruning.mask import Mask
from tombola.pruning.masks import Masks
from tombola.pruning.protect import protected_names
from tombola.pruning.prunable import SHOWN, Layout, listed, prunable_parameters, unsupported_parameters, weight_layouts
from tombola.pruning.scalars import plain
from tombola.pruning.schedules import geometric
from tombola.pruning.selection import lowest
from tombola.pruning.structures import Neuron, Structure, Weight, make_structure
from tombola.pruning.surroundings import surroundings_kept
from tombola.pruning.units import count_units, fraction_removed
from tombola.pruning.wrapped import unwrapped


class UnsupportedParameterWarning(UserWarning):
    """A parameter with two or more axes is left as it is, because it is no weight that Tombola can prune."""


def prune(
    model: nn.Module,
    sparsity: float | None = None,
    criterion: str | Criterion | ScoreFunction = "magnitude",
    structure: str | Structure = "weight",
    distribution: str | Distribution = "global",
    masks: Masks | None = None,
    batches: Iterable[Any] | None = None,
    *,
    loss: Loss = functional.cross_entropy,
    protect: Sequence[str] = (),
    min_keep: int = 1,
    seed: int = 0,
) -> Masks:
    """Masks that remove exactly `round(sparsity * N)` of the model's N units. The model is not changed.

    Units go in the order of a stable sort of their scores: ties by position. Layers without units of the structure are
    left as they are. Other layers give up what protected layers and `min_keep` keep, so that the total stays exact.

    Args:
        model: Any module with Linear, convolution or attention weights, on the device and in the mode that it is in.
        sparsity: The fraction of units to remove, in [0, 1], earlier `masks` included. None where the distribution or
            the structure fixes it (`PerLayerRates`, n:m).
        criterion: What a unit is worth: a name of `tombola.pruning.criteria`, a Criterion, or a function from the model
            to scores by parameter name.
        structure: What is removed whole: `weight`, `neuron`, `filter`, `channel`, `block:4x4`, `2:4`, ...
        distribution: How the fraction spreads over layers: `global`, `uniform`, `erk`, `per-output`, ...
        masks: Earlier masks: what they removed stays removed and is never ranked again.
        batches: Pairs of (inputs, targets) for criteria that need gradients or activations; all of them are used.
        loss: Takes what the model gives and the targets, gives one number.
        protect: Names or patterns of layers that keep everything.
        min_keep: Units that every layer keeps at least.
        seed: Of criteria that use chance.

    Returns:
        Masks: one boolean tensor per prunable parameter, True = keep.

    Raises:
        PruningError: for a target that cannot be met (it names the layer), pieces that do not go together, NaN or
            infinite weights, NaN scores, a model without prunable weights, masks of another model.

    Warns:
        UnsupportedParameterWarning: names matrices that it cannot prune, unless they are protected.
        NearlyEmptyLayerWarning: names layers of which next to nothing is left.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
        >>> masks = prune(model, 0.9)
        >>> masks.total, masks.kept
        (238200, 23820)
        >>> masks.apply_(model)
        >>> masks.removed_nonzeros(model)
        0
    """
    sparsity, min_keep, seed = plain(sparsity), plain(min_keep), plain(seed)
    _check_arguments(model, sparsity, min_keep, masks, loss, seed)
    wrapped, model = model, unwrapped(model)
    parameters = prunable_parameters(model)
    _refuse_broken(parameters)
    # Ranks and ties are decided on the CPU, wherever scores come from: alike, and in numbers of 64 bits.
    masks = (Masks.full(model) if masks is None else masks.of(model)).cpu()
    unsupported = unsupported_parameters(model)
    protected = protected_names([*parameters, *unsupported], protect)
    _name_unsupported(model, [name for name in unsupported if name not in protected])
    with surroundings_kept():  # a DataLoader draws from the caller's random numbers
        pruning = _Pruning(
            model=model,
            criterion=make_criterion(criterion),
            structure=make_structure(structure),
            distribution=distribution,
            protected=protected,
            context=ScoringContext(seed, checked_batches(batches), loss),
            min_keep=min_keep,
        )
        for target in pruning.targets(sparsity, masks):
            masks = pruning.once(target, masks)
    warn_of_nearly_empty(nearly_empty(masks, weight_layouts(model), pruning.structure), (distribution, criterion))
    return masks.of(wrapped)


@dataclass(frozen=True)
class _Pruning:
    """The pieces of one call of `prune`, refused by name where they do not go together."""

    model: nn.Module
    criterion: Criterion
    structure: Structure
    distribution: str | Distribution
    protected: set[str]
    context: ScoringContext
    min_keep: int

    def __post_init__(self) -> None:
        criterion, structure = self.criterion.name, self.structure.name
        if self.criterion.outputs_only and not isinstance(self.structure, Neuron):
            raise PruningError(
                f"the criterion {criterion!r} scores whole outputs and does not go with the structure {structure!r}; "
                "use neuron or filter"
            )
        if self.structure.sparsity is not None and self.distribution not in ("global", "uniform"):
            raise PruningError(f"the structure {structure!r} fixes every layer's sparsity: leave the distribution out")
        if isinstance(self.made_distribution, PerOutput) and not isinstance(self.structure, Weight):
            raise PruningError(
                f"the distribution 'per-output' compares the weights of an output and does not go with the structure "
                f"{structure!r}; use the structure 'weight', or the distribution 'uniform'"
            )

    @functools.cached_property
    def made_distribution(self) -> Distribution:
        return make_distribution(self.distribution)

    @functools.cached_property
    def layouts(self) -> dict[str, Layout]:
        """The layers that have such units, by the name of their weight."""
        found = {n: layout for n, layout in weight_layouts(self.model).items() if self._has_units(n, layout)}
        if not found:
            raise PruningError(
                f"no layer of the model has units of the structure {self.structure.name!r}: neurons are the outputs of "
                "Linear layers, filters and channels belong to convolutions"
            )
        if self.protected.issuperset(found):
            raise PruningError(f"every layer with units of the structure {self.structure.name!r} is protected")
        return found

    def _has_units(self, name: str, layout: Layout) -> bool:
        """Whether the layer has such units; PruningError naming it when it should but does not divide into them."""
        if not (layout.shape.numel() and self.structure.fits(layout)):
            return False
        try:
            self.structure.check(layout)
        except PruningError as error:
            if name in self.protected:
                return False
            raise PruningError(f"{name}: {error}") from None
        return True

    def targets(self, sparsity: float | None, masks: Masks) -> list[float | None]:
        """The sparsities to prune to one after the other: one, unless the criterion works in rounds."""
        if self.structure.sparsity is not None:
            if sparsity is not None and not math.isclose(sparsity, self.structure.sparsity):
                raise PruningError(
                    f"the structure {self.structure.name!r} removes {self.structure.sparsity:g} of the weights of "
                    f"every layer it takes, not {sparsity:g}; leave the sparsity out"
                )
            return [None]
        if sparsity is None or self.criterion.rounds == 1:
            return [sparsity]
        start = fraction_removed(count_units(self.model, masks, self.structure))
        return [sparsity] if sparsity <= start else list(geometric(sparsity, self.criterion.rounds, start))

    def once(self, sparsity: float | None, masks: Masks) -> Masks:
        """One round of scoring and removing."""
        layers = self._layers(masks)
        counts = self._counts(layers, sparsity, masks)
        kept = {
            layer.name: self._without_lowest(layer, count, masks[layer.name])
            for layer, count in zip(layers, counts, strict=True)
            if count
        }
        # Also what loses nothing is a mask of its own: a later `update` of it must not reach the earlier masks.
        return Masks({name: kept[name] if name in kept else Mask(mask.keep) for name, mask in masks.items()})

    def _layers(self, masks: Masks) -> list[LayerUnits]:
        scored = [name for name in self.layouts if name not in self.protected]
        context = dataclasses.replace(
            self.context,
            masks=masks if masks.kept < masks.total else None,
            names=frozenset(scored),
            sum_over_units=lambda name, tensor: self.structure.sum_over_units(tensor, self.layouts[name]),
        )
        scores = self._scores(context)
        return [
            LayerUnits(
                name,
                self._ranked(name, scores, masks[name]) if name in scored else torch.empty(0),
                self.structure.alive(masks[name].keep, layout),
                layout.matrix,
                protected=name in self.protected,
            )
            for name, layout in self.layouts.items()
        ]

    def _scores(self, context: ScoringContext) -> Scores:
        scores = self.criterion(self.model, context)
        if self.criterion.needs is not Needs.WEIGHTS and not any(bool(score.any()) for score in scores.values()):
            raise PruningError(
                f"the criterion {self.criterion.name!r} scores every weight 0: the loss does not depend on the weights "
                "(the cross-entropy of a single output is always 0: pass your own loss=), or nothing flows"
            )
        return scores

    def _ranked(self, name: str, scores: Scores, mask: Mask) -> Tensor:
        """The scores in whose order units go."""
        pooled = self._pooled(name, scores, mask)
        if isinstance(self.made_distribution, PerOutput):
            return self.made_distribution.ranks(pooled, mask.keep, self.layouts[name])
        return pooled

    def _pooled(self, name: str, scores: Scores, mask: Mask) -> Tensor:
        layout, score = self.layouts[name], scores.get(name)
        if score is None or score.shape != layout.shape:
            raise PruningError(f"{name}: the criterion gave no score tensor of shape {tuple(layout.shape)}")
        if bool(torch.isnan(score).any()):
            raise PruningError(f"{name}: the criterion gave NaN scores")
        score = score.cpu()
        if not isinstance(self.structure, Weight):
            score = at_least_float32(score)  # a mean needs more than half precision
            if not self.criterion.of_units:
                score = mask.apply(score)  # what is removed adds nothing to its unit
        return self.structure.pool(score, mask.keep, layout)

    def _counts(self, layers: Sequence[LayerUnits], sparsity: float | None, masks: Masks) -> list[int]:
        """How many live units each layer loses."""
        if self.structure.sparsity is None:
            return self.made_distribution(layers, sparsity, self.min_keep)
        return [0 if layer.protected else self._fixed_count(layer, masks[layer.name]) for layer in layers]

    def _fixed_count(self, layer: LayerUnits, mask: Mask) -> int:
        """How many live units a layer loses to a structure that fixes its sparsity."""
        try:
            count = self.structure.removals(mask.keep, self.layouts[layer.name])
        except PruningError as error:
            raise PruningError(f"{layer.name}: {error}") from None
        if count > layer.room(self.min_keep):
            raise PruningError(
                f"{layer.name}: {self.structure.name} leaves {layer.alive_count - count} weights, fewer than "
                f"min_keep={self.min_keep}; protect the layer or lower min_keep"
            )
        return count

    def _without_lowest(self, layer: LayerUnits, count: int, mask: Mask) -> Mask:
        units = lowest(layer.scores, count, layer.pool.among).logical_not_()
        units &= layer.alive
        keep = self.structure.spread(units, self.layouts[layer.name])
        return Mask(keep) if isinstance(self.structure, Weight) else Mask(keep & mask.keep)


def _check_arguments(model: Any, sparsity: Any, min_keep: Any, masks: Any, loss: Any, seed: Any) -> None:
    if not isinstance(model, nn.Module):
        raise PruningError(f"prune takes a torch.nn.Module, not {_kind(model)}")
    if not (masks is None or isinstance(masks, Masks)):
        raise PruningError(f"`masks` are Masks, such as prune gives, not {_kind(masks)}")
    if not callable(loss):
        raise PruningError(f"`loss` is a function of what the model gives and the targets, not {_kind(loss)}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise PruningError(f"`seed` is a whole number, not {seed!r}")
    if sparsity is not None:
        number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
        if not number or not 0 <= sparsity < 1:
            raise PruningError(f"sparsity is the fraction of weights to remove, in [0, 1), not {sparsity!r}")
    if isinstance(min_keep, bool) or not isinstance(min_keep, int) or min_keep < 0:
        raise PruningError(f"min_keep is a number of units per layer, not {min_keep!r}")


def _kind(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def _refuse_broken(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if not parameter.numel():
            continue
        try:
            extremes = torch.aminmax(parameter.detach())  # NaN wins both; no copy of the weights is made
        except (NotImplementedError, RuntimeError):
            raise PruningError(f"{name} is {parameter.dtype}: only real floating-point weights can be pruned") from None
        if not (math.isfinite(float(extremes.min)) and math.isfinite(float(extremes.max))):
            raise PruningError(f"{name} holds NaN or infinite weights: the model is broken, train it again")


def _name_unsupported(model: nn.Module, names: Sequence[str]) -> None:
    if not names:
        return
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if not is_lazy(parameter)}
    if len(names) > SHOWN:  # the experts of a mixture before a positional encoding
        names = sorted(names, key=lambda name: -sizes[name])
    left, total = sum(sizes[name] for name in names), sum(sizes.values())
    warnings.warn(
        f"left as they are: {listed(names)}; they are not pruned and not counted ({left:,} of {total:,} parameters, "
        f"{left / max(1, total):.0%}), being no plain weights of Linear or convolution layers (but routers' or other "
        "bare parameters, recurrent, shared with an embedding, under a parametrisation or torch's own pruning); "
        "protect them to say so",
        UnsupportedParameterWarning,
        stacklevel=3,
    )
