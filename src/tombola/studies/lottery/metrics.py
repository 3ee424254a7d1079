"""What a lottery study measures: the rows of one training, and their summary over replicates."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from tombola.compression.cost import count_flops
from tombola.data import DataSet
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, nearly_empty
from tombola.pruning.prunable import weight_layouts
from tombola.reports.intervals import CONFIDENCE, Bounds, Estimate, estimate
from tombola.runs.rows import Row
from tombola.studies.base.averaging import averaged_columns, averaged_look
from tombola.studies.base.new_examples import answer_columns
from tombola.studies.base.paired import paired_accuracy
from tombola.studies.base.soundness import faults_of, frequency_loss, majority_accuracy
from tombola.studies.lottery.controls import HOST, controls
from tombola.studies.lottery.plan import Round
from tombola.studies.lottery.rewind import Rewind
from tombola.training import Trained
from tombola.training.device import placed
from tombola.training.metrics import evaluate, predict, scores_of

UNIT = ("replicate", "rewind", "round", "branch")
"""The columns that name one training: `branch` is dense, ticket, or a control's name; `rewind` is null for dense."""

CHECKS = {
    "check_sparsity": "sparsity as asked",
    "check_held": "masks held after training",
    "check_rewound": "start bit-equal to the stored weights",
    "check_nested": "new mask within the old",
}
HISTOGRAM_BINS = 40


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
    data: DataSet,
    trained: Trained,
    checks: Mapping[str, bool | None],
    early_bird: int | None,
    device: str = "cpu",
) -> list[Row]:
    """The rows of a finished training: one of kind `training`, some of its layers, one per evaluation.

    Accuracies and F1 are fractions, losses mean cross-entropy in nats, FLOPs those of one example's forward pass.
    `*_majority_accuracy` is that of always answering the most frequent class, `train_frequency_loss` the loss of
    answering class frequencies; `test_correct` has which test examples were answered correctly. `model` holds the final
    weights; it is measured there and at its early-stop iteration, and the test set is used for nothing else but
    `averaged_*`, which is the average at the end, where weights are averaged.
    All that is scored runs on `device`. `early_bird` is the iteration at which the next mask had settled, or None.
    """
    with placed(model, device):
        final = {part: evaluate(model, getattr(data, part)) for part in ("train", "validation")}
        loss, answers = predict(model, data.test)
    final["test"] = scores_of(loss, answers, data.test.targets)
    flops = count_flops(model, data.input_shape, masks)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with placed(model, device):
        model.load_state_dict(trained.early_stop_state)
        at_early_stop = evaluate(model, data.test)
        model.load_state_dict(weights)
        averaged = {} if trained.averaged is None else averaged_columns(model, trained.averaged.state, data)
    training: Row = {
        "kind": "training",
        **unit.key,
        "seed": unit.seed,
        "density": masks.density,
        "kept": masks.kept,
        "total": masks.total,
        "kept_asked": unit.round.kept,
        **{f"{part}_{name}": value for part, scores in final.items() for name, value in asdict(scores).items()},
        "validation_majority_accuracy": majority_accuracy(data.validation.targets),
        "test_majority_accuracy": majority_accuracy(data.test.targets),
        "train_frequency_loss": frequency_loss(data.train.targets),
        **answer_columns((answers == data.test.targets).numpy(), data.test.targets.numpy()),
        "iterations": trained.iteration,
        "iterations_trained": trained.trained,
        "early_stop_iteration": trained.early_stop.iteration,
        "early_stop_validation_loss": trained.early_stop.loss,
        "early_stop_validation_accuracy": trained.early_stop.accuracy,
        "early_stop_test_accuracy": at_early_stop.accuracy,
        **averaged,
        "early_bird_iteration": early_bird,
        "flops_dense": flops.dense,
        "flops_effective": flops.effective,
        **checks,
        "weights_sha256": content_sha256(weights),
        "masks_sha256": content_sha256(masks.to_tensors()),
        "engine": trained.engine,
        "seconds": round(trained.seconds, 3),
    }
    emptied = {layer.name for layer in nearly_empty(masks, weight_layouts(model))}
    details = _layer_rows(unit, masks, emptied)
    if unit.branch in ("dense", "ticket"):
        details += _connection_rows(unit, masks, data) + _histogram_rows(unit, start, weights, masks)
    evaluations = [
        {"kind": "evaluation", **unit.key, "iteration": look.iteration, "loss": look.loss, "accuracy": look.accuracy}
        | averaged_look(look)
        for look in trained.evaluations
    ]
    return [training, *details, *evaluations]


