"""`tombola train`: a parent, trained and kept with everything that is needed to build and prune it again."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from tombola.data import DataSet, split_record
from tombola.data.dataset import recorded
from tombola.models import FactorySpec, ModelSpec, build
from tombola.models.own import initial_network
from tombola.models.tensors import save_tensors
from tombola.pruning import Masks
from tombola.pruning.observe import output_weights
from tombola.pruning.structures import Neuron, make_structure
from tombola.pruning.units import count_units, fraction_of_all
from tombola.runs.seeds import derive_seed
from tombola.studies.base.averaging import AVERAGED, averaged_state
from tombola.studies.base.own_code import network_facts
from tombola.studies.base.watching import FEATURES
from tombola.studies.single.child import reporting
from tombola.studies.single.config import TrainConfig
from tombola.studies.single.metrics import layer_rows, stage_row, units_removed
from tombola.studies.single.one_model import Made, OneModel, evaluation_rows
from tombola.studies.single.parents import spec_for
from tombola.studies.single.plan import ModelPlan, plan_model
from tombola.training import fit
from tombola.training.classification import as_task
from tombola.training.engine import ANY_CLASSES, ANY_IMAGE, layers_on_kernels
from tombola.training.evolution import Evolution, Gradual, Moment
from tombola.training.frozen import load_examples, prepare_examples


class Train(OneModel[TrainConfig]):
    """The weights that are kept are those of the lowest validation loss."""

    name = "train"
    config_type = TrainConfig

    @property
    def title(self) -> str:
        return f"{self.config.name}: trained"

    @functools.cached_property
    def data(self) -> DataSet:
        prepare_examples(self.config.data, self.call.data_dir, self.call.watcher.counting(FEATURES))
        return load_examples(self.config.data, self.config.seed, self.call.data_dir)

    @functools.cached_property
    def spec(self) -> ModelSpec | FactorySpec:
        return spec_for(self.config.model, self.data, derive_seed(self.config.seed, "init"))

    def facts(self) -> dict[str, Any]:
        model = self.config.model
        unseen = model.spec(ANY_IMAGE, ANY_CLASSES, 0)
        if self.config.training.engine == "sparse" and isinstance(unseen, ModelSpec):
            self._check_engine(build(unseen))  # what no data change is refused before they are read
        network = initial_network(self.spec, self.data.train.inputs)
        self._check_engine(network)
        self._check_evolution(network)
        return {"data": recorded(self.data), "seed": self.config.seed, **network_facts(model, network)}

    def _check_engine(self, model: nn.Module) -> None:
        """TrainingError where the engine asked for cannot train this network."""
        recipe, evolving = self.config.training, self.config.evolution is not None
        layers_on_kernels(model, recipe, Masks.full(model), recipe.batch_size, evolving=evolving)

    def _check_evolution(self, model: nn.Module) -> None:
        """ConfigError where no update of the masks fits into the training."""
        recipe, evolution, task = self.config.training, self.config.evolution, as_task(self.data)
        if evolution is None:
            return
        per_epoch = task.batches(recipe.batch_size, self.config.seed, recipe.augmentation).per_epoch
        beginning = Moment(model, Masks.full(model), 0, self.config.seed, lambda count: [], task.criterion_loss)
        evolution.plan(beginning, per_epoch, recipe.length.iterations(per_epoch))

    def plan(self, *, quick: bool) -> ModelPlan | None:
        if quick:  # a line before one training is not worth the wait
            return None
        model = initial_network(self.spec, self.data.train.inputs)
        return plan_model("a parent", model, Masks.full(model), self.data, self.config.training, 1)

    def make(self) -> Made:
        config, data = self.config, self.data
        model = initial_network(self.spec, data.train.inputs)
        spared = _classes(config.evolution, model, data)
        trained = fit(
            model,
            data,
            config.training,
            Masks.full(model),
            derive_seed(config.seed, "order"),
            checkpoint=self.folder.checkpoints / "training.checkpoint.safetensors",
            checkpoint_seconds=config.checkpoint_seconds,
            on_evaluation=reporting("training", self.call.watcher.progress),
            evolution=_sparing(config.evolution, model, spared),
        )
        model.load_state_dict(trained.early_stop_state)
        masks = trained.masks
        structure = "weight" if config.evolution is None else getattr(config.evolution, "structure", "weight")
        layers = layer_rows("trained", model, masks, structure)
        averaged = averaged_state(trained)
        stage = stage_row("trained", model, masks, data, config.training.device, averaged)
        if averaged is not None:
            save_tensors(self.folder.root / AVERAGED, averaged)
        history = {
            "run": self.folder.root.name,
            "data": split_record(config.data, config.seed, data.checksum),
            "training": config.training.model_dump(mode="json"),
            "evolution": None if config.evolution is None else config.evolution.model_dump(mode="json"),
            "iterations": trained.early_stop.iteration,
        }
        return Made(
            rows=[stage, *layers, *evaluation_rows([trained])],
            checks={} if config.evolution is None else _checks(model, masks, config.evolution, spared),
            spec=self.spec,
            model=model,
            masks=None if config.evolution is None else masks,
            history=history,
        )


def _classes(evolution: Evolution | None, model: nn.Module, data: DataSet) -> tuple[str, ...]:
    """The layer whose outputs are the classes, where whole outputs go."""
    if not isinstance(evolution, Gradual) or not isinstance(make_structure(evolution.structure), Neuron):
        return ()
    return tuple(output_weights(model, data.train.inputs[:2]))


def _sparing(evolution: Evolution | None, model: nn.Module, spared: tuple[str, ...]) -> Evolution | None:
    """The evolution without the classes: they are no units of which a fraction goes."""
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
