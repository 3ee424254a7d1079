"""Stability: does the order of the data decide where a network ends? (Frankle et al. 2020, arXiv 1912.05671)

Two or more copies of one network train under different data orders. Along the straight line between two of
them, at 30 points, the error of the interpolated network is measured. *Instability* is the highest error on
the line minus the mean of its ends; below 2 points the network is called stable. It is *matching* when it is
shown to lose no more than the run's tolerance to the dense network, as the verdict has it: one-sided, at the level of
the run's last look. Frankle et al. ask for 0.2 points; a run with `tolerance: 0.2` does, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.data import DataSet
from tombola.errors import ConfigError, StorageError
from tombola.models.own import initial_network
from tombola.models.tensors import save_tensors
from tombola.pruning import Masks
from tombola.reports.intervals import Paired, estimate
from tombola.runs.atomic import make_folder, remove
from tombola.runs.executors import Emit, run_cells
from tombola.runs.folder import PROCESSOR, check_continued, writing
from tombola.runs.rows import rows_of
from tombola.runs.sealed import read_sealed, write_sealed
from tombola.runs.seeds import derive_seed
from tombola.studies.base.opened import read_result
from tombola.studies.base.own_code import code_facts, network_facts, refuse_edited
from tombola.studies.base.soundness import faults_of
from tombola.studies.base.watching import Progress
from tombola.studies.lottery.extract import mode_of
from tombola.studies.lottery.looks import Looks
from tombola.studies.lottery.networks import blank, model_spec, replicate_seed, restored_ticket, stored_data
from tombola.studies.lottery.replicate import STATISTICS_EXAMPLES
from tombola.studies.lottery.result import Result, data_facts
from tombola.studies.lottery.rewind import Rewind, load_whole, rewind, unsaved_buffers
from tombola.studies.lottery.stabilities import POINTS, StabilityResult, stability_folder
from tombola.studies.lottery.stored import load_stored
from tombola.studies.lottery.study import Lottery, open_lottery
from tombola.training import fit
from tombola.training.batches import iterations_per_epoch
from tombola.training.device import device_facts, on_device, placed, resolve
from tombola.training.metrics import evaluate
from tombola.training.own import own_functions
from tombola.training.processor import processor_facts
from tombola.training.statistics import reestimate_statistics
from tombola.training.threads import one_thread

Measured = tuple[list[list[float]], list[float]]
"""Of one replicate: the errors along each line, and those of the copies themselves."""


@dataclass(frozen=True)
class StabilitySpec:
    """What a worker needs: one replicate of the run in `root`."""

    root: Path
    mode: str
    round: int
    replicate: int
    copies: int
    device: str
    data_dir: Path | None
    factory: str | None = None


def run_stability(
    root: Path,
    index: int,
    *,
    mode: str | None = None,
    copies: int = 2,
    device: str | None = None,
    workers: int = 1,
    data_dir: Path | None = None,
    factory: str | None = None,
    code: Sequence[str] = (),
    on_event: Emit = lambda event: None,
) -> StabilityResult:
    """Trains `copies` of every replicate's ticket of round `index` and measures the lines between them.

    They train as the run did: with the same data, network and code, on a processor and device of the same kind, where
    `device` may only say so again. Each replicate's work is stored in `<run>/stability/` and not repeated. A run folder
    has no code called: `factory` names the function that makes a network of somebody's own, `code` those that its
    recipe names. Raises ConfigError for a round that the run does not have, for a device that is not here and for code
    that is not named, RunFolderError for what differs from the run.
    """
    opened, chosen = asked(root, index, mode, copies)
    _check_named(opened, factory, code)
    where = resolve(device or opened.config.training.device).type
    result = read_result(opened)
    dense = {row["replicate"]: row for row in rows_of(result.rows, kind="training", branch="dense")}
    specs = [StabilitySpec(root, str(chosen), index, i, copies, where, data_dir, factory) for i in sorted(dense)]
    with writing(opened.folder):
        _check_continued(opened, device, factory, data_dir)
        make_folder(stability_folder(root))
        run_cells(stability_cell, specs, workers, on_event)
        stability = _summarise(opened, result, chosen, index, copies, [_read(spec) for spec in specs])
        write_sealed(stability_folder(root) / f"{_stem(str(chosen), index)}.json", asdict(stability))
    return stability


def asked(root: Path, index: int, mode: str | None, copies: int) -> tuple[Lottery, Rewind]:
    """The run in a folder, and its mode of rewinding called `mode`; ConfigError for a round it does not have."""
    opened = open_lottery(root)
    chosen = mode_of(opened.config, mode)
    if not 0 <= index < len(opened.rounds):
        raise ConfigError(f"--round {index}: this run has rounds 0 to {len(opened.rounds) - 1}")
    if copies < 2:
        raise ConfigError(f"--copies {copies}: a line needs two ends")
    if opened.config.task is not None:
        raise ConfigError(
            f"{root}: learned a task of its owner's ({opened.config.task.title}), and stability is measured in points "
            "of error: only runs of data have it"
        )
    return opened, chosen


def _check_named(opened: Lottery, factory: str | None, code: Sequence[str]) -> None:
    """ConfigError unless the person at the keyboard has named all code that is to be called, and no other."""
    root, own = opened.folder.root, own_functions(opened.config)
    if missing := [name for name in own if name not in code]:
        options = " ".join(f"--code {name}" for name in missing)
        raise ConfigError(
            f"{root}: its recipe names code of its owner ({', '.join(missing)}), which a run folder cannot have "
            f"called; if it is yours, add {options}"
        )
    if other := [name for name in code if name not in own]:
        raise ConfigError(f"--code {other[0]}: this run's recipe names {', '.join(own) or 'no code of its owner'}")
    if opened.own_code is not None and factory is None:
        raise ConfigError(
            f"{root}: its network is made by code of its owner, which a run folder cannot have called; if it is yours, "
            f"add --factory {opened.own_code}"
        )


def _check_continued(opened: Lottery, device: str | None, factory: str | None, data_dir: Path | None) -> None:
    """RunFolderError, by name, for what differs from the run that is measured."""
    config, data = opened.config, data_facts(opened.config, data_dir)
    facts = {"data": data, "seed": config.seed, PROCESSOR: processor_facts()}
    facts |= device_facts(on_device(config, device))
    facts |= code_facts(opened.own_functions if factory == opened.own_code else own_functions(config))
    if factory is not None:
        spec = model_spec(config, 0, data["input_shape"], data["classes"])
        facts |= network_facts(config.model, initial_network(spec, blank(spec), factory))
    refuse_edited(opened.folder, facts, factory)
    check_continued(opened.folder, opened.name, facts)


def stability_cell(spec: StabilitySpec, emit: Emit) -> None:
    """One replicate: trains the copies that are not stored yet, then measures the lines between them."""
    if _replicate_path(spec).exists():
        return
    with one_thread():
        _measure(spec, emit)


def _measure(spec: StabilitySpec, emit: Emit) -> None:
    opened = open_lottery(spec.root)
    mode = Rewind.parse(spec.mode)
    model, specified, masks = restored_ticket(opened.folder, mode, spec.replicate, spec.round, spec.factory)
    data = stored_data(opened.config, spec.replicate, specified, spec.data_dir, opened.data.get("checksum"))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    unsaved = unsaved_buffers(model)
    copies = []
    for copy in range(spec.copies):
        rewind(model, start, masks, unsaved)
        copies.append(_copy(spec, copy, opened, model, masks, data, emit))
    ends = []
    with placed(model, spec.device):
        for state in copies:
            load_whole(model, state, unsaved)
            ends.append(_error(model, data))
        lines = [_line(model, a, b, unsaved, data) for a, b in itertools.combinations(copies, 2)]
    write_sealed(_replicate_path(spec), {"lines": lines, "ends": ends})


def _copy(
    spec: StabilitySpec, copy: int, opened: Lottery, model: nn.Module, masks: Masks, data: DataSet, emit: Emit
) -> dict[str, Tensor]:
    """The end of one training from the ticket's start, in the data order of copy number `copy`."""
    path = (
        stability_folder(spec.root)
        / f"{_stem(spec.mode, spec.round)}-replicate-{spec.replicate:02d}-copy-{copy}.safetensors"
    )
    who = f"replicate {spec.replicate}, copy {copy}"
    checkpoint = path.with_suffix(".checkpoint.safetensors")
    config, mode = opened.config, Rewind.parse(spec.mode)
    per_epoch = iterations_per_epoch(len(data.train), config.training.batch_size)
    training = config.training.model_copy(update={"device": spec.device, "ema": None})  # no average is looked at
    if not path.exists():
        fit(
            model,
            data,
            mode.recipe(training, per_epoch) if spec.round else training,
            masks,
            derive_seed(replicate_seed(config, spec.replicate), "stability", spec.round, copy),
            first=mode.first(per_epoch),
            checkpoint=checkpoint,
            checkpoint_seconds=config.checkpoint_seconds,
            on_evaluation=lambda evaluation, total: emit(
                Progress(who, evaluation.iteration, total, f"validation {evaluation.accuracy:.1%}")
            ),
        )
        save_tensors(path, model.state_dict())
    remove(checkpoint)
    return load_stored(path, model.state_dict())