def _layer_rows(unit: Unit, masks: Masks, emptied: Collection[str]) -> list[Row]:
    """`nearly_empty`: whether next to nothing of a layer is left."""
    return [
        {"kind": "layer", **unit.key, "layer": layer.name, "kept": layer.kept, "total": layer.total}
        | {"nearly_empty": layer.name in emptied}
        for layer in masks.table()
    ]


def _connection_rows(unit: Unit, masks: Masks, data: DataSet) -> list[Row]:
    """Surviving connections of every input pixel, row by row, of networks whose first layer sees them all."""
    name, mask = next(iter(masks.items()))
    if mask.keep.ndim != 2 or mask.shape[1] != math.prod(data.input_shape):
        return []
    counts = mask.keep.sum(0).tolist()
    shape = list(data.input_shape)
    return [{"kind": "connections", **unit.key, "layer": name, "shape": shape, "counts": counts}]


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


def rows_of_mode(rows: Iterable[Row], mode: str) -> list[Row]:
    """The rows of one mode of rewinding, and those of the dense network that it shares."""
    return [row for row in rows if row["rewind"] in (None, mode)]


def paired_difference(ticket: Sequence[Row], other: Sequence[Row], part: str, confidence: float = CONFIDENCE) -> Bounds:
    """Ticket minus other in points of final `part` accuracy, paired by replicate; training rows."""
    return paired_accuracy(ticket, other, part).bounds(confidence)


@dataclass(frozen=True)
class Summary:
    """One branch of one round over its replicates. Accuracies and F1 in percent; `rewind` is None for dense.

    `seconds_per_iteration` is that of training, evaluations included; None where another mode's training was taken
    over. `engine` is what trained it, `dense` or `sparse`. `fault` says which of its trainings learned nothing or
    diverged, None where none did (see `studies.base.soundness`).
    """

    rewind: str | None
    branch: str
    round: int
    density: float
    kept: Estimate
    total: int
    test_accuracy: Estimate
    validation_accuracy: Estimate
    early_stop_test_accuracy: Estimate
    f1: Estimate
    early_stop_iteration: Estimate
    iterations_trained: Estimate
    flops_dense: int
    flops_effective: Estimate
    seconds: Estimate
    seconds_per_iteration: Estimate | None
    engine: str
    fault: str | None


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Summaries by mode and round, and within a round dense or ticket first, then the controls."""
    groups: dict[tuple[str | None, int, str], list[Row]] = {}
    for row in sorted((r for r in rows if r["kind"] == "training"), key=lambda r: r["replicate"]):
        groups.setdefault((row["rewind"], row["round"], row["branch"]), []).append(row)
    order = ["dense", HOST, "ticket", *controls]
    modes = list(dict.fromkeys(mode for mode, _, _ in groups))
    ordered = sorted(groups, key=lambda k: (k[0] is not None, modes.index(k[0]), k[1], order.index(k[2])))
    return [_summary(groups[key], *key) for key in ordered]


def summaries_of_mode(summaries: Iterable[Summary], mode: str) -> list[Summary]:
    return [summary for summary in summaries if summary.rewind in (None, mode)]


def _summary(group: list[Row], mode: str | None, round_index: int, branch: str) -> Summary:
    def over(column: str, scale: float = 1.0) -> Estimate:
        return estimate([row[column] * scale for row in group])

    return Summary(
        rewind=mode,
        branch=branch,
        round=round_index,
        density=group[0]["density"],
        kept=over("kept"),
        total=group[0]["total"],
        test_accuracy=over("test_accuracy", 100),
        validation_accuracy=over("validation_accuracy", 100),
        early_stop_test_accuracy=over("early_stop_test_accuracy", 100),
        f1=over("test_f1", 100),
        early_stop_iteration=over("early_stop_iteration"),
        iterations_trained=over("iterations_trained"),
        flops_dense=group[0]["flops_dense"],
        flops_effective=over("flops_effective"),
        seconds=over("seconds"),
        seconds_per_iteration=_per_iteration(group),
        engine=" and ".join(sorted({row["engine"] for row in group})),
        fault=faults_of(group),
    )


def _per_iteration(group: Sequence[Row]) -> Estimate | None:
    costs = [row["seconds"] / row["iterations_trained"] for row in group if row["iterations_trained"]]
    return estimate(costs) if costs else None
