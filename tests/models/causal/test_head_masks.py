"""Heads and neurons that go: exact counts, masks, gates and zeroed columns that say the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from small_language_models import FAMILIES, HEADS, LAYERS, VOCABULARY, logits, small_model, tokens
from tombola.errors import ModelError, PruningError
from tombola.models.causal.families import attention_layers
from tombola.models.causal.gates import HeadGates
from tombola.models.causal.heads import mask_of_heads, mask_of_neurons, select_heads, select_neurons
from tombola.training.fit import fit
from tombola.training.language import LanguageModelling, Tokens
from tombola.training.recipe import Recipe

KEEP = torch.tensor([[True, False, True, True], [False, True, True, False]])


class TestSelection:
    @given(st.data())
    def test_exactly_as_many_go_and_none_comes_back(self, data: Any) -> None:
        layers, heads = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
        numbers = st.lists(st.sampled_from([0.0, 1.0, 1.5, -2.0]), min_size=layers * heads, max_size=layers * heads)
        scores = torch.tensor(data.draw(numbers)).view(layers, heads)
        low, high = sorted(data.draw(st.lists(st.floats(0, 0.99), min_size=2, max_size=2)))
        total = layers * heads
        assume(round(high * total) <= total - layers)
        first = select_heads(scores, low)
        second = select_heads(data.draw(st.sampled_from([scores, -scores])), high, first)
        for keep, level in ((first, low), (second, high)):
            assert int((~keep).sum()) == round(level * total)
            assert keep.any(1).all()
        assert not (second & ~first).any()

    def test_the_lowest_go_and_ties_go_by_position(self) -> None:
        scores = torch.tensor([[1.0, 1.0, 5.0], [1.0, 0.0, 7.0]])
        assert select_heads(scores, 0.5).tolist() == [[False, False, True], [True, False, True]]

    def test_the_last_of_a_layer_stays(self) -> None:
        scores = torch.tensor([[0.0, 0.1], [5.0, 6.0]])
        assert select_heads(scores, 0.5).tolist() == [[False, True], [False, True]]
        with pytest.raises(PruningError, match="asks for 3 of 4 heads, but every layer keeps one: at most 2 can go"):
            select_heads(scores, 0.75)

    def test_equal_counts(self) -> None:
        scores = torch.arange(8.0).view(2, 4)
        assert select_heads(scores, 0.5, equal=True).sum(1).tolist() == [2, 2]
        assert select_heads(scores, 0.5).sum(1).tolist() == [1, 3]
        widths = select_neurons([torch.arange(10.0), torch.arange(4.0)], 0.5, equal=True)
        assert [int(row.sum()) for row in widths] == [5, 2]

    def test_what_makes_no_sense(self) -> None:
        scores = torch.ones(2, 4)
        with pytest.raises(PruningError, match=r"4 heads of 8 are gone already, sparsity 0\.25 asks for 2"):
            select_heads(scores, 0.25, torch.tensor([[True, False] * 2] * 2))
        with pytest.raises(PruningError, match="layer 1 has a head whose score is not a number"):
            select_heads(torch.tensor([[1.0], [torch.nan]]), 0.0)
        for odd in (1.0, -0.1):
            with pytest.raises(PruningError, match="in \\[0, 1\\)"):
                select_heads(scores, odd)
        with pytest.raises(PruningError, match="shape"):
            select_heads(scores, 0.5, torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("family", FAMILIES)
class TestOfEveryFamily:
    def test_masks_gates_and_zeroed_columns_agree(self, family: str) -> None:
        """And pruning changes what the model says, head by head."""
        model, ids = small_model(family), tokens()
        dense = logits(model, ids)
        with HeadGates(model) as gates:
            assert torch.equal(logits(model, ids), dense)
            for layer in range(LAYERS):
                for head in range(HEADS):
                    alone = torch.ones(LAYERS, HEADS)
                    alone[layer, head] = 0
                    gates.values = alone
                    assert (logits(model, ids) - dense).abs().max() > 1e-2
            gates.values = KEEP.float()
            gated = logits(model, ids)
        assert torch.equal(logits(model, ids), dense)
        masks = mask_of_heads(model, KEEP)
        size = attention_layers(model)[0].head_size
        assert masks.total - masks.kept == int((~KEEP).sum()) * size * 32
        masks.apply_(model)
        assert torch.equal(logits(model, ids), gated)

    def test_neurons(self, family: str) -> None:
        model, ids = small_model(family), tokens()
        dense = logits(model, ids)
        widths = [layer.widths for layer in attention_layers(model)]
        keep = select_neurons([torch.rand(w.neurons, generator=torch.Generator().manual_seed(1)) for w in widths], 0.5)
        masks = mask_of_neurons(model, keep)
        gone = sum(int((~row).sum()) for row in keep)
        assert gone == sum(w.neurons for w in widths) // 2
        assert masks.total - masks.kept == gone * 32 * (1 + len(widths[0].read_in))
        silent = [
            w.read_out.register_forward_pre_hook(lambda _, given, row=row: (given[0] * row,))
            for w, row in zip(widths, keep, strict=True)
        ]
        expected = logits(model, ids)
        for handle in silent:
            handle.remove()
        masks.apply_(model)
        torch.testing.assert_close(logits(model, ids), expected, rtol=0, atol=1e-5)
        assert (expected - dense).abs().max() > 1e-2

    def test_gates_have_gradients_of_every_example(self, family: str) -> None:
        """One backward pass gives what a pass for each sequence gives."""
        model, ids = small_model(family), tokens()
        with HeadGates(model) as gates:
            gates.values = torch.ones(len(ids), LAYERS, HEADS, requires_grad=True)
            loss(model, ids).backward()
            together = gates.values.grad
            for place, sequence in enumerate(ids):
                gates.values = torch.ones(LAYERS, HEADS, requires_grad=True)
                loss(model, sequence[None]).backward()
                torch.testing.assert_close(together[place], gates.values.grad, rtol=1e-3, atol=1e-4)


def loss(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids).logits[:, -1].square().sum()


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_fit_holds_the_heads(family: str) -> None:
    model = small_model(family)
    masks = mask_of_heads(model, KEEP) & mask_of_neurons(
        model, [torch.arange(layer.widths.neurons) % 2 == 0 for layer in attention_layers(model)]
    )
    task = LanguageModelling(*(Tokens(tokens(8, 11, seed)) for seed in range(3)))
    before = [parameter.clone() for parameter in model.parameters()]
    masks.apply_(model)
    fit(model, task, Recipe(length="3it", evaluate_every="3it", batch_size=4, learning_rate="1e-2"), masks, seed=0)
    assert masks.removed_nonzeros(model) == 0
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    for layer, kept in zip(attention_layers(model), KEEP, strict=True):
        rows = layer.projection.weight if family == "gpt2" else layer.projection.weight.T
        assert rows.unflatten(0, (HEADS, -1)).flatten(1).any(1).tolist() == kept.tolist()


def test_a_wrapped_model() -> None:
    model = small_model("gpt2")
    compiled = torch.compile(model)
    assert mask_of_heads(compiled, KEEP) == mask_of_heads(model, KEEP)
    mask_of_heads(compiled, KEEP).apply_(compiled)
    assert mask_of_heads(model, KEEP).removed_nonzeros(model) == 0


def test_what_is_not_of_the_model() -> None:
    model = small_model("gpt2")
    with pytest.raises(PruningError, match="the layers have"):
        mask_of_heads(model, torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(PruningError, match="truth values"):
        mask_of_heads(model, torch.ones(2, 4))
    with HeadGates(model) as gates:
        gates.values = torch.ones(2, LAYERS, HEADS)
        with pytest.raises(ModelError, match="the batch 3 sequences"):
            logits(model, tokens())
    assert logits(model, tokens()).shape == (3, 12, VOCABULARY)