def _line(
    model: nn.Module, a: Mapping[str, Tensor], b: Mapping[str, Tensor], unsaved: Mapping[str, Tensor], data: DataSet
) -> list[float]:
    """Errors from `a` to `b`; batch-norm statistics are estimated in the same way at every point, ends included."""
    errors = []
    for point in range(POINTS):
        load_whole(model, interpolated(a, b, point / (POINTS - 1)), unsaved)
        reestimate_statistics(model, data, STATISTICS_EXAMPLES)
        errors.append(_error(model, data))
    return errors


def _error(model: nn.Module, data: DataSet) -> float:
    return 100 * (1 - evaluate(model, data.test).accuracy)


def interpolated(a: Mapping[str, Tensor], b: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """(1 - fraction)·a + fraction·b for floating tensors; the ends are `a` and `b` to the bit. Counters are `a`'s."""
    if fraction in (0.0, 1.0):
        return dict(b if fraction else a)
    return {
        name: torch.lerp(tensor, b[name], fraction) if tensor.is_floating_point() else tensor
        for name, tensor in a.items()
    }


def instability(line: Sequence[float]) -> float:
    """The highest error on a line minus the mean of its ends, in the unit of the errors."""
    return max(line) - (line[0] + line[-1]) / 2


def _summarise(
    opened: Lottery, result: Result, mode: Rewind, index: int, copies: int, measured: Sequence[Measured]
) -> StabilityResult:
    """Over replicates, in their order: of each the mean over its pairs of copies."""
    rows = sorted(rows_of(result.rows, kind="training", branch="dense"), key=lambda row: row["replicate"])
    means = [[sum(line[i] for line in lines) / len(lines) for i in range(POINTS)] for lines, _ in measured]
    ends = {row["replicate"]: sum(errors) / len(errors) for row, (_, errors) in zip(rows, measured, strict=True)}
    dense = {row["replicate"]: 100 * (1 - row["test_accuracy"]) for row in rows}
    excess = Paired.of(ends, dense, 100 / rows[0]["test_examples"])
    assert excess is not None  # both have every replicate
    copied = [row | {"test_accuracy": 1 - ends[row["replicate"]] / 100} for row in rows]
    faults = {"the dense network": faults_of(rows), "its copies": faults_of(copied)}
    return StabilityResult(
        mode=str(mode),
        round=index,
        density=opened.rounds[index].density,
        copies=copies,
        instability=estimate([sum(map(instability, lines)) / len(lines) for lines, _ in measured]),
        ends=estimate(list(ends.values())),
        dense=estimate(list(dense.values())),
        excess=excess.interval,
        path=[estimate([mean[i] for mean in means]) for i in range(POINTS)],
        tolerance=result.config.tolerance,
        confidence=1 - Looks.of(result.rows).levels(len(rows)).dense,
        fault=" and ".join(f"{name} {fault}" for name, fault in faults.items() if fault) or None,
    )


def _read(spec: StabilitySpec) -> Measured:
    path = _replicate_path(spec)
    try:
        content = read_sealed(path, "delete it to measure this replicate again")
        lines, ends = content["lines"], content["ends"]
        if not ends or any(len(line) != POINTS for line in lines):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise StorageError(f"{path}: damaged; delete it to measure this replicate again") from None
    return lines, ends


def _stem(mode: str, index: int) -> str:
    return f"{mode.replace(':', '-')}-round-{index:02d}"


def _replicate_path(spec: StabilitySpec) -> Path:
    name = f"{_stem(spec.mode, spec.round)}-copies-{spec.copies}-replicate-{spec.replicate:02d}.json"
    return stability_folder(spec.root) / name
