"""Stability: does the order of the data decide where a network ends? (Frankle et al. 2020, arXiv 1912.05671)

Two or more copies of one network train under different data orders. Along the straight line between two of
them, at 30 points, the error of the interpolated network is measured. *Instability* is the highest error on
the line minus the mean of its ends; below 2 points the network is called stable. It is *matching* when its
error is at most 0.2 points above that of the dense network.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tombola.data import load_data
from tombola.errors import ConfigError, StorageError
from tombola.models.tensors import load_tensors, save_tensors
from tombola.reports.curves import Chart, Series
from tombola.reports.intervals import Estimate, estimate
from tombola.runs.atomic import make_folder, read_json, write_json
from tombola.runs.executors import Emit, run_cells
from tombola.runs.folder import writing
from tombola.runs.rows import Row, read_rows, rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery.extract import mode_of
from tombola.studies.lottery.metrics import UNIT
from tombola.studies.lottery.networks import replicate_seed, restored_ticket
from tombola.studies.lottery.replicate import STATISTICS_EXAMPLES
from tombola.studies.lottery.result import OpenedRun, open_run
from tombola.studies.lottery.rewind import Rewind
from tombola.training import fit
from tombola.training.batches import iterations_per_epoch
from tombola.training.metrics import evaluate
from tombola.training.statistics import reestimate_statistics

POINTS = 30
STABLE = 2.0
MATCHING = 0.2
"""Points of error: below the first a network is stable, within the second of dense it is matching."""


@dataclass(frozen=True)
class StabilityResult:
    """Instability of one round's ticket over replicates, in points of test error.

    `path` is the mean error at each of the points from one copy (0) to the other (1), over pairs and
    replicates; `ends` the mean error of the copies, `dense` that of the dense network.
    """

    mode: str
    round: int
    density: float
    copies: int
    instability: Estimate
    stable: bool
    ends: Estimate
    dense: Estimate
    matching: bool
    path: list[Estimate]

    @property
    def sentence(self) -> str:
        low = (
            ""
            if self.instability.low is None
            else f" (95 % CI {self.instability.low:.2f} to {self.instability.high:.2f})"
        )
        return (
            f"{'Stable' if self.stable else 'Unstable'}: instability {self.instability.mean:.2f} points of error{low} "
            f"at {self.density:.1%} of the weights; {'matching' if self.matching else 'not matching'}: error "
            f"{self.ends.mean:.2f} % against {self.dense.mean:.2f} % dense."
        )


@dataclass(frozen=True)
class StabilitySpec:
    """What a worker needs: one replicate of the run in `root`."""

    root: Path
    mode: str
    round: int
    replicate: int
    copies: int
    data_dir: Path | None


def run_stability(
    root: Path,
    index: int,
    *,
    mode: str | None = None,
    copies: int = 2,
    workers: int = 1,
    data_dir: Path | None = None,
    on_event: Emit = lambda event: None,
) -> StabilityResult:
    """Trains `copies` of every replicate's ticket of round `index` and measures the lines between them.

    Each replicate's work is stored in `<run>/stability/` and not repeated. Raises ConfigError for a round
    that the run does not have.
    """
    opened = open_run(root)
    chosen = mode_of(opened.config, mode)
    if not 0 <= index < len(opened.rounds):
        raise ConfigError(f"--round {index}: this run has rounds 0 to {len(opened.rounds) - 1}")
    if copies < 2:
        raise ConfigError(f"--copies {copies}: a line needs two ends")
    result = opened.result()
    if result is None:
        raise ConfigError(f"{root}: no replicate is complete yet; run the study first")
    replicates = sorted({row["replicate"] for row in result.rows})
    specs = [StabilitySpec(root, str(chosen), index, i, copies, data_dir) for i in replicates]
    with writing(opened.folder):
        make_folder(_folder(root))
        run_cells(stability_cell, specs, workers, on_event)
        stability = _summarise(opened, chosen, index, copies, [_read(spec) for spec in specs])
        write_json(_folder(root) / f"{_stem(str(chosen), index)}.json", asdict(stability))
    return stability


def stored_stabilities(root: Path) -> list[StabilityResult]:
    """The stability results that a run has, by round."""
    found = []
    for path in sorted(_folder(root).glob("*-round-??.json")):
        content = read_json(path)
        for name in ("instability", "ends", "dense"):
            content[name] = Estimate(**content[name])
        content["path"] = [Estimate(**point) for point in content["path"]]
        found.append(StabilityResult(**content))
    return found


def stability_cell(spec: StabilitySpec, emit: Emit) -> None:
    """One replicate: trains the copies that are not stored yet, then measures the lines between them."""
    target = _replicate_path(spec)
    if target.exists():
        return
    torch.set_num_threads(1)
    opened = open_run(spec.root)
    config, mode = opened.config, Rewind.parse(spec.mode)
    seed = replicate_seed(config, spec.replicate)
    data = load_data(config.data, seed, spec.data_dir)
    model, _, masks = restored_ticket(opened.folder, mode, spec.replicate, spec.round)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rewound = spec.round > 0
    ends = []
    for copy in range(spec.copies):
        path = target.with_suffix(f".copy-{copy}.safetensors")
        if not path.exists():
            model.load_state_dict(start)
            fit(
                model,
                data,
                mode.recipe(config.training) if rewound else config.training,
                masks,
                derive_seed(seed, "stability", spec.round, copy),
                first=mode.first(iterations_per_epoch(len(data.train), config.training.batch_size)) if rewound else 0,
                checkpoint=path.with_suffix(".checkpoint.safetensors"),
                checkpoint_seconds=config.checkpoint_seconds,
                on_evaluation=lambda evaluation, total, copy=copy: emit((spec.replicate, copy, evaluation, total)),
            )
            save_tensors(path, model.state_dict())
        path.with_suffix(".checkpoint.safetensors").unlink(missing_ok=True)
        ends.append(load_tensors(path)[0])
    statistics = data.train.first(STATISTICS_EXAMPLES)
    lines = []
    for a, b in itertools.combinations(ends, 2):
        errors = []
        for point in range(POINTS):
            model.load_state_dict(interpolated(a, b, point / (POINTS - 1)))
            if 0 < point < POINTS - 1:
                reestimate_statistics(model, statistics)
            errors.append(100 * (1 - evaluate(model, data.test).accuracy))
        lines.append(errors)
    write_json(target, {"lines": lines})


def interpolated(a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share)·a + share·b for floating tensors; the ends are `a` and `b` to the bit. Counters are `a`'s."""
    if share in (0.0, 1.0):
        return dict(b if share else a)
    return {
        name: torch.lerp(tensor, b[name], share) if tensor.is_floating_point() else tensor for name, tensor in a.items()
    }


