"""The networks of a study: how a replicate's is specified, and how a stored ticket is made one again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from tombola.data import DataSet, Normalisation, normalised
from tombola.errors import StorageError
from tombola.models import ModelSpec, build
from tombola.models.spec import without_memory
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.prunable import prunable_shapes
from tombola.runs.configs import validate
from tombola.runs.folder import RunFolder
from tombola.runs.sealed import read_sealed
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.rewind import Rewind, rewind
from tombola.studies.lottery.start import as_started
from tombola.studies.lottery.stored import (
    STATISTICS,
    TRAINED,
    ReplicateFiles,
    load_stored,
    stored_masks,
    stored_start,
)
from tombola.training.frozen import load_recorded


def replicate_seed(config: LotteryConfig, index: int) -> int:
    return derive_seed(config.seed, "replicate", index)


def replicate_data(config: LotteryConfig, index: int, data_dir: Path | None, checksum: str | None = None) -> DataSet:
    """A replicate's examples, in its own split, as its network wants them.

    DataError where they are not those of `checksum`, which the run has recorded.
    """
    return as_started(config, load_recorded(config.data, replicate_seed(config, index), data_dir, checksum))


def stored_data(
    config: LotteryConfig, index: int, spec: ModelSpec, data_dir: Path | None, checksum: str | None = None
) -> DataSet:
    """As `replicate_data`, normalised as the stored `spec` has it: a file that a run started from may be gone."""
    data = load_recorded(config.data, replicate_seed(config, index), data_dir, checksum)
    if config.start is None:
        return data
    return normalised(data, Normalisation(spec.normalisation.mean, spec.normalisation.std))


def model_spec(config: LotteryConfig, index: int, input_shape: Sequence[int], classes: int) -> ModelSpec:
    """The spec of a replicate's network, its seed included, but for the normalisation that its data bring."""
    return ModelSpec(
        **config.model.model_dump(exclude={"factory"}),
        input_shape=tuple(input_shape),
        classes=classes,
        seed=derive_seed(replicate_seed(config, index), "init"),
    )


def layer_sizes(model: nn.Module) -> dict[str, int]:
    """Weights of every prunable parameter, by name."""
    return {name: shape.numel() for name, shape in prunable_shapes(model).items()}


def restored_ticket(folder: RunFolder, mode: Rewind, replicate: int, index: int) -> tuple[nn.Module, ModelSpec, Masks]:
    """The network that the ticket of a finished round restarts from, its spec and its masks.

    Raises StorageError where they are not stored (yet).
    """
    files = ReplicateFiles.of(folder.checkpoints, replicate)
    spec = _stored_spec(files)
    start = stored_start(files, mode, index, without_memory(spec).state_dict())
    network, masks = _built(files, spec, mode, index)
    rewind(network, start, masks)
    statistics = files.round(mode, index) / STATISTICS
    if statistics.exists():  # of batch norm, estimated again for the ticket
        network.load_state_dict(load_stored(statistics, dict(network.named_buffers())), strict=False)
    return network, spec, masks


def trained_network(
    folder: RunFolder, mode: Rewind, replicate: int, index: int, recorded: str | None = None
) -> tuple[nn.Module, ModelSpec, Masks]:
    """The dense network (round 0) or a ticket at the end of its training, its spec and its masks.

    StorageError where its weights are not those whose checksum is `recorded`.
    """
    files = ReplicateFiles.of(folder.checkpoints, replicate)
    spec = _stored_spec(files)
    path = files.round(mode, index) / TRAINED
    weights = load_stored(path, without_memory(spec).state_dict())
    if recorded is not None and content_sha256(weights) != recorded:
        raise StorageError(f"{path}: holds other weights than its training's row records; put it back from a copy")
    network, masks = _built(files, spec, mode, index)
    network.load_state_dict(weights)
    return network, spec, masks


def _stored_spec(files: ReplicateFiles) -> ModelSpec:
    remedy = "put it back from a copy, or delete it and run the command that made it again"
    return validate(read_sealed(files.spec, remedy), ModelSpec, str(files.spec))


def _built(files: ReplicateFiles, spec: ModelSpec, mode: Rewind, index: int) -> tuple[nn.Module, Masks]:
    """A replicate's network as its spec makes it, and the masks of one of its rounds.

    Called once stored weights are seen to fit the spec: a folder from elsewhere may claim networks of any size.
    """
    network = build(spec)
    return network, stored_masks(files, mode, index, Masks.full(network))
