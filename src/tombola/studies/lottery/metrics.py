"""What a lottery study measures: the rows of one training; `over_replicates` sums them up."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.compression.cost import count_flops
from tombola.errors import ModelError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, nearly_empty
from tombola.pruning.prunable import weight_layouts
from tombola.runs.rows import Row
from tombola.studies.base.averaging import averaged_columns, averaged_look
from tombola.studies.base.new_examples import answer_columns, score_columns
from tombola.studies.base.soundness import frequency_loss, majority_accuracy
from tombola.studies.lottery.dead_tickets import dead_columns
from tombola.studies.lottery.plan import Round
from tombola.studies.lottery.rewind import Rewind
from tombola.studies.lottery.tasks import check_finite, plain_examples, shape_of
from tombola.training import Trained
from tombola.training.classification import Classification
from tombola.training.device import placed
from tombola.training.graphs import GraphTask
from tombola.training.task import PARTS, Part, Scored, Task
from tombola.training.trained import Evaluation

UNIT = ("replicate", "rewind", "round", "branch")
"""The columns that name one training: `branch` is dense, ticket, or a control's name; `rewind` is null for dense."""

CHECKS = {
    "check_sparsity": "sparsity as asked",
    "check_held": "masks held after training",
    "check_rewound": "start bit-equal to the stored weights",
    "check_nested": "new mask within the old",
}
HISTOGRAM_BINS = 40
NO_FLOPS = "examples of the task {task} are no tensors of one shape, whose FLOPs could be counted"


@dataclass(frozen=True)
class Unit:
    """One training of a study; `mode` is None for the dense network, which all modes share."""

    replicate: int
    seed: int
    mode: Rewind | None
    round: Round
    branch: str

    @property
    def key(self) -> Row:
        mode = None if self.mode is None else str(self.mode)
        return {"replicate": self.replicate, "rewind": mode, "round": self.round.index, "branch": self.branch}


def training_rows(
    unit: Unit,
    model: nn.Module,
    start: Mapping[str, Tensor],
    masks: Masks,
    task: Task,
    moved: Task,
    trained: Trained,
    checks: Mapping[str, bool | None],
    early_bird: int | None,
    device: str = "cpu",
) -> list[Row]:
    """The rows of a finished training: one of kind `training`, some of its layers, one per evaluation.

    Scores are `<part>_<measure>`: of classes accuracy and F1 as fractions, and losses mean cross-entropy in nats. FLOPs
    are those of one example's forward pass (a whole sequence's), null with a reason where an example has no shape. What
    knows nothing but the training targets scores beside it (`_soundness`), and so does every test example
    (`_examples`). `model` holds the final weights; it is measured there and at its early-stop iteration, and the test
    set is used for nothing else but `averaged_*`, which is the average at the end, where weights are averaged.
    All that is scored runs on `device`, to which `task` was `moved`. `early_bird` is the iteration at which the next
    mask had settled, or None.
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with placed(model, device) as there:
        scored = moved.on(there)
        final = {part: scored.scores(model, part) for part in PARTS}
        model.load_state_dict(trained.early_stop_state)
        at_early_stop = scored.scores(model, "test")
        model.load_state_dict(weights)
        averaged = {} if trained.averaged is None else averaged_columns(model, trained.averaged.state, scored)
    for part, scores in final.items():
        check_finite(scores, task, part)
    measure = task.compares.name
    training: Row = {
        "kind": "training",
        **unit.key,
        "seed": unit.seed,
        "density": masks.density,
        "kept": masks.kept,
        "total": masks.total,
        "kept_asked": unit.round.kept,
        **{f"{part}_{name}": value for part, scores in final.items() for name, value in _listed(scores).items()},
        **_soundness(task, final),
        **_examples(task, final["test"]),
        "iterations": trained.iteration,
        "iterations_trained": trained.trained,
        "early_stop_iteration": trained.early_stop.iteration,
        "early_stop_validation_loss": trained.early_stop.loss,
        f"early_stop_validation_{measure}": trained.early_stop.values[measure],
        f"early_stop_test_{measure}": at_early_stop.values[measure],
        **averaged,
        "early_bird_iteration": early_bird,
        **_flops(model, task, masks),
        **(dead_columns(model, masks, _example(task)) if unit.branch == "ticket" else {}),
        **checks,
        "weights_sha256": content_sha256(weights),
        "masks_sha256": content_sha256(masks.to_tensors()),
        "engine": trained.engine,
        "seconds": round(trained.seconds, 3),
    }
    emptied = {layer.name for layer in nearly_empty(masks, weight_layouts(model))}
    details = _layer_rows(unit, masks, emptied)
    if unit.branch in ("dense", "ticket"):
        details += _connection_rows(unit, masks, task) + _histogram_rows(unit, start, weights, masks)
    return [training, *details, *(_evaluation_row(unit, look, task) for look in trained.evaluations)]


def _listed(scores: Scored) -> Row:
    return {"loss": scores.loss, **scores.values, "examples": scores.examples}


def _evaluation_row(unit: Unit, look: Evaluation, task: Task) -> Row:
    """A look at the validation set: the loss and what networks are compared by; all measures where they are no
    classes of a data set."""
    names = (task.compares.name,) if isinstance(task, Classification) else tuple(look.values)
    values = {name: look.values[name] for name in names}
    key = {"kind": "evaluation", **unit.key, "iteration": look.iteration}
    return {**key, "loss": look.loss, **values, **averaged_look(look, measures=names)}


def _soundness(task: Task, final: Mapping[Part, Scored]) -> Row:
    """What a network has to be better than to have learned something.

    Of classes `*_majority_accuracy` is that of always answering the most frequent class, `train_frequency_loss` the
    cross-entropy of answering class frequencies, null where another loss is measured. Of other tasks `*_naive_*` are
    the scores of answering all examples alike (`Task.naive`), and `*_naive_error` the standard error of the mean
    difference to it, over examples.
    """
    targets = _classes_of(task)
    if targets is not None and "accuracy" in final["test"].values:
        return {
            "validation_majority_accuracy": majority_accuracy(targets["validation"]),
            "test_majority_accuracy": majority_accuracy(targets["test"]),
            "train_frequency_loss": frequency_loss(targets["train"]) if _is_scored_in_nats(task) else None,
        }
    naive = {part: task.naive(part) for part in PARTS}
    name, found = task.compares.name, {}
    for part in ("validation", "test"):
        theirs, ours = naive[part], final[part]
        found[f"{part}_naive_{name}"] = None if theirs is None else theirs.values[name]
        found[f"{part}_naive_error"] = None
        if theirs is not None and theirs.each is not None and ours.each is not None and len(ours.each) > 1:
            gaps = (theirs.each - ours.each).double()
            found[f"{part}_naive_error"] = float(gaps.std()) / len(gaps) ** 0.5
    train = naive["train"]
    return {**found, "train_naive_loss": None if train is None else train.loss}


def _classes_of(task: Task) -> dict[Part, Tensor] | None:
    """The right answers of all parts, where these are classes."""
    if isinstance(task, Classification):
        return {part: task.arrays(part).targets for part in PARTS}
    if isinstance(task, GraphTask) and task.kind == "classification":
        return {part: task.targets(part) for part in PARTS}
    return None


def _is_scored_in_nats(task: Task) -> bool:
    """Whether the loss of a classifier's scores is the cross-entropy, and not in a unit of its owner's."""
    own = type(task).scores not in (Classification.scores, GraphTask.scores)
    return task.criterion_loss is functional.cross_entropy and not own


def _says_what_is_right(scores: Scored) -> bool:
    """Whether the examples' scores are 1 for right answers and 0 for wrong ones, and come to the accuracy."""
    each, accuracy = scores.each, scores.values.get("accuracy")
    if each is None or accuracy is None or not bool(((each == 0) | (each == 1)).all()):
        return False
    return int(each.sum(dtype=torch.float64)) == round(accuracy * scores.examples)


