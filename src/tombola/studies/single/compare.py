"""`tombola compare`: which way of pruning loses least. A parent per replicate, every way of the grid on each."""

from __future__ import annotations

import itertools
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.data.dataset import recorded
from tombola.errors import ModelError, PruningError, RunFailure
from tombola.models import build, load_model
from tombola.models.folder import SPEC, WEIGHTS, write_model_files
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.runs.atomic import make_folder, remove, write_bytes
from tombola.runs.columns import misfit
from tombola.runs.executors import Emit, run_cells
from tombola.runs.folder import PROCESSOR, RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.inventory import is_whole, seal, unseal
from tombola.runs.rows import Row, RowTable, damaged, read_unit
from tombola.runs.sealed import read_sealed, write_sealed
from tombola.runs.seeds import derive_seed
from tombola.studies.single.child import Making, make_child, under_masks
from tombola.studies.single.columns import GRID_SCHEMA, MADE
from tombola.studies.single.comparison import Comparison, summarise
from tombola.studies.single.comparison_report import comparison_files
from tombola.studies.single.config import CompareConfig, Pruning
from tombola.studies.single.metrics import broken, check_child, emptied_layers, stage_row, unit_columns
from tombola.studies.single.parents import zoo_spec
from tombola.training import fit
from tombola.training.frozen import OnFeatures, load_examples, load_recorded, prepare_examples
from tombola.training.processor import processor_facts
from tombola.training.threads import one_thread

UNIT = ("replicate", "structure", "distribution", "sparsity", "criterion")
PARENT = "parent.json"
Key = tuple[Any, ...]


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
    def path(self) -> Path:
        return self.folder / f"replicate-{self.index:02d}"

    @property
    def is_whole(self) -> bool:
        """Whether everything that a trained parent leaves is there."""
        return all((self.path / name).exists() for name in (PARENT, WEIGHTS, SPEC))


@dataclass(frozen=True)
class WaySpec:
    """What a worker needs to make and measure one child."""

    parent: ParentSpec
    number: int
    pruning: Pruning

    @property
    def path(self) -> Path:
        return self.parent.path / f"way-{self.number:04d}"

    @property
    def is_whole(self) -> bool:
        """Whether its rows are there."""
        return self.path.with_suffix(".json").exists()


@dataclass(frozen=True)
class Finished:
    """A parent or child whose rows are in the file `path`."""

    path: Path


@dataclass(frozen=True)
class Watcher:
    """Told how many units there are and how many were done, and of each one that ends.

    Before them, `features(done, total)` is told how many examples have passed a frozen base.
    """

    begin: Callable[[int, int], None]
    unit: Callable[[Row], None]
    features: OnFeatures = lambda done, total: None


def compare(config: CompareConfig, out: Path, workers: int, data_dir: Path | None, watcher: Watcher) -> Comparison:
    """Runs, continues or shows the comparison of `config` in its folder below `out`.

    A larger number of replicates extends a finished comparison; asked for fewer, it shows all that it has.
    """
    folder = run_folder(out, config.study, config.name, config)
    finished = _finished(folder, config)
    if finished is not None:
        units = finished.config.replicates * (1 + len(config.ways()))
        watcher.begin(units, units)
        return finished
    with writing(folder):
        table = folder.table(UNIT, GRID_SCHEMA)
        config = config.model_copy(update={"replicates": max(config.replicates, whole_replicates(config, table.rows))})
        prepare_examples(config.data, data_dir, watcher.features)
        data = load_examples(config.data, config.seed, data_dir)
        facts = {
            "data": recorded(data),
            "seed": config.seed,
            PROCESSOR: processor_facts(),
        }
        begin_or_continue(folder, config.study, config, facts)
        unseal(folder)
        _run(table, folder, config, workers, data_dir, watcher, data.checksum)
        comparison = summarise(folder.root, config, table.rows)
        for name, content in comparison_files(comparison, folder.read_manifest()).items():
            write_bytes(folder.root / name, content)
        seal(folder)
    return comparison


def _finished(folder: RunFolder, config: CompareConfig) -> Comparison | None:
    """The comparison of a run that was finished with as many replicates or more, and is as it was."""
    if not folder.manifest.exists():
        return None
    if not is_whole(folder, lambda name: not name.startswith(("checkpoints/", "manifest.json"))):
        return None
    rows = read_grid(folder)
    replicates = whole_replicates(config, rows)
    if replicates < config.replicates:
        return None
    return summarise(folder.root, config.model_copy(update={"replicates": replicates}), rows)


def read_grid(folder: RunFolder) -> list[Row]:
    """The rows of a comparison; RunFolderError that names the line where one is damaged."""
    rows = folder.read_rows(UNIT, GRID_SCHEMA)
    for line_number, row in enumerate(rows, start=1):
        if row["kind"] == "way" and row["refused"] is None and (wrong := misfit(row, MADE)):
            raise damaged(folder.rows, line_number, wrong)
    return rows


