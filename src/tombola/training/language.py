"""Language modelling: the next token at every position of a sequence, by mean cross-entropy in nats.

What a tokenizer does is no part of this: sequences come as numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data.augment import Augmentation
from tombola.errors import DataError, TrainingError, counted
from tombola.models.tensors import content_sha256
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.training.batches import Order
from tombola.training.device import CPU, device_of, fits
from tombola.training.metrics import said_in_one_line
from tombola.training.task import PARTS, Measure, Part, Scored, Task, without_augmentation

CHUNK = 16_384
"""Most tokens per forward pass of an evaluation."""
LOGITS = 2**25
"""Most numbers of the logits per forward pass of an evaluation, one for every token and word: 128 MiB."""


@dataclass(frozen=True)
class Tokens:
    """Sequences of token ids (n, length + 1), int64: a network reads the first `length` of each, and the last `length`
    are what it is to say next."""

    ids: Tensor

    def __post_init__(self) -> None:
        if self.ids.dtype != torch.int64 or self.ids.dim() != 2 or len(self.ids) < 1 or self.ids.shape[1] < 2:
            shown = f"{tuple(self.ids.shape)} of {self.ids.dtype}"
            raise DataError(f"token ids are int64 (sequences, length + 1), at least 2 of a sequence, not {shown}")
        if int(self.ids.min()) < 0:
            raise DataError(f"token ids begin at 0, and there is one of {int(self.ids.min())}")

    @classmethod
    def of_text(cls, stream: Tensor, length: int) -> Tokens:
        """One long text (n,) cut into sequences that follow one another; what is left at the end is dropped.

        A sequence begins with the last token of the one before, so that every token but the first is said once.
        """
        count = (len(stream) - 1) // length
        if count < 1:
            raise DataError(
                f"a text of {len(stream)} tokens is too short for one sequence of {length} and the next token"
            )
        return cls(stream[: count * length + 1].unfold(0, length + 1, length).clone())

    def __len__(self) -> int:
        return len(self.ids)


class LanguageModelling(Task):
    """Next tokens of sequences.

    A model takes ids (n, length) and answers with logits (n, length, vocabulary), or with an object that has them as
    `logits`; a loss of its own is not used, because models do not agree on what they leave out.
    """

    name = "language modelling"
    compares = Measure("nats", higher_is_better=False, unit="nats a token", title="cross-entropy")

    def __init__(self, train: Tokens, validation: Tokens, test: Tokens) -> None:
        self.device = CPU
        self.ids: dict[Part, Tensor] = {"train": train.ids, "validation": validation.ids, "test": test.ids}
        self.criterion_loss = next_token_loss
        self.vocabulary = 1 + max(int(ids.max()) for ids in self.ids.values())

    def on(self, device: torch.device) -> LanguageModelling:
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved.device = device
        learned = {part: self.ids[part] for part in PARTS[:2]}  # the test part no training looks at
        if fits(list(learned.values()), device):
            moved.ids = {**self.ids, **{part: ids.to(device) for part, ids in learned.items()}}
        return moved

    @cached_property
    def checksum(self) -> str:
        return content_sha256({part: self.ids[part] for part in PARTS})

    def identity(self) -> tuple[str, ...]:
        return (content_sha256({part: self.ids[part] for part in PARTS[:2]}),)

    def count(self, part: Part) -> int:
        return len(self.ids[part])

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> Sequences:
        without_augmentation(self, augmentation)
        return Sequences(self.ids["train"], size, seed, self.device)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return next_token_loss(logits_of_tokens(model, batch[:, :-1], self.vocabulary), batch[:, 1:])

    def scores(self, model: nn.Module, part: Part) -> Scored:
        """`nats` and `accuracy` are means over tokens; `each` is the mean nats of a sequence."""
        nats, right = [], 0
        with evaluation_mode(model), torch.no_grad():
            for ids in self._chunks(part, self._width(model, part)):
                ids = ids.to(device_of(model))
                logits, targets = logits_of_tokens(model, ids[:, :-1], self.vocabulary), ids[:, 1:]
                every = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
                nats.append(every.view_as(targets).cpu().double().mean(1))
                right += int((logits.argmax(2) == targets).sum())
        each = torch.cat(nats)
        loss, count = float(each.mean()), self.count(part)
        tokens = count * (self.ids[part].shape[1] - 1)
        return Scored(loss, {"nats": loss, "accuracy": right / tokens}, count, each)

    def naive(self, part: Part) -> Scored:
        """The tokens' frequencies in the training part (each counted once more than it is there), or all alike: what
        has fewer nats."""
        targets = self.ids[part][:, 1:].cpu()
        counts = torch.bincount(self.ids["train"][:, 1:].flatten().cpu(), minlength=self.vocabulary).double() + 1
        alike = torch.full((self.vocabulary,), math.log(self.vocabulary), dtype=torch.float64)
        found = [nats[targets].mean(1) for nats in (-(counts / counts.sum()).log(), alike)]
        each = min(found, key=lambda nats: float(nats.mean()))
        return Scored(float(each.mean()), {"nats": float(each.mean())}, len(each), each)

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        drawn = map(self.batches(size, seed).at, range(count))
        return [(ids[:, :-1].clone(), ids[:, 1:].clone()) for ids in drawn]

    def inputs(self, count: int, size: int) -> list[Any]:
        ids = self.ids["train"][:count, :-1].to(self.device)
        return list(ids.tensor_split(max(1, len(ids) // size)))

    def _width(self, model: nn.Module, part: Part) -> int:
        """How many logits the model gives for a token: it may know more of them than the data have."""
        first = self.ids[part][:1, :-1].to(device_of(model))
        return logits_of_tokens(model, first, self.vocabulary).shape[2]

    def _chunks(self, part: Part, width: int) -> Iterator[Tensor]:
        ids, tokens = self.ids[part], min(CHUNK, LOGITS // width)
        yield from ids.split(max(1, tokens // ids.shape[1]))


class Sequences:
    """Training batches: ids (n, length + 1) of sequences, every epoch in another order."""

    def __init__(self, ids: Tensor, size: int, seed: int, device: torch.device = CPU) -> None:
        self.ids, self.device = ids, device
        self._order = Order(len(ids), size, seed, ids.device)
        self.size, self.per_epoch = self._order.size, self._order.per_epoch

    def at(self, iteration: int) -> Tensor:
        return self.ids[self._order.at(iteration)].to(self.device)


def next_token_loss(output: Any, targets: Tensor) -> Tensor:
    """The mean cross-entropy of what a model gives and the tokens (n, length) that come next, in nats."""
    return functional.cross_entropy(main_output(output).flatten(0, 1).float(), targets.flatten())


def logits_of_tokens(model: nn.Module, ids: Tensor, vocabulary: int) -> Tensor:
    """The logits (n, length, at least `vocabulary`) of somebody's model; TrainingError in one line for others."""
    asked = f"{counted(len(ids), 'sequence')} of {ids.shape[1]} tokens"
    with said_in_one_line(f"the model fails on {asked}"):
        logits = main_output(model(ids))
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != ids.shape:
        shown = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise TrainingError(f"the model gives {shown} for {asked}, not logits (sequences, length, vocabulary)")
    if logits.shape[2] < vocabulary:
        raise TrainingError(f"the model knows {logits.shape[2]} tokens, and the sequences have {vocabulary}")
    return logits
