"""Mixtures of experts of transformers: every expert is pruned as a linear layer, and what is not is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola import prune
from tombola.errors import PruningError
from tombola.pruning import criteria
from tombola.pruning.criteria import Needs
from tombola.pruning.prunable import Layout, prunable_parameters, unsupported_parameters, weight_layouts
from tombola.pruning.prune import UnsupportedParameterWarning

transformers = pytest.importorskip("transformers")

KINDS = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")
EXPERTS = 4


def mixture(kind: str) -> Any:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": 12, "moe_intermediate_size": 12, "num_experts_per_tok": 2}
    sizes |= {"shared_expert_intermediate_size": 8}
    sizes |= {"num_local_experts" if kind in ("mixtral", "gpt_oss") else "num_experts": EXPERTS}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


RUNNING = {name for name in criteria if criteria.get(name).needs is not Needs.WEIGHTS} - {
    "wanda",
    "bn-scale",
    "synflow",
}
"""Criteria that run any model: synflow takes no tokens, and no batch norm is in these."""
IDS = torch.arange(18).view(2, 9)


def said(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.filterwarnings("ignore::tombola.pruning.prune.UnsupportedParameterWarning")
@pytest.mark.parametrize("kind", KINDS)
class TestOfEveryKind:
    def test_experts_are_weights_and_routers_are_named(self, kind: str) -> None:
        model = mixture(kind)
        before = said(model)
        with pytest.warns(UnsupportedParameterWarning) as caught:
            masks = prune(model, 0.5)
        assert all("experts.gate_up_proj," not in str(warning.message) for warning in caught)
        assert masks.kept == masks.total - round(0.5 * masks.total)
        for layer in range(2):
            for name in ("gate_up_proj", "down_proj"):
                mask = masks[f"model.layers.{layer}.mlp.experts.{name}"]
                assert mask.shape[0] == EXPERTS
                assert 0.3 < mask.density < 0.7
        router = "router" if kind == "gpt_oss" else "gate"
        assert unsupported_parameters(model) == [f"model.layers.{layer}.mlp.{router}.weight" for layer in range(2)]
        masks.apply_(model)
        assert (said(model) - before).abs().max() > 1e-2

    def test_a_layout_reads_each_expert_as_a_layer(self, kind: str) -> None:
        """By what the model computes: without a neuron's weights, that output of that expert is a constant."""
        model = mixture(kind)
        experts = model.model.layers[0].mlp.experts
        layout = weight_layouts(model)["model.layers.0.mlp.experts.down_proj"]
        assert (layout.groups, layout.outputs, layout.inputs, layout.kernel) == (EXPERTS, 16, 12, ())
        keep = torch.ones(EXPERTS, 16, 12, 1)
        keep[2, 5] = 0  # the sixth output of the third expert
        with torch.no_grad():
            experts.down_proj.mul_(layout.original(keep))
            experts.gate_up_proj.mul_(10)
            tokens = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
            chosen = torch.full((6, 1), 2)
            output = experts(tokens, chosen, torch.ones(6, 1))
        assert torch.equal(output[:, 5], output[:1, 5].expand(6))
        assert (output.std(0) > 1e-3).sum() == 15

    @pytest.mark.parametrize("structure", ["neuron", "2:4", "block:4x4"])
    def test_structures(self, kind: str, structure: str) -> None:
        model = mixture(kind)
        protect = ["*shared_expert_gate"] if kind == "qwen2_moe" else []  # one output divides into no blocks
        masks = prune(model, None if structure == "2:4" else 0.5, structure=structure, protect=protect)
        layout = weight_layouts(model)["model.layers.0.mlp.experts.down_proj"]
        kept = layout.canonical(masks["model.layers.0.mlp.experts.down_proj"].keep)
        if structure == "neuron":
            assert torch.equal(kept.any(2), kept.all(2))
        elif structure == "2:4":
            assert (kept.reshape(EXPERTS, 16, 3, 4).sum(3) == 2).all()
        else:
            blocks = kept.reshape(EXPERTS, 4, 4, 3, 4).transpose(2, 3).flatten(3)
            assert torch.equal(blocks.any(3), blocks.all(3))


@pytest.mark.parametrize("name", sorted(RUNNING))
def test_criteria_that_run_the_model(name: str) -> None:
    model = mixture("mixtral")
    batches = [{"input_ids": IDS, "labels": IDS}]
    protect = ["*mlp.gate*"]
    masks = prune(model, 0.5, name, batches=batches, protect=protect)
    assert masks["model.layers.0.mlp.experts.down_proj"].density < 1


def test_wanda_asks_to_protect_experts() -> None:
    model = mixture("mixtral")
    batches, protect = [{"input_ids": IDS}], ["*mlp.gate*"]
    with pytest.raises(PruningError, match=r"experts\.gate_up_proj: wanda cannot score experts .* protect them"):
        prune(model, 0.5, "wanda", batches=batches, protect=protect)
    masks = prune(model, 0.1, "wanda", batches=batches, protect=[*protect, "*experts*"])
    assert masks["model.layers.0.mlp.experts.down_proj"].density == 1


def test_distributions_see_matrices() -> None:
    """An expert's two sizes, and not the number of experts, as ERK asks."""
    model = mixture("mixtral")
    masks = prune(model, 0.6, distribution="erk", protect=["*mlp.gate*"])
    experts, plain = "model.layers.0.mlp.experts.down_proj", "model.layers.0.self_attn.o_proj.weight"
    ratio = (16 + 12) / (16 * 12) / ((16 + 16) / (16 * 16))
    assert masks[experts].density / masks[plain].density == pytest.approx(ratio, rel=0.05)


def test_held_while_it_trains() -> None:
    model = mixture("qwen3_moe").train()
    masks = prune(model, 0.5, protect=["*mlp.gate*"])
    masks.apply_(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with masks.held(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            functional.cross_entropy(model(input_ids=IDS).logits.flatten(0, 1), IDS.flatten()).backward()
            optimizer.step()
    assert masks.removed_nonzeros(model) == 0


def test_somebody_elses_experts_are_named_still() -> None:
    class Experts(nn.Module):
        is_transposed = False

        def __init__(self) -> None:
            super().__init__()
            self.down_proj = nn.Parameter(torch.randn(2, 3, 4))

    model = nn.Sequential(nn.Linear(4, 4), Experts())
    assert list(prunable_parameters(model)) == ["0.weight"]
    assert unsupported_parameters(model) == ["1.down_proj"]


def test_layouts_of_experts_go_there_and_back() -> None:
    tensor = torch.arange(2 * 3 * 4).view(2, 3, 4)
    for first in (False, True):
        layout = Layout(tensor.shape, groups=2, inputs_first=first, stacked=True)
        canonical = layout.canonical(tensor)
        assert canonical.shape == (2, layout.outputs, layout.inputs, 1)
        assert torch.equal(layout.original(canonical), tensor)
        assert (layout.outputs, layout.inputs) == ((4, 3) if first else (3, 4))
