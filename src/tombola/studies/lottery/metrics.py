"""What a lottery study measures: the rows of one training, and their summary over replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tombola.compression.cost import count_flops
from tombola.data import DataSet
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.reports.intervals import Estimate, estimate
from tombola.runs.rows import Row
from tombola.studies.lottery.plan import Round
from tombola.training import Trained
from tombola.training.metrics import evaluate

UNIT = ("replicate", "round", "branch")
"""The columns that name one training: `branch` is dense, ticket, random or reinit."""

CHECKS = {
    "check_sparsity": "sparsity as asked",
    "check_held": "masks held after training",
    "check_rewound": "start bit-equal to the stored weights",
    "check_nested": "new mask within the old",
}


@dataclass(frozen=True)
class Unit:
    """One training of a study."""

    replicate: int
    seed: int
    round: Round
    branch: str


def training_rows(
    unit: Unit,
    model: nn.Module,
    masks: Masks,
    data: DataSet,
    trained: Trained,
    checks: dict[str, bool | None],
) -> list[Row]:
    """The rows of a finished training: one of kind `training`, one per layer, one per evaluation.

    Accuracies and F1 are shares, losses mean cross-entropy in nats, FLOPs those of one example's forward
    pass. `model` holds the final weights; it is measured there and at its early-stop iteration, and the test
    set is used for nothing else.
    """
    key = {"replicate": unit.replicate, "round": unit.round.index, "branch": unit.branch}
    final = {part: evaluate(model, getattr(data, part)) for part in ("train", "validation", "test")}
    flops = count_flops(model, data.input_shape, masks)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(trained.early_stop_state)
    at_early_stop = evaluate(model, data.test)
    model.load_state_dict(weights)
    measures: Row = {f"{part}_{name}": v for part, s in final.items() for name, v in asdict(s).items()}
    training: Row = {
        "kind": "training",
        **key,
        "seed": unit.seed,
        "density": masks.density,
        "kept": masks.kept,
        "total": masks.total,
        "kept_asked": unit.round.kept,
        **measures,
        "iterations": trained.iterations,
        "early_stop_iteration": trained.early_stop.iteration,
        "early_stop_validation_loss": trained.early_stop.loss,
        "early_stop_validation_accuracy": trained.early_stop.accuracy,
        "early_stop_test_accuracy": at_early_stop.accuracy,
        "flops_dense": flops.dense,
        "flops_effective": flops.effective,
        **checks,
        "weights_sha256": content_sha256(weights),
        "masks_sha256": content_sha256(masks.to_tensors()),
        "seconds": round(trained.seconds, 3),
    }
    layers = [
        {"kind": "layer", **key, "layer": layer.name, "kept": layer.kept, "total": layer.total}
        for layer in masks.table()
    ]
    evaluations = [{"kind": "evaluation", **key, **asdict(e)} for e in trained.evaluations]
    return [training, *layers, *evaluations]


def failed_checks(rows: Iterable[Row]) -> list[str]:
    """One line for every check of a training that did not hold."""
    return [
        f"replicate {row['replicate']}, round {row['round']}, {row['branch']}: not so: {meaning}"
        for row in rows
        if row["kind"] == "training"
        for check, meaning in CHECKS.items()
        if row[check] is False
    ]


@dataclass(frozen=True)
class Summary:
    """One branch of one round over its replicates. Accuracies and F1 in percent."""

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
    flops_dense: int
    flops_effective: Estimate
    seconds: Estimate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Summaries by round, and within a round dense or ticket first, then the controls."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in sorted((r for r in rows if r["kind"] == "training"), key=lambda r: (r["round"], r["replicate"])):
        groups.setdefault((row["round"], row["branch"]), []).append(row)
    order = ["dense", "ticket", "random", "reinit"]
    return [_summary(groups[key], *key) for key in sorted(groups, key=lambda k: (k[0], order.index(k[1])))]


def _summary(group: list[Row], round_index: int, branch: str) -> Summary:
    def over(column: str, scale: float = 1.0) -> Estimate:
        return estimate([row[column] * scale for row in group])

    return Summary(
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
        flops_dense=group[0]["flops_dense"],
        flops_effective=over("flops_effective"),
        seconds=over("seconds"),
    )
