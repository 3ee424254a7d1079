"""`tombola remove`: a model folder becomes a smaller one, whose units are really gone, and both are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tombola.compression.measured import BATCH_SIZES, measure_latency
from tombola.compression.removal.plan import plan_removal
from tombola.compression.removal.remove import remove_units
from tombola.compression.removal.result import Removed
from tombola.compression.removal.whole_layers import remove_layers
from tombola.errors import ConfigError, PruningError, StorageError, counted
from tombola.models import save_model
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say
from tombola.runs.rows import Row, rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.base.output import Numbers
from tombola.studies.base.speed import speeds_of
from tombola.studies.base.watching import SILENT, Watcher
from tombola.studies.given_model import AskedModel
from tombola.studies.single.child import reporting, under_masks
from tombola.studies.single.metrics import stage_row
from tombola.studies.single.parents import Parent, open_parent
from tombola.studies.single.prune import slug
from tombola.studies.single.stages import stages_note, stages_table
from tombola.training import Recipe, fit
from tombola.training.batches import draw_batches
from tombola.training.own import loss_of

IMAGES = max(BATCH_SIZES)
LOOKED_AT = 256
"""Examples by which the influence of whole layers is measured."""
BEFORE, SMALLER, FINE_TUNED = "before", "smaller", "fine-tuned"


@dataclass(frozen=True)
class Asked:
    """How units are chosen: by the folder's masks, or where there is a `sparsity` by scores; or whole layers.

    `layers`: how many, or their names with commas between.
    """

    sparsity: float | None = None
    layers: str | None = None
    criterion: str = "magnitude"
    ranking: str = "group"
    round_to: int = 1
    protect: tuple[str, ...] = ()
    score_batches: int = 16


@dataclass(frozen=True)
class Outcome:
    """The smaller model, its folder, and rows of what was measured before and after."""

    folder: Path
    removed: Removed
    rows: list[Row] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What went, in one."""
        before, after = self.removed.parameters_before, self.removed.parameters_after
        units = sum(group.before - group.after for group in self.removed.groups)
        gone = ", ".join(self.removed.removal.bypassed) or counted(units, "unit")
        return (
            f"{self.folder}: {gone} gone, {after:,} of {before:,} parameters left "
            f"({after / before:.1%}); outputs as masked, to {self.removed.error:.0e} of the largest."
        )


