"""A network to compute scores with: a copy of the model, which is never run itself.

The copy is in evaluation mode (no dropout, stored batch-norm statistics), with its weights under their masks. What
happens to it, happens to it alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import PruningError, TombolaError
from tombola.pruning.copies import copy_of
from tombola.pruning.criteria.batches import call, inputs_and_targets, inputs_of, own
from tombola.pruning.criteria.criterion import Scores, ScoringContext
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.pruning.prunable import prunable_parameters
from tombola.pruning.untouched import left_alone
from tombola.pruning.wrapped import unwrapped

Weights = dict[str, Tensor]


def masked_weights(model: nn.Module, context: ScoringContext) -> Weights:
    """Copies of all prunable weights, removed ones 0."""
    return {
        name: p.detach().clone() if context.masks is None else context.masks[name].apply(p.detach())
        for name, p in prunable_parameters(model).items()
    }


@dataclass
class Network:
    """A copy of a model to run. `weights` are all its prunable ones by name, removed ones 0; gradients are of those
    that are to be scored.

    `model` is the copy: a criterion may do with it what it likes.
    """

    model: nn.Module
    weights: Weights
    context: ScoringContext
    scored: frozenset[str]
    reached: set[str] = field(default_factory=set)
    """The weights that a gradient has reached so far."""

    def run(self, batch: Any) -> Any:
        """What the model gives for a batch; PruningError where it does not take it."""
        inputs = own(inputs_of(batch), self._device)
        try:
            return call(unwrapped(self.model), inputs)
        except Exception as error:
            raise self._blamed(error, "the model does not take this batch") from error

    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a batch; PruningError when the batch brings none or it is not a finite number."""
        if isinstance(batch, Mapping):
            output = self.run(batch)
            loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
            if loss is None:
                raise PruningError(
                    "a batch of keywords needs a model that answers with a `loss`: add labels to the batch"
                )
        else:
            _, targets = inputs_and_targets(batch)
            loss = self._loss_of(self.run(batch), own(targets, self._device))
        if not (isinstance(loss, Tensor) and loss.dim() == 0 and bool(torch.isfinite(loss))):
            raise PruningError(f"the loss of a batch must be one finite number, not {_shown(loss)}")
        return loss

    def gradients(self, loss: Tensor, *, of: Weights | None = None, differentiable: bool = False) -> Weights:
        """The gradients of a number for the weights to be scored, or those in `of`, 0 where it does not depend on one.

        By `backward`, as in training: some layers (re-entrant checkpoints, reversible blocks) know no other way. With
        `differentiable` they can be differentiated again. PruningError where there is no gradient at all.
        """
        asking = self.asking if of is None else of
        if not loss.requires_grad:
            raise PruningError(
                "the loss has no gradient: it does not depend on the weights, or was computed under no_grad"
            )
        try:
            if differentiable:
                again = torch.autograd.grad(loss, list(asking.values()), create_graph=True, allow_unused=True)
                found: dict[str, Tensor | None] = dict(zip(asking, again, strict=True))
            else:
                loss.backward()
                found = {name: weight.grad for name, weight in asking.items()}
        except Exception as error:
            raise self._blamed(error, "no gradient can be computed") from error
        finally:
            self.model.zero_grad(set_to_none=True)
        self.reached.update(name for name, gradient in found.items() if gradient is not None)
        return {n: torch.zeros_like(asking[n]) if g is None else g for n, g in found.items()}

    def loss_gradients(self, batches: Iterable[Any] | None = None) -> Iterator[Weights]:
        """The gradient of the mean loss of each batch (the context's, where none are given), one after the other.

        At the end PruningError names a weight that no batch's gradient has reached.
        """
        for batch in (self.context.batches or ()) if batches is None else batches:
            yield self.gradients(self.loss(batch))
        self.refuse_unreached()

    def refuse_unreached(self) -> None:
        """PruningError naming a weight that no gradient has reached: its score would say nothing."""
        for name in self.asking:
            if self.reached and name not in self.reached:
                raise PruningError(f"{name}: no gradient reaches it, the loss does not depend on it; protect the layer")

    @property
    def asking(self) -> Weights:
        """The weights to be scored, which ask for gradients, in the model's order."""
        return {name: weight for name, weight in self.weights.items() if name in self.scored}

    @property
    def trainable(self) -> Weights:
        """All parameters that training would move, biases and norms too, and the weights to be scored."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @property
    def _device(self) -> torch.device:
        return next(iter(self.weights.values())).device

    def _loss_of(self, output: Any, targets: Any) -> Any:
        loss = self.context.loss
        try:
            # A function that the caller wrote knows what its model gives; the default one wants logits.
            return loss(main_output(output) if loss is functional.cross_entropy else output, targets)
        except Exception as error:
            raise self._blamed(
                error, "the loss cannot be computed from what the model gives and the targets"
            ) from error

    def _blamed(self, error: Exception, what: str) -> Exception:
        """The error to raise: `what` went wrong, in which layer, and what was said there."""
        if isinstance(error, (TombolaError, torch.OutOfMemoryError)):
            return error
        kind = "" if isinstance(error, (RuntimeError, TypeError, ValueError, IndexError)) else type(error).__name__
        layer = _layer_of(error, self.model)
        said = ": ".join(part for part in (kind, _first_line(error)) if part)
        return PruningError(f"{what}{f', in {layer}' if layer else ''}: {said}")


@contextlib.contextmanager
def network(model: nn.Module, context: ScoringContext, *, batch_statistics: bool = False) -> Iterator[Network]:
    """A copy of `model` under the context's masks, in evaluation mode and with gradients on, for criteria to run.

    With `batch_statistics` its batch norms go by the batch at hand, as those of an untrained network must.
    """
    copied = copy_of(model)
    weights = prunable_parameters(copied)
    scored = frozenset(context.scored(model))
    for name, weight in weights.items():
        if context.masks is not None:
            context.masks[name].apply_(weight)
        if name in scored:
            weight.requires_grad_()
    with evaluation_mode(copied, batch_statistics=batch_statistics), left_alone(model):
        yield Network(copied, dict(weights), context, scored)


def mean_gradient(network: Network) -> Scores:
    """The gradient of the mean over all batches of their mean losses, in float32 at least."""
    return mean_of(network.loss_gradients())


def mean_of(terms: Iterator[Weights]) -> Scores:
    """The mean of tensors by name, in float32 at least."""
    total: Scores = {}
    count = 0
    for term in terms:
        count += 1
        for name, tensor in term.items():
            wide = at_least_float32(tensor.detach())
            total[name] = total[name].add_(wide) if name in total else wide.clone()
    if not count:
        raise PruningError("`batches` is empty: a criterion needs at least one batch")
    return {name: tensor.div_(count) for name, tensor in total.items()}


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half-precision numbers as float32: products and sums of scores would run out of their range."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _layer_of(error: BaseException, model: nn.Module) -> str:
    """The innermost module of the model in whose code the error was raised, and its class; empty for none."""
    names = {id(module): name for name, module in model.named_modules()}
    found = ""
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(id(module)):
            found = f"{names[id(module)]} ({type(module).__name__})"
        trace = trace.tb_next
    return found


def _shown(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return type(loss).__name__
    return f"a tensor of shape {tuple(loss.shape)}" if loss.dim() else str(loss.item())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
