"""`tombola prune`: before, pruned, fine-tuned; the parent stays as it was."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.errors import ConfigError
from tombola.models.tensors import content_sha256, save_tensors
from tombola.pruning.copies import copy_of
from tombola.runs.rows import Row
from tombola.studies.base.averaging import AVERAGED
from tombola.studies.single.child import Child, Making, device_asked, make_child, under_masks
from tombola.studies.single.config import PruneConfig
from tombola.studies.single.metrics import check_child, layer_rows, stage_row, unit_columns
from tombola.studies.single.of_parent import BEFORE, FINE_TUNED, OfParent, Stages
from tombola.studies.single.one_model import Made, evaluation_rows
from tombola.studies.single.parents import Parent
from tombola.studies.single.plan import ModelPlan, plan_model
from tombola.training.statistics import reestimate_statistics

REESTIMATED = "re-estimated"


class Prune(OfParent[PruneConfig]):
    """The parent's weights, fewer of them."""

    name = "prune"
    config_type = PruneConfig
    made = "pruned"

    def check(self) -> None:
        super().check()
        _refuse_reestimate(self.config.reestimate, self.parent.model)

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
            *self.latencies(models),
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


def _models(parent: Parent, child: Child, config: PruneConfig) -> Stages:
    """The parent, it under the final masks, the fine-tuned child: copies, a model may keep count of its passes."""
    models = [
        (BEFORE, copy_of(parent.model), parent.masks),
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
