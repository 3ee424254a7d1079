"""Masks that change during a training: when, by how much, and to what.

`Gradual` prunes while the network learns; `Dynamic` moves a constant number of weights about. Both only say
what the next masks are; `fit` puts them in force (`holding.py`) and `tombola.pruning` makes the choice exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from tombola.errors import ConfigError
from tombola.pruning import Masks, criteria, distributions, prunable_parameters, prune, schedules
from tombola.pruning.dynamic import cosine_fraction, regrow
from tombola.pruning.emptied import not_warning
from tombola.pruning.structures import NofM, make_structure
from tombola.pruning.units import count_units, fraction_removed
from tombola.runs.configs import Config
from tombola.runs.seeds import derive_seed
from tombola.training.step import Step
from tombola.training.task import Loss

Plan = dict[int, float]
"""By iteration, counted from 0: how much to change there (a sparsity to reach, a fraction to drop)."""


@dataclass(frozen=True)
class Moment:
    """What a change of masks may look at after `iteration` finished ones.

    The parameters' `.grad` is the dense gradient of the batch at hand, removed weights included.
    `scoring_batches(n)` gives n batches of training examples, `loss` is what they are scored by. All chance comes from
    `seed` and `iteration`.
    """

    model: nn.Module
    masks: Masks
    iteration: int
    seed: int
    scoring_batches: Callable[[int], list[tuple[Any, Any]]]
    loss: Loss


class _Evolution(Config):
    """What both kinds have in common."""

    sparsity: float = Field(gt=0, lt=1, description="fraction of weights removed: at the end, or all along")
    protect: tuple[str, ...] = Field((), description="layers that keep all their weights, by name or pattern")

    @field_validator("criterion", "distribution", "schedule", "structure", check_fields=False)
    @classmethod
    def _known(cls, name: str, info: Any) -> str:
        known = {"criterion": criteria.get, "distribution": distributions.get, "schedule": schedules.get}
        try:
            known.get(info.field_name, make_structure)(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if info.field_name == "distribution" and name == "rates":
            raise ValueError("the distribution `rates` takes no sparsity; use another one")
        return name

    @field_validator("every", check_fields=False)
    @classmethod
    def _at_least_one_iteration(cls, every: Step) -> Step:
        if not (every.epochs or every.extra):
            raise ValueError("must be at least 1it")
        return every


class Gradual(_Evolution):
    """Gradual pruning, Zhu & Gupta 2017 (arXiv 1710.01878): the sparsity rises while the network learns.

    Every `every` iterations after `begin`, and no later than `end`, the masks are pruned further, right after
    the optimizer step. The schedule leads from the sparsity of the first masks to `sparsity`, which the last
    update reaches exactly. What is removed stays removed. Each update of a criterion that looks at data draws
    `score_batches` batches of its own.
    """

    replaces_step: ClassVar[bool] = False

    method: Literal["gradual"] = "gradual"
    criterion: str = "magnitude"
    structure: str = "weight"
    distribution: str = "global"
    schedule: str = "cubic"
    begin: Step = Step()
    end: Step
    every: Step
    min_keep: int = Field(1, ge=1, description="units that every layer keeps")
    score_batches: int = Field(16, ge=1, description="batches that a criterion with need of data looks at")

    @field_validator("structure")
    @classmethod
    def _of_any_sparsity(cls, name: str) -> str:
        if isinstance(make_structure(name), NofM):
            raise ValueError(f"{name} fixes its own sparsity, which therefore cannot rise")
        return name

    def plan(self, moment: Moment, per_epoch: int, total: int) -> Plan:
        """The sparsity to reach after each due iteration of a training of `total` that begins at `moment`."""
        begin, end, every = (step.iterations(per_epoch) for step in (self.begin, self.end, self.every))
        rounds = (end - begin) // every
        last = begin + rounds * every
        if rounds < 1:
            raise ConfigError(f"evolution: no update fits between begin {begin}it and end {end}it, one every {every}it")
        if not moment.iteration < last <= total:
            raise ConfigError(
                f"evolution: the last update is due after iteration {last}, but the training goes from "
                f"{moment.iteration} to {total}; change begin, end or every"
            )
        start = fraction_removed(count_units(moment.model, moment.masks, make_structure(self.structure)))
        if start > self.sparsity:
            raise ConfigError(
                f"evolution: sparsity {self.sparsity:g} is below the {start:g} of the masks that training begins with"
            )
        values = schedules.get(self.schedule)(self.sparsity, rounds, start=start)
        return {begin + i * every - 1: value for i, value in enumerate(values, 1)}

    def start(self, moment: Moment) -> Masks:
        """The given masks; a target that cannot be met is refused here and not after hours of training."""
        self.next_masks(moment, self.sparsity)
        return moment.masks

    @not_warning()  # of masks that change again; those at the end are looked at by whoever trains
    def next_masks(self, moment: Moment, sparsity: float) -> Masks:
        """The masks of `moment`, pruned to `sparsity`."""
        return prune(
            moment.model,
            sparsity,
            self.criterion,
            self.structure,
            self.distribution,
            moment.masks,
            moment.scoring_batches(self.score_batches),
            loss=moment.loss,
            protect=self.protect,
            min_keep=self.min_keep,
            seed=derive_seed(moment.seed, "gradual", moment.iteration),
        )


class Dynamic(_Evolution):
    """Dynamic sparse training: sparse from start to end, every layer's number of weights constant, their places not.

    Every `every` iterations, in the first `until` of the training, the optimizer step is replaced by an update of
    the topology (Algorithm 1 of Evci et al. 2020, arXiv 1911.11134): a fraction of each layer's weights is dropped by
    |w|, and as many grow where the batch's dense gradient is largest (`rigl`) or at random (`set`). The fraction
    begins at `fraction` and falls as a cosine to 0; `anneal: constant` is Mocanu et al. 2018 (arXiv 1707.04780).
    Iteration 0 is none to update at: nothing has been learned yet. `set` differs from `rigl` in where weights
    grow and in nothing else, so that the two compare.
    """

    replaces_step: ClassVar[bool] = True

    method: Literal["set", "rigl"]
    distribution: str = "erk"
    fraction: float = Field(0.3, gt=0, le=1, description="fraction of a layer's weights that the first update moves")
    anneal: Literal["cosine", "constant"] = "cosine"
    every: Step = Step(extra=100)
    until: float = Field(
        0.75, ge=0, le=1, description="fraction of the training after which the topology stays; 0: static"
    )

    def plan(self, moment: Moment, per_epoch: int, total: int) -> Plan:
        """The fraction of weights to move at each due iteration of a training of `total`."""
        end, every = round(self.until * total), self.every.iterations(per_epoch)
        due = range(every, end, every)
        if self.until and not due:
            raise ConfigError(
                f"evolution: no update fits into the first {end} iterations, one every {every}it; make `every` smaller"
            )
        if self.anneal == "constant":
            return dict.fromkeys(due, self.fraction)
        return {iteration: cosine_fraction(self.fraction, iteration, end) for iteration in due}

    @not_warning()
    def start(self, moment: Moment) -> Masks:
        """Random masks from full ones; masks that are sparse already are where it starts, their sparsity agreeing."""
        seed = derive_seed(moment.seed, "topology")
        drawn = prune(
            moment.model,
            self.sparsity,
            criterion="random",
            distribution=self.distribution,
            protect=self.protect,
            seed=seed,
        )
        if moment.masks.kept == moment.masks.total:
            return drawn
        if moment.masks.kept != drawn.kept:
            raise ConfigError(
                f"evolution: sparsity {self.sparsity:g} keeps {drawn.kept} weights, but the masks that the training "
                f"begins with keep {moment.masks.kept}; give full masks for a random start"
            )
        return moment.masks

    def next_masks(self, moment: Moment, fraction: float) -> Masks:
        """The masks of `moment` after one update of `fraction` of each layer's weights."""
        parameters = prunable_parameters(moment.model)
        drop = {name: parameter.detach().abs() for name, parameter in parameters.items()}
        grow = _gradient_sizes(parameters) if self.method == "rigl" else _random_scores(parameters, moment)
        return regrow(moment.masks.of(moment.model), drop, grow, fraction)


Evolution = Annotated[Gradual | Dynamic, Field(discriminator="method")]
"""How masks change during a training; a config chooses by `method`: gradual, set or rigl."""


def _gradient_sizes(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.grad.abs() if p.grad is not None else torch.zeros_like(p) for name, p in parameters.items()}


def _random_scores(parameters: dict[str, nn.Parameter], moment: Moment) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(derive_seed(moment.seed, "grow", moment.iteration))
    return {name: torch.rand(p.shape, generator=generator).to(p.device) for name, p in parameters.items()}
