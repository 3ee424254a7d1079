"""One replicate: a whole experiment with its own seed, unit by unit, each finished unit on disk.

A unit is one training: the dense network, a round's ticket, or a control of it. A replicate that is run again
takes finished units from disk and goes on with the next, so a killed study loses at most one training, and of
that only what came after its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.data import load_data
from tombola.errors import RunFailure, StorageError, TombolaError, TrainingError
from tombola.models import ModelSpec, build
from tombola.models.tensors import load_tensors_like, save_tensors
from tombola.pruning import Masks, prunable_parameters, prune
from tombola.runs.atomic import make_folder, write_json
from tombola.runs.executors import Emit
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import control_start
from tombola.studies.lottery.metrics import Unit, failed_checks, training_rows
from tombola.studies.lottery.plan import Round, plan_rounds, rates_of
from tombola.studies.lottery.rewind import is_rewound, rewind
from tombola.training import fit
from tombola.training.fit import Evaluation


@dataclass(frozen=True)
class ReplicateSpec:
    """What a worker needs to run replicate `index` in `folder` (the run's checkpoints)."""

    config: LotteryConfig
    index: int
    folder: Path
    data_dir: Path | None


@dataclass(frozen=True)
class Progress:
    """Where a training is: sent after each evaluation."""

    replicate: int
    round: int
    branch: str
    density: float
    iteration: int
    iterations: int
    accuracy: float


@dataclass(frozen=True)
class Finished:
    """A unit whose rows are in the file `path`."""

    path: Path


def run_replicate(spec: ReplicateSpec, emit: Emit) -> None:
    """Runs what is left of a replicate; the executor's cell. Computes on one thread, whatever the caller uses."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _Replicate(spec, emit).run()
    except TrainingError as error:
        raise TrainingError(f"replicate {spec.index}: {error}") from None
    finally:
        torch.set_num_threads(threads)


def replicate_seed(config: LotteryConfig, index: int) -> int:
    return derive_seed(config.seed, "replicate", index)


def replicate_folder(checkpoints: Path, index: int) -> Path:
    return checkpoints / f"replicate-{index:02d}"


def round_folder(replicate: Path, index: int) -> Path:
    return replicate / f"round-{index:02d}"


class _Replicate:
    def __init__(self, spec: ReplicateSpec, emit: Emit) -> None:
        self.config = spec.config
        self.index = spec.index
        self.emit = emit
        self.seed = replicate_seed(spec.config, spec.index)
        self.folder = replicate_folder(spec.folder, spec.index)
        self.data = load_data(spec.config.data, self.seed, spec.data_dir)
        self.model_spec = ModelSpec(
            **spec.config.model.model_dump(),
            input_shape=self.data.input_shape,
            classes=self.data.classes,
            seed=derive_seed(self.seed, "init"),
        )
        self.model = build(self.model_spec)
        self.rounds = plan_rounds(spec.config.pruning, layer_sizes(self.model))
        make_folder(self.folder)
        self.initial = self._initial_weights()

    def run(self) -> None:
        masks = Masks.full(self.model)
        for planned in self.rounds:
            folder = round_folder(self.folder, planned.index)
            make_folder(folder)
            if planned.index == 0:
                self._train(self._unit(planned, "dense"), folder, self.initial, masks, None)
                continue
            earlier, masks = masks, self._masks_of(planned, masks, folder)
            self._train(self._unit(planned, "ticket"), folder, self.initial, masks, earlier)
            for control in self.config.controls:
                start, control_masks = control_start(
                    control, self.model_spec, self.initial, masks, self.seed, planned.index
                )
                self._train(self._unit(planned, control), folder, start, control_masks, None)

    def _unit(self, planned: Round, branch: str) -> Unit:
        return Unit(self.index, self.seed, planned, branch)

    def _initial_weights(self) -> Mapping[str, Tensor]:
        """W_0 as stored: written once, and read back so that every rewind is held against the file."""
        path = self.folder / "initial.safetensors"
        if not path.exists():
            save_tensors(path, self.model.state_dict())
        return _load(path, self.model.state_dict())

    def _masks_of(self, planned: Round, earlier: Masks, folder: Path) -> Masks:
        """The ticket's masks of a round: stored ones, or those pruned from the round before."""
        path = folder / "masks.safetensors"
        if not path.exists():
            before = round_folder(self.folder, planned.index - 1)
            self.model.load_state_dict(_load(before / "trained.safetensors", self.initial))
            save_tensors(path, self._prune(planned, earlier).to_tensors())
        return Masks.from_tensors(_load(path, earlier.to_tensors()))

    def _prune(self, planned: Round, earlier: Masks) -> Masks:
        pruning = self.config.pruning
        return prune(
            self.model,
            planned.sparsity,
            criterion=pruning.criterion,
            structure=pruning.structure,
            budget=rates_of(pruning) if pruning.budget == "rates" else pruning.budget,
            masks=earlier,
            min_keep=pruning.min_keep,
            seed=derive_seed(self.seed, "criterion", planned.index),
        )

    def _train(
        self, unit: Unit, folder: Path, start: Mapping[str, Tensor], masks: Masks, earlier: Masks | None
    ) -> None:
        """One unit: rewind, train, check, measure, store; or nothing when it is stored already."""
        path = folder / f"{unit.branch}.json"
        checkpoint = folder / f"{unit.branch}.checkpoint.safetensors"
        if not path.exists():
            self._train_anew(unit, folder, path, checkpoint, start, masks, earlier)
        checkpoint.unlink(missing_ok=True)  # here, and not only after training: a kill may have come between
        self.emit(Finished(path))

    def _train_anew(
        self,
        unit: Unit,
        folder: Path,
        path: Path,
        checkpoint: Path,
        start: Mapping[str, Tensor],
        masks: Masks,
        earlier: Masks | None,
    ) -> None:
        rewind(self.model, start, masks)
        rewound = is_rewound(self.model, start, masks)

        def report(evaluation: Evaluation, iterations: int) -> None:
            self.emit(
                Progress(
                    unit.replicate,
                    unit.round.index,
                    unit.branch,
                    masks.density,
                    evaluation.iteration,
                    iterations,
                    evaluation.accuracy,
                )
            )

        trained = fit(
            self.model,
            self.data,
            self.config.training,
            masks,
            # One order of examples per round, shared by ticket and controls so that they pair, and never the
            # order in which the mask was found.
            derive_seed(self.seed, "order", unit.round.index),
            checkpoint=checkpoint,
            checkpoint_seconds=self.config.checkpoint_seconds,
            on_evaluation=report,
        )
        checks = {
            "check_sparsity": masks.kept == unit.round.kept,
            "check_held": masks.removed_nonzeros(self.model) == 0,
            "check_rewound": rewound,
            "check_nested": None if earlier is None else masks <= earlier,
        }
        rows = training_rows(unit, self.model, masks, self.data, trained, checks)
        if unit.branch in ("dense", "ticket"):
            save_tensors(folder / "trained.safetensors", self.model.state_dict())
        write_json(path, {"rows": rows})  # last: this file says that the unit is finished
        if failures := failed_checks(rows):
            self.emit(Finished(path))
            raise RunFailure(f"a promise of the run was broken: {failures[0]}")


def layer_sizes(model: nn.Module) -> dict[str, int]:
    return {name: parameter.numel() for name, parameter in prunable_parameters(model).items()}


def _load(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file of this run; a damaged one is named together with the way out."""
    try:
        return load_tensors_like(path, like)
    except StorageError as error:
        raise _with_way_out(error, path) from None


def _with_way_out(error: StorageError, path: Path) -> TombolaError:
    if not path.exists():
        return error
    return StorageError(f"{error}; remove the folder {path.parent} and those after it to repeat these rounds")
