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
from torch import nn

from tombola.errors import ModelError, StorageError, one_line
from tombola.models.causal.folders import CONFIG, check_config, check_folder, check_model, check_sizes, has_tokenizer
from tombola.models.causal.package import quiet, transformers
from tombola.models.causal.pruned import REMOVED, load_pruned_language_model
from tombola.models.tensors import content_sha256
from tombola.pruning.prunable import listed

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
        name_or_folder: A folder with `config.json` and safetensors, also one of `save_pruned_language_model`, or a name
            on the hub such as `distilgpt2`. What the hub gave before is taken from its cache where it does not answer.

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
            check_folder(folder)
            if (folder / REMOVED).exists():
                return _load_pruned(folder)
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
            check_config(name, config, package)
            if is_local:
                check_sizes(Path(name), config, package)
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
    check_model(name, model, tokenizer)
    return LanguageModel(model, tokenizer, name, config.model_type, content_sha256(model.state_dict()), is_local)


def _load_pruned(folder: Path) -> LanguageModel:
    model: Any = load_pruned_language_model(folder)
    try:
        with quiet():
            tokenizer = _tokenizer(str(folder), True, {"local_files_only": True}, transformers())
    except Exception as error:
        raise _refusal(str(folder), True, False, error) from None
    check_model(str(folder), model, tokenizer)
    checksum = content_sha256(model.state_dict())
    return LanguageModel(model, tokenizer, str(folder), model.config.model_type, checksum, is_local=True)


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


def _tokenizer(name: str, is_local: bool, there: Mapping[str, Any], package: Any) -> Any | None:
    if is_local and not has_tokenizer(Path(name)):
        return None
    try:
        return package.AutoTokenizer.from_pretrained(name, **there)
    except Exception:
        cached = package.utils.cached_file(name, CONFIG, local_files_only=True)
        if is_local or has_tokenizer(Path(cached).parent):
            raise
        return None


def _check_loaded(name: str, found: Mapping[str, Any]) -> None:
    """That every weight came from the files, and all of the files was used."""
    for kind, words in (("missing_keys", "lack"), ("mismatched_keys", "have another shape of")):
        if keys := sorted(map(str, found[kind])):
            raise ModelError(f"{name}: its weights {words} {listed(keys)}; they are not of this config")
    if keys := sorted(map(str, found["unexpected_keys"])):
        raise ModelError(f"{name}: its config is of a model without {listed(keys)}, which its weights have")
