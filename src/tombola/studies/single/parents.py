"""Where a parent comes from: the zoo, a model folder, or somebody's own function; and the data it is pruned on.

A folder records the data and the split that its model was trained on, so that a child never meets its parent's
training examples in its test set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tombola.data import DataConfig, DataSet, dataset, normalised, split_record
from tombola.errors import ConfigError, ModelError
from tombola.models import FactorySpec, ModelConfig, ModelSpec, architectures, load_model, read_spec
from tombola.models.factory import is_factory_name
from tombola.models.folder import SPEC
from tombola.models.own import check_fits, initial_network
from tombola.models.spec import Normalisation
from tombola.models.tensors import content_sha256
from tombola.models.weights import load_weights
from tombola.pruning import Masks
from tombola.registry import suggest
from tombola.runs.configs import validate
from tombola.runs.folder import RunFolder
from tombola.training.frozen import (
    OnFeatures,
    load_examples,
    load_raw_examples,
    prepare_examples,
    refuse_augmentation,
)
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class Parent:
    """A model to prune, with the masks it has already, and the data it was split for."""

    name: str
    model: nn.Module
    spec: ModelSpec | FactorySpec
    masks: Masks
    data: DataSet
    data_record: dict[str, Any]

    @property
    def sha256(self) -> str:
        return content_sha256(self.model.state_dict())

    @property
    def record(self) -> dict[str, Any]:
        """What a child keeps of its parent."""
        return {"model": self.name, "sha256": self.sha256, "kept": self.masks.kept, "weights": self.masks.total}


class Asked(Protocol):
    """What is said of a parent: `PruneConfig`, or whoever else wants one."""

    @property
    def model(self) -> str: ...
    @property
    def weights(self) -> Path | None: ...
    @property
    def factory(self) -> str | None: ...
    @property
    def data(self) -> DataConfig | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def fine_tuning(self) -> Recipe | None: ...


MODEL_FOLDERS = ("train", "prune", "remove")
"""Studies whose run folders are model folders."""
NO_CLASSIFIER = (
    "learned a task of one's own, and this command takes classifiers; from Python, tombola.export, tombola.sensitivity "
    "and tombola.remove_units take the network"
)
WEIGHT_FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Endings of files that hold weights and no network."""


def is_folder(model: str) -> bool:
    """Whether a parent's name is that of a folder; a text that cannot be a path is none."""
    try:
        return Path(model).is_dir()
    except OSError:
        return False


def open_parent(config: Asked, data_dir: Path | None, on_features: OnFeatures = lambda done, total: None) -> Parent:
    """The parent of `config`; an error in one line when there is none of that name or it does not fit the data.

    Where its data pass a frozen base, `on_features` is told how many have.
    """
    if is_folder(config.model):
        return _from_folder(config, data_dir, on_features)
    if config.factory is not None:
        raise ConfigError("--factory goes with a model folder; a factory alone is the model itself")
    if config.model in architectures:
        untrained = config.model if config.weights is not None else f"{config.model} (untrained)"
        return _made(config, ModelConfig(architecture=config.model), untrained, data_dir, on_features)
    if is_factory_name(config.model):
        return _made(config, ModelConfig(factory=config.model), config.model, data_dir, on_features)
    if Path(config.model).suffix in WEIGHT_FILES:
        raise ConfigError(
            f"{config.model}: this is a file of weights: name the model and give it by --weights {config.model}, for "
            f"example: tombola prune lenet5 --weights {config.model}"
        )
    raise ConfigError(
        f"{config.model!r} is no folder, no package.module:function and no model of the zoo"
        f"{suggest(config.model, architectures)}"
    )


def spec_for(model: ModelConfig, data: DataSet, seed: int) -> ModelSpec | FactorySpec:
    """The specification of a config's network for these data, its initial weights from `seed`."""
    return model.spec(data.input_shape, data.classes, seed, Normalisation(**asdict(data.normalisation)))


def _made(config: Asked, model: ModelConfig, name: str, data_dir: Path | None, on_features: OnFeatures) -> Parent:
    """A network of the zoo or of somebody's own function, with the weights that `config` names, if any."""
    chosen = _chosen_data(config)
    prepare_examples(chosen, data_dir, on_features)
    data = load_examples(chosen, config.seed, data_dir)
    spec = spec_for(model, data, config.seed)
    network = initial_network(spec, data.train.inputs)
    if config.weights is not None:
        load_weights(network, config.weights)
    record = split_record(chosen, config.seed, data.checksum)
    return Parent(name, network, spec, Masks.full(network), data, record)


