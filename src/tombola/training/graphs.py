"""Graphs: one number or one class for every graph. Graphs are PyTorch Geometric's (the extra `graphs`).

What is said of single nodes or edges is no part of this.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data.augment import Augmentation
from tombola.errors import DataError, TrainingError, counted
from tombola.models.tensors import content_sha256
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.training.batches import Order
from tombola.training.device import CPU, device_of
from tombola.training.metrics import said_in_one_line
from tombola.training.task import ACCURACY, PARTS, Measure, Part, Scored, Task, without_augmentation

CHUNK = 256
"""Graphs per forward pass of an evaluation."""
Graphs = Sequence[Any]
"""`torch_geometric.data.Data`, each with a target `y` of one row."""


class GraphTask(Task):
    """Targets of whole graphs. A model takes a batch of graphs as PyTorch Geometric has it (`data.Batch`).

    `regression`: `y` holds numbers, the loss is the mean squared error, and the model answers with as many for every
    graph. `classification`: `y` is a class (int64), the loss is the cross-entropy of logits (graphs, classes).
    """

    def __init__(
        self, train: Graphs, validation: Graphs, test: Graphs, kind: Literal["regression", "classification"]
    ) -> None:
        self.device = CPU
        self.parts: dict[Part, Graphs] = {"train": train, "validation": validation, "test": test}
        self.kind = kind
        self.name = f"graph {kind}"
        self.answers = "numbers" if kind == "regression" else "logits"
        if kind == "regression":
            self.compares = Measure("mae", higher_is_better=False, title="mean absolute error")
            self.criterion_loss = squared_error
        else:
            self.compares = ACCURACY
            self.criterion_loss = functional.cross_entropy
        for part in PARTS:
            self._check(part)
        classes = [int(graph.y) for part in PARTS for graph in self.parts[part]] if kind == "classification" else []
        self.classes = 1 + max(classes, default=0)

    def _check(self, part: Part) -> None:
        """Raises DataError, with the number of the graph, for targets that are none of this kind."""
        dtype = torch.float32 if self.kind == "regression" else torch.int64
        if not len(self.parts[part]):
            raise DataError(f"the {part} part has no graph")
        for number, graph in enumerate(self.parts[part]):
            y = getattr(graph, "y", None)
            if not isinstance(y, Tensor) or y.dim() < 1 or len(y) != 1 or y.dtype != dtype:
                shown = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
                raise DataError(f"{part} graph {number}: y is one row of {dtype} for {self.kind}, not {shown}")
            if self.kind == "classification" and (y.dim() > 1 or int(y) < 0):
                raise DataError(f"{part} graph {number}: y is one class, counted from 0, not {y.tolist()}")
            if not bool(torch.isfinite(y).all()):
                raise DataError(f"{part} graph {number}: y is {y.tolist()}, which is not finite")

    def on(self, device: torch.device) -> GraphTask:
        """Batches are moved one by one: a graph is many small tensors, and joining them is the work of the CPU."""
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved.device = device
        return moved

    @cached_property
    def checksum(self) -> str:
        return _content([self.parts[part] for part in PARTS])

    def identity(self) -> tuple[str, ...]:
        return (_content([self.parts[part] for part in PARTS[:2]]),)

    def count(self, part: Part) -> int:
        return len(self.parts[part])

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> GraphBatches:
        without_augmentation(self, augmentation)
        return GraphBatches(self.parts["train"], size, seed, self.device)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self.criterion_loss(self._answers(model, batch), batch.y)

    def scores(self, model: nn.Module, part: Part) -> Scored:
        """Regression: `mae` and `rmse`, `each` the absolute error of a graph (the mean of its numbers).

        Classification: `accuracy`, `each` 1 for a right answer and 0 for a wrong one.
        """
        answers, targets = [], []
        with evaluation_mode(model), torch.no_grad():
            for batch in _chunks(self.parts[part], CHUNK):
                answers.append(self._answers(model, batch.to(device_of(model))).cpu())
                targets.append(batch.y.cpu())
        given, wanted = torch.cat(answers), torch.cat(targets)
        loss = float(self.criterion_loss(given, wanted))
        if self.kind == "regression":
            each = (given - wanted).abs().flatten(1).mean(1) if given.dim() > 1 else (given - wanted).abs()
            return Scored(loss, {"mae": _mean(each), "rmse": loss**0.5}, len(wanted), each)
        right = (given.argmax(1) == wanted).to(torch.float32)
        return Scored(loss, {"accuracy": _mean(right)}, len(wanted), right)

    def naive(self, part: Part) -> Scored:
        """Regression: the median of the part's own targets, which no answer for all beats by `mae`, at the loss of the
        training targets' mean. Classification: the most frequent class, at the loss of class frequencies."""
        learned, targets = self.targets("train"), self.targets(part)
        if self.kind == "regression":
            each = (targets - targets.median(0).values).abs().reshape(len(targets), -1).mean(1)
            loss = float((targets - learned.mean(0)).square().mean())
            return Scored(loss, {"mae": _mean(each)}, len(each), each)
        counts = torch.bincount(learned, minlength=self.classes).double() + 1
        right = (targets == counts.argmax()).to(torch.float32)
        loss = float(-(counts / counts.sum()).log()[targets].mean())
        return Scored(loss, {"accuracy": _mean(right)}, len(right), right)

    def targets(self, part: Part) -> Tensor:
        """The targets (graphs, ...) of a part, on the CPU."""
        return torch.cat([graph.y.cpu() for graph in self.parts[part]])

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        drawn = map(self.batches(size, seed).at, range(count))
        return [((batch,), batch.y) for batch in drawn]

    def inputs(self, count: int, size: int) -> list[Any]:
        first = torch.arange(min(count, self.count("train")))
        parts = first.tensor_split(max(1, len(first) // size))
        return [together([self.parts["train"][i] for i in part.tolist()]).to(self.device) for part in parts]

    def _answers(self, model: nn.Module, batch: Any) -> Tensor:
        """What somebody's model says of a batch, as the loss wants it; TrainingError in one line for anything else."""
        with said_in_one_line(f"the model fails on {len(batch.y)} graphs"):
            given = main_output(model(batch))
        if isinstance(given, Tensor):
            if self.kind == "classification":
                if given.dim() == 2 and len(given) == len(batch.y) and given.shape[1] >= self.classes:
                    return given.float()
            elif given.numel() == batch.y.numel() and len(given) == len(batch.y):
                return given.float().view_as(batch.y)
        shown = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        wanted = (
            f"logits of {self.classes} classes or more"
            if self.kind == "classification"
            else f"{counted(batch.y[0].numel(), 'number')} each"
        )
        raise TrainingError(f"the model gives {shown} for {len(batch.y)} graphs, not {wanted}")


class GraphBatches:
    """Training batches of graphs, every epoch in another order; each is made anew: a model may write into it."""

    def __init__(self, graphs: Graphs, size: int, seed: int, device: torch.device = CPU) -> None:
        self.graphs, self.device = graphs, device
        self._order = Order(len(graphs), size, seed)
        self.size, self.per_epoch = self._order.size, self._order.per_epoch

    def at(self, iteration: int) -> Any:
        return together([self.graphs[number] for number in self._order.at(iteration).tolist()]).to(self.device)


def squared_error(output: Any, targets: Tensor) -> Tensor:
    """The mean squared error of what a model gives, which may have an axis of one number more than the targets."""
    return functional.mse_loss(main_output(output).float().view_as(targets), targets)


def together(graphs: Graphs) -> Any:
    """Graphs as one `Batch`; TrainingError where PyTorch Geometric is not installed."""
    try:
        from torch_geometric.data import Batch
    except ImportError:
        raise TrainingError(
            "graphs need PyTorch Geometric, which is not installed: pip install 'tombola[graphs]'"
        ) from None
    return Batch.from_data_list(list(graphs))


def _chunks(graphs: Graphs, size: int) -> Iterator[Any]:
    for first in range(0, len(graphs), size):
        yield together([graphs[number] for number in range(first, min(first + size, len(graphs)))])


def _mean(each: Tensor) -> float:
    """In float64: a mean of right answers is the fraction that counting them gives."""
    return float(each.double().mean())


def _content(parts: Sequence[Graphs]) -> str:
    """A checksum of all tensors of all graphs, by the names that they have there."""
    tensors: dict[str, Tensor] = {}
    for number, graphs in enumerate(parts):
        batch = together([graphs[index] for index in range(len(graphs))])
        found = {name: value for name, value in batch.to_dict().items() if isinstance(value, Tensor)}
        tensors |= {f"{number}.{name}": value for name, value in found.items()}
    return content_sha256(tensors)
