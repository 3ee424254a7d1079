"""A trained network that a command is given: the ticket of a run of `tombola imp`, or a model folder; with its data.

What comes out takes the data as they are read, numbers in [0, 1]: the normalisation and a frozen base, where there are
some, stand before the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ConfigError, ModelError
from tombola.models.normalised import behind_normalisation
from tombola.models.spec import Normalisation
from tombola.pruning import Masks
from tombola.runs.configs import validate
from tombola.runs.folder import RunFolder
from tombola.studies.base.opened import read_result
from tombola.studies.lottery.keras_ticket import behind
from tombola.studies.lottery.networks import replicate_seed, trained_network
from tombola.studies.lottery.result import base_facts, trained_weights
from tombola.studies.lottery.study import open_lottery
from tombola.studies.registered import open_run, study_of
from tombola.studies.single.parents import MODEL_FOLDERS, NO_CLASSIFIER, Parent, is_folder, open_parent
from tombola.training.base import FrozenBase
from tombola.training.frozen import base_of
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class AskedModel:
    """What a person says of the model: a run or model folder, a zoo name or a function, and what goes with these."""

    model: str
    data: DataConfig | None = None
    weights: Path | None = None
    factory: str | None = None
    seed: int = 0
    fine_tuning: Recipe | None = None


@dataclass(frozen=True)
class GivenModel:
    """A network in evaluation, removed weights 0, with all its masks and the data it was split for."""

    name: str
    network: nn.Module
    masks: Masks
    data: DataSet


def open_given(asked: AskedModel, data_dir: Path | None = None) -> GivenModel:
    """The network of a lottery run (replicate 0's ticket at the end of its training), or of what `prune` takes.

    Raises TombolaError in one line for what is neither, or was trained on data that are not there any more.
    """
    study = study_of(Path(asked.model)) if is_folder(asked.model) and _is_run(Path(asked.model)) else None
    if study == "lottery":
        return _ticket(asked, data_dir)
    if study is not None and study not in MODEL_FOLDERS:
        asked = replace(asked, model=str(_given_away(Path(asked.model), study)))
    parent = open_parent(asked, data_dir)
    return surroundings_of(parent, data_dir).given(parent.model, parent.masks)


@dataclass(frozen=True)
class Surroundings:
    """What a parent's networks stand in: its data as they are read, what normalises them, a frozen base if any."""

    name: str
    normalisation: Normalisation
    base: FrozenBase | None
    data: DataSet

    def given(self, network: nn.Module, masks: Masks) -> GivenModel:
        """A network in these surroundings, in evaluation; its removed weights become 0."""
        normalisation = self.normalisation
        if self.base is not None:
            if not isinstance(network, nn.Sequential):
                raise ModelError(f"{self.name}: a {type(network).__name__} behind a frozen base is no chain of layers")
            network, normalisation = behind(self.base.network, network), self.base.normalisation
        masks = Masks({**Masks.full(network), **masks})  # a base keeps all its weights
        masks.apply_(network)
        dims = self.data.train.inputs.dim()
        return GivenModel(self.name, *behind_normalisation(network.eval(), masks, normalisation, dims), self.data)


def surroundings_of(parent: Parent, data_dir: Path | None = None) -> Surroundings:
    """Of a parent, whose data are split as they were for it."""
    config = validate(parent.data_record["config"], DataConfig, f"{parent.name}: the data of its record")
    base, seed = base_of(config, data_dir), int(parent.data_record["split_seed"])
    return Surroundings(parent.name, parent.spec.normalisation, base, _as_read(config, seed, data_dir))


def _given_away(root: Path, study: str) -> Path:
    """The model folder that a finished run gives away."""
    run = open_run(root)
    if (folder := run.model_folder(read_result(run))) is None:
        raise ConfigError(f"{root}: a run of tombola {study} has no one network; name a model folder of it")
    return folder


def _is_run(root: Path) -> bool:
    return RunFolder(root).manifest.exists()


def _ticket(asked: AskedModel, data_dir: Path | None) -> GivenModel:
    if asked.weights is not None or asked.data is not None:
        raise ConfigError(f"{asked.model}: a run has its own weights and data; leave --weights and --data out")
    opened = open_lottery(Path(asked.model))
    config, result = opened.config, read_result(opened)
    if config.task is not None:
        raise ConfigError(f"{asked.model}: {NO_CLASSIFIER}")
    index = result.ticket_round
    recorded = trained_weights(result).get((0, index))
    network, spec, masks = trained_network(result.folder, config.rewinds[0], 0, index, recorded, asked.factory)
    base = base_of(config.images, data_dir)
    if base is not None and base_facts(base) != result.data.get("base"):
        raise ModelError(f"{asked.model}: the base is another one now than the head was trained on; put it back")
    data = _as_read(config.images, replicate_seed(config, 0), data_dir)
    return Surroundings(opened.called, spec.normalisation, base, data).given(network, masks)


def _as_read(config: DataConfig, seed: int, data_dir: Path | None) -> DataSet:
    """Before any base, and numbers in [0, 1]."""
    return load_data(config.model_copy(update={"base": None, "normalise": False}), seed, data_dir)
