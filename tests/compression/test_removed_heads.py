"""Heads and neurons of language models that are really gone: the masked model's outputs, on disk and back."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from small_language_models import FAMILIES, HEADS, LAYERS, logits, small_config, small_model, tokens
from tombola.compression.removal.heads import RemovedHeads, remove_heads
from tombola.errors import ModelError, PruningError, StorageError
from tombola.models.causal.entropy import EntropyRecorder
from tombola.models.causal.families import attention_layers, total_heads
from tombola.models.causal.gates import HeadGates
from tombola.models.causal.heads import mask_of_heads, mask_of_neurons, select_heads, select_neurons
from tombola.models.causal.hub import load_language_model
from tombola.models.causal.pruned import load_pruned_language_model, save_pruned_language_model
from tombola.models.removed import shrink
from tombola.pruning.copies import copy_of

transformers = pytest.importorskip("transformers")

KEEP = torch.tensor([[True, False, True, True], [False, False, True, False]])
GROUPED = ("llama", "qwen2", "qwen3", "mistral")


def some_neurons(model: nn.Module, sparsity: float = 0.4) -> list[Tensor]:
    scores = [
        torch.rand(layer.widths.neurons, generator=torch.Generator().manual_seed(3))
        for layer in attention_layers(model)
    ]
    return select_neurons(scores, sparsity, equal=True)


@pytest.mark.parametrize("family", FAMILIES)
class TestOfEveryFamily:
    def test_outputs_are_those_of_the_masked_and_the_gated_model(self, family: str) -> None:
        model, ids = small_model(family), tokens()
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        removed = remove_heads(model, KEEP)
        assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
        masked = copy_of(model)
        mask_of_heads(masked, KEEP).apply_(masked)
        with HeadGates(model) as gates:
            gates.values = KEEP.float()
            torch.testing.assert_close(logits(removed.model, ids), logits(model, ids), rtol=0, atol=1e-5)
        assert removed.error < 1e-6
        assert (logits(removed.model, ids) - logits(model, ids)).abs().max() > 1e-2
        for attention in ("eager", "sdpa"):
            masked.set_attn_implementation(attention)
            removed.model.set_attn_implementation(attention)
            for length in (1, 12):
                difference = (logits(removed.model, ids[:, :length]) - logits(masked, ids[:, :length])).abs().max()
                assert difference <= 1e-5

    def test_sizes_and_what_stayed(self, family: str) -> None:
        removed = remove_heads(small_model(family), KEEP)
        layers = attention_layers(removed.model)
        if family in GROUPED:  # a group that keeps one head of two is filled up, one that keeps none goes
            assert removed.zeroed == ((1,), ())
            assert removed.kept == ((0, 1, 2, 3), (2,))
            assert [(layer.heads, layer.groups) for layer in layers] == [(4, 2), (1, 1)]
        else:
            assert removed.zeroed == ((), ())
            assert removed.kept == ((0, 2, 3), (2,))
            assert [(layer.heads, layer.groups) for layer in layers] == [(3, 3), (1, 1)]
        assert (
            removed.parameters_after == sum(p.numel() for p in removed.model.parameters()) < removed.parameters_before
        )
        assert removed.masks.removed_nonzeros(removed.model) == 0
        size = layers[0].head_size * 32
        assert removed.masks.total - removed.masks.kept == sum(map(len, removed.zeroed)) * size

    def test_neurons_too_and_twice(self, family: str) -> None:
        """A second removal goes on from the first; both together are one record of the whole model."""
        model, ids = small_model(family), tokens()
        neurons = some_neurons(model)
        masked = copy_of(model)
        (mask_of_heads(model, KEEP) & mask_of_neurons(model, neurons)).apply_(masked)
        once = remove_heads(model, neurons=neurons)
        twice = remove_heads(once.model, KEEP)
        torch.testing.assert_close(logits(twice.model, ids), logits(masked, ids), rtol=0, atol=1e-5)
        again = copy_of(masked)
        shrink(again, once.removal.after(twice.removal))
        assert torch.equal(logits(again, ids), logits(twice.model, ids))

    @pytest.mark.parametrize("tied", [True, False])
    def test_saved_and_loaded(self, family: str, tied: bool, tmp_path: Path) -> None:
        model, ids = small_model(family, tie_word_embeddings=tied), tokens()
        removed = remove_heads(model, KEEP, some_neurons(model))
        save_pruned_language_model(tmp_path / "pruned", removed.model, removed.removal)
        found = load_pruned_language_model(tmp_path / "pruned")
        assert torch.equal(logits(found, ids), logits(removed.model, ids))
        assert (found.get_output_embeddings().weight is found.get_input_embeddings().weight) == tied
        assert total_heads(found) == total_heads(removed.model)
        known = load_language_model(tmp_path / "pruned")
        assert torch.equal(logits(known.model, ids), logits(found, ids))
        assert (known.model_type, known.is_local) == (family, True)
        smaller = (tmp_path / "pruned" / "model.safetensors").stat().st_size
        model.save_pretrained(tmp_path / "whole")
        assert smaller < (tmp_path / "whole" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_stay_look_where_they_looked(family: str) -> None:
    """The entropy of what is left is that of the masked model's kept heads, layers of different sizes among them."""
    model, ids = small_model(family), tokens()
    removed = remove_heads(model, KEEP)
    mask_of_heads(model, KEEP).apply_(model)
    found: list[list[Tensor]] = []
    for one in (model, removed.model):
        found.append([])
        with EntropyRecorder(one, lambda _, entropy: found[-1].append(entropy), training_only=False):
            logits(one, ids)
    for whole, left, kept in zip(*found, removed.kept, strict=True):
        torch.testing.assert_close(left, whole[list(kept)], rtol=0, atol=1e-5)


