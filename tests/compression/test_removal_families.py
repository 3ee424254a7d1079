"""Heads and widths of transformers, torch's own and others', and the inner networks of graph convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from removal_nets import network
from torch import Tensor, nn

from tombola import plan_removal, prune, remove_units
from tombola.compression.removal.verify import outputs
from tombola.errors import ModelError
from tombola.models.slim_attention import SlimAttention

SMALL: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}


def language_model(family: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if family == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=4, vocab_size=40, n_positions=16)
        model = transformers.GPT2LMHeadModel(config)
    elif family == "opt":
        sizes = SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 16}
        model = transformers.OPTForCausalLM(transformers.OPTConfig(**sizes))
    elif family == "gpt-neox":
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL, intermediate_size=24))
    else:
        sizes = SMALL | {"num_key_value_heads": 2, "intermediate_size": 24}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


HEADS = {"gpt2": 4, "opt": 4, "gpt-neox": 4, "llama": 2}
"""Heads that can go one by one; Llama's of one group of keys and values go together."""


@pytest.mark.parametrize("family", HEADS)
def test_heads_and_widths_of_language_models(family: str) -> None:
    model, example = language_model(family), {"input_ids": torch.arange(14).view(2, 7)}
    plan = plan_removal(model, 0.5, example)
    assert [group.before for group in plan.groups] == [HEADS[family], 64 if family == "gpt2" else 24]
    assert any("normalised together" in b.reason or "mean is taken" in b.reason for b in plan.bound)
    removed = remove_units(model, plan, example)
    assert removed.parameters_after == plan.parameters < removed.parameters_before
    other = {"input_ids": torch.arange(5, 15).view(1, 10)}  # another length, and without export's own numbers
    assert outputs(removed.model, other)[0].shape == (1, 10, 40)
    if family == "gpt2":
        assert remove_units(model, prune(model, 0.5, structure="neuron"), example).error < 1e-5


def test_an_encoder_layer_loses_heads_and_masks_still_work() -> None:
    model, _ = network("encoder")
    example = torch.randn(2, 5, 6)
    removed = remove_units(model, plan_removal(model, 0.5, example), example)
    attention = removed.model.blocks.layers[0].self_attn
    assert isinstance(attention, SlimAttention)
    assert attention.num_heads == 2
    with torch.no_grad():  # torch's fused layers are left alone in evaluation
        fast = removed.model.eval()(example)
    torch.testing.assert_close(fast, outputs(removed.model, example)[0])


@pytest.mark.parametrize(
    ("batch_first", "need_weights", "cross"),
    [(True, True, False), (False, False, False), (True, False, True), (False, True, True)],
)
def test_slim_attention_is_attention_without_some_heads(batch_first: bool, need_weights: bool, cross: bool) -> None:
    torch.manual_seed(0)

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes: dict[str, int] = {"kdim": 6, "vdim": 10} if cross else {}
            self.attention = nn.MultiheadAttention(8, 4, batch_first=batch_first, **sizes)

        def forward(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor, mask: Tensor) -> Any:
            keys = (key, value) if cross else (query, query)
            return self.attention(query, *keys, padding, need_weights, mask)[0]

    model = Attending().eval()
    given = [torch.randn(2, 5, 8), torch.randn(2, 5, 6), torch.randn(2, 5, 10)]
    if not batch_first:
        given = [tensor.transpose(0, 1).contiguous() for tensor in given]
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    example = (*given, padding, torch.triu(torch.ones(5, 5, dtype=torch.bool), 2))
    removed = remove_units(model, plan_removal(model, 0.5, example), example)
    assert [(group.before, group.after) for group in removed.groups] == [(4, 2)]
    assert removed.error < 1e-5


def test_attention_with_added_biases_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2))
    model[1].self_attn = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
    with pytest.raises(ModelError, match="add_bias_kv"):
        plan_removal(model, 0.5, torch.randn(2, 5, 6))


def test_inner_networks_of_gine() -> None:
    geometric = pytest.importorskip("torch_geometric.nn")

    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.edge = nn.Linear(5, 8), nn.Linear(3, 8)
            inner = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8))
            self.conv, self.output = geometric.GINEConv(inner), nn.Linear(8, 1)

        def forward(self, nodes: Tensor, edges: Tensor, features: Tensor, batch: Tensor) -> Tensor:
            hidden = torch.relu(self.conv(self.embed(nodes), edges, self.edge(features)))
            return self.output(geometric.global_add_pool(hidden, batch, 2))

    torch.manual_seed(0)
    model = Graphs().eval()
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    example = (torch.randn(6, 5), edges, torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]))
    removed = remove_units(model, plan_removal(model, 0.5, example), example)
    assert {group.name: group.after for group in removed.groups} == {"embed, edge": 4, "conv.nn.0": 6, "conv.nn.3": 4}
