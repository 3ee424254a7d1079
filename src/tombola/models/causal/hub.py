"""Causal language models of others: a folder as transformers saves them, or a name on the Hugging Face hub.

The ordinary `from_pretrained` reads them, but no code of theirs runs, no pickle is opened, and what transformers would
mend silently (a weight that is missing or has another shape becomes one of chance) is an error.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from tombola.errors import ModelError, StorageError, counted, one_line
from tombola.models.causal.package import quiet, transformers
from tombola.models.tensors import content_sha256
from tombola.pruning.prunable import listed
from tombola.runs import limits
from tombola.runs.atomic import read_json

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)
SECONDS = 6.0
"""How long the hub may take to answer at all."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in float32 on the CPU, in evaluation mode, and where it comes from.

    `tokenizer` is transformers', None for a folder without one. `sha256` is of the weights, `name` what was asked for.
    """

    model: nn.Module
    tokenizer: Any | None
    name: str
    model_type: str
    sha256: str
    is_local: bool


def load_language_model(name_or_folder: str | Path) -> LanguageModel:
    """Reads a causal language model of any family that transformers knows.

    Args:
        name_or_folder: A folder with `config.json` and safetensors, or a name on the hub such as `distilgpt2`. What the
            hub gave before is taken from the cache where the hub does not answer.

    Returns:
        LanguageModel: the model, its tokenizer, and the checksum of its weights.

    Raises:
        ModelError: in one line, where there is no such model, it is no causal language model, or its files are damaged,
            pickles, or do not belong together.

    Examples:
        See `docs/guide/stress.md`.
    """
    name = str(name_or_folder)
    folder = Path(name)
    try:
        if folder.is_dir():
            _check_folder(folder)
            return _load(name, is_local=True)
        if isinstance(name_or_folder, Path) or name[:1] in (".", "/", "~") or name.count("/") > 1 or folder.exists():
            raise ModelError(f"{name}: there is no such folder of a model; give a folder, or a name on the hub")
        return _load(name, is_local=False, cached_only=not _hub_answers())
    except StorageError as error:
        raise ModelError(str(error)) from None


def _load(name: str, is_local: bool, cached_only: bool = False) -> LanguageModel:
    there: dict[str, Any] = {"local_files_only": is_local or cached_only, "trust_remote_code": False}
    package = transformers()
    with quiet():
        try:
            config = package.AutoConfig.from_pretrained(name, **there)
            _check_config(name, config, package)
            if is_local:
                _check_sizes(Path(name), config, package)
            model, found = package.AutoModelForCausalLM.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **there
            )
            tokenizer = _tokenizer(name, is_local, there, package)
        except ModelError:
            raise
        except Exception as error:  # transformers meets what is wrong with many kinds of error, some of many lines
            raise _refusal(name, is_local, cached_only, error) from None
    _check_loaded(name, found)
    model.eval()
    _check_model(name, model, tokenizer)
    return LanguageModel(model, tokenizer, name, config.model_type, content_sha256(model.state_dict()), is_local)


def _hub_answers() -> bool:
    """Whether anybody answers at the hub's address in time; transformers itself would try for half a minute."""
    transformers()
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):  # whatever keeps it from answering
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name may take longer than any time-out
    asking.start()
    asking.join(SECONDS)
    return answered.is_set()


def _refusal(name: str, is_local: bool, cached_only: bool, error: Exception) -> ModelError:
    if cached_only:
        return ModelError(
            f"the model {name} cannot be had: the Hugging Face hub does not answer, and its cache does not hold the "
            "whole model; use --model tiny, or a local folder with config.json and model.safetensors"
        )
    if is_local:
        return ModelError(f"{name}: cannot be read as a causal language model ({one_line(error)})")
    return ModelError(
        f"the model {name} cannot be had from the Hugging Face hub ({one_line(error)}); use --model tiny, or a local "
        "folder with config.json and model.safetensors"
    )


