"""Language models that lost heads or neurons, on disk: the folder that transformers writes, and what was removed.

transformers cannot build layers of different sizes from a config. So `config.json` is that of the whole model, and
`removed.json` says what goes before the weights are read. Where all layers kept the same numbers and the family's
config can say them, the folder is an ordinary one.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import ConfigError, ModelError, StorageError, one_line
from tombola.models.causal.families import AttentionLayer, attention_layers, model_type
from tombola.models.causal.folders import check_config, check_folder, shapes_in, weight_files
from tombola.models.causal.package import quiet, transformers
from tombola.models.removed import Removal, parameters, shrink
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning.prunable import listed
from tombola.pruning.wrapped import unwrapped
from tombola.runs import limits
from tombola.runs.atomic import TEMPORARY_SUFFIX, make_folder, storage_errors
from tombola.runs.configs import validate
from tombola.runs.sealed import read_sealed, write_sealed

REMOVED = "removed.json"
REMEDY = "put it back from a copy"
NEURONS = {"gpt2": "n_inner", "opt": "ffn_dim"}
"""What a config calls the neurons of a feed-forward layer; all others say `intermediate_size`."""
WITH_HEAD_SIZE = ("llama", "qwen2", "qwen3", "mistral")
"""Families whose config can say a head's size; the heads of all others together are as wide as the model."""


def save_pruned_language_model(
    folder: Path | str, model: nn.Module, removal: Removal, tokenizer: Any | None = None, equal: bool = False
) -> None:
    """Writes a smaller language model, all or nothing, and checks that it comes back as it is.

    Args:
        folder: A folder that does not exist, or is empty: nothing is overwritten.
        model: What is left. Its config is still that of the whole model.
        removal: All that was removed since (see `Removal.after`).
        tokenizer: transformers' tokenizer, to be saved beside it.
        equal: Writes an ordinary folder, which `AutoModelForCausalLM.from_pretrained` loads without Tombola: possible
            where all layers kept as many heads, groups and neurons, and the family's config can say so.

    Raises:
        StorageError: where `folder` exists and is not empty, or cannot be written.
        ModelError: where the record is not of this model; with `equal`, where no ordinary config says its sizes.

    Examples:
        See `docs/guide/stress.md`.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StorageError(f"{folder}: exists and is not an empty folder; choose another")
    inner: Any = unwrapped(model)
    if odd := [name for name, parameter in inner.named_parameters() if parameter.dtype != torch.float32]:
        raise ModelError(f"{odd[0]} is not of float32, in which language models are saved; call model.float() before")
    config = equal_config(inner) if equal else inner.config
    building = folder.with_name(f".{folder.name}{TEMPORARY_SUFFIX}")
    shutil.rmtree(building, ignore_errors=True)  # what a killed attempt left
    try:
        make_folder(building)
        _write(building, inner, config, tokenizer, equal)
        if not equal:
            write_sealed(
                building / REMOVED, {"removal": removal.model_dump(mode="json"), "sha256_of_weights": _sum(inner)}
            )
        _check_back(building, inner, equal)
        with storage_errors("write", folder):
            building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def load_pruned_language_model(folder: Path | str) -> nn.Module:
    """The language model in a folder of `save_pruned_language_model`, in evaluation mode, on the CPU.

    Args:
        folder: With `config.json` of the whole model, `removed.json` and the weights that are left.

    Returns:
        nn.Module: transformers' model, smaller; `hub.load_language_model` gives its tokenizer, too.

    Raises:
        ModelError: where the files are damaged or do not belong together.
        StorageError: where they cannot be read.

    Examples:
        See `docs/guide/stress.md`.
    """
    folder = Path(folder)
    check_folder(folder)
    content = read_sealed(folder / REMOVED, REMEDY)
    try:
        removal = validate(content.get("removal"), Removal, f"{folder / REMOVED}")
    except ConfigError as error:
        raise ModelError(f"{error}; {REMEDY}") from None
    weights = _weights(folder)
    package = transformers()
    with quiet():
        try:
            config = package.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            check_config(str(folder), config, package)
            with torch.device("meta"):
                _check_whole(folder, _shrunk(package, config, None), weights)
                _check_shapes(folder, _shrunk(package, config, removal), weights)
            model = _shrunk(package, config, removal)
        except ModelError as error:
            raise ModelError(f"{folder}: {str(error).removeprefix(f'{folder}: ')}") from None
        except Exception as error:  # transformers meets odd configs with many kinds of error
            raise ModelError(f"{folder}: its config makes no model ({one_line(error)}); {REMEDY}") from None
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    if content.get("sha256_of_weights") != _sum(model):
        raise ModelError(f"{folder}: the weights are not those that were saved with {REMOVED}; {REMEDY}")
    return model.eval()


def equal_config(model: nn.Module) -> Any:
    """The ordinary config of a smaller model whose layers are alike; ModelError where there is none."""
    inner: Any = unwrapped(model)
    family = model_type(inner)
    sizes = {_sizes(layer) for layer in attention_layers(inner)}
    if len(sizes) > 1:
        raise ModelError(
            "the layers keep different numbers of heads, groups or neurons, which no ordinary config says: select with "
            "equal=True, or save without"
        )
    heads, groups, head_size, neurons = sizes.pop()
    config = copy.deepcopy(inner.config)
    if heads * head_size != _width_of_heads(config):
        if family not in WITH_HEAD_SIZE:
            raise ModelError(
                f"the config of {family} cannot say that {heads} heads of {head_size} are left: there all heads "
                f"together are as wide as the model; save without equal, which keeps {REMOVED} beside it"
            )
        config.num_attention_heads, config.num_key_value_heads, config.head_dim = heads, groups, head_size
    setattr(config, NEURONS.get(family, "intermediate_size"), neurons)
    return _checked_config(family, config, inner)


def _checked_config(family: str, config: Any, model: Any) -> Any:
    """The config, where a model of it has the same shapes; else ModelError with the reason."""
    try:
        config = type(config).from_dict(config.to_dict())  # as it will be read: some check their own numbers
        with torch.device("meta"), quiet():
            wanted = _shapes(transformers().AutoModelForCausalLM.from_config(config).state_dict())
    except Exception as error:
        raise ModelError(
            f"the config of {family} does not take these numbers ({one_line(error)}); keep another number of heads, or "
            "save without equal"
        ) from None
    if wanted != _shapes(model.state_dict()):
        raise ModelError(f"an ordinary config of {family} does not give this model; save without equal")
    return config


def _sizes(layer: AttentionLayer) -> tuple[int, int, int, int]:
    return layer.heads, layer.groups, layer.head_size, layer.widths.neurons


def _width_of_heads(config: Any) -> int:
    """What the heads of a layer are wide together, by the config."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(size * config.num_attention_heads)


