"""Heads and neurons of every family: named by their real sizes, others refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from small_language_models import FAMILIES, HEADS, LAYERS, small_model
from tombola.errors import ModelError
from tombola.models.causal.families import attention_layers, total_heads
from tombola.pruning.prunable import is_hugging_face_conv1d


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_weights(family: str) -> None:
    model = small_model(family)
    layers = attention_layers(model)
    assert [layer.index for layer in layers] == list(range(LAYERS))
    assert total_heads(model) == LAYERS * HEADS
    grouped = family in ("llama", "qwen2", "qwen3", "mistral")
    for layer in layers:
        assert (layer.heads, layer.head_size, layer.groups) == (
            HEADS,
            12 if family == "qwen3" else 8,
            2 if grouped else 4,
        )
        assert layer.widths.neurons == (128 if family == "gpt2" else 40)
        assert len(layer.widths.read_in) == (2 if grouped else 1)
        for name, module in (
            (layer.attention_name, layer.attention),
            (layer.projection_name, layer.projection),
            (layer.widths.read_out_name, layer.widths.read_out),
            *zip(layer.widths.read_in_names, layer.widths.read_in, strict=True),
        ):
            assert model.get_submodule(name) is module


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_keys_and_values_take_every_output_once(family: str) -> None:
    model = small_model(family)
    for layer in attention_layers(model):
        taken: dict[str, list[int]] = {}
        for rows, count in ((layer.queries, layer.heads), (layer.keys, layer.groups), (layer.values, layer.groups)):
            assert rows.indices.shape == (count, layer.head_size)
            taken.setdefault(rows.name, []).extend(rows.indices.flatten().tolist())
        for name, indices in taken.items():
            module = model.get_submodule(name)
            outputs = module.weight.shape[1 if is_hugging_face_conv1d(module) else 0]
            assert sorted(indices) == list(range(outputs))


def test_a_compiled_model_is_the_one_inside() -> None:
    model = small_model("llama")
    assert [layer.projection for layer in attention_layers(torch.compile(model))] == [
        layer.projection for layer in attention_layers(model)
    ]


def test_others_are_refused_by_name() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    bert = transformers.BertForMaskedLM(transformers.BertConfig(**sizes, intermediate_size=8))
    with pytest.raises(
        ModelError, match="of type bert, whose heads are not known; known types are gpt2, opt, gpt_neox"
    ):
        attention_layers(bert)
    with pytest.raises(ModelError, match="a Linear"):
        attention_layers(nn.Linear(2, 2))
    with pytest.raises(ModelError, match="a GPT2Model has no head"):
        attention_layers(small_model("gpt2").transformer)
