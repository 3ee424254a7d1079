"""What heads and neurons are worth, beside the same numbers worked out one example, or one head, at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from stress_nets import gpt2, texts
from torch import Tensor, nn

from tombola.data.text import tiny_tokenizer
from tombola.models.causal.gates import HeadGates
from tombola.studies.stress.living import neurons, strategies
from tombola.studies.stress.living.state import all_kept
from tombola.studies.stress.living.strategies import Scoring
from tombola.studies.stress.living.units import chosen
from tombola.training.completions import Completions

HEADS, SIZE, WIDTH = 4, 8, 32
"""Of the small network: heads, numbers of a head, and how wide it is."""


@pytest.fixture
def network() -> Any:
    return gpt2()


@pytest.fixture(scope="module")
def tasks() -> list[Completions]:
    return [Completions.of(text, tiny_tokenizer()) for text in texts()]


@pytest.fixture
def scoring(network: Any, tasks: list[Completions]) -> Scoring:
    return Scoring(network, tasks, seed=0)


def blocks(network: Any) -> list[Any]:
    """The layers of a GPT-2."""
    return list(network.transformer.h)


def of_head(head: int) -> slice:
    """Its numbers among those of all heads of a layer."""
    return slice(head * SIZE, (head + 1) * SIZE)


def mean_of_examples(scoring: Scoring, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ |gradient| of the loss of every example alone, as much as it weighs in the loss of its batch."""
    found = []
    for task, (ids, counted) in scoring.batches:
        for one in range(len(ids)):
            weight = counted[one].sum() / counted.sum()
            loss = task.loss(scoring.network, (ids[one : one + 1], counted[one : one + 1]))
            found.append(gradient(loss * weight))
    each = torch.stack(found)
    assert not torch.allclose(each.abs().sum(0), each.sum(0).abs(), rtol=0.1)  # examples disagree
    return each.abs().sum(0)


def with_norm_1(scores: Tensor) -> Tensor:
    return scores / scores.pow(2).sum(-1, keepdim=True).sqrt()


def test_the_gradient_of_a_head_is_made_absolute_for_every_example(scoring: Scoring) -> None:
    with HeadGates(scoring.network) as gates:
        gates.values = values = torch.ones(2, HEADS, requires_grad=True)
        by_hand = mean_of_examples(scoring, lambda loss: torch.autograd.grad(loss, values)[0])
    torch.testing.assert_close(strategies.gradient(scoring), with_norm_1(by_hand), rtol=1e-3, atol=1e-5)


@contextmanager
def neuron_gates(network: Any) -> Iterator[Tensor]:
    """Every neuron's activation is multiplied by its gate, (layers, neurons)."""
    gates = torch.ones(2, 4 * WIDTH, requires_grad=True)

    def gated(layer: int) -> Callable[[nn.Module, Any], Any]:
        return lambda module, inputs: (inputs[0] * gates[layer],)

    handles = [block.mlp.c_proj.register_forward_pre_hook(gated(layer)) for layer, block in enumerate(blocks(network))]
    yield gates
    for handle in handles:
        handle.remove()


def test_the_gradient_of_a_neuron_is_made_absolute_for_every_example(scoring: Scoring) -> None:
    with neuron_gates(scoring.network) as gates:
        by_hand = mean_of_examples(scoring, lambda loss: torch.autograd.grad(loss, gates)[0])
    torch.testing.assert_close(torch.stack(neurons.gradient(scoring)), with_norm_1(by_hand), rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in scoring.network.parameters())


def test_entropy_takes_what_looks_everywhere_and_entropy_low_what_looks_at_one_place(scoring: Scoring) -> None:
    everywhere, one_place = 1, 2
    attention = blocks(scoring.network)[0].attn.c_attn  # queries of all heads, then keys, then values
    with torch.no_grad():
        attention.weight[:, of_head(everywhere)] = 0
        attention.bias[of_head(everywhere)] = 0
        attention.weight[:, of_head(one_place)] *= 1000
        attention.bias[of_head(one_place)] *= 1000
    entropies = strategies.focused(scoring)
    assert float(entropies[0, everywhere]) == pytest.approx(1, abs=1e-5)
    assert float(entropies[0, one_place]) < 0.1
    for strategy, head in {"entropy": everywhere, "entropy_low": one_place}.items():
        keep = chosen(scoring, "head", strategy, 1 / (2 * HEADS), all_kept(2, HEADS), equal=False)
        assert (~torch.stack(keep)).nonzero().tolist() == [[0, head]], strategy


def test_the_oracle_is_the_loss_with_the_columns_of_one_head_zeroed(scoring: Scoring) -> None:
    by_hand = torch.zeros(2, HEADS)
    with torch.no_grad():
        for layer, block in enumerate(blocks(scoring.network)):
            weight = block.attn.c_proj.weight  # (inputs, outputs)
            for head in range(HEADS):
                before = weight[of_head(head)].clone()
                weight[of_head(head)] = 0
                losses = [float(task.loss(scoring.network, batch)) for task, batch in scoring.batches]
                by_hand[layer, head] = sum(losses) / len(losses)
                weight[of_head(head)] = before
    assert len(by_hand.unique()) == 2 * HEADS
    torch.testing.assert_close(strategies.oracle(scoring), by_hand)


def test_the_magnitude_of_a_head_is_the_norm_of_what_it_writes_with(scoring: Scoring) -> None:
    by_hand = [
        [float(block.attn.c_proj.weight.detach()[of_head(head)].double().pow(2).sum().sqrt()) for head in range(HEADS)]
        for block in blocks(scoring.network)
    ]
    before = strategies.magnitude(scoring)
    assert before.tolist() == [pytest.approx(layer) for layer in by_hand]
    with torch.no_grad():
        blocks(scoring.network)[1].attn.c_proj.weight[of_head(3)] *= 10
    ratio = strategies.magnitude(scoring) / before
    assert ratio.tolist() == [pytest.approx([1, 1, 1, 1]), pytest.approx([1, 1, 1, 10])]


def test_the_magnitude_of_a_neuron_is_the_norm_of_what_it_writes_with(scoring: Scoring) -> None:
    by_hand = [block.mlp.c_proj.weight.detach().pow(2).sum(1).sqrt() for block in blocks(scoring.network)]
    before = neurons.magnitude(scoring)
    torch.testing.assert_close(before, by_hand)
    with torch.no_grad():
        blocks(scoring.network)[0].mlp.c_proj.weight[5] *= 10
    ratio = torch.stack(neurons.magnitude(scoring)) / torch.stack(before)
    assert float(ratio[0, 5]) == pytest.approx(10)
    assert float(ratio.sum()) == pytest.approx(2 * 4 * WIDTH + 9)


@pytest.mark.parametrize("strategy", [strategies.random, neurons.random])
def test_chance_is_drawn_by_its_seed(strategy: Callable[[Scoring], Any], scoring: Scoring) -> None:
    def drawn(seed: int) -> list[list[float]]:
        return [layer.tolist() for layer in strategy(Scoring(scoring.network, scoring.tasks, seed))]

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0)[0] != drawn(0)[1]
