"""The tokenizer of the embedded language model: byte-level BPE of 512 tokens, trained on the shipped text.

Byte pair encoding as in Sennrich et al. 2016 (arXiv 1508.07909), on bytes as GPT-2 has it. What models are pre-trained
on made its merges; no text is unknown to it.
"""

from __future__ import annotations

import os
from typing import Any

from tombola.data.text.shipped_text import shipped_bytes
from tombola.errors import ConfigError

FILE = "tokenizer.json"
BEGIN = "<|endoftext|>"
"""Begins every text, and would end it; never a part of one."""


def tiny_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` of 512 tokens, of which one begins texts (`bos_token`).

    Raises ConfigError where transformers is not installed, DataError where the shipped file is damaged.

    Examples:
        >>> tokenizer = tiny_tokenizer()
        >>> ids = tokenizer("In the beginning", add_special_tokens=False)["input_ids"]
        >>> len(tokenizer), tokenizer.decode(ids)
        (512, 'In the beginning')
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read once, when the packages are loaded
    try:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast
    except ImportError:
        raise ConfigError(
            "language models need the `transformers` extra: pip install 'tombola[transformers]'"
        ) from None
    read = Tokenizer.from_buffer(shipped_bytes(FILE))
    return PreTrainedTokenizerFast(
        tokenizer_object=read,
        bos_token=BEGIN,
        eos_token=BEGIN,
        pad_token=BEGIN,
        clean_up_tokenization_spaces=False,
    )
