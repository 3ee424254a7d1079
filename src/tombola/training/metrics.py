"""What a classifier is measured by: loss, accuracy and macro-averaged F1."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import Examples
from tombola.errors import TombolaError, TrainingError, one_line_by_name
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.training.device import device_of

CHUNK = 1_000
"""Examples per forward pass of an evaluation: large enough for the matrix products, small enough for cache."""


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy in nats; accuracy and macro-F1 as fractions; how many examples they are over."""

    loss: float
    accuracy: float
    f1: float
    examples: int


def evaluate(model: nn.Module, examples: Examples) -> Scores:
    """The scores of `model` on `examples`, computed where the model is; modes are as before afterwards."""
    return scores_of(*predict(model, examples), examples.targets.cpu())


def predict(
    model: nn.Module, examples: Examples, loss: Callable[..., Tensor] = functional.cross_entropy
) -> tuple[float, Tensor]:
    """The loss summed over the examples (cross-entropy in nats), and the predicted classes (n,) on the CPU.

    Every module's own mode is as before afterwards. Examples go to the model's device piece by piece, where they are on
    another one. A `loss` of one's own takes logits and targets and gives their mean.
    """
    total, predictions, device = 0.0, [], device_of(model)
    with evaluation_mode(model), torch.no_grad():
        for inputs, targets in zip(examples.inputs.split(CHUNK), examples.targets.split(CHUNK), strict=True):
            inputs, targets = inputs.to(device), targets.to(device)
            logits = logits_of(model, inputs)
            if loss is functional.cross_entropy:
                total += float(functional.cross_entropy(logits, targets, reduction="sum"))
            else:
                total += float(loss(logits, targets)) * len(targets)
            predictions.append(logits.argmax(1).cpu())
    return total, torch.cat(predictions)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The logits (n, classes) of somebody's model; auxiliary outputs beside them (`main_output`) are left out.

    They are in float32 also where autocast computed them in fewer bits.

    Raises TrainingError in one line for a forward pass that fails and for what is no tensor of that shape.
    """
    with said_in_one_line(f"the model fails on {len(inputs)} examples"):
        logits = main_output(model(inputs))
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(inputs):
        shown = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        mode = "while it trains" if model.training else "in evaluation"
        raise TrainingError(
            f"the model gives {shown} for {len(inputs)} examples {mode}, not logits (examples, classes)"
        )
    return logits.float() if logits.dtype == torch.bfloat16 else logits


@contextlib.contextmanager
def said_in_one_line(what: str) -> Iterator[None]:
    """Errors of somebody's own code as a TrainingError; a device that is out of memory stays what it is."""
    try:
        yield
    except (TombolaError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TrainingError(f"{what}: {one_line_by_name(error)}") from error


def scores_of(loss: float, predicted: Tensor, targets: Tensor) -> Scores:
    """The scores of predicted classes (n,); `loss` is summed over the examples."""
    count = len(targets)
    return Scores(loss / count, int((predicted == targets).sum()) / count, macro_f1(predicted, targets), count)


def macro_f1(predicted: Tensor, targets: Tensor) -> float:
    """Unweighted mean of per-class F1 = 2·TP / (2·TP + FP + FN) over classes that occur in either tensor.

    The classes and the value are those of scikit-learn's `f1_score(average="macro")`.
    """
    classes = int(torch.maximum(predicted.max(), targets.max())) + 1
    true_positives = torch.bincount(targets[predicted == targets], minlength=classes)
    # 2·TP + FP + FN = how often the class is predicted + how often it is the target
    occurrences = torch.bincount(predicted, minlength=classes) + torch.bincount(targets, minlength=classes)
    occurring = occurrences > 0
    return float((2 * true_positives[occurring].double() / occurrences[occurring]).mean())
