"""Where the heads and the neurons of a causal language model lie, for each family of transformers that we know.

Sizes are read from the weights and never from the config: a head's size times the number of heads need not be the
hidden size (Qwen3), and after heads were removed no config is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.pruning.prunable import is_hugging_face_conv1d
from tombola.pruning.wrapped import unwrapped


@dataclass(frozen=True)
class Rows:
    """The outputs of a linear layer that belong to each head: `indices` (heads, size of a head), int64.

    `name` is the layer's. Queries, keys and values may be parts of one layer, which then comes three times.
    """

    name: str
    indices: Tensor


@dataclass(frozen=True)
class FeedForward:
    """The part of a layer that is computed for each position alone: linear layers that read in, and one that reads out.

    `neurons` is how many numbers lie between them: outputs of every layer of `read_in`, inputs of `read_out`.
    """

    read_in: tuple[nn.Module, ...]
    read_in_names: tuple[str, ...]
    read_out: nn.Module
    read_out_name: str
    neurons: int


@dataclass(frozen=True)
class AttentionLayer:
    """One layer of a language model: its attention, and the feed-forward part that follows it.

    `projection` is the linear layer that reads the heads' outputs, side by side. `heads` of `head_size` numbers each
    are its inputs; they share `groups` keys and values, head h those of group h // (heads // groups).
    """

    index: int
    attention: nn.Module
    attention_name: str
    projection: nn.Module
    projection_name: str
    heads: int
    head_size: int
    groups: int
    queries: Rows
    keys: Rows
    values: Rows
    widths: FeedForward


def attention_layers(model: nn.Module) -> list[AttentionLayer]:
    """The layers of a causal language model, in order of depth.

    Args:
        model: A model of transformers with its head, such as `AutoModelForCausalLM` gives; wrapped or not. Names are
            those of the model without wrappers.

    Raises:
        ModelError: for a model of another family, naming it and those that are known.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=40, n_positions=16))
        >>> [(layer.projection_name, layer.heads, layer.widths.neurons) for layer in attention_layers(model)]
        [('transformer.h.0.attn.c_proj', 4, 64), ('transformer.h.1.attn.c_proj', 4, 64)]
    """
    inner = unwrapped(model)
    family = FAMILIES[model_type(inner)]
    body = f"{inner.base_model_prefix}.{family.layers}"
    return [_layer(inner, family, f"{body}.{i}", i) for i in range(len(inner.get_submodule(body)))]  # type: ignore[arg-type]


def total_heads(model: nn.Module) -> int:
    """How many attention heads a causal language model has in all its layers."""
    return sum(layer.heads for layer in attention_layers(model))


def model_type(model: nn.Module) -> str:
    """The family of a model, such as `gpt2`; ModelError where it is none whose heads we know."""
    inner: Any = unwrapped(model)
    found = getattr(getattr(inner, "config", None), "model_type", None)
    if found not in FAMILIES:
        what = f"of type {found}" if isinstance(found, str) else f"a {type(inner).__name__}"
        raise ModelError(f"the model is {what}, whose heads are not known; known types are {', '.join(FAMILIES)}")
    prefix = inner.base_model_prefix
    if not isinstance(getattr(inner, prefix, None), nn.Module):
        raise ModelError(f"a {type(inner).__name__} has no head of its own; give the causal language model around it")
    return str(found)


@dataclass(frozen=True)
class Family:
    """Names within a model: `layers` below its body; the others below one layer."""

    layers: str
    attention: str
    projection: str
    read_in: tuple[str, ...]
    read_out: str
    heads_of: Callable[[nn.Module, str, int, int], tuple[Rows, Rows, Rows]]


def _layer(model: nn.Module, family: Family, name: str, index: int) -> AttentionLayer:
    of: Any = model.get_submodule
    attention_name = f"{name}.{family.attention}"
    projection_name = f"{attention_name}.{family.projection}"
    attention, projection = of(attention_name), of(projection_name)
    head_size = attention.head_size if family.projection == "dense" else attention.head_dim
    heads = inputs_of(projection) // head_size
    queries, keys, values = family.heads_of(attention, attention_name, heads, head_size)
    return AttentionLayer(
        index,
        attention,
        attention_name,
        projection,
        projection_name,
        heads,
        head_size,
        len(keys.indices),
        queries,
        keys,
        values,
        _widths(of, family, name),
    )


def _widths(of: Callable[[str], nn.Module], family: Family, name: str) -> FeedForward:
    names = tuple(f"{name}.{part}" for part in family.read_in)
    read_out_name = f"{name}.{family.read_out}"
    read_out = of(read_out_name)
    return FeedForward(tuple(map(of, names)), names, read_out, read_out_name, inputs_of(read_out))


def inputs_of(linear: Any) -> int:
    """How many inputs a linear layer has; transformers' `Conv1D` keeps them first."""
    return int(linear.weight.shape[0 if is_hugging_face_conv1d(linear) else 1])


def _blocks(name: str, heads: int, size: int, first: int = 0) -> Rows:
    return Rows(name, first + torch.arange(heads * size).view(heads, size))


def _in_three_blocks(attention: nn.Module, name: str, heads: int, size: int) -> tuple[Rows, Rows, Rows]:
    """GPT-2: all queries, then all keys, then all values are outputs of one layer."""
    queries, keys, values = (_blocks(f"{name}.c_attn", heads, size, part * heads * size) for part in range(3))
    return queries, keys, values


def _head_by_head(attention: nn.Module, name: str, heads: int, size: int) -> tuple[Rows, Rows, Rows]:
    """NeoX: query, key and value of the first head, then of the second one, and so on."""
    indices = torch.arange(heads * 3 * size).view(heads, 3, size)
    queries, keys, values = (Rows(f"{name}.query_key_value", indices[:, part]) for part in range(3))
    return queries, keys, values


def _in_three_layers(attention: Any, name: str, heads: int, size: int) -> tuple[Rows, Rows, Rows]:
    """OPT, Llama and its kin: a layer each; there may be fewer keys and values than queries."""
    groups = attention.k_proj.weight.shape[0] // size
    return (
        _blocks(f"{name}.q_proj", heads, size),
        _blocks(f"{name}.k_proj", groups, size),
        _blocks(f"{name}.v_proj", groups, size),
    )


_LLAMA = Family("layers", "self_attn", "o_proj", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", _in_three_layers)

FAMILIES: dict[str, Family] = {
    "gpt2": Family("h", "attn", "c_proj", ("mlp.c_fc",), "mlp.c_proj", _in_three_blocks),
    "opt": Family("decoder.layers", "self_attn", "out_proj", ("fc1",), "fc2", _in_three_layers),
    "gpt_neox": Family("layers", "attention", "dense", ("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h", _head_by_head),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral"), _LLAMA),
}
"""By transformers' `model_type`."""
