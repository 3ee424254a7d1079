"""What is left of a function: equal networks lose nothing, and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stress_nets import completions, gpt2
from torch import nn

from tombola.models.causal.gates import HeadGates
from tombola.studies.stress.living.correlates import correlates, dormant_neurons
from tombola.studies.stress.living.function import preserved


class Fixed(nn.Module):
    """Says given logits and hidden states whatever it reads."""

    def __init__(self, logits: torch.Tensor, states: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.states = nn.Parameter(logits), nn.Parameter(states)

    def forward(self, input_ids: torch.Tensor, output_hidden_states: bool) -> Any:
        class Output:
            logits = self.logits.expand(*input_ids.shape, -1)
            hidden_states = (self.states[: input_ids.shape[1]].expand(*input_ids.shape, -1),)

        return Output()


def test_a_network_beside_itself_loses_nothing() -> None:
    network = gpt2()
    found = preserved(network, network, [completions()])
    assert found["kl"] == found["js"] == pytest.approx(0, abs=1e-6)
    assert found["top1"] == 1
    assert found["flips"] in (0, None)
    assert found["cosine"] == pytest.approx(1)
    assert found["cka"] == pytest.approx(1)


def test_measures_of_two_distributions_by_hand() -> None:
    states = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    before, after = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.5, 0.25]).log()
    found = preserved(Fixed(before, states), Fixed(after, 2 * states + 1), [completions()])
    assert found["kl"] == pytest.approx(0.25 * torch.log(torch.tensor(2.0)).item(), abs=1e-6)
    middle = torch.tensor([0.375, 0.375, 0.25])
    hand = sum(float((p.exp() * (p - middle.log())).sum()) for p in (before, after)) / 2
    assert found["js"] == pytest.approx(hand, abs=1e-6)
    assert found["top1"] == 0
    assert found["cka"] == pytest.approx(1)  # a scale and a shift change nothing
    assert found["tokens"] == int(completions().held_out.counted.sum())


def test_without_heads_the_function_is_another() -> None:
    network, other = gpt2(), gpt2()
    with HeadGates(other) as gates:
        for gate in gates.values:
            gate.zero_()
        found = preserved(network, other, [completions()])
    assert found["kl"] > 1e-4
    assert 0 < found["js"] < found["kl"]
    assert found["top1"] < 1


def test_what_goes_along_with_plasticity() -> None:
    network = gpt2()
    found = correlates(network, [completions()])
    assert 1 <= found["effective_rank"] <= 32
    squares = sum(float(p.detach().double().pow(2).sum()) for p in network.parameters())
    assert found["weight_norm"] == pytest.approx((squares / sum(p.numel() for p in network.parameters())) ** 0.5)
    with torch.no_grad():  # GELU of a very negative number is 0
        network.transformer.h[0].mlp.c_fc.weight[:, :32] = 0
        network.transformer.h[0].mlp.c_fc.bias[:32] = -100
    assert correlates(network, [completions()])["dormant"] == pytest.approx(found["dormant"] + 32 / 256)


def test_dormant_is_a_fraction_of_the_layers_mean() -> None:
    assert dormant_neurons(torch.tensor([0.0, 0.02, 0.03, 4.0])).tolist() == [True, True, False, False]
    assert dormant_neurons(torch.zeros(3)).all()