def _check_folder(folder: Path) -> None:
    """That a folder has the two files and no others in their place, before transformers looks at it."""
    config = read_json(folder / CONFIG, limits.SPEC)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{folder / CONFIG}: names no model_type, this is no model of transformers")
    if not ((folder / WEIGHTS).exists() or (folder / INDEX).exists()):
        if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
            raise ModelError(
                f"{folder}: holds its weights as a pickle ({pickles[0]}), which may run code; save the model with "
                "save_pretrained(), which writes safetensors"
            )
        raise ModelError(f"{folder}: holds no {WEIGHTS}; save the model with save_pretrained()")
    tensors = sum(1 for path in _weight_files(folder) for _ in _shapes(path))
    for key in ("num_hidden_layers", "n_layer"):
        if isinstance(layers := config.get(key), int) and layers > tensors:
            raise ModelError(f"{folder}: its config has {layers} layers, its weights are {counted(tensors, 'tensor')}")


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or those that its index names."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    index = read_json(folder / INDEX, limits.JSON)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise ModelError(f"{folder / INDEX}: says of no weights in which file they are, it is damaged")
    names = sorted(set(places.values()))
    if odd := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
        raise ModelError(f"{folder / INDEX}: names {odd[0]!r:.80}, which is no safetensors file of this folder")
    return [folder / name for name in names]


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file, from its header; ModelError where it is cut short or damaged."""
    if not path.is_file():
        raise ModelError(f"{path}: is missing; get the file again")
    if path.stat().st_size > limits.TENSORS:
        raise ModelError(f"{path}: {path.stat().st_size:,} bytes is more than the {limits.TENSORS:,} expected at most")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except Exception as error:  # safetensors has several kinds
        raise ModelError(f"{path}: damaged or cut short ({one_line(error)}); get the file again") from None


def _check_config(name: str, config: Any, package: Any) -> None:
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: a {kind} has an encoder and a decoder, wanted is a causal language model")
    if type(config) not in package.AutoModelForCausalLM._model_mapping:
        raise ModelError(f"{name}: a {kind} is no causal language model in transformers")


def _check_sizes(folder: Path, config: Any, package: Any) -> None:
    """That the config asks for about as many numbers as the files hold, before memory is taken for what they lack."""
    with torch.device("meta"):
        wanted = sum(p.numel() for p in package.AutoModelForCausalLM.from_config(config).parameters())
    held = sum(torch.Size(shape).numel() for path in _weight_files(folder) for shape in _shapes(path).values())
    if wanted > 2 * held:
        raise ModelError(
            f"{folder}: its config is of a model of {wanted:,} numbers, its weights are {held:,}: the files do not "
            "belong together"
        )


def _tokenizer(name: str, is_local: bool, there: Mapping[str, Any], package: Any) -> Any | None:
    if is_local and not _has_tokenizer(Path(name)):
        return None
    try:
        return package.AutoTokenizer.from_pretrained(name, **there)
    except Exception:
        cached = package.utils.cached_file(name, CONFIG, local_files_only=True)
        if is_local or _has_tokenizer(Path(cached).parent):
            raise
        return None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / file).exists() for file in TOKENIZER_FILES)


def _check_loaded(name: str, found: Mapping[str, Any]) -> None:
    """That every weight came from the files, and all of the files was used."""
    for kind, words in (("missing_keys", "lack"), ("mismatched_keys", "have another shape of")):
        if keys := sorted(map(str, found[kind])):
            raise ModelError(f"{name}: its weights {words} {listed(keys)}; they are not of this config")
    if keys := sorted(map(str, found["unexpected_keys"])):
        raise ModelError(f"{name}: its config is of a model without {listed(keys)}, which its weights have")


@torch.no_grad()
def _check_model(name: str, model: Any, tokenizer: Any | None) -> None:
    """That its numbers are finite, that it is causal, and knows all tokens that its tokenizer gives."""
    if odd := [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise ModelError(f"{name}: {odd[0]} holds numbers that are not finite")
    known = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > known:
        raise ModelError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model knows {known}; another's?")
    ids = torch.zeros(2, 4, dtype=torch.int64)
    ids[1, 3] = known - 1
    first, second = model(input_ids=ids).logits[:, :3]
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max())):
        raise ModelError(f"{name}: what it says of a token depends on later ones, this is no causal language model")
