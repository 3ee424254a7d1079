"""A cell at work: where its files are, and what all of its units are done with."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tombola.pruning import Masks
from tombola.runs.rows import Row
from tombola.runs.seeds import derive_seed
from tombola.studies.stress.cells import CellKey, Moment, life_of
from tombola.studies.stress.config import TINY, StressConfig
from tombola.studies.stress.living.state import State
from tombola.studies.stress.living.units import masks_of
from tombola.studies.stress.subjects.curriculum import Curriculum
from tombola.studies.stress.subjects.networks import Subject
from tombola.training import Recipe
from tombola.training.batches import iterations_per_epoch
from tombola.training.completions import Completions
from tombola.training.device import resolve

LEARNING_RATE, OF_TINY = 5e-5, 1e-3
"""Where nobody says: the usual one for fine-tuning a large model, and one for ours."""
LOOKS = 4
"""How often a task is looked at while it is learned."""


JOURNAL = "journal"


@dataclass(frozen=True)
class CellSpec:
    """What a worker needs of a study to live one of its cells."""

    config: StressConfig
    key: CellKey
    model: str
    folder: Path
    """Of the units of all cells."""
    sha256: str

    @property
    def home(self) -> Path:
        """Where the cell's own units are."""
        return self.folder / self.key.name

    def unit(self, number: int) -> Path:
        """The rows of a unit that is done."""
        return self.home / f"unit-{number:05d}.json"

    def journal(self, number: int) -> Path:
        """The entropy of every head at every step of a unit."""
        return self.home / f"{JOURNAL}-{number:05d}.jsonl"

    def state(self, number: int) -> Path:
        """What comes after a unit goes on from here."""
        return self.home / f"state-{number:05d}.safetensors"


@dataclass(frozen=True)
class Living:
    """A cell at work: what its units are done with."""

    spec: CellSpec
    subject: Subject
    curriculum: Curriculum

    @property
    def config(self) -> StressConfig:
        return self.spec.config

    @functools.cached_property
    def moments(self) -> list[Moment]:
        return life_of(self.config, len(self.curriculum.names))

    def seed_of(self, *purpose: str | int) -> int:
        """For chance that all cells of a replicate share, so that they differ in what was removed alone."""
        return derive_seed(self.curriculum.seed, *purpose)

    def masks(self, network: nn.Module, state: State) -> Masks:
        return masks_of(network, self.config.structure, state.keep)

    @property
    def device(self) -> torch.device:
        return resolve(self.config.device)

    def network(self) -> nn.Module:
        """A copy of the model to prune and to train, where it is computed."""
        return self.subject.network().to(self.device)

    def fresh(self, *purpose: str | int) -> nn.Module:
        """A network of the same form that never learned anything."""
        return self.subject.fresh(self.seed_of("fresh", *purpose)).to(self.device)

    def name_at(self, moment: Moment) -> str:
        """The task that a unit learns."""
        assert moment.task is not None
        return self.curriculum.names[moment.task]

    def meets_again(self, moment: Moment) -> bool:
        """Whether the task of a unit is learned once more later."""
        return any(later.task == moment.task for later in self.moments[moment.unit + 1 :])

    def task_before(self, moment: Moment) -> str | None:
        """The task that was learned last before a unit; None before the first."""
        before = [one for one in self.moments[: moment.unit] if one.task is not None]
        return self.name_at(before[-1]) if before else None

    def steps_of(self, task: Completions) -> int:
        """The optimizer steps of a phase."""
        return iterations_per_epoch(task.count("train"), self.config.batch_size) * self.config.epochs

    def recipe(self, length: str, steps: int, looks: int = LOOKS) -> Recipe:
        """How a task is learned that takes so many steps, looked at so many times."""
        rate = self.config.learning_rate or (OF_TINY if self.spec.model == TINY else LEARNING_RATE)
        return Recipe(
            optimizer="adamw",
            learning_rate=rate,
            batch_size=self.config.batch_size,
            length=length,
            evaluate_every=f"{math.ceil(steps / looks)}it",
            device=self.config.device,
        )

    def columns(self, moment: Moment, state: State) -> Row:
        """What every row of a unit begins with."""
        return {
            **self.spec.key.columns,
            "unit": moment.unit,
            "controller": None,
            "pull": None,
            "prune_cycle": moment.prune_cycle,
            "cycle": moment.cycle,
            "phase": state.phase,
            "step": state.steps,
            "tokens": state.tokens,
            "epochs": state.epochs,
        }
