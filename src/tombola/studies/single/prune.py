"""`tombola prune`: before, pruned, fine-tuned; the parent stays as it was."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.compression.measured import measure_latency
from tombola.data.dataset import recorded
from tombola.errors import ConfigError, RunFolderError, TombolaError, TrainingError
from tombola.models.factory import is_factory_name
from tombola.models.folder import read_spec
from tombola.models.tensors import content_sha256, save_tensors
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.runs.atomic import storage_errors
from tombola.runs.configs import flat, identity_hash
from tombola.runs.folder import RunFolder, check_facts, holds_nothing, run_folder
from tombola.runs.rows import Row
from tombola.studies.base.averaging import AVERAGED
from tombola.studies.base.speed import IMAGES
from tombola.studies.base.watching import FEATURES
from tombola.studies.base.work import Work
from tombola.studies.single.child import Child, Making, device_asked, make_child, under_masks
from tombola.studies.single.config import PruneConfig
from tombola.studies.single.metrics import check_child, layer_rows, stage_row, unit_columns
from tombola.studies.single.one_model import Made, OneModel, evaluation_rows
from tombola.studies.single.parents import Parent, is_folder, open_parent
from tombola.studies.single.plan import ModelPlan, plan_model
from tombola.training.statistics import reestimate_statistics
from tombola.training.threads import one_thread

FINE_TUNED, REESTIMATED = "fine-tuned", "re-estimated"


def default_folder(config: PruneConfig) -> Path:
    """Where a child goes that nobody named a folder for."""
    return run_folder(Path("runs"), config.study, slug(config.model), config).root


class Prune(OneModel[PruneConfig]):
    """Its folder is the one that is asked for, whatever the config."""

    name = "prune"
    config_type = PruneConfig

    @classmethod
    def place(cls, config: PruneConfig, out: Path) -> RunFolder:
        return RunFolder(out)

    @property
    def title(self) -> str:
        """By the child's own record: its parent may have gone since."""
        parent = read_spec(self.folder.root)[1].get("parent")
        return f"{parent['model'] if isinstance(parent, dict) else self.config.model}, pruned"

    @functools.cached_property
    def parent(self) -> Parent:
        with one_thread():
            return open_parent(self.config, self.call.data_dir, self.call.watcher.counting(FEATURES))

    @property
    def own_functions(self) -> tuple[str, ...]:
        model = self.config.model
        maker = () if is_folder(model) or not is_factory_name(model) else (model,)
        return (*maker, *super().own_functions)

    def facts(self) -> dict[str, Any]:
        return {
            "config": identity_hash(self.name, self.config),
            "parent": self.parent.sha256,
            "data": recorded(self.parent.data) | self.parent.data_record,
        }

    def check(self) -> None:
        with storage_errors("look into", self.folder.root):
            _refuse_foreign(self.folder, self.config.model)
        _refuse_reestimate(self.config.reestimate, self.parent.model)
        facts = self.facts()
        if self.folder.manifest.exists():
            self._refuse_other_config()
            check_facts(self.folder, facts)

    def _refuse_other_config(self) -> None:
        """Names what differs from the child that was begun in this folder. The same parent may be called otherwise."""
        root = self.folder.root
        if self.recorded.get("study") != self.name:
            raise RunFolderError(f"--out {root}: holds a run of another kind; choose another folder")
        try:
            begun = flat(self.folder.read_config(PruneConfig).model_dump(mode="json"))
        except ConfigError:
            return  # it is written again; the hash of what was asked is among the facts
        asked = flat(self.config.model_dump(mode="json"))
        same_parent = self.recorded.get("parent") == self.parent.sha256
        free = {"checkpoint_seconds", *(("model", "weights") if same_parent else ())}
        for key in {**begun, **asked}:
            if key not in free and begun.get(key) != asked.get(key):
                raise RunFolderError(
                    f"--out {root}: begun with {key} {begun.get(key)}, now {asked.get(key)}; choose another folder"
                )

    def work(self, work: Work) -> None:
        with _leaving_nothing(self.folder):  # another way of pruning may be asked for in the same folder
            try:
                super().work(work)
            except TrainingError:  # of a diverged training nothing is worth going on from
                shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
                raise

    def plan(self, *, quick: bool) -> ModelPlan | None:
        if quick:  # as of a parent
            return None
        self.check()  # what cannot be made has no plan
        config, parent = self.config, self.parent
        rounds = 1 if config.pruning.schedule.gradual else config.pruning.schedule.rounds
        return plan_model("a child", parent.model, parent.masks, parent.data, config.fine_tuning, rounds)

    def make(self) -> Made:
        config, parent, watcher = self.config, self.parent, self.call.watcher
        sha256 = parent.sha256
        making = Making(
            parent.model,
            parent.masks,
            parent.data,
            config.pruning,
            config.fine_tuning,
            config.batch_size,
            config.seed,
            self.folder.checkpoints,
            config.checkpoint_seconds,
            config.distillation,
        )
        child = make_child(making, watcher.progress)
        if config.reestimate:
            reestimate_statistics(child.model, parent.data, config.reestimate)
        models = _models(parent, child, config)
        rows = [
            *_stages(models, parent, child, config),
            *layer_rows("child", child.model, child.masks, config.pruning.structure),
            *evaluation_rows(child.trainings),
            *_latencies(models, parent, watcher.counting("measuring latency")),
        ]
        if child.averaged is not None:
            save_tensors(self.folder.root / AVERAGED, child.averaged)
        unchanged = content_sha256(parent.model.state_dict()) == sha256
        checks = check_child(child.model, child.masks, parent.masks, config.pruning, child.spared, unchanged)
        history = {
            "parent": parent.record,
            "data": parent.data_record,
            "pruning": config.pruning.model_dump(mode="json"),
            "spared": list(child.spared),
            "fine_tuning": None if config.fine_tuning is None else config.fine_tuning.model_dump(mode="json"),
            "distillation": None if config.distillation is None else config.distillation.model_dump(mode="json"),
            "reestimate": config.reestimate,
            "seed": config.seed,
        }
        return Made(rows, checks, parent.spec, child.model, child.masks, history)


