"""What a run has stored of its replicates: where each file lies, and how a ticket is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tombola.errors import StorageError
from tombola.models.tensors import load_tensors_like
from tombola.pruning import Masks
from tombola.studies.base.averaging import AVERAGED
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import HOST, Host
from tombola.studies.lottery.rewind import Rewind
from tombola.training import Step

MASKS, TRAINED, STATISTICS = "masks.safetensors", "trained.safetensors", "statistics.safetensors"
HOST_TRAINED = "host.safetensors"


@dataclass(frozen=True)
class ReplicateFiles:
    """The files of one replicate. Round 0, the dense network, is shared by all modes of rewinding."""

    root: Path

    @classmethod
    def of(cls, checkpoints: Path, index: int) -> ReplicateFiles:
        return cls(checkpoints / f"replicate-{index:02d}")

    @property
    def initial(self) -> Path:
        """W_0."""
        return self.root / "initial.safetensors"

    @property
    def spec(self) -> Path:
        """The spec of the replicate's network, normalisation included."""
        return self.root / "spec.json"

    @property
    def host_initial(self) -> Path:
        """W_0 of the second dense network."""
        return self.root / "host-initial.safetensors"

    def state_at(self, step: Step, branch: str = "dense") -> Path:
        """W_k of the dense training, or of the second one."""
        prefix = "" if branch == "dense" else f"{branch}-"
        return self.round(Rewind("init"), 0) / f"{prefix}state-{step}.safetensors"

    def trained(self, mode: Rewind | None, index: int, branch: str) -> Path | None:
        """The weights that a training ended with, of the branches that are kept."""
        names = {"dense": TRAINED, "ticket": TRAINED, HOST: HOST_TRAINED}
        return self.round(mode or Rewind("init"), index) / names[branch] if branch in names else None

    def training(self, mode: Rewind | None, index: int, branch: str, config: LotteryConfig) -> list[Path]:
        """The files that a finished training leaves: what they are missing of is trained again."""
        folder = self.round(mode or Rewind("init"), index)
        files = [folder / f"{branch}.json"]
        kept = self.trained(mode, index, branch)
        if kept is not None:
            files.append(kept)
        if branch == HOST:
            files.append(self.host_initial)
        if branch in config.dense_branches:
            files += [self.state_at(mode.step, branch) for mode in config.rewinds if mode.kind == "step"]
        if config.training.ema is not None and branch in ("dense", "ticket"):
            files.append(folder / AVERAGED)
        return files

    def are_whole(self, config: LotteryConfig, rounds: int) -> bool:
        """Whether all that a finished replicate leaves is there; `rounds` with the dense one."""
        wanted = [self.initial, self.spec]
        for branch in config.dense_branches:
            wanted += self.training(None, 0, branch, config)
        for mode in config.rewinds:
            for index in range(1, rounds):
                wanted.append(self.round(mode, index) / MASKS)
                for branch in ("ticket", *config.controls):
                    wanted += self.training(mode, index, branch, config)
        return all(path.exists() for path in wanted)

    def round(self, mode: Rewind, index: int) -> Path:
        """The folder of a round."""
        return self.root / ("dense" if index == 0 else str(mode).replace(":", "-")) / f"round-{index:02d}"


def stored_start(files: ReplicateFiles, mode: Rewind, index: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that the ticket of round `index` restarts from, as stored; removed ones not yet 0.

    At round 0 that is W_0, or W_k for a mode that rewinds there. `like` is a state of the same model: the file
    must hold tensors of its names, shapes and types.
    """
    if mode.kind == "step":
        return load_stored(files.state_at(mode.step), like)
    if mode.keeps_weights and index:
        return load_stored(files.round(mode, index - 1) / TRAINED, like)
    return load_stored(files.initial, like)


def stored_host(files: ReplicateFiles, mode: Rewind, like: Mapping[str, Tensor]) -> Host:
    """The second dense network of a replicate, for a mode of rewinding."""
    first = files.state_at(mode.step, HOST) if mode.kind == "step" else files.host_initial
    dense = files.round(mode, 0)
    return Host(*(load_stored(path, like) for path in (first, dense / HOST_TRAINED, dense / TRAINED)))


def stored_masks(files: ReplicateFiles, mode: Rewind, index: int, full: Masks) -> Masks:
    """The ticket's masks of round `index`; `full` are the model's before any pruning."""
    if index == 0:
        return full
    return pruned_masks(files, mode, index, full.to_tensors())


def pruned_masks(files: ReplicateFiles, mode: Rewind, index: int, like: Mapping[str, Tensor]) -> Masks:
    """The ticket's masks of a round from 1 on; `like` has the names and shapes of the model's masks."""
    return Masks.from_tensors(load_stored(files.round(mode, index) / MASKS, like))


def load_stored(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file of a run; a damaged one is named together with the way out."""
    try:
        return load_tensors_like(path, like)
    except StorageError as error:
        if not path.exists():
            raise
        raise StorageError(
            f"{error}; put the file back from a copy, or delete it and run the command that made it again: it is made "
            "anew"
        ) from None
