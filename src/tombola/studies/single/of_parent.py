"""What `prune` and `remove` share: one model is made of a parent, which stays as it is, in a folder that is named."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import nn

from tombola.compression.measured import measure_latency
from tombola.data.dataset import recorded
from tombola.errors import ConfigError, RunFolderError, TombolaError, TrainingError
from tombola.models.factory import is_factory_name
from tombola.models.folder import read_spec
from tombola.pruning import Masks
from tombola.runs.atomic import storage_errors
from tombola.runs.configs import flat, identity_hash
from tombola.runs.folder import RunFolder, check_facts, holds_nothing, run_folder
from tombola.runs.rows import Row
from tombola.studies.base.speed import IMAGES
from tombola.studies.base.study import Call
from tombola.studies.base.watching import FEATURES
from tombola.studies.base.work import Work
from tombola.studies.single.config import OfParentConfig
from tombola.studies.single.one_model import OneModel
from tombola.studies.single.parents import Parent, is_folder, open_parent
from tombola.training.threads import one_thread

P = TypeVar("P", bound=OfParentConfig)
BEFORE, FINE_TUNED = "before", "fine-tuned"
Stages = Sequence[tuple[str, nn.Module, Masks]]
"""The parent and what becomes of it, each with its masks: copies, a model may keep count of its passes."""


def default_folder(config: OfParentConfig) -> Path:
    """Where a model goes that nobody named a folder for."""
    return run_folder(Path("runs"), config.study, slug(config.model), config).root


class OfParent(OneModel[P]):
    """Its folder is the one that is asked for, whatever the config."""

    made: ClassVar[str]
    """What the parent is afterwards, for the title."""

    @classmethod
    def place(cls, config: P, out: Path) -> RunFolder:
        return RunFolder(out)

    @property
    def title(self) -> str:
        """By the model's own record: its parent may have gone since."""
        parent = read_spec(self.folder.root)[1].get("parent")
        return f"{parent['model'] if isinstance(parent, dict) else self.config.model}, {self.made}"

    @functools.cached_property
    def parent(self) -> Parent:
        return parent_of(self.config, self.call)

    @property
    def own_functions(self) -> tuple[str, ...]:
        return (*own_maker(self.config.model), *super().own_functions)

    def facts(self) -> dict[str, Any]:
        return {
            "config": identity_hash(self.name, self.config),
            "parent": self.parent.sha256,
            "data": recorded(self.parent.data) | self.parent.data_record,
        }

    def check(self) -> None:
        with storage_errors("look into", self.folder.root):
            _refuse_foreign(self.folder, self.config.model)
        facts = self.facts()
        if self.folder.manifest.exists():
            self._refuse_other_config()
            check_facts(self.folder, facts)

    def _refuse_other_config(self) -> None:
        """Names what differs from the model that was begun in this folder. The same parent may be called otherwise."""
        root = self.folder.root
        if self.recorded.get("study") != self.name:
            raise RunFolderError(f"--out {root}: holds a run of another kind; choose another folder")
        try:
            begun = flat(self.folder.read_config(self.config_type).model_dump(mode="json"))
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
        with _leaving_nothing(self.folder):  # another model may be asked for in the same folder
            try:
                super().work(work)
            except TrainingError:  # of a diverged training nothing is worth going on from
                shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
                raise

    def latencies(self, stages: Stages) -> list[Row]:
        """How fast each stage is, on test images."""
        counting = self.call.watcher.counting("measuring latency")
        rows: list[Row] = []
        for done, (stage, model, masks) in enumerate(stages):
            counting(done, len(stages))
            for latency in measure_latency(model, masks, self.parent.data.test.inputs[:IMAGES]):
                rows += [{"kind": "latency", "stage": stage, **row} for row in latency.rows()]
        return rows


def parent_of(config: OfParentConfig, call: Call) -> Parent:
    """The parent that a config names, opened for the call of its study."""
    with one_thread():
        return open_parent(config, call.data_dir, call.watcher.counting(FEATURES))


def own_maker(model: str) -> tuple[str, ...]:
    """The function of somebody's own that a parent's name is; none of a folder or a name of the zoo."""
    return () if is_folder(model) or not is_factory_name(model) else (model,)


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
