"""The networks of a study: how a replicate's is specified, and how a stored ticket is made one again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.data import DataSet, Normalisation, normalised
from tombola.errors import StorageError
from tombola.models import ModelSpec
from tombola.models.config import Spec
from tombola.models.folder import parse_spec, rebuilt
from tombola.models.own import initial_network
from tombola.models.spec import refuse_larger_before, without_memory
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks
from tombola.pruning.prunable import prunable_shapes
from tombola.runs.folder import RunFolder
from tombola.runs.sealed import read_sealed
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.rewind import Rewind, rewind, unsaved_buffers
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
    return as_started(config, load_recorded(config.images, replicate_seed(config, index), data_dir, checksum))


def stored_data(
    config: LotteryConfig, index: int, spec: Spec, data_dir: Path | None, checksum: str | None = None
) -> DataSet:
    """As `replicate_data`, normalised as the stored `spec` has it: a file that a run started from may be gone."""
    data = load_recorded(config.images, replicate_seed(config, index), data_dir, checksum)
    if config.start is None:
        return data
    return normalised(data, Normalisation(spec.normalisation.mean, spec.normalisation.std))


def model_spec(config: LotteryConfig, index: int, input_shape: Sequence[int] | None, classes: int | None) -> Spec:
    """The spec of a replicate's network, its seed included, but for the normalisation that its data bring."""
    return config.model.spec(input_shape, classes, derive_seed(replicate_seed(config, index), "init"))


def outline(config: LotteryConfig, input_shape: Sequence[int], classes: int) -> nn.Module:
    """The network of a config, to be asked for names and sizes: without memory where it is one of the zoo."""
    spec = model_spec(config, 0, input_shape, classes)
    return without_memory(spec) if isinstance(spec, ModelSpec) else initial_network(spec, blank(spec))


def blank(spec: Spec) -> Tensor:
    """Two examples without content, for somebody's own function to be tried on."""
    assert spec.input_shape is not None, "a task of one's own is tried on its own examples"
    return torch.zeros(()).expand(2, *spec.input_shape)


def layer_sizes(model: nn.Module) -> dict[str, int]:
    """Weights of every prunable parameter, by name."""
    return {name: shape.numel() for name, shape in prunable_shapes(model).items()}


def restored_ticket(
    folder: RunFolder, mode: Rewind, replicate: int, index: int, factory: str | None = None
) -> tuple[nn.Module, Spec, Masks]:
    """The network that the ticket of a finished round restarts from, its spec and its masks.

    A network of somebody's own code is made by `factory`. Raises ModelError where that is not named, StorageError where
    the ticket is not stored (yet).
    """
    files = ReplicateFiles.of(folder.checkpoints, replicate)
    stored = _Stored(files, factory)
    start = stored_start(files, mode, index, stored.like)
    network, masks = stored.built(mode, index)
    rewind(network, start, masks, unsaved_buffers(network))
    statistics = files.round(mode, index) / STATISTICS
    if statistics.exists():  # of batch norm, estimated again for the ticket
        network.load_state_dict(load_stored(statistics, dict(network.named_buffers())), strict=False)
    return network, stored.spec, masks


def trained_network(
    folder: RunFolder,
    mode: Rewind,
    replicate: int,
    index: int,
    recorded: str | None = None,
    factory: str | None = None,
) -> tuple[nn.Module, Spec, Masks]:
    """The dense network (round 0) or a ticket at the end of its training, its spec and its masks.

    StorageError where its weights are not those whose checksum is `recorded`; `factory` as of `restored_ticket`.
    """
    files = ReplicateFiles.of(folder.checkpoints, replicate)
    stored = _Stored(files, factory)
    path = files.round(mode, index) / TRAINED
    weights = load_stored(path, stored.like)
    if recorded is not None and content_sha256(weights) != recorded:
        raise StorageError(f"{path}: holds other weights than its training's row records; put it back from a copy")
    network, masks = stored.built(mode, index)
    network.load_state_dict(weights)
    return network, stored.spec, masks


class _Stored:
    """A replicate's network as its stored spec makes it. One of the zoo is built once stored weights are seen to fit
    the spec: a folder from elsewhere may claim networks of any size."""

    def __init__(self, files: ReplicateFiles, factory: str | None) -> None:
        remedy = "put it back from a copy, or delete it and run the command that made it again"
        self.files = files
        self.spec = parse_spec(read_sealed(files.spec, remedy), str(files.spec))
        self.own: nn.Module | None = None
        if isinstance(self.spec, ModelSpec):
            self.like = without_memory(self.spec).state_dict()
            refuse_larger_before(self.spec, sum(tensor.numel() for tensor in self.like.values()))
        else:
            self.own = rebuilt(self.spec, factory, str(files.spec))
            self.like = self.own.state_dict()

    def built(self, mode: Rewind, index: int) -> tuple[nn.Module, Masks]:
        """The network, and the masks of one of its rounds."""
        network = rebuilt(self.spec, None, "") if self.own is None else self.own
        return network, stored_masks(self.files, mode, index, Masks.full(network))
