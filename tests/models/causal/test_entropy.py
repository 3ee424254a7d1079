"""Entropy of heads: that of eager attention's maps, for every family, padded or not; the model computes what it did."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from small_language_models import FAMILIES, HEADS, LAYERS, logits, small_model, tokens
from tombola.errors import ModelError
from tombola.models.causal.entropy import EntropyRecorder, entropy_of_heads
from tombola.pruning import Masks
from tombola.training.fit import fit
from tombola.training.language import LanguageModelling, Tokens
from tombola.training.recipe import Recipe

PADDED = torch.ones(3, 12, dtype=torch.int64)
LEFT, RIGHT = PADDED.clone(), PADDED.clone()
LEFT[0, :5] = LEFT[2, :1] = 0
RIGHT[1, 7:] = RIGHT[2, 3:] = 0


def recorded(model: nn.Module, ids: Tensor, **others: Any) -> Tensor:
    """The entropies of one pass, (layers, heads)."""
    found: dict[int, Tensor] = {}
    with EntropyRecorder(model, found.__setitem__, sequences=len(ids), training_only=False):
        logits(model, ids, **others)
    return torch.stack([found[layer] for layer in range(LAYERS)])


def of_maps(model: Any, ids: Tensor, mask: Tensor | None) -> Tensor:
    """The definition, written out on eager attention's maps in float64."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    window = [None] * LAYERS
    if getattr(model.config, "sliding_window", None):
        kinds = getattr(model.config, "layer_types", None) or ["sliding_attention"] * LAYERS
        window = [model.config.sliding_window if kind == "sliding_attention" else None for kind in kinds]
    found = []
    for layer, attention in enumerate(maps):
        values: list[Tensor] = []
        for i in range(len(ids)):
            real = torch.ones(ids.shape[1], dtype=torch.bool) if mask is None else mask[i].bool()
            for t in range(ids.shape[1]):
                seen = real.clone()
                seen[t + 1 :] = False
                if window[layer] is not None:
                    seen[: max(0, t + 1 - window[layer])] = False
                if real[t] and seen.sum() >= 2:
                    p = attention[i, :, t][:, seen].double()
                    values.append(-(p * p.clamp(min=1e-300).log()).sum(1) / math.log(int(seen.sum())))
        found.append(torch.stack(values).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
class TestOfEveryFamily:
    @pytest.mark.parametrize("mask", [None, LEFT, RIGHT], ids=["whole", "left", "right"])
    def test_it_is_that_of_eager_attention(self, family: str, mask: Tensor | None) -> None:
        model, ids = small_model(family), tokens()
        found = recorded(model, ids, attention_mask=mask)
        assert found.shape == (LAYERS, HEADS)
        torch.testing.assert_close(found.double(), of_maps(model, ids, mask), rtol=0, atol=1e-5)
        assert ((found >= 0) & (found <= 1)).all()
        assert found.max() - found.min() > 0.02  # heads differ

    def test_the_model_computes_what_it_did(self, family: str) -> None:
        model, ids = small_model(family).train(), tokens()
        heard: list[int] = []

        def gradients() -> tuple[Tensor, list[Tensor]]:
            model.zero_grad()
            output = model(input_ids=ids, attention_mask=RIGHT, labels=ids)
            output.loss.backward()
            return output.logits.detach(), [p.grad.clone() for p in model.parameters()]

        expected, slopes = gradients()
        with EntropyRecorder(model, lambda layer, _: heard.append(layer), sequences=2):
            found, recorded_slopes = gradients()
        assert heard == list(range(LAYERS))
        assert torch.equal(found, expected)
        assert all(map(torch.equal, recorded_slopes, slopes))
        assert model.config._attn_implementation == "sdpa"
        assert torch.equal(gradients()[0], expected)
        assert len(heard) == LAYERS

    def test_positions_said_beside_the_model(self, family: str) -> None:
        model, ids = small_model(family), tokens()
        expected = recorded(model, ids, attention_mask=RIGHT)
        found: dict[int, Tensor] = {}
        with EntropyRecorder(model, found.__setitem__, training_only=False) as recorder:
            recorder.valid = RIGHT.bool()
            logits(model, ids)
        torch.testing.assert_close(torch.stack([found[0], found[1]]), expected, rtol=0, atol=1e-5)


def test_only_training_and_the_first_sequences() -> None:
    model, ids = small_model("gpt2"), tokens()
    heard: list[Tensor] = []
    with EntropyRecorder(model, lambda _, entropy: heard.append(entropy), sequences=1):
        logits(model, ids)
        assert not heard
        logits(model.train(), ids)
    torch.testing.assert_close(torch.stack(heard), recorded(model.eval(), ids[:1]))


def test_a_whole_training() -> None:
    """Every step of `fit` is heard in every layer, and no evaluation; the weights become what they become without."""
    task = LanguageModelling(*(Tokens(tokens(8, 11, seed)) for seed in range(3)))
    recipe = Recipe(length="4it", evaluate_every="2it", batch_size=4, learning_rate="1e-2")
    heard: list[int] = []
    states = []
    for recording in (False, True):
        model = small_model("gpt2")
        recorder = EntropyRecorder(model, lambda layer, _: heard.append(layer))
        with recorder if recording else contextlib.nullcontext():
            fit(model, task, recipe, Masks.full(model), seed=0)
        states.append(model.state_dict())
    assert heard == list(range(LAYERS)) * 4
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_half_precision_is_recorded_in_single() -> None:
    model, ids = small_model("llama"), tokens()
    found: dict[int, Tensor] = {}
    with (
        EntropyRecorder(model, found.__setitem__, training_only=False),
        torch.autocast("cpu", torch.bfloat16),
    ):
        logits(model, ids)
    assert {entropy.dtype for entropy in found.values()} == {torch.float32}
    torch.testing.assert_close(torch.stack([found[0], found[1]]), recorded(model, ids), rtol=0, atol=0.02)


def test_with_a_cache() -> None:
    """A query that comes alone sees all keys before it."""
    model, ids = small_model("llama"), tokens(1)
    heard: list[Tensor] = []
    with EntropyRecorder(model, lambda _, entropy: heard.append(entropy), training_only=False), torch.no_grad():
        before = model(input_ids=ids[:, :8], use_cache=True).past_key_values
        model(input_ids=ids[:, 8:9], past_key_values=before, use_cache=True)
    nine, eight = of_maps(model, ids[:, :9], None), of_maps(model, ids[:, :8], None)
    torch.testing.assert_close(torch.stack(heard[2:]).double(), nine * 8 - eight * 7, rtol=0, atol=1e-4)


def test_a_batch_without_two_keys_says_nothing() -> None:
    model = small_model("gpt2")
    heard: list[int] = []
    with EntropyRecorder(model, lambda layer, _: heard.append(layer), training_only=False):
        logits(model, tokens(2, 1))
    assert not heard


def test_copies_and_errors_leave_nothing_behind() -> None:
    model, ids = small_model("opt"), tokens()
    heard: list[int] = []
    with EntropyRecorder(model, lambda *_: heard.append(0), training_only=False):
        copied = copy.deepcopy(model)
    with pytest.raises(ZeroDivisionError), EntropyRecorder(model, lambda *_: heard.append(0)):
        raise ZeroDivisionError
    assert torch.equal(logits(copied, ids), logits(model, ids))
    assert not heard
    assert model.config._attn_implementation == "sdpa"


def test_what_cannot_be_recorded() -> None:
    model = small_model("gpt2")
    with EntropyRecorder(model, print), pytest.raises(ModelError, match="one recorder at a time"):
        EntropyRecorder(model, print).__enter__()
    model.set_attn_implementation("eager")
    with pytest.raises(ModelError, match="'eager', entropy is recorded of 'sdpa' only"):
        EntropyRecorder(model, print).__enter__()
    with pytest.raises(ModelError, match="not known"):
        EntropyRecorder(nn.Linear(2, 2), print)


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]), st.integers(1, 9))
def test_always_a_fraction(seed: int, scale: float, length: int) -> None:
    """Whatever the scores, also where one key takes all or all are alike."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 4, length, 8, generator=generator) * scale
    key = torch.randn(2, 2, length, 8, generator=generator) * scale
    seen = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    found = entropy_of_heads(query, key, seen, torch.ones(1, length, dtype=torch.bool))
    assert (found is None) == (length == 1)
    if found is not None:
        assert found.shape == (4,)
        assert ((found >= 0) & (found <= 1)).all()
        if scale == 0:
            torch.testing.assert_close(found, torch.ones(4))
