"""The networks of a replicate: those that are cut at exits, and the frozen base with a head behind it.

Cut are the CNN, dense and as its ticket, and the frozen base of the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tombola.data import DataConfig, DataSet, normalised
from tombola.data.dataset import Normalisation
from tombola.errors import ConfigError, ModelError
from tombola.models.config import Spec
from tombola.models.spec import Normalisation as SpecNormalisation
from tombola.pruning import Masks
from tombola.runs.folder import RunFolder
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.questions import Lottery
from tombola.studies.lottery.keras_ticket import behind
from tombola.studies.lottery.networks import replicate_seed, stored_data, trained_network
from tombola.studies.lottery.result import Result, trained_weights
from tombola.training.base import FrozenBase
from tombola.training.frozen import base_of, load_recorded

BASE, DENSE, TICKET = "base", "dense", "ticket"
HEAD, HEAD_TICKET = "head", "head ticket"
"""The frozen base and behind it its head, dense or as its ticket."""
NO_NORMALISATION = Normalisation()


@dataclass(frozen=True)
class Sources:
    """Where a replicate's networks come from; small, because it is sent to worker processes.

    `cnn` is the run of the lottery whose dense network and ticket of round `round` are cut; `head` and `head_round`
    are those of the head behind the base, None where there is none.
    """

    config: HybridConfig
    cnn: Path
    round: int
    head: Path | None
    head_round: int | None
    data_dir: Path | None
    checksum: str | None = None
    """Of the images that the run has recorded."""
    base: str | None = None
    """The checksum of the frozen base that the run has recorded."""
    trained: Mapping[tuple[str, int, int], str] = field(default_factory=dict)
    """That of trained weights, by role, replicate and round, as the lotteries' rows have it."""


@dataclass(frozen=True)
class Head:
    """A trained head by itself, its masks, and the base's cached features of the replicate's images."""

    network: nn.Module
    masks: Masks
    features: DataSet


@dataclass(frozen=True)
class Cut:
    """A network from pixels on, the masks it holds, and the replicate's images as it wants them."""

    name: str
    network: nn.Sequential
    masks: Masks
    data: DataSet
    whole: bool
    """Whether it gives logits; a base alone does not."""
    head: Head | None = None
    """Of a base with a head. It is not cut: its exits are the base's."""
    device: str = "cpu"
    """Where it is scored, and its features are computed: where it was trained, a base where its config says."""

    @property
    def density(self) -> float:
        """Of what is pruned: the whole network, or the head behind a base."""
        return (self.masks if self.head is None else self.head.masks).density


def sources_of(
    config: HybridConfig, lotteries: dict[str, Result], data_dir: Path | None, facts: Mapping[str, Any] | None = None
) -> Sources:
    """The ticket is that of the target density, so that it is the same however many replicates there are.

    `facts` are those that the run has recorded, and that whoever reads data and networks again is to find.
    """
    known = facts or {}
    cnn, head = lotteries["cnn"], lotteries.get("head")
    behind_base = None if head is None else head.folder.root
    head_round = None if head is None else target_round("head", head)
    return Sources(
        config,
        cnn.folder.root,
        target_round("cnn", cnn),
        behind_base,
        head_round,
        data_dir,
        known.get("data", {}).get("checksum"),
        known.get("base", {}).get("sha256"),
        {(role, *place): sha256 for role, run in lotteries.items() for place, sha256 in trained_weights(run).items()},
    )


def images_config(config: HybridConfig) -> DataConfig:
    """The study's images in [0, 1]."""
    return config.lotteries()["cnn"].images.model_copy(update={"normalise": False})


def images_of(sources: Sources, replicate: int) -> DataSet:
    """A replicate's images, split as its lotteries split them, in [0, 1]."""
    seed = replicate_seed(sources.config.lotteries()["cnn"], replicate)
    return load_recorded(images_config(sources.config), seed, sources.data_dir, sources.checksum)


def cuts_of(sources: Sources, replicate: int, images: DataSet) -> Iterator[Cut]:
    """The base and its heads, if there is one, then the dense CNN, then its ticket, each when it is asked for."""
    if (base := frozen_base(sources.config, sources.data_dir)) is not None:
        if sources.base is not None and base.sha256 != sources.base:
            raise ModelError(f"the base ({base.source}) was replaced while the run was at work; put it back")
        data = normalised(images, normalisation_of(base.normalisation))
        yield Cut(BASE, base.network, Masks.full(base.network), data, whole=False, device=base.device.type)
        yield from _headed(sources, replicate, base, data)
    device = sources.config.lotteries()["cnn"].training.device
    for name, index in ((DENSE, 0), (TICKET, sources.round)):
        network, spec, masks = _trained(sources, "cnn", sources.cnn, replicate, index)
        data = normalised(images, normalisation_of(spec.normalisation))
        yield Cut(name, network, masks, data, whole=True, device=device)


def _headed(sources: Sources, replicate: int, base: FrozenBase, images: DataSet) -> Iterator[Cut]:
    """The base with its head, dense, then as its ticket."""
    assert sources.head is not None  # a base is that of a head
    assert sources.head_round is not None
    config = sources.config.lotteries()["head"]
    for name, index in ((HEAD, 0), (HEAD_TICKET, sources.head_round)):
        network, spec, masks = _trained(sources, "head", sources.head, replicate, index)
        whole = behind(base.network, network)
        head = Head(network, masks, stored_data(config, replicate, spec, sources.data_dir))
        yield Cut(name, whole, Masks({**Masks.full(whole), **masks}), images, True, head, config.training.device)


def _trained(sources: Sources, role: str, run: Path, replicate: int, index: int) -> tuple[nn.Sequential, Spec, Masks]:
    """A lottery's dense network (round 0) or ticket at the end of its training, its spec and its masks."""
    config, recorded = sources.config.lotteries()[role], sources.trained.get((role, replicate, index))
    network, spec, masks = trained_network(
        RunFolder(run), config.rewinds[0], replicate, index, recorded, config.model.factory
    )
    if not isinstance(network, nn.Sequential):
        raise ConfigError(f"{role}: a {config.model.title} is no chain of layers, and only these are cut or joined")
    return network, spec, masks


def target_round(role: str, lottery: Result) -> int:
    """The round of the ticket that the answers speak of."""
    found = Lottery.of(role, lottery).ticket_round
    if found is None:
        raise ConfigError(f"{role}: no ticket was trained")
    return found


def frozen_base(config: HybridConfig, data_dir: Path | None) -> FrozenBase | None:
    """The base of the study's head, if it has one."""
    lottery = config.lotteries().get("head")
    return None if lottery is None else base_of(lottery.images, data_dir)


def normalisation_of(normalisation: SpecNormalisation) -> Normalisation:
    """A model's normalisation, as data are normalised by it."""
    return Normalisation(normalisation.mean, normalisation.std)
