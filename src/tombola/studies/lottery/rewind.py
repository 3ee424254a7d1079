"""Rewinding: what the kept weights of a round restart from, and on which part of the recipe.

* `init`: W_0, the weights before any training (Frankle & Carbin 2019, arXiv 1803.03635);
* `step:K`: W_K, the dense network's weights after K, and training goes on from K (Frankle et al. 2020, arXiv
  1912.05671), K being a length such as `500it` or `1ep`;
* `lr`: the weights stay as trained, the learning-rate schedule starts again (Renda et al. 2020, arXiv
  2003.02389);
* `finetune`: the weights stay as trained and go on at one low rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.models.tensors import same_bits
from tombola.pruning import Masks
from tombola.training import Recipe, Step

KINDS = ("init", "step", "lr", "finetune")


@dataclass(frozen=True)
class Rewind:
    """A mode of rewinding; `step` belongs to the kind `step`. Parsed from and written as text."""

    kind: str
    step: Step = Step()  # noqa: RUF009 (immutable)

    @classmethod
    def parse(cls, text: str) -> Rewind:
        """`init`, `step:500it`, `step:500`, `lr` or `finetune`; ValueError for anything else."""
        kind, colon, step = text.partition(":") if isinstance(text, str) else ("", "", "")
        if kind not in KINDS or bool(colon) != (kind == "step"):
            raise ValueError(f"rewind to init, step:500it, lr or finetune, not {text!r}")
        if kind != "step":
            return cls(kind)
        return cls(kind, Step.parse(f"{step}it" if step.isdigit() else step))

    def __str__(self) -> str:
        return f"step:{self.step}" if self.kind == "step" else self.kind

    @property
    def keeps_weights(self) -> bool:
        """Whether a round goes on from the weights that the round before ended with."""
        return self.kind in ("lr", "finetune")

    def recipe(self, recipe: Recipe, per_epoch: int) -> Recipe:
        """The recipe by which a rewound network trains."""
        return recipe.fine_tuning(per_epoch) if self.kind == "finetune" else recipe

    def first(self, per_epoch: int) -> int:
        """The iteration of the recipe at which a rewound network begins."""
        return self.step.iterations(per_epoch)


@dataclass(frozen=True)
class Start:
    """What a training starts from: weights, masks, the recipe and the iteration of it to begin with.

    `earlier` are the masks that the new ones must lie within, for a ticket.
    """

    state: Mapping[str, Tensor]
    masks: Masks
    recipe: Recipe
    first: int = 0
    earlier: Masks | None = None


def rewind(model: nn.Module, start: Mapping[str, Tensor], masks: Masks, unsaved: Mapping[str, Tensor]) -> None:
    """Sets all of `model` to `start`, what no file keeps to `unsaved`, and its removed weights to 0, in place."""
    load_whole(model, start, unsaved)
    masks.apply_(model)


def load_whole(model: nn.Module, state: Mapping[str, Tensor], unsaved: Mapping[str, Tensor]) -> None:
    """Sets `model` to `state`, and what no file keeps to `unsaved`: what was trained before leaves no trace in it."""
    model.load_state_dict(dict(state), strict=True)
    for name, buffer in model.named_buffers():
        if name in unsaved:
            buffer.copy_(unsaved[name])


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of what a model keeps beside its state: buffers that its code calls not persistent, which no file has."""
    saved = model.state_dict().keys()
    return {name: buffer.clone() for name, buffer in model.named_buffers() if name not in saved}


def is_rewound(model: nn.Module, start: Mapping[str, Tensor], masks: Masks) -> bool:
    """Whether every kept weight, and all that is never pruned, is bit-equal to `start`, and the rest 0."""
    state = model.state_dict()
    for name, tensor in start.items():
        expected = torch.where(masks[name].keep, tensor, torch.zeros_like(tensor)) if name in masks else tensor
        if not same_bits(state[name], expected):
            return False
    return len(state) == len(start)
