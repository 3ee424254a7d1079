"""What the embedded model is pre-trained on: the shipped text in windows, and runs of signs that repeat themselves.

Text alone teaches so small a network next words and hardly anything of what was said before. Runs that repeat are made
in code; to go on with them needs heads that look back (Olsson et al. 2022, arXiv 2209.11895), as recall does.
"""

from __future__ import annotations

import random
import string
from typing import Any

import torch
from torch import Tensor

from tombola.data.text.items import chance_of
from tombola.data.text.shipped_text import PRETRAINING, text_of
from tombola.training.language import LanguageModelling, Tokens

LENGTH = 64
"""Tokens of a window, after the one that begins it."""
REPEATED = 0.15
"""Windows of runs for every window of text."""
SIGNS = string.ascii_letters + string.digits
SHORTEST, LONGEST = 2, 12
"""Signs of a run before it repeats itself."""
LOOKED_AT = 20
"""Every so many windows of a text one is not learned but looked at."""


def pretraining_task(tokenizer: Any, seed: int = 0) -> LanguageModelling:
    """Windows of 64 tokens that each begin with the tokenizer's begin token; a twentieth is held out, as validation."""
    learned, looked_at = [], []
    for kind in PRETRAINING:
        windows = _windows(tokenizer, text_of(kind, "pretraining"))
        held = torch.arange(len(windows)) % LOOKED_AT == LOOKED_AT - 1
        learned.append(windows[~held])
        looked_at.append(windows[held])
    count = round(REPEATED * sum(map(len, learned)))
    learned.append(_repeated(tokenizer, count, chance_of(seed, "repeated")))
    validation = Tokens(torch.cat(looked_at))
    return LanguageModelling(Tokens(torch.cat(learned)), validation, validation)


def _windows(tokenizer: Any, text: str) -> Tensor:
    """(windows, LENGTH + 1): a text cut one after the other; what is left at the end is dropped."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    whole = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    return _begun(tokenizer, whole)


def _repeated(tokenizer: Any, count: int, chance: random.Random) -> Tensor:
    """(count, LENGTH + 1): signs in an order by chance, again and again."""
    signs = [ids[0] for ids in tokenizer(list(SIGNS), add_special_tokens=False)["input_ids"]]
    runs = [chance.sample(signs, chance.randint(SHORTEST, LONGEST)) for _ in range(count)]
    return _begun(tokenizer, torch.tensor([(run * LENGTH)[:LENGTH] for run in runs]))


def _begun(tokenizer: Any, windows: Tensor) -> Tensor:
    return torch.cat([torch.full((len(windows), 1), tokenizer.bos_token_id), windows], 1)
