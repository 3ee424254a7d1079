"""What is asked of the files of a language model before and after transformers reads them.

A folder may come from anywhere: its config may claim any sizes, its index name any files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tombola.errors import ModelError, counted, one_line
from tombola.runs import limits
from tombola.runs.atomic import read_json

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)


def check_folder(folder: Path) -> None:
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
    tensors = sum(1 for path in weight_files(folder) for _ in shapes_in(path))
    for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"):
        if isinstance(layers := config.get(key), int) and layers > tensors:
            raise ModelError(f"{folder}: its config has {layers} layers, its weights are {counted(tensors, 'tensor')}")


def weight_files(folder: Path) -> list[Path]:
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


def shapes_in(path: Path) -> dict[str, list[int]]:
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


def check_config(name: str, config: Any, package: Any) -> None:
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: a {kind} has an encoder and a decoder, wanted is a causal language model")
    if type(config) not in package.AutoModelForCausalLM._model_mapping:
        raise ModelError(f"{name}: a {kind} is no causal language model in transformers")


def check_sizes(folder: Path, config: Any, package: Any) -> None:
    """That the config asks for about as many numbers as the files hold, before memory is taken for what they lack."""
    with torch.device("meta"):
        wanted = sum(p.numel() for p in package.AutoModelForCausalLM.from_config(config).parameters())
    held = sum(torch.Size(shape).numel() for path in weight_files(folder) for shape in shapes_in(path).values())
    if wanted > 2 * held:
        raise ModelError(
            f"{folder}: its config is of a model of {wanted:,} numbers, its weights are {held:,}: the files do not "
            "belong together"
        )


def has_tokenizer(folder: Path) -> bool:
    return any((folder / file).exists() for file in TOKENIZER_FILES)


@torch.no_grad()
def check_model(name: str, model: Any, tokenizer: Any | None) -> None:
    """That its numbers are finite, that it is causal, and knows all tokens that its tokenizer gives."""
    if odd := [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise ModelError(f"{name}: {odd[0]} holds numbers that are not finite")
    known = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > known:
        raise ModelError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model knows {known}; another's?")
    ids = (torch.arange(8) * 7 % known).repeat(2, 1)
    ids[1, 4:] = (ids[1, 4:] + known // 2) % known
    first, second = model(input_ids=ids).logits[:, :4]
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max())):
        raise ModelError(f"{name}: what it says of a token depends on later ones, this is no causal language model")
