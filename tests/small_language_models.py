"""Small causal language models of every family, with weights of chance large enough that every head matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

FAMILIES = ("gpt2", "opt", "gpt_neox", "llama", "qwen2", "qwen3", "mistral")
VOCABULARY, LAYERS, HEADS = 48, 2, 4

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 64,
}
_GROUPED = _SIZES | {"num_key_value_heads": 2, "intermediate_size": 40}
_OWN: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY, "n_positions": 64},
    "opt": _SIZES | {"ffn_dim": 40, "word_embed_proj_dim": 32},
    "gpt_neox": _SIZES | {"intermediate_size": 40},
    "llama": _GROUPED | {"head_dim": 8},
    "qwen2": _GROUPED | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": _GROUPED | {"head_dim": 12},  # heads times their size are not the hidden size
    "mistral": _GROUPED | {"head_dim": 8, "sliding_window": 5},
}
_DROPOUT = {
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "opt": ("dropout", "attention_dropout"),
    "gpt_neox": ("hidden_dropout", "attention_dropout"),
}


def small_config(family: str, **others: Any) -> Any:
    """A config of two layers of four heads; those of one layer share two keys and values where a family can."""
    transformers = pytest.importorskip("transformers")
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    without_chance = dict.fromkeys(_DROPOUT.get(family, ("attention_dropout",)), 0.0)
    return transformers.AutoConfig.for_model(family, **(_OWN[family] | ends | without_chance | others))


def small_model(family: str, seed: int = 0, **others: Any) -> nn.Module:
    """A model in evaluation mode whose every parameter is of chance, biases and norms among them."""
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(small_config(family, **others))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model.eval()


def tokens(count: int = 3, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, ids: Tensor, **others: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **others).logits
