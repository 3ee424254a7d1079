"""A path at work, in a process of its own: candidate after candidate, each with its files and its rows on disk.

What was made before a kill is read and not made again, so that the path goes on where it was, to the same end.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.compression.cost import count_size
from tombola.compression.engines.engine import FLOAT32
from tombola.errors import ModelError, PruningError, TrainingError
from tombola.models.folder import write_model_files
from tombola.pruning import Masks
from tombola.runs.atomic import make_folder, remove
from tombola.runs.executors import Emit
from tombola.runs.rows import Row
from tombola.studies.base.numbers import whole_percent
from tombola.studies.base.watching import Progress
from tombola.studies.base.work import unit_rows, write_unit
from tombola.studies.compress.config import CompressConfig
from tombola.studies.compress.forms import FORMS, Form, Workshop, factory_of, loaded
from tombola.studies.compress.making import Made, Shape, make
from tombola.studies.compress.metrics import accuracy_of, flops_of
from tombola.studies.compress.paths import LADDERS, SearchPath, Tried, next_sparsity, refinements_of, start_of
from tombola.studies.compress.shipping import digest, digests, is_whole, level_folder
from tombola.studies.given_model import surroundings_of
from tombola.studies.single.metrics import emptied_layers
from tombola.studies.single.parents import Parent, open_parent
from tombola.training.threads import one_thread

ROUNDING = 1e-9
"""What a drop may be above the allowed one by how fractions are rounded."""


@dataclass(frozen=True)
class PathSpec:
    """What a worker needs of a search to go one of its paths. `accuracy` is the parent's on validation."""

    config: CompressConfig
    path: SearchPath
    folder: Path
    data_dir: Path | None
    parent_sha256: str
    data_checksum: str
    accuracy: float

    def level(self, number: int) -> Path:
        """The folder of a candidate; its rows lie beside, in a file of that name."""
        return level_folder(self.folder, (self.path.structure, self.path.distribution, number))


def search_path(spec: PathSpec, emit: Emit) -> None:
    """The executor's cell: goes a path to its end."""
    with one_thread():
        workshop = workshop_of(spec)
        ladder = rungs(spec.config, spec.path, workshop.parent.masks)
        tried: list[Tried] = []
        refinements = refinements_of(spec.config, spec.path)
        total = len(ladder) + refinements
        while (sparsity := next_sparsity(tried, ladder, refinements)) is not None:
            number = len(tried)
            rows_file = spec.level(number).with_suffix(".json")
            emit(Progress(spec.path.name, number, total, f"{whole_percent(sparsity)} removed"))
            if not is_whole(rows_file):  # made anew, to the same bits, where one of its files was lost or altered
                rows = _candidate(spec, workshop, tried, sparsity, emit)
                write_unit(rows_file, rows, files=digests(spec.level(number)))
            remove(_checkpoint(spec.level(number)))
            tried.append(tried_of(unit_rows(rows_file)))
        emit(Progress(spec.path.name, total, total))


def rungs(config: CompressConfig, path: SearchPath, masks: Masks) -> list[float]:
    """The sparsities of a path; weights of a parent that has lost some begin with it as it is."""
    ladder = LADDERS[path.structure]
    if path.structure != "weight" or masks.kept == masks.total:
        return list(ladder)
    return [masks.sparsity, *(sparsity for sparsity in ladder if sparsity > masks.sparsity)]


def tried_of(rows: Sequence[Row]) -> Tried:
    """What a path goes on from: whether the float32 file of a candidate loses little enough."""
    row = next(row for row in rows if row["precision"] == FLOAT32)
    return Tried(row["level"], row["sparsity"], row["within"], bool(row.get("ends")))


def workshop_of(spec: PathSpec) -> Workshop:
    """With the parent and the data that the run has recorded; ModelError where they are others now."""
    parent = open_parent(spec.config, spec.data_dir)
    if (parent.sha256, parent.data.checksum) != (spec.parent_sha256, spec.data_checksum):
        raise ModelError(f"{spec.config.model}: it or its data were replaced while the search was at work; put it back")
    return Workshop(spec.config, parent, surroundings_of(parent, spec.data_dir))


def _candidate(spec: PathSpec, workshop: Workshop, tried: Sequence[Tried], sparsity: float, emit: Emit) -> list[Row]:
    """Makes a candidate with its files; a row for each of its forms."""
    config, path, number = spec.config, spec.path, len(tried)
    folder = spec.level(number)
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left of it
    make_folder(folder)
    start = start_of(tried, sparsity)
    begins_at = _start(spec, workshop.parent, start)
    key = {
        "kind": "candidate",
        "structure": path.structure,
        "distribution": path.distribution,
        "level": number,
        "sparsity": sparsity,
        "start": None if start is None else start.level,
    }
    said = f"{whole_percent(sparsity)} removed, fine-tuning"
    try:
        made = make(
            config,
            workshop.parent,
            path,
            begins_at,
            sparsity,
            _checkpoint(folder),
            lambda look, total: emit(Progress(f"{path.name}: {said}", look.iteration, total, f"{look.accuracy:.2%}")),
        )
    except (PruningError, ModelError, TrainingError) as error:  # cannot be pruned so; or be traced, or trained
        ends = not isinstance(error, PruningError)
        return [{**key, "precision": FLOAT32, "refused": str(error), "within": False, "ends": ends}]
    shape = made.shape
    pruned = shape.masks if shape.masks.kept < shape.masks.total else None
    history = _history(spec, workshop.parent, key)
    write_model_files(folder, shape.spec, shape.model, pruned, history)
    return [
        key | _of_form(spec, workshop, form, made, folder, history)
        for form in FORMS
        if form.structure == path.structure
    ]


def _checkpoint(folder: Path) -> Path:
    """Of the fine-tuning of a candidate, beside its folder."""
    return folder.with_suffix(".checkpoint.safetensors")


def _start(spec: PathSpec, parent: Parent, start: Tried | None) -> Shape:
    if start is None:
        return Shape.of(parent)
    return loaded(spec.level(start.level), factory_of(spec.config), start.sparsity)


def _history(spec: PathSpec, parent: Parent, key: Row) -> Row:
    """What the model folder says of how it was made."""
    config = spec.config.model_dump(mode="json")
    return {
        "parent": parent.record,
        "data": parent.data_record,
        "compression": {name: key[name] for name in ("structure", "distribution", "sparsity")},
        **{name: config[name] for name in ("criterion", "fine_tuning", "distillation", "seed")},
    }


def _of_form(spec: PathSpec, workshop: Workshop, form: Form, made: Made, folder: Path, history: Row) -> Row:
    """The row of one file; one that cannot be had has the reason."""
    row: Row = {"precision": form.precision, "refused": None, "within": False}
    try:
        network = workshop.ship(form, made.shape, folder, history)
        accuracy = accuracy_of(network, workshop.around.data.validation)
    except ModelError as error:
        return row | {"refused": str(error)}
    given = workshop.given(made.shape)
    pruned = made.shape.masks.kept < made.shape.masks.total
    return row | {
        **accuracy,
        "within": spec.accuracy - accuracy["validation_accuracy"] <= spec.config.max_drop + ROUNDING,
        "params": count_size(given.network, given.masks).kept,
        "bytes": (folder / form.file).stat().st_size,
        "flops": flops_of(given),
        "nearly_empty": emptied_layers(made.shape.model, made.shape.masks),
        "engine": form.engine.name,
        "file": form.file,
        "sha256": digest(folder / form.file),
        "check_exact": made.exact,
        "check_held": made.shape.masks.removed_nonzeros(made.shape.model) == 0 if pruned else None,
    }