def _examples(task: Task, scores: Scored) -> Row:
    """What every test example was answered with: `test_correct` which ones rightly, or `test_each` its score."""
    targets = _classes_of(task)
    if targets is not None and scores.each is not None and _says_what_is_right(scores):
        return answer_columns((scores.each > 0).numpy(), targets["test"].numpy())
    each = None if scores.each is None else scores.each.float().cpu().numpy()
    return score_columns(each, scores.values[task.compares.name], task.checksum)


def _flops(model: nn.Module, task: Task, masks: Masks) -> Row:
    """FLOPs of one example; of examples that are no tensors of one shape there is no such number."""
    if isinstance(task, Classification):
        flops = count_flops(model, task.data.input_shape, masks)
        return {"flops_dense": flops.dense, "flops_effective": flops.effective}
    inputs = plain_examples(task, 2)
    if inputs is None:
        return {"flops_dense": None, "flops_effective": None, "flops_reason": NO_FLOPS.format(task=task.name)}
    try:
        flops = count_flops(model, inputs.shape[1:], masks, inputs.dtype)
    except ModelError as error:
        return {"flops_dense": None, "flops_effective": None, "flops_reason": str(error)}
    return {"flops_dense": flops.dense, "flops_effective": flops.effective}


def _example(task: Task) -> Tensor | None:
    """Two examples as a network takes them, of which it is traced; None where they are no tensors of one shape."""
    if isinstance(task, Classification):
        return torch.zeros(2, *task.data.input_shape)
    return plain_examples(task, 2)


def _layer_rows(unit: Unit, masks: Masks, emptied: Collection[str]) -> list[Row]:
    """`nearly_empty`: whether next to nothing of a layer is left."""
    return [
        {"kind": "layer", **unit.key, "layer": layer.name, "kept": layer.kept, "total": layer.total}
        | {"nearly_empty": layer.name in emptied}
        for layer in masks.table()
    ]


def _connection_rows(unit: Unit, masks: Masks, task: Task) -> list[Row]:
    """Surviving connections of every input pixel, row by row, of networks whose first layer sees them all."""
    name, mask = next(iter(masks.items()))
    found = shape_of(task)
    if found is None or mask.keep.ndim != 2 or mask.shape[1] != math.prod(found[0]):
        return []
    counts = mask.keep.sum(0).tolist()
    return [{"kind": "connections", **unit.key, "layer": name, "shape": list(found[0]), "counts": counts}]


def _histogram_rows(unit: Unit, start: Mapping[str, Tensor], weights: Mapping[str, Tensor], masks: Masks) -> list[Row]:
    """Counts of each layer's kept weights before and after training, in equal bins over their whole range."""
    rows = []
    for name, mask in masks.items():
        before, after = start[name][mask.keep], weights[name][mask.keep]
        limit = float(torch.cat([before, after]).abs().max())
        limit = limit or 1.0
        counts = [torch.histc(part, HISTOGRAM_BINS, -limit, limit).int().tolist() for part in (before, after)]
        rows.append(
            {"kind": "histogram", **unit.key, "layer": name, "limit": limit, "before": counts[0], "after": counts[1]}
        )
    return rows
