"""Prompts and completions as token ids, padded on the right, and which of them are scored. Nothing is learned here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tombola.data.text.items import Item
from tombola.errors import DataError


class Sentences:
    """Token ids (n, T + 1), int64, padded on the right; `counted` (n, T): which next tokens are scored; `lengths` (n,):
    how many ids of each are no padding."""

    def __init__(self, ids: Tensor, counted: Tensor, lengths: Tensor) -> None:
        if ids.dtype != torch.int64 or ids.dim() != 2 or counted.dtype != torch.bool:
            raise DataError(f"ids are int64 (n, T + 1) and counted bool (n, T), not {ids.dtype} and {counted.dtype}")
        if counted.shape != (len(ids), ids.shape[1] - 1) or lengths.shape != (len(ids),):
            raise DataError(f"ids {tuple(ids.shape)} and counted {tuple(counted.shape)} are not (n, T + 1) and (n, T)")
        if not len(ids) or not bool(counted.any(1).all()):
            raise DataError("of every sequence a token must count, and there must be one")
        self.ids, self.counted, self.lengths = ids, counted, lengths

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, chosen: Any) -> Sentences:
        return Sentences(self.ids[chosen], self.counted[chosen], self.lengths[chosen])

    def to(self, device: torch.device) -> Sentences:
        return Sentences(self.ids.to(device), self.counted.to(device), self.lengths.to(device))

    def cut(self) -> Sentences:
        """Without columns that are padding in all."""
        width = max(2, int(self.lengths.max()))
        return Sentences(self.ids[:, :width], self.counted[:, : width - 1], self.lengths)

    def padded(self, width: int) -> Sentences:
        """At least `width` ids of each."""
        more = max(0, width - self.ids.shape[1])
        return Sentences(
            functional.pad(self.ids, (0, more)), functional.pad(self.counted, (0, more), value=False), self.lengths
        )


def tokenised(items: Iterable[Item], tokenizer: Any, begin: int | None, length: int, name: str) -> Sentences:
    """Items by a tokenizer of transformers, as `Completions.of` has them; `begin` is its begin token, if any."""
    every = tuple(items)
    if not every:
        raise DataError(f"the task {name} has no items in a part")
    prompts = _ids(tokenizer, [item.prompt for item in every])
    completions = _ids(tokenizer, [item.completion for item in every])
    rows, counts = [], []
    for prompt, completion, item in zip(prompts, completions, every, strict=True):
        lead = [] if begin is None else [begin]
        if not prompt and not lead:  # a token has to be read before the first can be asked for
            prompt, completion = completion[:1], completion[1:]
        if not 0 < len(completion) <= length:
            said = "no token to be scored" if not completion else f"{len(completion)} tokens, at most {length} are read"
            raise DataError(f"the task {name}: the completion {item.completion!r:.60} has {said}")
        room = length + 1 - len(lead) - len(completion)
        rows.append(lead + (prompt[-room:] if room else []) + completion)
        counts.append(len(completion))
    return _together(rows, counts)


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    given = [text for text in texts if text]
    found = iter(tokenizer(given, add_special_tokens=False)["input_ids"] if given else ())
    return [list(next(found)) if text else [] for text in texts]


def _together(rows: list[list[int]], counts: list[int]) -> Sentences:
    """Rows of different lengths, of each the last `counts` counted."""
    lengths = torch.tensor([len(row) for row in rows])
    width = max(2, int(lengths.max()))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    place = torch.arange(1, width)
    first = (lengths - torch.tensor(counts)).clamp(min=1)
    return Sentences(ids, (place >= first[:, None]) & (place < lengths[:, None]), lengths)