def whole_replicates(config: CompareConfig, rows: Sequence[Row]) -> int:
    """How many replicates, from the first on, have all their rows."""
    found = Counter(row["replicate"] for row in rows)
    return next(index for index in itertools.count() if found[index] < 1 + len(config.ways()))


def _run(
    table: RowTable,
    folder: RunFolder,
    config: CompareConfig,
    workers: int,
    data_dir: Path | None,
    watcher: Watcher,
    checksum: str,
) -> None:
    parents = [ParentSpec(config, index, folder.checkpoints, data_dir, checksum) for index in range(config.replicates)]
    ways = [WaySpec(parent, number, way) for parent in parents for number, way in enumerate(config.ways())]
    known = {_key_of(row) for row in table.rows}
    watcher.begin(len(parents) + len(ways), len(known))
    # Units end in any order and are written in one: replicate by replicate, so that equal runs make equal tables.
    left = deque(key for parent in parents for key in (_key(parent), *map(_key, ways)) if key[0] == parent.index)
    finished: dict[Key, list[Row]] = {}

    def listen(event: Any) -> None:
        rows = read_unit(event.path, "delete it to make it anew")
        _refuse_broken(rows, event.path)
        finished[_key_of(rows[0])] = rows
        while left and (left[0] in known or left[0] in finished):
            table.append_unit(finished.pop(left.popleft(), []))
        watcher.unit(rows[0])

    _refuse_broken(table.rows, table.path)  # what was broken once stays so
    run_cells(train_parent, [p for p in parents if _key(p) not in known or not p.is_whole], workers, listen)
    run_cells(make_way, [way for way in ways if _key(way) not in known or not way.is_whole], workers, listen)


def _refuse_broken(rows: Sequence[Row], path: Path) -> None:
    for row in rows:
        if failures := broken(row):
            raise RunFailure(f"a promise was broken: {'; '.join(failures)} (not so); see {path}")


def _key(unit: ParentSpec | WaySpec) -> Key:
    """The unit columns of a parent or child."""
    if isinstance(unit, ParentSpec):
        return (unit.index, None, None, None, None)
    pruning = unit.pruning
    return (unit.parent.index, pruning.structure, pruning.distribution, pruning.sparsity, pruning.criterion)


def _key_of(row: Row) -> Key:
    return tuple(row[column] for column in UNIT)


def train_parent(spec: ParentSpec, emit: Emit) -> None:
    """The executor's cell of a parent: trains it and keeps it as a model folder."""
    config, path = spec.config, spec.path / PARENT
    checkpoint = spec.path / "parent.checkpoint.safetensors"
    make_folder(spec.path)
    with one_thread():
        if not spec.is_whole:
            data = load_recorded(config.data, spec.seed, spec.data_dir, spec.checksum)
            model_spec = zoo_spec(config.model, data, derive_seed(spec.seed, "init"))
            model = build(model_spec)
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
            row = stage_row("parent", model, masks, data) | _unit(spec.index)
            sha256 = content_sha256(model.state_dict())
            write_sealed(path, {"rows": [row | {"seconds": trained.seconds}], "weights_sha256": sha256})
        remove(checkpoint)
    emit(Finished(path))


def make_way(spec: WaySpec, emit: Emit) -> None:
    """The executor's cell of a child: one way of the grid, or the reason why it is refused."""
    path = spec.path.with_suffix(".json")
    with one_thread():
        if not path.exists():
            write_sealed(path, {"rows": [_way_row(spec)]})
        shutil.rmtree(spec.path, ignore_errors=True)
    emit(Finished(path))


def _unit(
    replicate: int,
    structure: str | None = None,
    distribution: str | None = None,
    sparsity: float | None = None,
    criterion: str | None = None,
) -> Row:
    return dict(zip(UNIT, (replicate, structure, distribution, sparsity, criterion), strict=True))


def _way_row(spec: WaySpec) -> Row:
    config, pruning = spec.parent.config, spec.pruning
    key = dict(zip(UNIT, _key(spec), strict=True)) | {"kind": "way"}
    data = load_recorded(config.data, spec.parent.seed, spec.parent.data_dir, spec.parent.checksum)
    model, _, _ = load_model(spec.parent.path)
    before = content_sha256(model.state_dict())
    unit = read_sealed(spec.parent.path / PARENT, "delete it to train this parent anew")
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
        # The same batches and the same order of examples for every way, so that they pair.
        derive_seed(spec.parent.seed, "ways"),
        spec.path,
        config.checkpoint_seconds,
    )
    began = time.perf_counter()
    try:
        child = make_child(making, lambda progress: None)
    except PruningError as error:
        return key | {"refused": str(error)}
    seconds = time.perf_counter() - began
    pruned = stage_row("pruned", under_masks(model, child.masks), child.masks, data)
    end = stage_row("fine-tuned", child.model, child.masks, data) if config.fine_tuning else pruned
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