class TestEqual:
    """The same numbers in every layer, in a folder that needs no Tombola."""

    @staticmethod
    def equal(family: str, heads: float, neurons: float, **config: Any) -> RemovedHeads:
        model = small_model(family, **config)
        layers = attention_layers(model)
        groups = layers[0].groups
        scores = torch.rand(LAYERS, groups, generator=torch.Generator().manual_seed(1))
        by_group = select_heads(scores, heads, equal=True).repeat_interleave(HEADS // groups, 1)
        return remove_heads(model, by_group, some_neurons(model, neurons))

    @pytest.mark.parametrize("family", GROUPED)
    def test_heads_and_neurons(self, family: str, tmp_path: Path) -> None:
        removed = self.equal(family, 0.5, 0.5)
        assert removed.kept[0] in ((0, 1), (2, 3))
        save_pruned_language_model(tmp_path / "equal", removed.model, removed.removal, equal=True)
        found, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "equal", output_loading_info=True)
        assert not any(report.values())
        assert torch.equal(logits(found.eval(), tokens()), logits(removed.model, tokens()))
        config = json.loads((tmp_path / "equal" / "config.json").read_text())
        assert (config["num_attention_heads"], config["num_key_value_heads"], config["intermediate_size"]) == (2, 1, 20)
        assert not (tmp_path / "equal" / "removed.json").exists()
        assert removed.model.config.num_attention_heads == HEADS  # the model itself is as it was
        assert torch.equal(logits(load_language_model(tmp_path / "equal").model, tokens()), logits(found, tokens()))

    @pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox"])
    def test_neurons_alone_where_no_config_says_the_heads(self, family: str, tmp_path: Path) -> None:
        removed = self.equal(family, 0.0, 0.5)
        save_pruned_language_model(tmp_path / "equal", removed.model, removed.removal, equal=True)
        found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "equal").eval()
        assert torch.equal(logits(found, tokens()), logits(removed.model, tokens()))
        removed = self.equal(family, 0.5, 0.0)
        with pytest.raises(ModelError, match=f"the config of {family} cannot say that 2 heads of 8 are left"):
            save_pruned_language_model(tmp_path / "heads", removed.model, removed.removal, equal=True)
        assert not list(tmp_path.glob("*heads*"))

    def test_what_a_config_does_not_take(self, tmp_path: Path) -> None:
        removed = self.equal("llama", 0.25, 0.0, num_key_value_heads=4)  # 32 is no multiple of 3
        with pytest.raises(ModelError, match=r"does not take these numbers .*not a multiple"):
            save_pruned_language_model(tmp_path / "odd", removed.model, removed.removal, equal=True)
        removed = self.equal("qwen2", 0.25, 0.0, num_key_value_heads=4)
        save_pruned_language_model(tmp_path / "three", removed.model, removed.removal, equal=True)
        removed = remove_heads(small_model("qwen3"), KEEP)
        with pytest.raises(ModelError, match="different numbers of heads"):
            save_pruned_language_model(tmp_path / "uneven", removed.model, removed.removal, equal=True)