def _from_folder(config: Asked, data_dir: Path | None, on_features: OnFeatures) -> Parent:
    if config.weights is not None:
        raise ConfigError("--weights goes with a zoo or factory model; a model folder has its own")
    _refuse_run(Path(config.model))
    spec, history = read_spec(config.model)
    if spec.input_shape is None or spec.classes is None:
        raise ModelError(f"{config.model}: {NO_CLASSIFIER}")
    model, _, masks = load_model(config.model, config.factory)
    chosen, split_seed = _data_of_folder(config, history, data_dir)
    try:
        refuse_augmentation(chosen, config.fine_tuning)
    except ValueError as error:
        raise ConfigError(f"{config.model}: {error}") from None
    prepare_examples(chosen, data_dir, on_features)
    raw = load_examples(chosen.model_copy(update={"normalise": False}), split_seed, data_dir)
    if config.data is None:
        _check_unchanged(config.model, history["data"].get("checksum"), raw)
    if (raw.input_shape, raw.classes) != (spec.input_shape, spec.classes):
        raise ModelError(
            f"{config.model}: made for inputs {spec.input_shape} and {spec.classes} classes, but {raw.name} has "
            f"{raw.input_shape} and {raw.classes}"
        )
    data = normalised(raw, dataset.Normalisation(spec.normalisation.mean, spec.normalisation.std))
    check_fits(model, data.train.inputs, data.classes, config.model)
    name = Path(config.model).resolve().name
    record = split_record(chosen, split_seed, data.checksum)
    return Parent(name, model, spec, Masks.full(model) if masks is None else masks, data, record)


def _refuse_run(root: Path) -> None:
    """ConfigError for the folder of a run that is no model folder, or none yet."""
    run = RunFolder(root)
    if (root / SPEC).exists() or not run.manifest.exists():
        return
    study = str(run.read_manifest()["must_match"].get("study"))
    if study in MODEL_FOLDERS:
        if run.finished.exists():
            return  # it has lost its spec, and reading it says so
        raise ConfigError(f"{root}: this run is not finished; the command that began it continues it")
    if study == "lottery":
        raise ConfigError(
            f"{root}: a run has many networks; take one out by tombola extract {root} --density ... --out FOLDER, and "
            "prune FOLDER"
        )
    where = f", such as one in {root / 'models'}" if (root / "models").is_dir() else ""
    raise ConfigError(f"{root}: a run of tombola {study} is no model; name a model folder{where}")


def _check_unchanged(model: str, recorded: object, found: DataSet) -> None:
    """ModelError where what a folder records as its data is something else now: the split would be another one."""
    if recorded != found.checksum:
        raise ModelError(
            f"{model}: the data it was trained on, {found.name}, have changed since (or the base before them has): put "
            "them back, or name the data with --data"
        )


def _data_of_folder(config: Asked, history: dict[str, Any], data_dir: Path | None) -> tuple[DataConfig, int]:
    """The data the folder records, unless others are asked for; and the seed of their split.

    Data that are known again, wherever they lie and whatever they are called, keep the parent's split.
    """
    found = history.get("data")
    if not (isinstance(found, dict) and isinstance(found.get("split_seed"), int)):
        return _chosen_data(config), config.seed
    recorded = validate(found.get("config"), DataConfig, f"{config.model}: the data in its spec")
    asked = config.data
    if asked is None:
        return recorded, found["split_seed"]
    named_alike = (asked.name, asked.folder) == (recorded.name, recorded.folder)
    if not named_alike and load_raw_examples(asked, data_dir).checksum != found.get("checksum"):
        return asked, config.seed
    for part in ("validation", "test", "group_by"):
        if getattr(asked, part) not in (None, getattr(recorded, part)):
            raise ConfigError(
                f"--data: {config.model} was trained on a split of these data with {part}="
                f"{getattr(recorded, part) or 'the default'}; another one would test the child on what its parent "
                f"learned from, so leave {part!r} out"
            )
    split = {
        "validation": recorded.validation,
        "test": recorded.test,
        "training": asked.training or recorded.training,
        "base": asked.base or recorded.base,
        "group_by": recorded.group_by,
    }
    return validate(asked.model_dump() | split, DataConfig, "--data"), found["split_seed"]


def _chosen_data(config: Asked) -> DataConfig:
    if config.data is None:
        raise ConfigError(f"{config.model} records no data: say which with --data, for example --data digits")
    return config.data
