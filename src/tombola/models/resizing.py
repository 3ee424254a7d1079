"""What modules say of their own sizes, made true again after their tensors were cut.

A module of somebody's own that keeps numbers of its layers' sizes can have a method `units_removed()`, which is called
after all tensors were cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tombola.models.slim_attention import slim
from tombola.pruning.prunable import is_hugging_face_conv1d


def resize(model: nn.Module) -> None:
    """Sets the sizes of all modules to those of their tensors."""
    for module in list(model.modules()):
        for kind, function in _KINDS.items():
            if isinstance(module, kind):
                function(module)
        if is_hugging_face_conv1d(module):
            module.nx, module.nf = module.weight.shape  # type: ignore[assignment, misc]
    for module in model.modules():
        if (families := _FAMILIES.get(type(module).__name__)) is not None and _is_hugging_face(module):
            families(module)
        if callable(own := getattr(module, "units_removed", None)):
            own()


def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _convolution(module: Any) -> None:
    first, second = module.weight.shape[:2]
    if module.groups == module.in_channels > 1 and not module.transposed:  # depth-wise: channels go with groups
        module.groups = first // (module.out_channels // module.groups)
    if module.transposed:
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.in_channels, module.out_channels = second * module.groups, first


def _norm(module: Any) -> None:
    for tensor in (module.weight, module.running_mean):
        if tensor is not None:
            module.num_features = len(tensor)


def _group_norm(module: Any) -> None:
    if module.weight is not None:
        module.num_groups = len(module.weight) * module.num_groups // module.num_channels
        module.num_channels = len(module.weight)


def _embedding(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: Any) -> None:
    module.num_parameters = len(module.weight)


def _gpt2(module: Any) -> None:
    module.embed_dim = module.split_size = module.c_proj.weight.shape[0]
    module.num_heads = module.split_size // module.head_dim


def _opt(module: Any) -> None:
    module.num_heads = module.out_proj.in_features // module.head_dim


def _grouped(module: Any) -> None:
    module.num_key_value_groups = module.q_proj.out_features // module.k_proj.out_features


_FAMILIES: dict[str, Callable[[Any], None]] = {
    "GPT2Attention": _gpt2,
    "OPTAttention": _opt,
    **{f"{family}Attention": _grouped for family in ("Llama", "Qwen2", "Qwen3", "Mistral")},
}
"""Attention of transformers that keeps how many heads it has, or share keys and values; NeoX asks its tensors."""


def _is_hugging_face(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.")


_KINDS: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.Linear: _linear,
    _ConvNd: _convolution,
    _NormBase: _norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
    nn.MultiheadAttention: slim,
}