def remove(
    model: AskedModel, asked: Asked, out: Path, data_dir: Path | None = None, watcher: Watcher = SILENT
) -> Outcome:
    """Removes units of a model and writes what is left as a model folder.

    Raises TombolaError in one line where `out` holds something, nothing can go, or the model cannot be traced.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise StorageError(f"--out {out}: exists and is not an empty folder; choose another")
    parent = open_parent(model, data_dir)
    watcher.say("finding what belongs together ...")
    removed = _removed(parent, asked, model)
    stages: list[tuple[str, nn.Module, Masks]] = [
        (BEFORE, under_masks(parent.model, parent.masks), parent.masks),
        (SMALLER, copy_of(removed.model), removed.masks),
    ]
    if model.fine_tuning is not None:
        _fine_tune(removed, parent, model.fine_tuning, model.seed, watcher)
        stages.append((FINE_TUNED, copy_of(removed.model), removed.masks))
    rows = [stage_row(stage, network, masks, parent.data) for stage, network, masks in stages]
    counting = watcher.counting("measuring latency")
    for done, (stage, network, masks) in enumerate(stages):
        counting(done, len(stages))
        for latency in measure_latency(network, masks, parent.data.test.inputs[:IMAGES]):
            rows += [{"kind": "latency", "stage": stage, **row} for row in latency.rows()]
    history: dict[str, Any] = {
        "parent": parent.record,
        "data": parent.data_record,
        "removal": {**vars(asked), "protect": list(asked.protect)},
        "fine_tuning": None if model.fine_tuning is None else model.fine_tuning.model_dump(mode="json"),
        "seed": model.seed,
    }
    pruned = removed.masks if removed.masks.kept < removed.masks.total else None
    save_model(out, parent.spec.without_units(removed.removal), removed.model, pruned, history)
    return Outcome(out, removed, rows)


def default_folder(model: str) -> Path:
    """Where the smaller model goes that nobody named a folder for."""
    return Path("runs") / f"removed-{slug(model)}"


def _removed(parent: Parent, asked: Asked, model: AskedModel) -> Removed:
    example = parent.data.train.inputs[:2].clone()
    if asked.layers is not None:
        if asked.sparsity is not None:
            raise ConfigError("--layers removes whole layers: leave --sparsity out, and remove units of what is left")
        chosen = int(asked.layers) if asked.layers.isdecimal() else [name.strip() for name in asked.layers.split(",")]
        return remove_layers(parent.model, chosen, parent.data.train.inputs[:LOOKED_AT].clone(), parent.masks)
    if asked.sparsity is None:
        removed = remove_units(parent.model, parent.masks, example, asked.protect)
        if not removed.removal.kept:
            raise PruningError(
                "no unit can go: the model's masks leave none without effect"
                + "".join(f"; {stays}" for stays in _stays(removed)[:3])
                + "; prune it with --structure filter or neuron before, or give a --sparsity"
            )
        return removed
    batch_size = 64 if model.fine_tuning is None else model.fine_tuning.batch_size
    seed = derive_seed(model.seed, "removal")
    plan = plan_removal(
        parent.model,
        asked.sparsity,
        example,
        asked.criterion,
        ranking=asked.ranking,
        round_to=asked.round_to,
        masks=parent.masks,
        protect=asked.protect,
        batches=draw_batches(parent.data.train, batch_size, asked.score_batches, seed),
        loss=loss_of(model.fine_tuning),
        seed=seed,
    )
    return remove_units(parent.model, plan, example)


def _fine_tune(removed: Removed, parent: Parent, recipe: Recipe, seed: int, watcher: Watcher) -> None:
    """Trains the smaller model in place; it gets the weights of its lowest validation loss."""
    look = reporting("fine-tuning", watcher.progress)
    own = derive_seed(seed, "fine-tuning", 1)
    trained = fit(removed.model, parent.data, recipe, removed.masks, own, on_evaluation=look)
    removed.model.load_state_dict(trained.early_stop_state)


def show(console: Console, outcome: Outcome) -> None:
    """The model before and after, its groups, what stayed, and a sentence."""
    latencies = rows_of(outcome.rows, kind="latency")
    stages = rows_of(outcome.rows, kind="stage")
    console.print(drawn(stages_table(stages, latencies), left=1))
    say(console, stages_note(stages, latencies))
    if outcome.removed.groups:
        console.print(drawn(groups_table(outcome.removed), left=1))
    for line in _stays(outcome.removed):
        say(console, f"Stay though masked: {line}.")
    say(console, f"\n{outcome.sentence}", "bold")


def groups_table(removed: Removed) -> Table:
    """Units of coupled layers before and after."""
    rows = [(group.name, f"{group.before:,}", f"{group.after:,}") for group in removed.groups]
    return Table(("Units of", "before", "after"), rows)


def _stays(removed: Removed) -> list[str]:
    return [f"{stays.name}, {counted(stays.units, 'unit')}: {stays.reason}" for stays in removed.stayed]


def numbers(outcome: Outcome) -> Numbers:
    """For a program: a row for every stage; in place of a verdict what went and what stayed."""
    removed = outcome.removed
    rows = []
    for stage in rows_of(outcome.rows, kind="stage"):
        speeds = speeds_of(rows_of(outcome.rows, kind="latency", stage=stage["stage"]))
        times = [{"batch": speed.batch, "seconds": speed.dense} for speed in speeds]
        rows.append({key: value for key, value in stage.items() if key != "kind"} | {"times": times})
    said = {
        "parameters_before": removed.parameters_before,
        "parameters_after": removed.parameters_after,
        "difference": removed.error,
        "groups": list(removed.groups),
        "stayed": list(removed.stayed),
        "layers": list(removed.removal.bypassed),
    }
    return Numbers(rows, said, {"seconds": "s"})
