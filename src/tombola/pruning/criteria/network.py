"""A network as a function of its weights: what criteria compute with, without touching the model.

Everything happens in evaluation mode (no dropout, stored batch-norm statistics) on copies of the weights under
their masks, so that scoring changes neither parameters, gradients, statistics nor the random state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.errors import PruningError
from tombola.pruning.criteria.criterion import Scores, ScoringContext
from tombola.pruning.prunable import prunable_parameters

Weights = dict[str, Tensor]


def masked_weights(model: nn.Module, context: ScoringContext) -> Weights:
    """Copies of all prunable weights, removed ones 0; those to be scored ask for gradients."""
    scored = context.scored(model)
    masked = {
        name: p.detach().clone() if context.masks is None else context.masks[name].apply(p.detach())
        for name, p in prunable_parameters(model).items()
    }
    return {name: weight.requires_grad_(name in scored) for name, weight in masked.items()}


def buffer_copies(model: nn.Module) -> Weights:
    """Copies of the buffers, for a run that writes to them."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def inputs_of(batch: Any) -> Any:
    """What of a batch goes into the model."""
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def inputs_and_targets(batch: Any) -> tuple[Any, Any]:
    """The parts of a batch; PruningError when it is no such pair."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise PruningError("the loss needs batches of (inputs, targets): this one has no targets")
    return batch[0], batch[1]


def run(model: nn.Module, tensors: Mapping[str, Tensor], batch: Any) -> Any:
    """The model's output on a batch, with `tensors` in place of the parameters and buffers of these names."""
    device = next(iter(tensors.values())).device
    inputs = _to(batch if isinstance(batch, Mapping) else inputs_of(batch), device)
    try:
        if isinstance(batch, Mapping):
            return functional_call(model, dict(tensors), (), dict(inputs))
        return functional_call(model, dict(tensors), inputs if isinstance(inputs, tuple) else (inputs,))
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise PruningError(f"the model does not take this batch: {_first_line(error)}") from error


def mean_loss(model: nn.Module, weights: Weights, batch: Any, context: ScoringContext) -> Tensor:
    """The mean loss of a batch; PruningError when the batch brings none or it is not a finite number."""
    output = run(model, weights, batch)
    if isinstance(batch, Mapping):
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if loss is None:
            raise PruningError("a batch of keywords needs a model that answers with a `loss`: add labels to the batch")
    else:
        _, targets = inputs_and_targets(batch)
        try:
            loss = context.loss(output, _to(targets, next(iter(weights.values())).device))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise PruningError(
                f"the loss cannot be computed from what the model gives and the targets: {_first_line(error)}"
            ) from error
    if not (isinstance(loss, Tensor) and loss.dim() == 0 and bool(torch.isfinite(loss))):
        raise PruningError(f"the loss of a batch must be one finite number, not {_shown(loss)}")
    return loss


def gradients(loss: Tensor, weights: Weights, *, differentiable: bool = False) -> Weights:
    """The gradient of `loss` for the weights that ask for one; PruningError names one that it does not depend on."""
    asking = {name: weight for name, weight in weights.items() if weight.requires_grad}
    if not loss.requires_grad:
        raise PruningError("the loss has no gradient: it does not depend on the weights, or was computed under no_grad")
    found = torch.autograd.grad(loss, list(asking.values()), create_graph=differentiable, allow_unused=True)
    for name, gradient in zip(asking, found, strict=True):
        if gradient is None:
            raise PruningError(f"{name}: no gradient reaches it, the loss does not depend on it; protect the layer")
    return dict(zip(asking, found, strict=True))


def loss_gradients(model: nn.Module, weights: Weights, context: ScoringContext) -> Iterator[Weights]:
    """The gradient of the mean loss of each batch, one batch after the other."""
    for batch in context.batches or ():
        yield gradients(mean_loss(model, weights, batch, context), weights)


def mean_gradient(model: nn.Module, weights: Weights, context: ScoringContext) -> Weights:
    """The gradient of the mean over all batches of their mean losses."""
    return mean_of(loss_gradients(model, weights, context))


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


def _shown(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return type(loss).__name__
    return f"a tensor of shape {tuple(loss.shape)}" if loss.dim() else str(loss.item())


def _to(value: Any, device: torch.device) -> Any:
    """Tensors on the device, also those within a mapping or tuple."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _to(part, device) for key, part in value.items()}
    return tuple(_to(part, device) for part in value) if isinstance(value, (tuple, list)) else value


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
