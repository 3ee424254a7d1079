"""The sparse engine: one iteration of a chain of Linear and ReLU layers, on kept weights alone."""

from __future__ import annotations

from collections.abc import Mapping
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
from tombola.kernels.target import host
from tombola.pruning import Masks
from tombola.training.batches import Batches
from tombola.training.metrics import Scores, scores_of
from tombola.training.recipe import Recipe
from tombola.training.sparse.layers import DenseLayer, Layer, SparseLayer
from tombola.training.sparse.live import Live
from tombola.training.sparse.operations import Operation, Sequence
from tombola.training.sparse.updates import make_update

KILOBYTE = 256
"""In floats."""
EVALUATED = 64
"""Examples of an evaluation at a time."""

INPUTS, POSITIONS, TARGETS = (Where(place) for place in (Place.INPUT, Place.OUTPUT, Place.WORKSPACE))
"""What the three addresses of a training step are: of examples, of positions among them, and of targets."""


class SparseEngine:
    """Trains the kept weights of `layers`, those that `sparse` says on sparse kernels, the others on dense ones.

    The model's own parameters lag behind until `write_back`. A layer without a mask keeps all its weights.
    """

    name: Literal["dense", "sparse"] = "sparse"

    def __init__(
        self,
        model: nn.Module,
        layers: list[nn.Linear],
        sparse: list[bool],
        batches: Batches,
        recipe: Recipe,
        masks: Masks,
    ) -> None:
        self.identity = f"sparse {''.join(str(int(on_kernels)) for on_kernels in sparse)}"
        self.batches = batches
        features, classes = layers[0].in_features, layers[-1].out_features
        check_examples(batches.examples, features, classes)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.layers: list[Layer] = []
        for linear, on_kernels in zip(layers, sparse, strict=True):
            name, relu = names[id(linear.weight)], linear is not layers[-1]
            keep = masks[name].keep if name in masks else torch.ones_like(linear.weight, dtype=torch.bool)
            self.layers.append(SparseLayer(linear, keep, relu) if on_kernels else DenseLayer(linear, keep, relu))
        self.live = Live(sum(layer.count + layer.linear.out_features for layer in self.layers))
        for layer in self.layers:
            layer.attach(self.live)
        self.read()
        self.write_back()  # removed weights are 0 from now on
        self._update = make_update(self.live, recipe)
        # Made here, so that kernels are compiled before anybody takes the time of a step.
        self._steps = {batches.size: self._step(batches.size)}
        self._evaluations = {EVALUATED: self._evaluation(EVALUATED)}

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

    def evaluate(self, examples: Examples) -> Scores:
        features, classes = self.layers[0].linear.in_features, self.layers[-1].linear.out_features
        check_examples(examples, features, classes)
        logits = torch.empty(len(examples), classes)
        inputs = examples.inputs.reshape(len(examples), -1).contiguous()
        for first in range(0, len(examples), EVALUATED):
            count = min(EVALUATED, len(examples) - first)
            if count not in self._evaluations:
                self._evaluations[count] = self._evaluation(count)
            self._evaluations[count](inputs[first:].data_ptr(), logits[first:].data_ptr(), 0)
        loss = float(functional.cross_entropy(logits, examples.targets, reduction="sum"))
        return scores_of(loss, logits.argmax(1), examples.targets)

    def _step(self, count: int) -> Sequence:
        """All gradients of a batch of `count` examples."""
        panels = self._panels(_width(count))
        deltas = [torch.empty(0), *(torch.zeros_like(panel) for panel in panels[1:])]
        features, width = panels[0].shape
        first = Step(GATHER_PANEL, (POSITIONS, count, features, INPUTS, Where(panels[0].numpy()), width))
        operations: list[Operation] = [first, *self._forward(panels)]
        logits, delta = Where(panels[-1].numpy()), Where(deltas[-1].numpy())
        classes = panels[-1].shape[0]
        operations.append(Step(CROSS_ENTROPY_GRADIENT, (POSITIONS, TARGETS, count, classes, logits, delta, width)))
        for number in range(len(self.layers) - 1, -1, -1):
            layer, own, below = self.layers[number], deltas[number + 1], panels[number]
            operations += layer.backward(own, below)
            if number:
                operations += layer.below(own, below, deltas[number])
        return Sequence(operations)

    def _evaluation(self, count: int) -> Sequence:
        """The logits of `count` examples at INPUT, to OUTPUT."""
        panels = self._panels(_width(count))
        (features, width), classes = panels[0].shape, panels[-1].shape[0]
        begin = to_panel(count, features, Where(Place.INPUT), Where(panels[0].numpy()), width)
        end = from_panel(count, classes, Where(panels[-1].numpy()), width, Where(Place.OUTPUT))
        return Sequence([begin, *self._forward(panels), end])

    def _forward(self, panels: list[Tensor]) -> list[Operation]:
        steps = zip(self.layers, panels[:-1], panels[1:], strict=True)
        return [operation for layer, x, y in steps for operation in layer.forward(x, y)]

    def _panels(self, width: int) -> list[Tensor]:
        """The activations: the inputs', then those after every layer."""
        features = [self.layers[0].linear.in_features, *(layer.linear.out_features for layer in self.layers)]
        return [torch.zeros(count, width) for count in features]


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


def _width(count: int) -> int:
    """Of a panel that holds `count` examples: whole vectors, and its rows not a whole number of kilobytes apart.

    Rows at such distances would share few places of a cache and drive each other out.
    """
    lanes = host().lanes
    width = -(-count // lanes) * lanes
    return width + lanes if width % KILOBYTE == 0 else width
