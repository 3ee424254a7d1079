"""The language models of a study: opened once in a process, never changed, copied and made anew as cells need them."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.data.text.tokenizer import tiny_tokenizer
from tombola.errors import ModelError
from tombola.models.causal.families import attention_layers
from tombola.models.causal.hub import LanguageModel, load_language_model
from tombola.pruning.copies import copy_of
from tombola.studies.stress.config import TINY, label_of
from tombola.studies.stress.subjects.curriculum import LENGTH
from tombola.studies.stress.subjects.tiny import OnProgress, tiny_model


@dataclass(frozen=True)
class Subject:
    """A model as it was given, and what turns text into its tokens."""

    label: str
    loaded: LanguageModel
    tokenizer: Any

    @property
    def reference(self) -> nn.Module:
        """The model itself, to look at alone."""
        return self.loaded.model

    @property
    def layers(self) -> int:
        return len(attention_layers(self.reference))

    @property
    def heads(self) -> int:
        """Of every layer."""
        return attention_layers(self.reference)[0].heads

    @property
    def neurons(self) -> int:
        """Of the feed-forward part of every layer."""
        return attention_layers(self.reference)[0].widths.neurons

    def network(self) -> nn.Module:
        """A copy of its own to prune and to train."""
        return copy_of(self.reference)

    def fresh(self, seed: int) -> nn.Module:
        """A network of the same form that never learned anything, drawn by `seed`."""
        from transformers import AutoModelForCausalLM

        config: Any = copy.deepcopy(self.reference.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = AutoModelForCausalLM.from_config(config).float().eval()
        return model


def open_subject(model: str, quick: bool, say: OnProgress | None = None) -> Subject:
    """The model that a config names, read once in a process; `say` is told how the tiny one is pre-trained.

    Raises ModelError in one line where it cannot be had, or is none that can be stressed.
    """
    return _opened(model, tiny_model(quick, on_progress=say) if model == TINY else Path(model))


@functools.lru_cache(maxsize=1)
def _opened(model: str, folder: Path) -> Subject:
    loaded = load_language_model(str(folder))
    layers = attention_layers(loaded.model)
    if len({layer.heads for layer in layers}) > 1 or len({layer.widths.neurons for layer in layers}) > 1:
        raise ModelError(f"{model}: its layers differ in heads or neurons, it was pruned before; give the whole model")
    config: Any = loaded.model.config
    if (longest := getattr(config, "max_position_embeddings", None)) is not None and longest < LENGTH:
        raise ModelError(f"{model}: reads at most {longest} tokens, and items of tasks have up to {LENGTH}")
    tokenizer, words = loaded.tokenizer, int(config.vocab_size)
    if tokenizer is None:
        tokenizer = tiny_tokenizer()
        if words < len(tokenizer):
            raise ModelError(
                f"{model}: has no tokenizer, and knows {words} tokens, fewer than the {len(tokenizer)} of ours; put "
                "its tokenizer.json into the folder"
            )
    return Subject(label_of(model), loaded, tokenizer)
