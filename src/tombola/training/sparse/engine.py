"""The sparse engine: one iteration of a chain of convolutions and dense layers, on kept weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import Examples
from tombola.errors import TrainingError
from tombola.kernels.layouts import GATHER_PANEL
from tombola.kernels.losses import CROSS_ENTROPY_GRADIENT
from tombola.kernels.program import Place, Step, Where
from tombola.kernels.steps import from_panel, to_panel
from tombola.pruning import Masks
from tombola.training.batches import Batches
from tombola.training.classification import Classification, scored
from tombola.training.metrics import scores_of
from tombola.training.recipe import Recipe
from tombola.training.sparse.build import build_layers
from tombola.training.sparse.chain import Link
from tombola.training.sparse.kept import KeptParameters
from tombola.training.sparse.layer import Load
from tombola.training.sparse.operations import Operation, Operations
from tombola.training.sparse.updates import make_update
from tombola.training.task import Part, Scored

EVALUATED = 64
"""Examples of an evaluation at a time."""
LONG = 2
"""Floats as long as a position, which has 64 bits."""

INPUTS, POSITIONS, TARGETS = (Where(place) for place in (Place.INPUT, Place.OUTPUT, Place.WORKSPACE))
"""What the three addresses of a training step are: of examples, of positions among them, and of targets."""


class SparseEngine:
    """Trains the kept weights of a chain: convolutions and those layers that `sparse` says on sparse kernels, the other
    ones on dense ones.

    The model's own parameters lag behind until `write_back`. A layer without a mask keeps all its weights.
    """

    name: Literal["dense", "sparse"] = "sparse"

    def __init__(
        self,
        model: nn.Module,
        chain: Sequence[Link],
        sparse: Sequence[bool],
        task: Classification,
        batches: Batches,
        recipe: Recipe,
        masks: Masks,
    ) -> None:
        self.identity = f"sparse {''.join(str(int(on_kernels)) for on_kernels in sparse)}"
        self.task, self.batches = task, batches
        self.shape = tuple(batches.examples.inputs.shape[1:])
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        keeps = [_keep_of(link.module.weight, masks, names) for link in chain]
        self.layers = build_layers(chain, sparse, keeps, self.shape)
        self.features, self.classes = self.layers[0].features, len(chain[-1].module.weight)
        self._check(batches.examples)
        self.kept = KeptParameters(sum(layer.size for layer in self.layers))
        for layer in self.layers:
            layer.attach(self.kept)
        self.read()
        self.write_back()  # removed weights are 0 from now on
        self._update = make_update(self.kept, recipe)
        # Made here, so that kernels are compiled before anybody takes the time of a step.
        self._steps = {batches.size: self._step(batches.size)}
        self._evaluations = {EVALUATED: self._evaluation(EVALUATED)}

    @property
    def vector(self) -> Tensor:
        return self.kept.values

    def gradients(self, iteration: int) -> None:
        count, inputs, positions, targets = self.batches.located(iteration)
        if count not in self._steps:
            self._steps[count] = self._step(count)
        self._steps[count](inputs, positions, targets)

    def update(self, rate: float) -> None:
        self._update(rate)

    def read(self) -> None:
        for layer in self.layers:
            layer.read()

    def write_back(self) -> None:
        for layer in self.layers:
            layer.write_back()

    @property
    def state(self) -> dict[str, Tensor]:
        return self._update.state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._update.load_state(state)

    def evaluate(self, part: Part) -> Scored:
        examples = self.task.arrays(part)
        self._check(examples)
        logits = torch.empty(len(examples), self.classes)
        inputs = examples.inputs.reshape(len(examples), -1).contiguous()
        for first in range(0, len(examples), EVALUATED):
            count = min(EVALUATED, len(examples) - first)
            if count not in self._evaluations:
                self._evaluations[count] = self._evaluation(count)
            self._evaluations[count](inputs[first:].data_ptr(), logits[first:].data_ptr(), 0)
        loss = float(functional.cross_entropy(logits, examples.targets, reduction="sum"))
        predicted = logits.argmax(1)
        return scored(scores_of(loss, predicted, examples.targets), predicted == examples.targets)

    def _check(self, examples: Examples) -> None:
        check_examples(examples, self.features, self.classes)
        shape = tuple(examples.inputs.shape[1:])
        if self.layers[0].convolves and shape != self.shape:
            raise TrainingError(f"examples of shape {shape} are not of that of the training, {self.shape}")

    def _step(self, count: int) -> Operations:
        """All gradients of a batch of `count` examples."""

        def load(first: int, some: int, panel: Where, width: int) -> Step:
            positions = Where(Place.OUTPUT, LONG * first)
            return Step(GATHER_PANEL, (positions, some, self.features, INPUTS, panel, width))

        operations, panels = self._forward(count, load)
        deltas = [torch.empty(0), *(layer.outputs(count) for layer in self.layers)]
        logits, delta = Where(panels[-1].numpy()), Where(deltas[-1].numpy())
        where = (POSITIONS, TARGETS, count, self.classes, logits, delta, panels[-1].shape[1])
        operations.append(Step(CROSS_ENTROPY_GRADIENT, where))
        for number in range(len(self.layers) - 1, -1, -1):
            layer, own, below = self.layers[number], deltas[number + 1], panels[number]
            operations += layer.backward(own, below)
            if number:
                operations += layer.below(own, below, deltas[number])
        return Operations(operations)

    def _evaluation(self, count: int) -> Operations:
        """The logits of `count` examples at INPUT, to OUTPUT."""

        def load(first: int, some: int, panel: Where, width: int) -> Step:
            return to_panel(some, self.features, Where(Place.INPUT, first * self.features), panel, width)

        operations, panels = self._forward(count, load)
        logits = panels[-1]
        end = from_panel(count, self.classes, Where(logits.numpy()), logits.shape[1], Where(Place.OUTPUT))
        return Operations([*operations, end])

    def _forward(self, count: int, load: Load) -> tuple[list[Operation], list[Tensor]]:
        """From examples to logits; and the activations: the inputs', then those after every layer."""
        inputs, operations = self.layers[0].entrance(count, load)
        panels = [inputs]
        for layer in self.layers:
            panels.append(layer.outputs(count))
            operations += layer.forward(*panels[-2:])
        return operations, panels


def check_examples(examples: Examples, features: int, classes: int) -> None:
    """Raises TrainingError for examples that are not (n, features) float32 with targets from 0 to classes - 1.

    Machine code takes them at their word.
    """
    inputs, targets = examples.inputs, examples.targets
    if inputs.dtype != torch.float32 or targets.dtype != torch.int64 or not (inputs.is_cpu and targets.is_cpu):
        raise TrainingError(
            f"training takes float32 inputs and int64 targets on the CPU, not {inputs.dtype} and {targets.dtype}"
        )
    if not len(inputs) or len(inputs) != len(targets) or inputs[0].numel() != features:
        raise TrainingError(
            f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)} do not fit a network of {features} inputs"
        )
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise TrainingError(f"there is a target {int(targets.max())}, and the network has {classes} outputs")


def _keep_of(weight: Tensor, masks: Masks, names: Mapping[int, str]) -> Tensor:
    """What the mask of a weight keeps; without a mask, all."""
    mask = masks.get(names[id(weight)])
    return torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.keep
