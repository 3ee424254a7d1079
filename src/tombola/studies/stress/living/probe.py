"""The plasticity probe: how well a copy of a network learns a language that it never meets otherwise.

As in recent work on how language models of GPT's form lose plasticity (arXiv 2606.24752): the loss after a fixed
number of steps, beside that of a fresh network under the same mask.
"""

from __future__ import annotations

from torch import nn

from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.runs.rows import Row
from tombola.training import Recipe, fit
from tombola.training.completions import Completions
from tombola.training.trained import Evaluation


def probed(network: nn.Module, masks: Masks, task: Completions, recipe: Recipe, seed: int) -> Row:
    """Trains a copy by `recipe` on the held-out language: its held-out loss after that, and on the way (`curve`)."""
    copy = copy_of(network)
    before = task.scores(copy, "validation").loss
    curve: list[list[float]] = [[0, before]]

    def look(evaluation: Evaluation, total: int) -> None:
        curve.append([evaluation.iteration, evaluation.loss])

    fit(copy, task, recipe, masks, seed, on_evaluation=look)
    return {"steps": curve[-1][0], "nats": curve[-1][1], "nats_before": before, "curve": curve}
