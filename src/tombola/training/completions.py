"""Completions of prompts: next tokens as in `language`, of which only those of the completion count.

Sequences are padded on the right. What a causal model says of a token depends on the tokens before it alone, so that it
needs no attention mask: what it says after the end is not looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data.augment import Augmentation
from tombola.data.text.items import TextTask
from tombola.models.tensors import content_sha256
from tombola.pruning.modes import evaluation_mode
from tombola.pruning.outputs import main_output
from tombola.runs.seeds import derive_seed
from tombola.training.batches import Order
from tombola.training.device import CPU, device_of
from tombola.training.language import LOGITS, logits_of_tokens
from tombola.training.sentences import Sentences, tokenised
from tombola.training.task import Measure, Part, Scored, Task, without_augmentation

CHUNK = 2048
"""Most tokens per forward pass of an evaluation: activations of more do not stay in the cache of a processor."""
UNCOUNTED = -100
"""The target of a position that does not count; torch's cross-entropy passes over it."""
Listener = Callable[[Tensor], None]
"""Told of every batch that is learned which of its tokens (n, T) are no padding."""
Batch = tuple[Tensor, Tensor]
"""ids (n, T + 1) and which of the T next tokens count (n, T)."""


class Completions(Task):
    """Completions of prompts, by mean cross-entropy over their tokens, in nats.

    A batch is (ids (n, T + 1), counted (n, T)). Items are held out once: "validation" and "test" are the same items, so
    that nothing may be selected by the one and reported of the other.
    """

    name = "completions"
    listener: Listener | None = None
    compares = Measure("nats", higher_is_better=False, unit="nats a token", title="cross-entropy")

    def __init__(self, train: Sentences, held_out: Sentences, device: torch.device = CPU) -> None:
        self.device = device
        self.train, self.held_out = train.to(device), held_out.to(device)
        self.criterion_loss = _loss_of_outputs
        self.vocabulary = 1 + max(int(train.ids.max()), int(held_out.ids.max()))

    @classmethod
    def of(cls, task: TextTask, tokenizer: Any, length: int = 64, device: torch.device = CPU) -> Completions:
        """The items of a task as token ids, padded as far as its longest item.

        Prompt and completion are tokenised each for itself. The tokenizer's begin token (`bos_token_id`) comes first;
        where it has none, the first token of an item without a prompt is only read. A prompt that is too long loses its
        beginning.

        Args:
            task: What to learn.
            tokenizer: As transformers has them: called with texts it gives `input_ids`.
            length: Most tokens of an item that a model reads, T.
            device: Where ids are.

        Raises:
            DataError: for a completion that is empty or longer than `length` in tokens.
        """
        begin = getattr(tokenizer, "bos_token_id", None)
        train, held_out = (
            tokenised(items, tokenizer, begin, length, task.name) for items in (task.train, task.held_out)
        )
        width = max(part.ids.shape[1] for part in (train, held_out))
        made = cls(train.padded(width), held_out.padded(width), device)
        made.name = task.name
        return made

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of the training items that are no padding: what an epoch costs, whether or not they count."""
        return int(self.train.lengths.sum())

    def first(self, count: int) -> Completions:
        """The same task with the first `count` of its held-out items, for a quick look."""
        fewer = copy.copy(self)
        fewer.held_out = self.held_out[:count]
        return fewer

    def heard_by(self, listener: Listener | None) -> Completions:
        """The same task, of whose batches somebody is told before their loss is computed."""
        heard = copy.copy(self)
        heard.listener = listener
        return heard

    def on(self, device: torch.device) -> Completions:
        if device == self.device:
            return self
        moved = copy.copy(self)
        moved.device, moved.train, moved.held_out = device, self.train.to(device), self.held_out.to(device)
        return moved

    @cached_property
    def checksum(self) -> str:
        parts = {"train": self.train, "held_out": self.held_out}
        return content_sha256(
            {f"{part}.{what}": getattr(of, what).cpu() for part, of in parts.items() for what in ("ids", "counted")}
        )

    def identity(self) -> tuple[str, ...]:
        return (self.checksum,)

    def count(self, part: Part) -> int:
        return len(self._part(part))

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> ItemBatches | MixedBatches:
        without_augmentation(self, augmentation)
        return ItemBatches(self.train, size, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean over counted tokens of the batch: an item weighs as much as its completion is long."""
        ids, counted = (part.to(device_of(model)) for part in batch)
        if self.listener is not None:
            self.listener(self.valid_of((ids, counted)))
        targets = ids[:, 1:].masked_fill(~counted, UNCOUNTED)
        return _loss_of_outputs(logits_of_tokens(model, ids[:, :-1], self.vocabulary), targets)

    def scores(self, model: nn.Module, part: Part) -> Scored:
        """`nats` and `accuracy` are means over counted tokens; `each` is the mean nats of an item (count,)."""
        home, nats, right = device_of(model), [], 0
        with evaluation_mode(model), torch.no_grad():
            for chunk in self._chunks(part, self._width(model, part)):
                ids, counted = chunk.ids.to(home), chunk.counted.to(home)
                logits, targets = logits_of_tokens(model, ids[:, :-1], self.vocabulary), ids[:, 1:]
                every = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
                nats.append((every.view_as(targets).cpu().double() * counted.cpu()).sum(1))
                right += int(((logits.argmax(2) == targets) & counted).sum())
        return self._scored(part, torch.cat(nats), right)

    def naive(self, part: Part) -> Scored:
        """The frequencies of counted tokens in the training part, or all alike: what has fewest nats.

        To the frequencies each token is added once, or all together once: labels are few tokens, texts are of many.
        The most frequent token is what it says.
        """
        known = self.train.ids[:, 1:][self.train.counted].cpu()
        counts = torch.bincount(known, minlength=self.vocabulary).double()
        targets, counted = (of.cpu() for of in (self._part(part).ids[:, 1:], self._part(part).counted))
        found = []
        for weights in (counts + 1, counts + 1 / self.vocabulary, torch.ones_like(counts)):
            found.append(((weights.sum() / weights).log()[targets] * counted).sum(1))
        right = int(((targets == counts.argmax()) & counted).sum())
        return self._scored(part, min(found, key=lambda nats: float(nats.sum())), right)

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        drawn = map(self.batches(size, seed).at, range(count))
        return [(ids[:, :-1].clone(), ids[:, 1:].masked_fill(~counted, UNCOUNTED)) for ids, counted in drawn]

    def inputs(self, count: int, size: int) -> list[Any]:
        ids = self.train.ids[:count, :-1]
        return list(ids.tensor_split(max(1, len(ids) // size)))

    def valid_of(self, batch: Batch) -> Tensor:
        """(n, T): which of the tokens that a model reads of a batch are no padding, nor after the last that counts."""
        _, counted = batch
        return counted.flip(1).cummax(1).values.flip(1)

    def _part(self, part: Part) -> Sentences:
        return self.train if part == "train" else self.held_out

    def _scored(self, part: Part, nats: Tensor, right: int) -> Scored:
        """From the nats (count,) of every item, summed over its counted tokens, and how many of these are right."""
        sizes = self._part(part).counted.sum(1).cpu()
        loss = float(nats.sum() / sizes.sum())
        return Scored(loss, {"nats": loss, "accuracy": right / int(sizes.sum())}, len(nats), nats / sizes)

    def _width(self, model: nn.Module, part: Part) -> int:
        """How many logits the model gives for a token: its last layer says so where transformers made it."""
        last = getattr(model, "get_output_embeddings", lambda: None)()
        if isinstance(last, nn.Linear):
            return last.out_features
        first = self._part(part).ids[:1, :-1].to(device_of(model))
        return logits_of_tokens(model, first, self.vocabulary).shape[2]

    def _chunks(self, part: Part, width: int) -> Iterator[Sentences]:
        of = self._part(part)
        size = max(1, min(CHUNK, LOGITS // width) // of.ids.shape[1])
        for first in range(0, len(of), size):
            yield of[first : first + size].cut()


class Mixed(Completions):
    """Two tasks, the first of which gives way to the second: scored as the second.

    The batch of iteration i draws each item from `after` with probability (i + 1) / steps, else from `before`: tasks
    change gradually, the control of an abrupt change (arXiv 2602.09234).
    """

    def __init__(self, before: Completions, after: Completions, steps: int, seed: int) -> None:
        width = max(part.ids.shape[1] for part in (before.train, after.train))
        super().__init__(after.train.padded(width), after.held_out, after.device)
        self.before, self.steps, self.seed = before.on(after.device).train.padded(width), steps, seed
        self.name = after.name
        self.vocabulary = max(before.vocabulary, after.vocabulary)

    def on(self, device: torch.device) -> Mixed:
        moved = super().on(device)
        assert isinstance(moved, Mixed)
        moved.before = self.before.to(device)
        return moved

    def identity(self) -> tuple[str, ...]:
        before = content_sha256({"ids": self.before.ids.cpu(), "counted": self.before.counted.cpu()})
        return (self.checksum, before, str(self.steps), str(self.seed))

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> MixedBatches:
        without_augmentation(self, augmentation)
        after = ItemBatches(self.train, size, seed)
        before = ItemBatches(self.before, after.size, derive_seed(self.seed, "before"))
        return MixedBatches(before, after, self.steps, self.seed)


class ItemBatches:
    """Training batches (ids, counted) of at most `size` items, every epoch in another order."""

    def __init__(self, items: Sentences, size: int, seed: int) -> None:
        self.items = items
        self._order = Order(len(items), size, seed, items.ids.device)
        self.size, self.per_epoch = self._order.size, self._order.per_epoch

    def at(self, iteration: int) -> Batch:
        chosen = self._order.at(iteration)
        return self.items.ids[chosen], self.items.counted[chosen]


class MixedBatches:
    """Batches of `after`, some of whose items are replaced by those of `before`: fewer and fewer."""

    def __init__(self, before: ItemBatches, after: ItemBatches, steps: int, seed: int) -> None:
        self.before, self.after, self.steps, self.seed = before, after, steps, seed
        self.size, self.per_epoch = after.size, after.per_epoch

    def at(self, iteration: int) -> Batch:
        old, new = self.before.at(iteration), self.after.at(iteration)
        count = min(len(old[0]), len(new[0]))
        chance = torch.Generator().manual_seed(derive_seed(self.seed, "mixed", iteration))
        kept = torch.rand(count, generator=chance) >= (iteration + 1) / self.steps
        kept = kept.to(new[0].device)[:, None]
        ids, counted = (torch.where(kept, a[:count], b[:count]) for a, b in zip(old, new, strict=True))
        return torch.cat([ids, new[0][count:]]), torch.cat([counted, new[1][count:]])


def _loss_of_outputs(output: Any, targets: Tensor) -> Tensor:
    logits = main_output(output).flatten(0, 1).float()
    return functional.cross_entropy(logits, targets.flatten(), ignore_index=UNCOUNTED)
