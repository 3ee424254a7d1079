"""`tombola prune`: before, pruned, fine-tuned; the parent stays as it was."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tombola.compression.measured import measure_latency
from tombola.data.dataset import recorded
from tombola.errors import ConfigError, RunFolderError, TombolaError, TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.runs.atomic import storage_errors
from tombola.runs.configs import identity_hash
from tombola.runs.folder import (
    PROCESSOR,
    RunFolder,
    begin_or_continue,
    check_facts,
    holds_nothing,
    run_folder,
    writing,
)
from tombola.runs.rows import Row
from tombola.studies.single.child import Child, Making, OnProgress, Progress, make_child, preparing, under_masks
from tombola.studies.single.config import PruneConfig
from tombola.studies.single.metrics import check_child, layer_rows, stage_row, unit_columns
from tombola.studies.single.parents import Parent, is_folder, open_parent
from tombola.studies.single.result import Result, evaluation_rows, finished_result, write_result
from tombola.training.processor import processor_facts
from tombola.training.threads import one_thread

IMAGES = 64
"""Test images that latency is measured on."""


def prune_parent(config: PruneConfig, out: Path | None, data_dir: Path | None, on_progress: OnProgress) -> Result:
    """Prunes and fine-tunes, continues or shows a child in `out` (or a folder below runs/), its model folder."""
    folder = RunFolder(out) if out is not None else run_folder(Path("runs"), config.study, _slug(config.model), config)
    with storage_errors("look into", folder.root):
        _refuse_foreign(folder, config.model)
    with one_thread():
        parent = open_parent(config, data_dir, preparing(on_progress))
        title = f"{parent.name}, pruned"
        facts = {
            "config": identity_hash(config.study, config),
            "parent": parent.sha256,
            "data": recorded(parent.data) | parent.data_record,
        }
        if folder.manifest.exists():
            _refuse_other_config(folder, config, parent)
            check_facts(folder, facts)
            finished = finished_result(folder, config, title)
            if finished is not None:
                shutil.rmtree(folder.checkpoints, ignore_errors=True)  # a kill at the very end leaves them
                return finished
        facts |= {PROCESSOR: processor_facts()}
        with writing(folder):
            begin_or_continue(folder, config.study, config, facts)
            try:
                return _prune(folder, config, parent, title, on_progress)
            except TombolaError as error:
                if isinstance(error, TrainingError):  # of a diverged training nothing is worth going on from
                    shutil.rmtree(folder.checkpoints, ignore_errors=True)
                _forget_if_empty(folder)
                raise


def _prune(folder: RunFolder, config: PruneConfig, parent: Parent, title: str, on_progress: OnProgress) -> Result:
    sha256 = parent.sha256
    making = Making(
        parent.model,
        parent.masks,
        parent.data,
        config.pruning,
        config.fine_tuning,
        config.batch_size,
        config.seed,
        folder.checkpoints,
        config.checkpoint_seconds,
    )
    child = make_child(making, on_progress)
    models = _models(parent, child, config)
    rows = [
        *_stages(models, parent, child, config),
        *layer_rows("child", child.model, child.masks, config.pruning.structure),
        *evaluation_rows(child.trainings),
        *_latencies(models, parent, on_progress),
    ]
    unchanged = content_sha256(parent.model.state_dict()) == sha256
    checks = check_child(child.model, child.masks, parent.masks, config.pruning, child.spared, unchanged)
    history = {
        "parent": parent.record,
        "data": parent.data_record,
        "pruning": config.pruning.model_dump(mode="json"),
        "spared": list(child.spared),
        "fine_tuning": None if config.fine_tuning is None else config.fine_tuning.model_dump(mode="json"),
        "seed": config.seed,
    }
    result = write_result(folder, rows, checks, parent.spec, child.model, child.masks, history, title)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return result


Stages = list[tuple[str, nn.Module, Masks]]


def _models(parent: Parent, child: Child, config: PruneConfig) -> Stages:
    """The parent, it under the final masks, the fine-tuned child: copies, a model may keep count of its passes."""
    models = [
        ("before", copy_of(parent.model), parent.masks),
        ("pruned", under_masks(parent.model, child.masks), child.masks),
    ]
    if config.fine_tuning is not None:
        models.append(("fine-tuned", copy_of(child.model), child.masks))
    return models


def _stages(models: Stages, parent: Parent, child: Child, config: PruneConfig) -> list[Row]:
    """The labels of the test set are looked at here and nowhere else."""
    structure = config.pruning.structure
    return [
        stage_row(stage, model, masks, parent.data) | unit_columns(model, masks, structure, child.spared)
        for stage, model, masks in models
    ]


def _latencies(models: Stages, parent: Parent, on_progress: OnProgress) -> list[Row]:
    """How fast each stage is, on test images."""
    rows: list[Row] = []
    for done, (stage, model, masks) in enumerate(models):
        on_progress(Progress("measuring latency", done, len(models)))
        for latency in measure_latency(model, masks, parent.data.test.inputs[:IMAGES]):
            rows += [{"kind": "latency", "stage": stage, **row} for row in latency.rows()]
    return rows


def _slug(model: str) -> str:
    """A parent's name as part of a folder's."""
    last = re.split(r"[/\\:.]", model.rstrip("/\\"))[-1] if not is_folder(model) else Path(model).resolve().name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-")[:40] or "model"


def _refuse_other_config(folder: RunFolder, config: PruneConfig, parent: Parent) -> None:
    """Names what differs from the child that was begun in this folder. The same parent may be called otherwise."""
    recorded = folder.read_manifest()["must_match"]
    if recorded.get("study") != config.study:
        raise RunFolderError(f"--out {folder.root}: holds a run of another kind; choose another folder")
    try:
        begun = _flat(folder.read_config(PruneConfig).model_dump(mode="json"))
    except ConfigError:
        return  # it is written again; the hash of what was asked is among the facts
    asked = _flat(config.model_dump(mode="json"))
    free = {"checkpoint_seconds", *(("model", "weights") if recorded.get("parent") == parent.sha256 else ())}
    for key in {**begun, **asked}:
        if key not in free and begun.get(key) != asked.get(key):
            raise RunFolderError(
                f"--out {folder.root}: begun with {key} {begun.get(key)}, now {asked.get(key)}; choose another folder"
            )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _forget_if_empty(folder: RunFolder) -> None:
    """A way that is refused before anything was made leaves nothing that another one would stumble over."""
    if not folder.rows.exists() and not any(folder.checkpoints.glob("*")):
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        for path in (folder.manifest, folder.config, folder.lock):
            path.unlink(missing_ok=True)
        if not any(folder.root.iterdir()):
            folder.root.rmdir()


def _refuse_foreign(folder: RunFolder, model: str) -> None:
    """Nothing of somebody else's is written into, the parent's folder before all."""
    root = folder.root
    if is_folder(model) and Path(model).resolve() in (root.resolve(), *root.resolve().parents):
        raise RunFolderError(f"--out {root}: is or lies in the parent's folder, which stays as it is; choose another")
    if root.exists() and not root.is_dir():
        raise RunFolderError(f"--out {root}: is a file; name a folder")
    if root.exists() and not folder.manifest.exists() and not holds_nothing(root):
        raise RunFolderError(f"--out {root}: holds files of something else; choose another folder")
