"""Reading a run back: its config, its plan, its rows and what they come to. Nothing here trains or writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.cost import count_flops, count_size
from tombola.data.dataset import recorded
from tombola.errors import ConfigError
from tombola.models import ModelSpec
from tombola.models.config import Spec
from tombola.models.own import Try, initial_network
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.prunable import prunable_shapes
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.measures import ACCURACY, measure_from
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import controls
from tombola.studies.lottery.metrics import UNIT
from tombola.studies.lottery.networks import blank, layer_sizes, model_spec, outline
from tombola.studies.lottery.over_replicates import Summary, rows_of_mode, summarise
from tombola.studies.lottery.plan import Round, plan_rounds
from tombola.studies.lottery.rewind import Rewind
from tombola.studies.lottery.verdict import Verdict, judge, not_judged
from tombola.training.base import FrozenBase
from tombola.training.engine import layers_on_kernels
from tombola.training.frozen import base_of, has_seen, load_examples, load_raw_examples
from tombola.training.task import Measure


@dataclass(frozen=True)
class Result:
    """A study's rows (of complete replicates only), what they come to, and where it lies.

    `verdicts` has one for each mode of rewinding; the first mode's is the run's.
    """

    folder: RunFolder
    config: LotteryConfig
    data: dict[str, Any]
    rows: list[Row]
    summaries: list[Summary]
    verdicts: dict[str, Verdict]

    @property
    def measure(self) -> Measure:
        """What its networks are compared by."""
        return measure_of(self.config, self.data, str(self.folder.manifest))

    @property
    def verdict(self) -> Verdict:
        return self.verdicts[self.config.rewind[0]]

    @property
    def ticket_round(self) -> int:
        """The round of the run's ticket: the verdict's when it won, else the target."""
        verdict = self.verdict
        if verdict.outcome == "winning" and verdict.round is not None:
            return verdict.round
        return max(summary.round for summary in self.summaries)


def measure_of(config: LotteryConfig, data: Any, where: str) -> Measure:
    """What the networks of a run are compared by, as its manifest has recorded it."""
    if config.task is None:
        return ACCURACY
    compares = data.get("compares") if isinstance(data, dict) else None
    return measure_from(compares if isinstance(compares, dict) else {}, where)


def data_facts(config: LotteryConfig, data_dir: Path | None) -> dict[str, Any]:
    """What the manifest says of the data; a run is continued only on equal data."""
    raw, base = load_raw_examples(config.images, data_dir), base_of(config.images, data_dir)
    facts = {
        **recorded(raw),
        "input_shape": list(raw.training.inputs.shape[1:]),
        "classes": raw.classes,
        "training_examples": len(load_examples(config.images, config.seed, data_dir).train),
    }
    if base is None:
        return facts
    return facts | {"base": base_facts(base), "seen_by_base": has_seen(base, config.images, data_dir)}


def base_facts(base: FrozenBase) -> dict[str, Any]:
    """What the manifest says of a frozen base: which one it is, FLOPs of one example, parameters and bytes."""
    masks = Masks.full(base.network)
    size = count_size(base.network, masks)
    flops = count_flops(base.network, base.input_shape, masks).dense
    return {**base.facts, "flops": flops, "parameters": size.parameters, "bytes": size.dense_bytes}


def check_steps(config: LotteryConfig, per_epoch: int) -> None:
    """Before anything is trained: steps to rewind to come before the end of training, and no two are the same."""
    total = config.training.length.iterations(per_epoch)
    steps: dict[int, Rewind] = {}
    for mode in config.rewinds:
        first = mode.first(per_epoch)
        if first >= total:
            raise ConfigError(f"rewind: {mode} is not before the end of training at {total} iterations")
        if mode.kind == "step" and steps.setdefault(first, mode) != mode:
            raise ConfigError(f"rewind: {steps[first]} and {mode} are the same iteration of these data; leave one out")


def check_network(config: LotteryConfig, input_shape: Sequence[int], classes: int) -> None:
    """Before anything is trained or written: TrainingError where the engine asked for cannot train this network, and
    ConfigError where a control cannot be made of it."""
    spec = model_spec(config, 0, input_shape, classes)
    model = initial_network(spec, blank(spec))
    check_made(config, spec, model, blank(spec) if config.model.factory else None)
    layers_on_kernels(model, config.training, Masks.full(model), config.training.batch_size)


def check_made(config: LotteryConfig, spec: Spec, model: nn.Module, tried: Tensor | Try | None) -> None:
    """ConfigError where a control cannot be made of the initial network `model`; one of the zoo is not `tried`."""
    if tried is not None:
        _refuse_odd_chance(config, spec, model, tried)
    for name in config.controls:
        if (check := controls.get(name).check) is not None:
            check(model)


def _refuse_odd_chance(config: LotteryConfig, spec: Spec, model: nn.Module, tried: Tensor | Try) -> None:
    """ConfigError where somebody's own function has other chance in it than torch's, so that a run could not be
    continued, or too little of it: weights that no seed changes would be those of the ticket in a control, too."""
    if isinstance(spec, ModelSpec):
        return
    again, other = (
        initial_network(spec.model_copy(update={"seed": seed}), tried).state_dict()
        for seed in (spec.seed, spec.seed + 1)
    )
    if content_sha256(again) != content_sha256(model.state_dict()):
        raise ConfigError(
            f"{spec.factory}() makes other weights each time: draw them with torch's random functions, whose seed is "
            "set before it is called"
        )
    if content_sha256(other) == content_sha256(again):
        raise ConfigError(
            f"{spec.factory}() makes the same weights whatever the seed, so that all replicates would be one and the "
            "same: draw them with torch's random functions"
        )
    shapes = prunable_shapes(model)
    fixed = [name for name in shapes if shapes[name].numel() and torch.equal(again[name], other[name])]
    drawn = [name for name in config.controls if controls.get(name).draws_anew]
    if fixed and drawn:
        raise ConfigError(
            f"{spec.factory}() makes the same weights whatever the seed ({', '.join(fixed[:3])}), so that "
            f"{' and '.join(drawn)} would be no controls: draw them with torch's random functions, or leave these out"
        )


def plan_of(config: LotteryConfig, input_shape: Sequence[int], classes: int) -> list[Round]:
    """The rounds of a study on data of this shape."""
    return plan_rounds(config.pruning, layer_sizes(outline(config, input_shape, classes)))


def units_per_replicate(config: LotteryConfig, rounds: Sequence[Round]) -> int:
    return len(config.dense_branches) + len(config.rewind) * (len(rounds) - 1) * (1 + len(config.controls))


def complete_replicates(rows: Sequence[Row], units: int) -> set[int]:
    """The replicates of which every unit is in the table, to its last row."""

    def key(row: Row) -> tuple[Any, ...]:
        return tuple(row[column] for column in UNIT)

    # A unit's rows arrive in order, its evaluations last, and the last of these at the last iteration.
    ends = {key(row): row["iterations"] for row in rows if row["kind"] == "training"}
    whole = {key(row) for row in rows if row["kind"] == "evaluation" and row["iteration"] == ends.get(key(row))}
    counts = Counter(replicate for replicate, *_ in whole)
    return {replicate for replicate, count in counts.items() if count == units}


def make_result(
    folder: RunFolder, config: LotteryConfig, data: dict[str, Any], rows: Sequence[Row], complete: set[int]
) -> Result:
    """The result of the `complete` replicates among `rows`; judged only where these are all that were asked for."""
    measure = measure_of(config, data, str(folder.manifest))
    used = [row for row in rows if row["replicate"] in complete or row["kind"] == "look"]  # looks are never undone
    if complete == set(range(config.replicates)):
        verdicts = {mode: judge(rows_of_mode(used, mode), config.tolerance, measure) for mode in config.rewind}
    else:
        none = not_judged(len(complete), config.replicates, config.tolerance, measure)
        verdicts = dict.fromkeys(config.rewind, none)
    return Result(folder, config, data, used, summarise(used, measure), verdicts)


def trained_weights(result: Result) -> dict[tuple[int, int], str]:
    """By replicate and round, the checksum of the weights that training ended with, in the first mode of rewinding."""
    rows = rows_of_mode(rows_of(result.rows, kind="training"), result.config.rewind[0])
    return {
        (row["replicate"], row["round"]): row["weights_sha256"]
        for row in rows
        if row["branch"] in ("dense", "ticket") and "weights_sha256" in row
    }
