"""Dynamic sparse training: one update of the topology. Weights are dropped, as many others grow in their place.

When to update, and what becomes of the values of weights that come and go, is the business of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from tombola.errors import PruningError
from tombola.pruning.mask import Mask
from tombola.pruning.masks import Masks
from tombola.pruning.scalars import plain
from tombola.pruning.selection import lowest


def regrow(masks: Masks, drop: Mapping[str, Tensor], grow: Mapping[str, Tensor], fraction: float) -> Masks:
    """New masks in which `fraction` of each layer's kept weights were dropped and as many inactive ones grown.

    In every layer k = round(fraction · kept): the k kept weights of lowest `drop` score go, then the k inactive
    ones of highest `grow` score become active, so that the layer's density stays constant to the weight. What
    was just dropped is inactive, too, and may grow again at once, as in the authors' code of RigL; a dense
    layer therefore stays as it is. Both choices are those of a stable sort: ties by position, the first first.
    `drop` and `grow` hold one score tensor of the mask's shape per mask; `masks` are not changed.

    Drop |w|, grow at random: SET, Mocanu et al. 2018 (arXiv 1707.04780). Drop |w|, grow |dL/dw|: RigL, Evci et
    al. 2020 (arXiv 1911.11134, Algorithm 1). Raises PruningError for names or shapes that do not fit the masks,
    for NaN scores and for a fraction outside [0, 1].
    """
    fraction = plain(fraction)
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not 0 <= fraction <= 1:
        raise PruningError(f"fraction says how many of the kept weights to drop, in [0, 1], not {fraction!r}")
    _check_scores(masks, drop, "drop")
    _check_scores(masks, grow, "grow")
    return Masks({name: _regrow_layer(mask, drop[name], grow[name], fraction) for name, mask in masks.items()})


def cosine_fraction(fraction: float, iteration: int, end: int) -> float:
    """The fraction of weights to update at `iteration`: fraction/2 · (1 + cos(π t / end)), 0 from `end` on.

    f_decay of Evci et al. 2020 (arXiv 1911.11134, section 3).
    """
    return fraction * (1 + math.cos(math.pi * iteration / end)) / 2 if iteration < end else 0.0


def _regrow_layer(mask: Mask, drop: Tensor, grow: Tensor, fraction: float) -> Mask:
    active = mask.keep.reshape(-1).clone()
    count = round(fraction * mask.kept)
    active &= ~lowest(drop.reshape(-1), count, among=active)
    # At least the dropped ones are inactive now, so there are always enough to grow.
    active |= lowest(-grow.reshape(-1), count, among=~active)
    return Mask(active.view(mask.shape))


def _check_scores(masks: Masks, scores: Mapping[str, Tensor], kind: str) -> None:
    odd = sorted(set(masks) ^ set(scores))
    if odd:
        raise PruningError(f"the {kind} scores do not belong to these masks: they differ in {', '.join(odd)}")
    for name, mask in masks.items():
        if scores[name].shape != mask.shape:
            shapes = f"{tuple(scores[name].shape)} do not fit a mask of shape {tuple(mask.shape)}"
            raise PruningError(f"{name}: {kind} scores of shape {shapes}")
        if not scores[name].is_floating_point():
            raise PruningError(f"{name}: {kind} scores are floating-point numbers, not {scores[name].dtype}")
        if bool(scores[name].isnan().any()):
            raise PruningError(f"{name}: NaN {kind} scores cannot be ranked")
