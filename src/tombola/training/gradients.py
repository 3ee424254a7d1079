"""Gradients of a task's mean loss, written into the parameters' `.grad`.

Networks that are a chain of Linear and ReLU layers and classify by cross-entropy get theirs from a hand-written forward
and backward pass in preallocated memory; every other network and task from autograd.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tombola.training.classification import Classification
from tombola.training.device import autocast
from tombola.training.flat import FlatParameters
from tombola.training.metrics import said_in_one_line
from tombola.training.task import BatchSource, Task
from tombola.training.tried import check_loss

Gradients = Callable[[int], None]
"""Fills every parameter's gradient with that of an iteration's batch."""

relu_backward_ = torch.ops.aten.threshold_backward.grad_input


def gradients_of(
    model: nn.Module, flat: FlatParameters, task: Task, source: BatchSource, precision: str = "float32"
) -> Gradients:
    """The fastest exact way to the gradients of `model` for the batches of `source`, chosen once for all of them."""
    known = isinstance(task, Classification) and task.plain and precision == "float32" and flat.values.is_cpu
    layers = linear_chain(model) if known else None
    if layers is None or any(not parameter.requires_grad for parameter in model.parameters()):
        return AutogradGradients(model, flat, task, source, precision)
    chain = ChainGradients(layers, source.size)
    return lambda iteration: chain(*source.at(iteration))


def linear_chain(model: nn.Module) -> list[nn.Linear] | None:
    """The Linear layers of a Sequential of [Flatten], Linear, ReLU, Linear, ..., Linear; None for any other."""
    if type(model) is not nn.Sequential:
        return None
    modules = list(model)
    if modules and type(modules[0]) is nn.Flatten and (modules[0].start_dim, modules[0].end_dim) == (1, -1):
        modules = modules[1:]
    expected = [nn.Linear, nn.ReLU] * (len(modules) // 2) + [nn.Linear]
    if [type(module) for module in modules] != expected:
        return None
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    if any(layer.bias is None for layer in layers):
        return None
    if any(a.out_features != b.in_features for a, b in itertools.pairwise(layers)):
        return None
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    return layers if len({id(parameter) for parameter in parameters}) == len(parameters) else None


class AutogradGradients:
    """Gradients by automatic differentiation, accumulated into the flat vector.

    Of a model that gives auxiliary outputs while it trains the main one alone counts: what leads to the others only
    has gradients of 0.
    """

    def __init__(self, model: nn.Module, flat: FlatParameters, task: Task, source: BatchSource, precision: str) -> None:
        self.model = model
        self.flat = flat
        self.task = task
        self.source = source
        self.precision = precision
        self.is_first = True

    def __call__(self, iteration: int) -> None:
        with said_in_one_line(f"the task {self.task.name}: at({iteration}) of its batches fails"):
            batch = self.source.at(iteration)
        self.flat.gradients.zero_()
        with torch.enable_grad():
            with autocast(self.flat.values.device, self.precision):
                loss = self.task.loss(self.model, batch)
            if self.is_first:
                check_loss(loss, f"the task {self.task.name}")
                self.is_first = False
            with said_in_one_line("the model has no gradient"):
                loss.backward()


class ChainGradients:
    """Gradients of a chain of Linear and ReLU layers, written out.

    With a_0 the inputs, a_l = relu(a_{l-1} W_l' + b_l) and logits z: dz = (softmax(z) - onehot) / n, and for
    each layer from the last dW = da' a_{l-1}, db = sum(da), da_{l-1} = (da W) where a_{l-1} > 0. The inputs
    need no gradient, so a network of k layers takes 3k - 1 matrix products.
    """

    def __init__(self, layers: list[nn.Linear], batch_size: int) -> None:
        self.layers = layers
        # One activation and one gradient buffer per layer, reused by every step.
        self.outputs = [torch.empty(batch_size, layer.out_features) for layer in layers]
        self.deltas = [torch.empty_like(output) for output in self.outputs]
        self.minus_one = torch.full((batch_size, 1), -1.0)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        count = len(inputs)
        activations = [inputs.reshape(count, -1)]
        for layer, output in zip(self.layers, self.outputs, strict=True):
            z = torch.addmm(layer.bias, activations[-1], layer.weight.t(), out=output[:count])
            activations.append(z if layer is self.layers[-1] else z.relu_())

        delta = torch.softmax(activations.pop(), 1, out=self.deltas[-1][:count])
        delta.scatter_add_(1, targets.unsqueeze(1), self.minus_one[:count]).div_(count)
        for index in range(len(self.layers) - 1, -1, -1):
            layer, below = self.layers[index], activations[index]
            torch.mm(delta.t(), below, out=layer.weight.grad)
            torch.sum(delta, 0, out=layer.bias.grad)
            if index:
                delta = torch.mm(delta, layer.weight, out=self.deltas[index - 1][:count])
                relu_backward_(delta, below, 0, grad_input=delta)