Stages = list[tuple[str, nn.Module, Masks]]


def _models(parent: Parent, child: Child, config: PruneConfig) -> Stages:
    """The parent, it under the final masks, the fine-tuned child: copies, a model may keep count of its passes."""
    models = [
        ("before", copy_of(parent.model), parent.masks),
        ("pruned", under_masks(parent.model, child.masks), child.masks),
    ]
    if config.fine_tuning is not None or config.reestimate:
        last = REESTIMATED if config.fine_tuning is None else FINE_TUNED
        models.append((last, copy_of(child.model), child.masks))
    return models


def _refuse_reestimate(count: int, model: nn.Module) -> None:
    """ConfigError where new statistics are asked for, and nothing would take them; before anything is trained."""
    if not count:
        return
    if count < 2:
        raise ConfigError("--reestimate 1: statistics need two examples or more")
    if not any(isinstance(module, _BatchNorm) and module.running_mean is not None for module in model.modules()):
        raise ConfigError("--reestimate is for batch norms that keep statistics, and the model has none: leave it out")


def _stages(models: Stages, parent: Parent, child: Child, config: PruneConfig) -> list[Row]:
    """The labels of the test set are looked at here and nowhere else."""
    structure, device = config.pruning.structure, device_asked(config.fine_tuning)
    return [
        stage_row(stage, model, masks, parent.data, device, child.averaged if stage == FINE_TUNED else None)
        | unit_columns(model, masks, structure, child.spared)
        for stage, model, masks in models
    ]


def _latencies(models: Stages, parent: Parent, on_measured: Callable[[int, int], None]) -> list[Row]:
    """How fast each stage is, on test images."""
    rows: list[Row] = []
    for done, (stage, model, masks) in enumerate(models):
        on_measured(done, len(models))
        for latency in measure_latency(model, masks, parent.data.test.inputs[:IMAGES]):
            rows += [{"kind": "latency", "stage": stage, **row} for row in latency.rows()]
    return rows


def slug(model: str) -> str:
    """A parent's name as part of a folder's."""
    last = re.split(r"[/\\:.]", model.rstrip("/\\"))[-1] if not is_folder(model) else Path(model).resolve().name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-")[:40] or "model"


def _refuse_foreign(folder: RunFolder, model: str) -> None:
    """Nothing of somebody else's is written into, the parent's folder before all."""
    root = folder.root
    if is_folder(model) and Path(model).resolve() in (root.resolve(), *root.resolve().parents):
        raise RunFolderError(f"--out {root}: is or lies in the parent's folder, which stays as it is; choose another")
    if root.exists() and not root.is_dir():
        raise RunFolderError(f"--out {root}: is a file; name a folder")
    if root.exists() and not folder.manifest.exists() and not holds_nothing(root):
        raise RunFolderError(f"--out {root}: holds files of something else; choose another folder")


@contextlib.contextmanager
def _leaving_nothing(folder: RunFolder) -> Iterator[None]:
    """Takes a run's folder away if the run is refused within, before any of its work was done."""
    try:
        yield
    except TombolaError:
        begun = {path.name for path in (folder.lock, folder.manifest, folder.config, folder.checkpoints)}
        if {path.name for path in folder.root.iterdir()} <= begun and not any(folder.checkpoints.glob("*")):
            shutil.rmtree(folder.root)
        raise
