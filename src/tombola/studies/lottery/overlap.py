"""Mask overlap: how many of a ticket's weights another replicate's ticket keeps too.

Replicates start from different weights, so their tickets share what the architecture and the data favour, and
no more than chance where nothing does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tombola.models.tensors import load_own
from tombola.pruning import Masks
from tombola.pruning.prunable import prunable_shapes
from tombola.runs.rows import Row
from tombola.studies.lottery.networks import outline
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind
from tombola.studies.lottery.stored import ReplicateFiles, pruned_masks


def overlap_units(result: Result) -> list[list[Row]]:
    """Units of rows, one per replicate, mode and round: its overlap with each replicate before it.

    `shared` is |A and B| / |A|; `shared_by_chance` what independent masks of the same densities, layer by layer,
    would share on average.
    """
    replicates = sorted({row["replicate"] for row in result.rows})
    rounds = sorted({row["round"] for row in result.rows if row["branch"] == "ticket"})
    if result.config.task is None:
        shapes = prunable_shapes(outline(result.config, result.data["input_shape"], result.data["classes"]))
    else:  # no code of somebody's own is called for what W_0 says as well
        first, _ = load_own(ReplicateFiles.of(result.folder.checkpoints, replicates[0]).initial)
        layers = {row["layer"] for row in result.rows if row["kind"] == "layer"}
        shapes = {name: tensor.shape for name, tensor in first.items() if name in layers}
    like = {name: torch.empty(shape, dtype=torch.bool, device="meta") for name, shape in shapes.items()}
    units = []
    for mode in result.config.rewinds:
        for index in rounds:
            masks = {
                i: pruned_masks(ReplicateFiles.of(result.folder.checkpoints, i), mode, index, like) for i in replicates
            }
            units += [_unit(mode, index, i, masks, replicates[:position]) for position, i in enumerate(replicates)]
    return [unit for unit in units if unit]


def _unit(mode: Rewind, index: int, replicate: int, masks: dict[int, Masks], earlier: Sequence[int]) -> list[Row]:
    mine = masks[replicate]
    return [
        {
            "kind": "overlap",
            "replicate": replicate,
            "rewind": str(mode),
            "round": index,
            "branch": "overlap",
            "other": other,
            "density": mine.density,
            "shared": (mine & masks[other]).kept / mine.kept,
            "shared_by_chance": sum(m.kept * masks[other][name].density for name, m in mine.items()) / mine.kept,
        }
        for other in earlier
    ]
