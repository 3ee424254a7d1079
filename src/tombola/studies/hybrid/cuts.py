"""The networks of a replicate that are cut at exits: the CNN dense, its ticket, and the frozen base of the head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tombola.data import DataSet, normalised
from tombola.data.dataset import Normalisation
from tombola.errors import ConfigError
from tombola.models.spec import Normalisation as SpecNormalisation
from tombola.pruning import Masks
from tombola.runs.folder import RunFolder
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.lottery.networks import replicate_seed, trained_network
from tombola.studies.lottery.result import Result
from tombola.training.base import FrozenBase
from tombola.training.frozen import base_of, load_examples

BASE, DENSE, TICKET = "base", "dense", "ticket"
NO_NORMALISATION = Normalisation()


@dataclass(frozen=True)
class Sources:
    """Where a replicate's networks come from; small, because it is sent to worker processes.

    `cnn` is the run of the lottery whose dense network and ticket of round `round` are cut.
    """

    config: HybridConfig
    cnn: Path
    round: int
    data_dir: Path | None


@dataclass(frozen=True)
class Cut:
    """A network to cut, the masks it holds, and the replicate's pictures as it wants them."""

    name: str
    network: nn.Sequential
    masks: Masks
    data: DataSet
    whole: bool
    """Whether it gives logits; a base alone does not."""


def sources_of(config: HybridConfig, lotteries: dict[str, Result], data_dir: Path | None) -> Sources:
    """The ticket is that of the target density, so that it is the same however many replicates there are."""
    cnn = lotteries["cnn"]
    return Sources(config, cnn.folder.root, max(summary.round for summary in cnn.summaries), data_dir)


def pictures_of(sources: Sources, replicate: int) -> DataSet:
    """A replicate's pictures, split as its lotteries split them, in [0, 1]."""
    lottery = sources.config.lotteries()["cnn"]
    plain = lottery.data.model_copy(update={"normalise": False})
    return load_examples(plain, replicate_seed(lottery, replicate), sources.data_dir)


def cuts_of(sources: Sources, replicate: int, pictures: DataSet) -> Iterator[Cut]:
    """The base, if there is one, then the dense CNN, then its ticket, each when it is asked for."""
    if (base := frozen_base(sources.config, sources.data_dir)) is not None:
        data = normalised(pictures, _of(base.normalisation))
        yield Cut(BASE, base.network, Masks.full(base.network), data, whole=False)
    folder = RunFolder(sources.cnn)
    mode = sources.config.lotteries()["cnn"].rewinds[0]
    for name, index in ((DENSE, 0), (TICKET, sources.round)):
        network, spec, masks = trained_network(folder, mode, replicate, index)
        if not isinstance(network, nn.Sequential):
            raise ConfigError(f"cnn: a {spec.architecture} is no chain of layers and has no exits")
        yield Cut(name, network, masks, normalised(pictures, _of(spec.normalisation)), whole=True)


def frozen_base(config: HybridConfig, data_dir: Path | None) -> FrozenBase | None:
    """The base of the study's head, if it has one."""
    lottery = config.lotteries().get("head")
    return None if lottery is None else base_of(lottery.data, data_dir)


def _of(normalisation: SpecNormalisation) -> Normalisation:
    return Normalisation(normalisation.mean, normalisation.std)