@functools.cache
def eight_heads() -> nn.Module:
    return small_model("qwen3", num_attention_heads=8)


@settings(max_examples=15)
@given(st.data())
def test_any_choice_of_heads_of_grouped_attention(data: Any) -> None:
    rows = st.lists(st.booleans(), min_size=8, max_size=8).filter(any)
    keep = torch.tensor(data.draw(st.lists(rows, min_size=2, max_size=2)))
    removed = remove_heads(eight_heads(), keep)
    assert removed.error < 1e-5
    for layer, kept, zeroed, row in zip(
        attention_layers(removed.model), removed.kept, removed.zeroed, keep, strict=True
    ):
        assert {*row.nonzero().flatten().tolist()} == {*kept} - {*zeroed}
        assert layer.heads == len(kept) == layer.groups * int(row.view(2, 4).sum(1).max())


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        removed = remove_heads(small_model("gpt2"), KEEP)
        save_pruned_language_model(tmp_path / "pruned", removed.model, removed.removal)
        return tmp_path / "pruned"

    def test_files_that_do_not_belong_together(self, folder: Path, tmp_path: Path) -> None:
        other = remove_heads(small_model("gpt2", seed=1), KEEP)
        save_pruned_language_model(tmp_path / "other", other.model, other.removal)
        (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
        with pytest.raises(ModelError, match=r"are not those that were saved with removed\.json"):
            load_language_model(folder)
        small_model("gpt2").save_pretrained(folder)
        with pytest.raises(ModelError, match=r"do not fit its config and removed\.json"):
            load_language_model(folder)

    def test_a_changed_record(self, folder: Path) -> None:
        text = (folder / "removed.json").read_text()
        (folder / "removed.json").write_text(text.replace('"format": 2', '"format": 2 '))
        with pytest.raises((ModelError, StorageError), match=r"removed\.json"):
            load_language_model(folder)
        content = json.loads(text)
        del content["sha256"], content["format"]
        content["removal"]["kept"][0]["of"] = 10**6
        (folder / "removed.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match="not of this model"):
            load_language_model(folder)
        content["removal"] = 3
        (folder / "removed.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=r"removed\.json"):
            load_language_model(folder)

    def test_a_config_that_claims_more(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 10**8}))
        with pytest.raises(ModelError, match="the weights that are left are far fewer"):
            load_language_model(folder)

    def test_half_precision_is_not_saved(self, tmp_path: Path) -> None:
        removed = remove_heads(small_model("gpt2"), KEEP)
        with pytest.raises(ModelError, match="not of float32"):
            save_pruned_language_model(tmp_path / "half", removed.model.half(), removed.removal)

    def test_nothing_is_overwritten(self, folder: Path) -> None:
        removed = remove_heads(small_model("gpt2"), KEEP)
        with pytest.raises(StorageError, match="not an empty folder"):
            save_pruned_language_model(folder, removed.model, removed.removal)

    def test_a_record_of_another_model_is_not_saved(self, tmp_path: Path) -> None:
        removed, other = (remove_heads(small_model("gpt2"), keep) for keep in (KEEP, KEEP.flip(0)))
        with pytest.raises(ModelError):
            save_pruned_language_model(tmp_path / "pruned", removed.model, other.removal)
        assert not list(tmp_path.iterdir())


def test_what_makes_no_sense() -> None:
    model = small_model("gpt2")
    with pytest.raises(PruningError, match="layer 1 would lose all its heads"):
        remove_heads(model, torch.tensor([[True] * 4, [False] * 4]))
    with pytest.raises(PruningError, match="layer 0 would lose all its neurons"):
        remove_heads(model, neurons=[torch.zeros(128, dtype=torch.bool)] * 2)
    with pytest.raises(ModelError, match="not known"):
        remove_heads(nn.Linear(2, 2), KEEP)
    assert small_config("gpt2").n_head == HEADS
