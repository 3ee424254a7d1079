"""One replicate: a whole experiment with its own seed, unit by unit, each finished unit on disk.

A unit is one training: the dense network, a round's ticket, or a control of it. A replicate that is run again
takes finished units from disk and goes on with the next, so a killed study loses at most one training, and of
that only what came after its last checkpoint. Modes of rewinding share the dense network.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tombola.errors import TrainingError
from tombola.models.own import initial_network
from tombola.models.tensors import SIZE_LIMIT, content_sha256, save_tensors
from tombola.pruning import Masks, UnsupportedParameterWarning, criteria, prune
from tombola.pruning.criteria import Needs
from tombola.pruning.emptied import not_warning
from tombola.runs.atomic import make_folder, read_bytes, remove, write_bytes
from tombola.runs.executors import Emit
from tombola.runs.sealed import write_sealed
from tombola.runs.seeds import derive_seed
from tombola.studies.base.averaging import AVERAGED
from tombola.studies.base.measures import Scale
from tombola.studies.base.watching import Progress
from tombola.studies.base.work import Finished, unit_rows, write_unit
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import HOST, Situation, controls
from tombola.studies.lottery.early_bird import FOUND, EarlyBird, candidates, settled
from tombola.studies.lottery.metrics import Unit, training_rows
from tombola.studies.lottery.networks import layer_sizes, replicate_seed
from tombola.studies.lottery.plan import Round, plan_rounds, rates_of
from tombola.studies.lottery.rewind import Rewind, Start, is_rewound, load_whole, rewind, unsaved_buffers
from tombola.studies.lottery.start import load_start
from tombola.studies.lottery.stored import (
    MASKS,
    STATISTICS,
    TRAINED,
    ReplicateFiles,
    load_stored,
    stored_host,
    stored_masks,
    stored_start,
)
from tombola.studies.lottery.tasks import spec_of, task_of, tried_on
from tombola.training import fit
from tombola.training.device import placed, resolve
from tombola.training.own import with_own_loss
from tombola.training.statistics import reestimate_statistics
from tombola.training.threads import one_thread
from tombola.training.trained import Evaluation

STATISTICS_EXAMPLES = 2_000
"""Training examples over which batch-norm statistics are estimated again after rewinding."""


@dataclass(frozen=True)
class ReplicateSpec:
    """What a worker needs to run replicate `index` in `folder` (the run's checkpoints)."""

    config: LotteryConfig
    index: int
    folder: Path
    data_dir: Path | None
    data: str | None = None
    """The checksum of the data that the run has recorded."""
    start: str | None = None
    """That of the weights it starts from, where these come from a file."""


def run_replicate(spec: ReplicateSpec, emit: Emit) -> None:
    """Runs what is left of a replicate; the executor's cell. Computes on one thread, whatever the caller uses."""
    with one_thread():
        try:
            _Replicate(spec, emit).run()
        except TrainingError as error:
            raise TrainingError(f"replicate {spec.index}: {error}") from None


@contextlib.contextmanager
def _said_elsewhere() -> Iterator[None]:
    """Within the block a pruning warns of nothing that the run says once: of nearly empty layers in rows and report, of
    parameters that are left as they are before it begins."""
    with not_warning():
        warnings.simplefilter("ignore", UnsupportedParameterWarning)
        yield


class _Replicate:
    def __init__(self, spec: ReplicateSpec, emit: Emit) -> None:
        self.config = spec.config
        self.index = spec.index
        self.emit = emit
        self.start_sha256 = spec.start
        self.seed = replicate_seed(spec.config, spec.index)
        self.files = ReplicateFiles.of(spec.folder, spec.index)
        self.task = task_of(spec.config, spec.index, spec.data_dir, spec.data)
        self.moved = self.task.on(resolve(spec.config.training.device))  # once, for all that is computed there
        self.model_spec = spec_of(spec.config, spec.index, self.task)
        self.model = initial_network(self.model_spec, tried_on(self.task))
        self.unsaved = unsaved_buffers(self.model)
        self.full = Masks.full(self.model)
        self.rounds = plan_rounds(spec.config.pruning, layer_sizes(self.model))
        self.per_epoch = self.task.batches(spec.config.training.batch_size, 0).per_epoch
        make_folder(self.files.root)
        self.initial = self._initial_weights()
        self.trained: dict[str, Path] = {}

    def run(self) -> None:
        self._train(self._unit(None, self.rounds[0], "dense"), Start(self.initial, self.full, self.config.training))
        if HOST in self.config.dense_branches:
            self._train(self._unit(None, self.rounds[0], HOST), self._host_start())
        for mode in self.config.rewinds:
            masks = self.full
            for planned in self.rounds[1:]:
                earlier, masks = masks, self._masks_of(mode, planned, masks)
                self._round(mode, planned, masks, earlier)

    def _round(self, mode: Rewind, planned: Round, masks: Masks, earlier: Masks) -> None:
        """The ticket of a round, and its controls on the same recipe."""
        ticket = Start(
            stored_start(self.files, mode, planned.index, self.initial),
            masks,
            mode.recipe(self.config.training, self.per_epoch),
            mode.first(self.per_epoch),
            earlier,
        )
        self._train(self._unit(mode, planned, "ticket"), ticket)
        for control in self.config.controls:
            self._train(self._unit(mode, planned, control), self._control(control, mode, planned, ticket))

    def _control(self, name: str, mode: Rewind, planned: Round, ticket: Start) -> Start:
        situation = Situation(
            ticket,
            mode,
            self.config.training,
            self.initial,
            derive_seed(self.seed, name, planned.index),
            self.model,
            self._fresh,
            lambda: stored_host(self.files, mode, self.initial),
        )
        return controls.get(name).start(situation)

    def _fresh(self, seed: int) -> Mapping[str, Tensor]:
        """Initial weights of the same network drawn anew, from the same distribution."""
        spec = self.model_spec.model_copy(update={"seed": seed})
        return initial_network(spec, tried_on(self.task)).state_dict()

    def _host_start(self) -> Start:
        """A second dense network, from initial weights of its own, as stored."""
        if not self.files.host_initial.exists():
            save_tensors(self.files.host_initial, self._fresh(derive_seed(self.seed, HOST)))
        return Start(load_stored(self.files.host_initial, self.initial), self.full, self.config.training)

    def _unit(self, mode: Rewind | None, planned: Round, branch: str) -> Unit:
        return Unit(self.index, self.seed, mode, planned, branch)

    def _initial_weights(self) -> Mapping[str, Tensor]:
        """W_0 as stored: written once, and read back so that every rewind is held against the file."""
        if not (self.files.initial.exists() and self.files.spec.exists()):
            load_start(self.config, self.model, self.start_sha256)
            write_sealed(self.files.spec, self.model_spec.model_dump(mode="json"))
            save_tensors(self.files.initial, self.model.state_dict())
        return load_stored(self.files.initial, self.model.state_dict())

    def _masks_of(self, mode: Rewind, planned: Round, earlier: Masks) -> Masks:
        """The ticket's masks of a round: stored ones, the early bird, or those pruned from the round before."""
        path = self.files.round(mode, planned.index) / MASKS
        if not path.exists():
            make_folder(path.parent)
            before = self.files.round(mode, planned.index - 1)
            bird = settled(before) if self.config.early_bird else None
            if bird is None:
                load_whole(self.model, load_stored(before / TRAINED, self.initial), self.unsaved)
            masks = bird[0] if bird else self._prune(planned, earlier)
            save_tensors(path, masks.to_tensors())
        return stored_masks(self.files, mode, planned.index, self.full)

    def _prune(self, planned: Round, earlier: Masks) -> Masks:
        pruning = self.config.pruning
        seed = derive_seed(self.seed, "criterion", planned.index)
        count = 1 if criteria.get(pruning.criterion).needs is Needs.EXAMPLE else pruning.score_batches
        training = self.config.training
        with _said_elsewhere(), placed(self.model, training.device) as device:
            masks = prune(
                self.model,
                planned.sparsity,
                criterion=pruning.criterion,
                structure=pruning.structure,
                distribution=rates_of(pruning) if pruning.distribution == "rates" else pruning.distribution,
                masks=earlier,
                batches=self.moved.on(device).scoring(training.batch_size, count, seed),
                loss=with_own_loss(self.task, training).criterion_loss,
                min_keep=pruning.min_keep,
                seed=seed,
            )
        return masks.cpu()

    def _train(self, unit: Unit, start: Start) -> None:
        """One unit: rewind, train, check, measure, store; or nothing when it is stored already."""
        folder = self.files.round(unit.mode or Rewind("init"), unit.round.index)
        make_folder(folder)
        path = folder / f"{unit.branch}.json"
        checkpoint = folder / f"{unit.branch}.checkpoint.safetensors"
        if not all(
            file.exists() for file in self.files.training(unit.mode, unit.round.index, unit.branch, self.config)
        ):
            same = self.trained.get(self._identity(unit, start))
            if same is not None:
                self._take_over(unit, same, folder)
            else:
                self._train_anew(unit, start, folder, checkpoint)
        self.trained.setdefault(self._identity(unit, start), path)
        # Here, and not only after training: a kill may have come between.
        for leftover in (checkpoint, *candidates(folder)):
            remove(leftover)
        self.emit(Finished(path))

    def _identity(self, unit: Unit, start: Start) -> str:
        """Equal exactly for units of a replicate that would train to the same end: modes share these."""
        parts = [content_sha256(start.state), content_sha256(start.masks.to_tensors()), start.recipe.model_dump_json()]
        return "|".join([*parts, str(start.first), str(unit.round.index)])

    def _take_over(self, unit: Unit, same: Path, folder: Path) -> None:
        """The rows and weights of a unit that another mode trained; nothing is trained for it again."""
        rows = unit_rows(same)
        spared = {"iterations_trained": 0, "seconds": 0.0}
        rows = [row | unit.key | (spared if row["kind"] == "training" else {}) for row in rows]
        for name in (TRAINED, AVERAGED, STATISTICS, FOUND):
            if unit.branch == "ticket" and (same.parent / name).exists():
                write_bytes(folder / name, read_bytes(same.parent / name, SIZE_LIMIT))
        write_unit(folder / f"{unit.branch}.json", rows)

    def _train_anew(self, unit: Unit, start: Start, folder: Path, checkpoint: Path) -> None:
        rewind(self.model, start.state, start.masks, self.unsaved)
        rewound = is_rewound(self.model, start.state, start.masks)
        if unit.round.index:
            self._reestimate_statistics(unit, folder)
        bird, shown = self._early_bird(unit, start.masks, folder), Scale(self.task.compares)

        def look(evaluation: Evaluation, iterations: int) -> None:
            if bird is not None:
                bird.look(evaluation.iteration)
            where = f"round {unit.round.index}, {start.masks.density:.1%} {unit.branch}"
            said = f"{where}, validation {shown.said(evaluation.values[shown.measure.name])}"
            self.emit(Progress(f"replicate {unit.replicate}", evaluation.iteration, iterations, said))

        trained = fit(
            self.model,
            self.moved,
            start.recipe,
            start.masks,
            # One order of examples per round, shared by ticket and controls so that they pair, and never the
            # order in which the mask was found.
            derive_seed(self.seed, "order", unit.round.index, *([HOST] if unit.branch == HOST else [])),
            first=start.first,
            capture=self._states_to_capture(unit.branch) if unit.branch in self.config.dense_branches else None,
            checkpoint=checkpoint,
            checkpoint_seconds=self.config.checkpoint_seconds,
            on_evaluation=look,
        )
        checks = {
            "check_sparsity": start.masks.kept == unit.round.kept,
            "check_held": start.masks.removed_nonzeros(self.model) == 0,
            "check_rewound": rewound,
            "check_nested": None if start.earlier is None else start.masks <= start.earlier,
        }
        found = settled(folder) if bird is not None else None
        rows = training_rows(
            unit,
            self.model,
            start.state,
            start.masks,
            self.task,
            self.moved,
            trained,
            checks,
            found[1] if found else None,
            start.recipe.device,
        )
        kept = self.files.trained(unit.mode, unit.round.index, unit.branch)
        if kept is not None:
            save_tensors(kept, self.model.state_dict())
        if trained.averaged is not None and unit.branch in ("dense", "ticket"):
            save_tensors(folder / AVERAGED, trained.averaged.state)
        write_unit(folder / f"{unit.branch}.json", rows)  # last: it says that the unit is finished

    def _reestimate_statistics(self, unit: Unit, folder: Path) -> None:
        """Batch-norm statistics of the rewound network; a ticket's are part of what it restarts from."""
        with placed(self.model, self.config.training.device):
            reestimate_statistics(self.model, self.moved, STATISTICS_EXAMPLES)
        buffers = dict(self.model.named_buffers())
        if buffers and unit.branch == "ticket":
            save_tensors(folder / STATISTICS, buffers)

    def _states_to_capture(self, branch: str) -> dict[int, Path]:
        """Where a dense training stores the W_k that modes of rewinding ask for."""
        return {
            mode.first(self.per_epoch): self.files.state_at(mode.step, branch)
            for mode in self.config.rewinds
            if mode.kind == "step"
        }

    def _early_bird(self, unit: Unit, masks: Masks, folder: Path) -> EarlyBird | None:
        """A watcher over the trainings whose end the next round prunes."""
        last = unit.round.index == self.rounds[-1].index
        if self.config.early_bird is None or unit.branch not in ("dense", "ticket") or last:
            return None
        upcoming = self.rounds[unit.round.index + 1]
        return EarlyBird(self.config.early_bird, masks, lambda: self._prune(upcoming, masks), folder)