def instability(line: Sequence[float]) -> float:
    """The highest error on a line minus the mean of its ends, in the unit of the errors."""
    return max(line) - (line[0] + line[-1]) / 2


def stability_chart(result: StabilityResult) -> Chart:
    points = [point / (POINTS - 1) for point in range(POINTS)]
    series = [Series("interpolated", points, result.path, 0)]
    return Chart("Position between the copies", "Test error (%)", series, ("dense", result.dense.mean))


def stability_caption(result: StabilityResult) -> str:
    return (
        f"Error along the line between copies trained under different data orders; mean of {result.instability.n} "
        f"replicates, {result.copies} copies each, bands 95 % confidence intervals. {result.sentence}"
    )


def _summarise(
    opened: OpenedRun, mode: Rewind, index: int, copies: int, replicates: Sequence[list[list[float]]]
) -> StabilityResult:
    rows: list[Row] = rows_of(read_rows(opened.folder.rows, UNIT), kind="training", branch="dense")
    means = [[sum(line[i] for line in lines) / len(lines) for i in range(POINTS)] for lines in replicates]
    found = estimate([sum(map(instability, lines)) / len(lines) for lines in replicates])
    ends = estimate([(mean[0] + mean[-1]) / 2 for mean in means])
    dense = estimate([100 * (1 - row["test_accuracy"]) for row in rows[: len(replicates)]])
    return StabilityResult(
        mode=str(mode),
        round=index,
        density=opened.rounds[index].density,
        copies=copies,
        instability=found,
        stable=found.mean < STABLE,
        ends=ends,
        dense=dense,
        matching=ends.mean - dense.mean <= MATCHING,
        path=[estimate([mean[i] for mean in means]) for i in range(POINTS)],
    )


def _read(spec: StabilitySpec) -> list[list[float]]:
    path = _replicate_path(spec)
    lines = read_json(path).get("lines")
    if not lines or any(len(line) != POINTS for line in lines):
        raise StorageError(f"{path}: damaged; delete it to measure this replicate again")
    return lines


def _folder(root: Path) -> Path:
    return root / "stability"


def _stem(mode: str, index: int) -> str:
    return f"{mode.replace(':', '-')}-round-{index:02d}"


def _replicate_path(spec: StabilitySpec) -> Path:
    name = f"{_stem(spec.mode, spec.round)}-copies-{spec.copies}-replicate-{spec.replicate:02d}.json"
    return _folder(spec.root) / name
