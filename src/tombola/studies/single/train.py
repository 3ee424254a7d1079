"""`tombola train`: a parent, trained and kept with everything that is needed to build and prune it again."""

from __future__ import annotations

import contextlib
from pathlib import Path

from torch import nn

from tombola.data import DataSet, split_record
from tombola.data.dataset import recorded
from tombola.models import build
from tombola.models.tensors import save_tensors
from tombola.pruning import Masks
from tombola.pruning.observe import output_weights
from tombola.pruning.structures import Neuron, make_structure
from tombola.pruning.units import count_units, fraction_of_all
from tombola.runs.atomic import remove
from tombola.runs.folder import PROCESSOR, RunFolder, begin_or_continue, run_folder, writing
from tombola.runs.seeds import derive_seed
from tombola.studies.base.averaging import AVERAGED, averaged_columns
from tombola.studies.single.child import OnProgress, preparing, reporting
from tombola.studies.single.config import TrainConfig
from tombola.studies.single.metrics import layer_rows, stage_row, units_removed
from tombola.studies.single.parents import zoo_spec
from tombola.studies.single.result import Result, evaluation_rows, finished_result, write_result
from tombola.training import fit
from tombola.training.engine import ANY_CLASSES, ANY_IMAGE, layers_on_kernels
from tombola.training.evolution import Evolution, Gradual
from tombola.training.frozen import load_examples, prepare_examples
from tombola.training.processor import processor_facts
from tombola.training.threads import one_thread


def train(config: TrainConfig, out: Path, data_dir: Path | None, on_progress: OnProgress) -> Result:
    """Trains, continues or shows the parent of `config` in its folder below `out`, which is its model folder.

    The weights are those of the lowest validation loss.
    """
    folder = run_folder(out, config.study, config.name, config)
    finished = finished_result(folder, config, _title(config))
    if finished is not None:
        with contextlib.suppress(OSError):  # a disk that is read-only keeps it
            _checkpoint(folder).unlink()  # a kill at the very end leaves it
        return finished
    if config.training.engine == "sparse":  # what no data change is refused before they are read
        _check_engine(build(config.model.spec(ANY_IMAGE, ANY_CLASSES, 0)), config)
    with writing(folder), one_thread():
        return _train(folder, config, data_dir, on_progress)


def _check_engine(model: nn.Module, config: TrainConfig) -> None:
    """TrainingError where the engine asked for cannot train this network."""
    evolving = config.evolution is not None
    layers_on_kernels(model, config.training, Masks.full(model), config.training.batch_size, evolving=evolving)


def _train(folder: RunFolder, config: TrainConfig, data_dir: Path | None, on_progress: OnProgress) -> Result:
    prepare_examples(config.data, data_dir, preparing(on_progress))
    data = load_examples(config.data, config.seed, data_dir)
    facts = {
        "data": recorded(data),
        "seed": config.seed,
        PROCESSOR: processor_facts(),
    }
    spec = zoo_spec(config.model, data, derive_seed(config.seed, "init"))
    model = build(spec)
    _check_engine(model, config)
    begin_or_continue(folder, config.study, config, facts)
    spared = _classes(config.evolution, model, data)
    trained = fit(
        model,
        data,
        config.training,
        Masks.full(model),
        derive_seed(config.seed, "order"),
        checkpoint=_checkpoint(folder),
        checkpoint_seconds=config.checkpoint_seconds,
        on_evaluation=reporting("training", on_progress),
        evolution=_sparing(config.evolution, model, spared),
    )
    model.load_state_dict(trained.early_stop_state)
    masks = trained.masks
    structure = "weight" if config.evolution is None else getattr(config.evolution, "structure", "weight")
    layers = layer_rows("trained", model, masks, structure)
    averaged = trained.averaged
    stage = stage_row("trained", model, masks, data)
    if averaged is not None:
        stage |= averaged_columns(model, averaged.early_stop_state, data)
        save_tensors(folder.root / AVERAGED, averaged.early_stop_state)
    rows = [stage, *layers, *evaluation_rows([trained])]
    history = {
        "run": folder.root.name,
        "data": split_record(config.data, config.seed, data.checksum),
        "training": config.training.model_dump(mode="json"),
        "evolution": None if config.evolution is None else config.evolution.model_dump(mode="json"),
        "iterations": trained.early_stop.iteration,
    }
    checks = {} if config.evolution is None else _checks(model, masks, config.evolution, spared)
    sparse = masks if config.evolution else None
    result = write_result(folder, rows, checks, spec, model, sparse, history, _title(config))
    remove(_checkpoint(folder))
    return result


def _title(config: TrainConfig) -> str:
    return f"{config.name}: trained"


def _classes(evolution: Evolution | None, model: nn.Module, data: DataSet) -> tuple[str, ...]:
    """The layer whose outputs are the classes, where whole outputs go."""
    if not isinstance(evolution, Gradual) or not isinstance(make_structure(evolution.structure), Neuron):
        return ()
    return tuple(output_weights(model, data.train.inputs[:2]))


def _sparing(evolution: Evolution | None, model: nn.Module, spared: tuple[str, ...]) -> Evolution | None:
    """The evolution without the classes: they are no units of which a share goes."""
    if not isinstance(evolution, Gradual) or not spared:
        return evolution
    counts = count_units(model, Masks.full(model), make_structure(evolution.structure))
    sparsity = fraction_of_all(evolution.sparsity, counts, spared)
    return evolution.model_copy(update={"protect": (*evolution.protect, *spared), "sparsity": sparsity})


def _checks(model: nn.Module, masks: Masks, evolution: Evolution, spared: tuple[str, ...]) -> dict[str, bool]:
    removed, units = units_removed(model, masks, getattr(evolution, "structure", "weight"), spared)
    return {
        "check_exact": removed == round(evolution.sparsity * units),
        "check_held": masks.removed_nonzeros(model) == 0,
    }


def _checkpoint(folder: RunFolder) -> Path:
    return folder.root / "training.checkpoint.safetensors"