def _write(folder: Path, model: Any, config: Any, tokenizer: Any | None, equal: bool) -> None:
    with quiet(), storage_errors("write", folder):
        # An ordinary folder has the names that the family's checkpoints have (embed_out of NeoX), ours the model's own.
        model.save_pretrained(folder, save_original_format=equal)
        if config is not model.config:
            config.architectures, config.dtype = model.config.architectures, model.config.dtype
            config.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def _check_back(folder: Path, model: Any, equal: bool) -> None:
    """Saving refuses what loading would refuse, or would give as another model."""
    if equal:
        with quiet():
            auto = transformers().AutoModelForCausalLM
            found = auto.from_pretrained(folder, local_files_only=True, dtype=torch.float32, use_safetensors=True)
    else:
        found = load_pruned_language_model(folder)
    if _sum(found) != _sum(model):
        raise ModelError("the saved model does not come back as it is; it is not saved")


def _shrunk(package: Any, config: Any, removal: Removal | None) -> Any:
    model = package.AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    if removal is not None:
        shrink(model, removal)
    return model


def _weights(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        shapes_in(path)
        weights |= load_tensors(path)[0]
    return weights


def _check_whole(folder: Path, whole: Any, weights: Mapping[str, Tensor]) -> None:
    """Before memory is taken for a whole model that the files may only claim."""
    held = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    if (count := parameters(whole)) > limits.ticket_whole(held):
        raise ModelError(f"its config is of {count:,} numbers, the weights that are left are far fewer")


def _check_shapes(folder: Path, smaller: Any, weights: Mapping[str, Tensor]) -> None:
    """That the files have all weights of the smaller model but tied ones, and no others."""
    wanted, found = _shapes(smaller.state_dict()), _shapes(weights)
    owners: dict[int, list[str]] = {}
    for name, tensor in smaller.state_dict(keep_vars=True).items():
        owners.setdefault(id(tensor), []).append(name)
    missing = [names for names in owners.values() if not any(name in found for name in names)]
    if missing:
        raise ModelError(f"its weights lack {listed([names[0] for names in missing])}; {REMEDY}")
    if odd := [name for name, shape in found.items() if wanted.get(name) != shape]:
        raise ModelError(f"{listed(odd)} of its weights do not fit its config and {REMOVED}; {REMEDY}")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _sum(model: Any) -> str:
    return content_sha256(model.state_dict())
