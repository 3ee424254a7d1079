"""`tombola remove`: a parent becomes a smaller model, whose units are really gone, and both are measured."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from rich.console import Console
from torch import nn

from tombola.compression.removal.plan import plan_removal
from tombola.compression.removal.remove import remove_units
from tombola.compression.removal.result import Removed
from tombola.compression.removal.whole_layers import remove_layers
from tombola.errors import PruningError, counted
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.reports.html_tables import table_html
from tombola.reports.page import Section
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say
from tombola.runs.columns import Schema, amount, count, text
from tombola.runs.rows import Row, rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.base.output import Numbers
from tombola.studies.single.child import device_asked, learned, reporting, under_masks
from tombola.studies.single.config import RemoveConfig
from tombola.studies.single.metrics import SCHEMA, layer_rows, stage_row
from tombola.studies.single.of_parent import BEFORE, FINE_TUNED, OfParent
from tombola.studies.single.one_model import UNITS, Made, OneModel, Result, evaluation_rows, show_end
from tombola.studies.single.plan import ModelPlan, plan_model
from tombola.studies.single.report import lead
from tombola.studies.single.stages import stages_note, stages_table
from tombola.training import Recipe, Trained, fit
from tombola.training.batches import draw_batches
from tombola.training.own import loss_of

LOOKED_AT = 256
"""Examples by which the influence of whole layers is measured."""
SMALLER = "smaller"
REMOVAL_SCHEMA: Schema = {
    **SCHEMA,
    "group": {"name": text, "before": count, "after": count},
    "stayed": {"name": text, "units": count, "reason": text},
    "removal": {"parameters_before": count, "parameters_after": count, "difference": amount},
}


class Remove(OfParent[RemoveConfig]):
    """The parent without units: those that its masks leave without effect, or those of the lowest scores."""

    name = "remove"
    config_type = RemoveConfig
    schema = REMOVAL_SCHEMA
    made = "made smaller"

    @functools.cached_property
    def removed(self) -> Removed:
        """The smaller model as it is before it is fine-tuned: made anew by a run that goes on, to the same bits."""
        self.call.watcher.say("finding what belongs together ...")
        return _removed(self)

    def plan(self, *, quick: bool) -> ModelPlan | None:
        if quick:  # as of a parent
            return None
        self.check()
        removed = self.removed
        return plan_model("a smaller model", removed.model, removed.masks, self.parent.data, self.config.fine_tuning, 1)

    def make(self) -> Made:
        config, parent, removed = self.config, self.parent, self.removed
        sha256 = parent.sha256
        stages: list[tuple[str, nn.Module, Masks]] = [
            (BEFORE, under_masks(parent.model, parent.masks), parent.masks),
            (SMALLER, copy_of(removed.model), removed.masks),
        ]
        trainings: list[Trained] = []
        if config.fine_tuning is not None:
            trainings.append(self._fine_tune(config.fine_tuning))
            stages.append((FINE_TUNED, copy_of(removed.model), removed.masks))
        device = device_asked(config.fine_tuning)
        rows = [
            *(stage_row(stage, network, masks, parent.data, device) for stage, network, masks in stages),
            *_removal_rows(removed),
            *layer_rows(SMALLER, removed.model, removed.masks),
            *evaluation_rows(trainings),
            *self.latencies(stages),
        ]
        checks = {
            "check_held": removed.masks.removed_nonzeros(removed.model) == 0,
            "check_parent": content_sha256(parent.model.state_dict()) == sha256,
        }
        history = {
            "parent": parent.record,
            "data": parent.data_record,
            "removal": config.removal.model_dump(mode="json"),
            "fine_tuning": None if config.fine_tuning is None else config.fine_tuning.model_dump(mode="json"),
            "distillation": None if config.distillation is None else config.distillation.model_dump(mode="json"),
            "seed": config.seed,
        }
        masks = removed.masks if removed.masks.kept < removed.masks.total else None
        return Made(rows, checks, parent.spec.without_units(removed.removal), removed.model, masks, history)

    def _fine_tune(self, recipe: Recipe) -> Trained:
        """Trains the smaller model in place; it gets the weights of its lowest validation loss."""
        config, parent, removed = self.config, self.parent, self.removed
        trained = fit(
            removed.model,
            learned(parent.data, parent.model, config.distillation),
            recipe,
            removed.masks,
            derive_seed(config.seed, "fine-tuning", 1),
            checkpoint=self.folder.checkpoints / "fine-tuning.checkpoint.safetensors",
            checkpoint_seconds=config.checkpoint_seconds,
            on_evaluation=reporting("fine-tuning", self.call.watcher.progress),
        )
        removed.model.load_state_dict(trained.early_stop_state)
        return trained

    def sections(self, result: Result) -> Sequence[Section]:
        said = "; ".join(_stays(result.rows))
        groups = rows_of(result.rows, kind="group")
        note = f"Stay though masked: {said}." if said else ""
        return [Section("Units", table_html(groups_table(groups), "Units of coupled layers", note))] if groups else []

    @staticmethod
    def show(console: Console, result: Result) -> None:
        """The model before and after, its groups, what stayed, and a sentence."""
        console.print(drawn(stages_table(result.stages, result.latencies), left=1))
        say(console, stages_note(result.stages, result.latencies))
        if groups := rows_of(result.rows, kind="group"):
            console.print(drawn(groups_table(groups), left=1))
        for line in _stays(result.rows):
            say(console, f"Stay though masked: {line}.")
        show_end(console, result, Remove.outcome(result))

    @staticmethod
    def numbers(result: Result) -> Numbers:
        """As of any model made of a parent; beside what was checked, what went and what stayed."""
        of_any = OneModel.numbers(result)
        (removal,) = _without_kind(rows_of(result.rows, kind="removal"))
        groups, stayed = (_without_kind(rows_of(result.rows, kind=kind)) for kind in ("group", "stayed"))
        return Numbers(of_any.table, of_any.verdict | removal | {"groups": groups, "stayed": stayed}, UNITS)

    @staticmethod
    def outcome(result: Result) -> str:
        """What went, in a sentence, and what is left of the accuracy in another."""
        (removal,) = rows_of(result.rows, kind="removal")
        before, after = removal["parameters_before"], removal["parameters_after"]
        units = sum(group["before"] - group["after"] for group in rows_of(result.rows, kind="group"))
        gone = ", ".join(removal["layers"]) or counted(units, "unit")
        return (
            f"{gone} gone, {after:,} of {before:,} parameters left ({after / before:.1%}); "
            f"outputs as masked, to {removal['difference']:.0e} of the largest. {lead(result.stages)}"
        )


def groups_table(groups: Sequence[Row]) -> Table:
    """Units of coupled layers before and after."""
    rows = [(group["name"], f"{group['before']:,}", f"{group['after']:,}") for group in groups]
    return Table(("Units of", "before", "after"), rows)


def _stays(rows: Sequence[Row]) -> list[str]:
    return [f"{row['name']}, {counted(row['units'], 'unit')}: {row['reason']}" for row in rows_of(rows, kind="stayed")]


def _without_kind(rows: Sequence[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "kind"} for row in rows]


def _removal_rows(removed: Removed) -> list[Row]:
    """What went and what stayed."""
    whole = {
        "parameters_before": removed.parameters_before,
        "parameters_after": removed.parameters_after,
        "difference": removed.error,
        "layers": list(removed.removal.bypassed),
    }
    return [
        {"kind": "removal", **whole},
        *({"kind": "group", **vars(group)} for group in removed.groups),
        *({"kind": "stayed", **vars(stayed)} for stayed in removed.stayed),
    ]


def _removed(study: Remove) -> Removed:
    parent, asked, recipe = study.parent, study.config.removal, study.config.fine_tuning
    example = parent.data.train.inputs[:2].clone()
    if asked.layers is not None:
        chosen = int(asked.layers) if asked.layers.isdecimal() else [name.strip() for name in asked.layers.split(",")]
        return remove_layers(parent.model, chosen, parent.data.train.inputs[:LOOKED_AT].clone(), parent.masks)
    if asked.sparsity is None:
        removed = remove_units(parent.model, parent.masks, example, asked.protect)
        if not removed.removal.kept:
            raise PruningError(
                "no unit can go: the model's masks leave none without effect"
                + "".join(f"; {line}" for line in _stays(_removal_rows(removed))[:3])
                + "; prune it with --structure filter or neuron before, or give a --sparsity"
            )
        return removed
    seed = derive_seed(study.config.seed, "removal")
    plan = plan_removal(
        parent.model,
        asked.sparsity,
        example,
        asked.criterion,
        ranking=asked.ranking,
        round_to=asked.round_to,
        masks=parent.masks,
        protect=asked.protect,
        batches=draw_batches(parent.data.train, 64 if recipe is None else recipe.batch_size, asked.score_batches, seed),
        loss=loss_of(recipe),
        seed=seed,
    )
    return remove_units(parent.model, plan, example)
