"""The cells of a comparison: a parent is trained, a child is made of it by one method of the grid, and measured."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import ModelError, PruningError
from tombola.models import load_model
from tombola.models.folder import SPEC, WEIGHTS, write_model_files
from tombola.models.own import initial_network
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.runs.atomic import make_folder, remove
from tombola.runs.executors import Emit
from tombola.runs.rows import Row
from tombola.runs.sealed import read_sealed
from tombola.runs.seeds import derive_seed
from tombola.studies.base.averaging import averaged_state
from tombola.studies.base.watching import SILENT
from tombola.studies.base.work import AGAIN, Finished, Key, write_unit
from tombola.studies.single.child import Making, make_child, under_masks
from tombola.studies.single.config import CompareConfig, Pruning
from tombola.studies.single.metrics import check_child, emptied_layers, stage_row, unit_columns
from tombola.studies.single.parents import spec_for
from tombola.training import fit
from tombola.training.frozen import load_recorded
from tombola.training.threads import one_thread

UNIT = ("replicate", "structure", "distribution", "sparsity", "criterion")
PARENT = "parent.json"


@dataclass(frozen=True)
class ParentSpec:
    """What a worker needs to train the parent of replicate `index` in `folder`."""

    config: CompareConfig
    index: int
    folder: Path
    data_dir: Path | None
    checksum: str
    """Of the data that the run has recorded."""

    @property
    def seed(self) -> int:
        return derive_seed(self.config.seed, "replicate", self.index)

    @property
    def key(self) -> Key:
        """The unit's columns of its row."""
        return (self.index, None, None, None, None)

    @property
    def path(self) -> Path:
        return self.folder / f"replicate-{self.index:02d}"

    @property
    def is_whole(self) -> bool:
        """Whether everything that a trained parent leaves is there."""
        return all((self.path / name).exists() for name in (PARENT, WEIGHTS, SPEC))


@dataclass(frozen=True)
class ChildSpec:
    """What a worker needs to make and measure one child."""

    parent: ParentSpec
    number: int
    pruning: Pruning

    @property
    def key(self) -> Key:
        """The unit's columns of its row."""
        pruning = self.pruning
        return (self.parent.index, pruning.structure, pruning.distribution, pruning.sparsity, pruning.criterion)

    @property
    def path(self) -> Path:
        return self.parent.path / f"way-{self.number:04d}"

    @property
    def is_whole(self) -> bool:
        """Whether its rows are there."""
        return self.path.with_suffix(".json").exists()


def train_parent(spec: ParentSpec, emit: Emit) -> None:
    """The executor's cell of a parent: trains it and keeps it as a model folder."""
    config, path = spec.config, spec.path / PARENT
    checkpoint = spec.path / "parent.checkpoint.safetensors"
    make_folder(spec.path)
    with one_thread():
        if not spec.is_whole:
            data = load_recorded(config.data, spec.seed, spec.data_dir, spec.checksum)
            model_spec = spec_for(config.model, data, derive_seed(spec.seed, "init"))
            model = initial_network(model_spec, data.train.inputs)
            masks = Masks.full(model)
            trained = fit(
                model,
                data,
                config.training,
                masks,
                derive_seed(spec.seed, "order"),
                checkpoint=checkpoint,
                checkpoint_seconds=config.checkpoint_seconds,
            )
            model.load_state_dict(trained.early_stop_state)
            write_model_files(spec.path, model_spec, model)
            row = stage_row("parent", model, masks, data, config.training.device, averaged_state(trained))
            row |= dict(zip(UNIT, spec.key, strict=True))
            sha256 = content_sha256(model.state_dict())
            write_unit(path, [row | {"seconds": trained.seconds}], weights_sha256=sha256)
        remove(checkpoint)
    emit(Finished(path))


def measure_child(spec: ChildSpec, emit: Emit) -> None:
    """The executor's cell of a child: by one method of the grid, or the reason why it is refused."""
    path = spec.path.with_suffix(".json")
    with one_thread():
        if not path.exists():
            write_unit(path, [_child_row(spec)])
        shutil.rmtree(spec.path, ignore_errors=True)
    emit(Finished(path))


def _child_row(spec: ChildSpec) -> Row:
    config, pruning = spec.parent.config, spec.pruning
    key = dict(zip(UNIT, spec.key, strict=True)) | {"kind": "way"}
    data = load_recorded(config.data, spec.parent.seed, spec.parent.data_dir, spec.parent.checksum)
    model, _, _ = load_model(spec.parent.path, config.model.factory)
    before = content_sha256(model.state_dict())
    unit = read_sealed(spec.parent.path / PARENT, AGAIN)
    if unit.get("weights_sha256", before) != before:
        raise ModelError(f"{spec.parent.path}: holds another model than was trained there; delete it and run again")
    full = Masks.full(model)
    making = Making(
        model,
        full,
        data,
        pruning,
        config.fine_tuning,
        config.batch_size,
        # The same batches and the same order of examples for every method, so that they pair.
        derive_seed(spec.parent.seed, "ways"),
        spec.path,
        config.checkpoint_seconds,
        config.distillation,
    )
    began = time.perf_counter()
    try:
        child = make_child(making, SILENT.progress)
    except PruningError as error:
        return key | {"refused": str(error)}
    seconds = time.perf_counter() - began
    device = config.training.device
    pruned = stage_row("pruned", under_masks(model, child.masks), child.masks, data, device)
    end = pruned
    if config.fine_tuning:
        end = stage_row("fine-tuned", child.model, child.masks, data, device, child.averaged)
    unchanged = content_sha256(model.state_dict()) == before
    return {
        **end,
        **key,
        "refused": None,
        "pruned_test_accuracy": pruned["test_accuracy"],
        "pruned_validation_accuracy": pruned["validation_accuracy"],
        **unit_columns(model, child.masks, pruning.structure, child.spared),
        "nearly_empty": emptied_layers(model, child.masks, pruning.structure),
        "seconds": seconds,
        **check_child(child.model, child.masks, full, pruning, child.spared, unchanged),
    }
