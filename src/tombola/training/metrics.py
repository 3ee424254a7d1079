"""What a classifier is measured by: loss, accuracy and macro-averaged F1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import Examples

CHUNK = 1_000
"""Examples per forward pass of an evaluation: large enough for the matrix products, small enough for cache."""


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy in nats; accuracy and macro-F1 as shares; how many examples they are over."""

    loss: float
    accuracy: float
    f1: float
    examples: int


def evaluate(model: nn.Module, examples: Examples) -> Scores:
    """The scores of `model` on `examples`; the model's training mode is restored afterwards."""
    return scores_of(*predict(model, examples), examples.targets)


def predict(model: nn.Module, examples: Examples) -> tuple[float, Tensor]:
    """The cross-entropy summed over the examples, in nats, and the predicted classes (n,); training mode as before."""
    was_training = model.training
    model.eval()
    loss, predictions = 0.0, []
    with torch.no_grad():
        for inputs, targets in zip(examples.inputs.split(CHUNK), examples.targets.split(CHUNK), strict=True):
            logits = model(inputs)
            loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
            predictions.append(logits.argmax(1))
    model.train(was_training)
    return loss, torch.cat(predictions)


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
