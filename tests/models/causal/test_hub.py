"""Language models of others: folders of every family as transformers saves them; whatever is wrong is one line."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_language_models import FAMILIES, VOCABULARY, logits, small_config, small_model, tokens
from tombola.errors import ModelError
from tombola.models.causal import hub
from tombola.models.causal.families import attention_layers
from tombola.models.causal.hub import load_language_model
from tombola.models.causal.package import quiet
from tombola.models.tensors import content_sha256

transformers = pytest.importorskip("transformers")


def saved(model: Any, folder: Path, **options: Any) -> Path:
    with quiet():
        model.save_pretrained(folder, **options)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(small_model("llama"), tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return shutil.copytree(llama, tmp_path / "llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(family)
    found = load_language_model(saved(model, tmp_path / family))
    assert (found.model_type, found.is_local, found.tokenizer) == (family, True, None)
    assert not found.model.training
    assert torch.equal(logits(found.model, tokens()), logits(model, tokens()))
    assert found.sha256 == content_sha256(model.state_dict())
    assert len(attention_layers(found.model)) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_mixtures_of_experts(family: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": 24, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    sizes |= {"num_local_experts" if family == "mixtral" else "num_experts": 4, "shared_expert_intermediate_size": 8}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **sizes)).eval()
    found = load_language_model(saved(model, tmp_path / family))
    assert torch.equal(logits(found.model, tokens()), logits(model, tokens()))


def test_several_files_and_half_precision(tmp_path: Path) -> None:
    model = small_model("gpt2").half()
    folder = saved(model, tmp_path / "gpt2", max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    found = load_language_model(str(folder)).model
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    assert torch.equal(logits(found, tokens()), logits(model.float(), tokens()))


def test_a_tokenizer_comes_along(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one": 0, "two": 1, "?": 2}, "?"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")
    folder = saved(small_model("gpt2"), tmp_path / "gpt2")
    tokenizer.save_pretrained(folder)
    found = load_language_model(folder)
    assert found.tokenizer is not None
    assert found.tokenizer("two one three")["input_ids"] == [1, 0, 2]
    tokenizer.add_tokens([f"w{i}" for i in range(VOCABULARY)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="the tokenizer has 51 tokens, the model knows 48"):
        load_language_model(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_language_model(folder)


def config_with(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entries))

    return change


def weights_with(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return rewrite


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../llama.safetensors"}}')


O_PROJ = "model.layers.1.self_attn.o_proj.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot read .*config.json"),
    "config cut short": (lambda folder: (folder / "config.json").write_text('{"model_type":'), "not readable as JSON"),
    "config of no model": (lambda folder: (folder / "config.json").write_text("[]"), "names no model_type"),
    "unknown type": (config_with(model_type="nosuch"), "does not recognize this architecture"),
    "odd size": (config_with(hidden_size="x"), "expected int, got str"),
    "huge layers": (config_with(num_hidden_layers=10**9), "1000000000 layers, its weights are 21 tensors"),
    "huge vocabulary": (config_with(vocab_size=10**9), "its config is of a model of 64,000"),
    "another shape": (config_with(intermediate_size=41), "cannot be read"),
    "fewer layers": (config_with(num_hidden_layers=1), "its config is of a model without model.layers.1"),
    "weights cut short": (cut_short, "damaged or cut short"),
    "a weight is missing": (weights_with(lambda tensors: tensors.pop(O_PROJ)), f"its weights lack {O_PROJ}"),
    "not finite": (weights_with(lambda tensors: tensors[O_PROJ].fill_(torch.nan)), "not finite"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors"),
    "a pickle": (as_pickle, r"pickle \(pytorch_model.bin\), which may run code; save"),
    "files outside": (index_outside, "names '../llama.safetensors', which is no safetensors file of this folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line(kind: str, folder: Path) -> None:
    change, said = DAMAGE[kind]
    change(folder)
    with pytest.raises(ModelError, match=said) as raised:
        load_language_model(folder)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
    assert str(folder) in str(raised.value)


def test_code_of_a_folder_never_runs(folder: Path) -> None:
    config_with(auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})(folder)
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    load_language_model(folder)
    config_with(model_type="own")(folder)
    with pytest.raises(ModelError, match="cannot be read"):
        load_language_model(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["bert", "t5", "vit"])
def test_other_kinds_of_models(kind: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    if kind == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(**small, vocab_size=9))
        said = "depends on later ones, this is no causal language model"
    elif kind == "t5":
        t5 = transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)
        model, said = transformers.T5ForConditionalGeneration(t5), "an encoder and a decoder"
    else:
        model = transformers.ViTModel(transformers.ViTConfig(**small, image_size=16, patch_size=8))
        said = "a vit is no causal language model"
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    with pytest.raises(ModelError, match=said):
        load_language_model(saved(model, tmp_path / kind))


class TestHub:
    """Names on the hub, which tests never ask."""

    @pytest.fixture(autouse=True)
    def _no_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def test_a_name_that_cannot_be_reached(self) -> None:
        with pytest.raises(ModelError, match=r"the model distilgpt2 cannot be had.*--model tiny, or a local folder"):
            load_language_model("distilgpt2")

    def test_a_hub_that_never_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever it is that hangs, also where it knows no time-out."""
        released = threading.Event()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.get_session", released.wait)
        monkeypatch.setattr(hub, "SECONDS", 0.05)
        try:
            with pytest.raises(ModelError, match="the Hugging Face hub does not answer"):
                load_language_model("facebook/opt-125m")
        finally:
            released.set()

    def test_what_is_in_the_cache_is_used(self, llama: Path, tmp_path: Path) -> None:
        repository = tmp_path / "cache" / "models--some--llama"
        shutil.copytree(llama, repository / "snapshots" / ("0" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        found = load_language_model("some/llama")
        assert (found.is_local, found.tokenizer, found.sha256) == (False, None, load_language_model(llama).sha256)
        (repository / "snapshots" / ("0" * 40) / "tokenizer.json").write_text("{")
        with pytest.raises(ModelError, match="does not hold the whole model"):
            load_language_model("some/llama")

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        for name in (tmp_path / "no", str(tmp_path / "no"), "./no", "a/b/c"):
            with pytest.raises(ModelError, match="no such folder"):
                load_language_model(name)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'tombola\[transformers\]'"):
        load_language_model(llama)


def test_configs_of_tests_are_those_meant() -> None:
    assert (
        small_config("qwen3").head_dim * small_config("qwen3").num_attention_heads != small_config("qwen3").hidden_size
    )
