"""Which parameters are weights, and how their axes are read.

Weights are those of Linear and convolution layers, of Hugging Face's `Conv1D` and mixtures of experts, and the
projections of `MultiheadAttention`; biases, normalisation parameters and embeddings are never pruned and never
counted. A tied weight counts once, under the first name that `named_parameters` gives it. What is none of these and
has two or more axes is *unsupported*: it is named (`unsupported_parameters`), never skipped silently.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from tombola.errors import PruningError

Kind = Literal["linear", "convolution"]

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
EXPERTS_WEIGHTS = ("gate_up_proj", "up_proj", "down_proj")
"""What transformers calls the weights of a mixture of experts, a matrix for each of them in one parameter."""
ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
SHOWN = 5
"""Names in a message."""
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NEVER_PRUNED = (*_EMBEDDINGS, nn.LayerNorm, nn.GroupNorm, nn.PReLU, nn.modules.batchnorm._NormBase)
_NEVER_PRUNED_NAMES = ("bias_k", "bias_v")  # of MultiheadAttention: biases with two empty axes


@dataclass(frozen=True)
class Layout:
    """How a weight's axes are read: the way to (groups, outputs, inputs, kernel positions) and back.

    `outputs` and `inputs` are those of one group. Linear layers have one group and one kernel position; of a mixture of
    experts every expert is a group, and the first axis (`stacked`). A structure is defined on this form alone and so
    holds for every layer.
    """

    shape: torch.Size
    kind: Kind = "linear"
    groups: int = 1
    inputs_first: bool = False
    stacked: bool = False

    @property
    def matrix(self) -> torch.Size:
        """The shape of what is one layer: the weight's own, or that of one expert's."""
        return self.shape[1:] if self.stacked else self.shape

    @property
    def outputs(self) -> int:
        """Outputs of one group."""
        return self.matrix[1] if self.inputs_first else self._of_group

    @property
    def inputs(self) -> int:
        """Inputs of one group."""
        return self._of_group if self.inputs_first else self.matrix[1]

    @property
    def _of_group(self) -> int:
        return self.matrix[0] if self.stacked else self.matrix[0] // self.groups

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's size along each axis; empty for linear layers."""
        return tuple(self.matrix[2:])

    @property
    def kernel_positions(self) -> int:
        return math.prod(self.kernel)

    def canonical(self, tensor: Tensor) -> Tensor:
        """`tensor` of the weight's shape as (groups, outputs, inputs, kernel positions); a view where possible."""
        first, second = (self.inputs, self.outputs) if self.inputs_first else (self.outputs, self.inputs)
        grouped = tensor.reshape(self.groups, first, second, self.kernel_positions)
        return grouped.transpose(1, 2) if self.inputs_first else grouped

    def original(self, canonical: Tensor) -> Tensor:
        """The inverse of `canonical`."""
        grouped = canonical.transpose(1, 2) if self.inputs_first else canonical
        return grouped.reshape(self.shape)


def prunable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that can be pruned, by name, in `named_parameters` order.

    Args:
        model: Any module with values in its parameters.

    Returns:
        Weights of Linear, convolution, `Conv1D` and attention layers and of experts; a tied weight once, under its
        first name.

    Raises:
        PruningError: when there is none, or when one of them has no values yet (a lazy or meta module).

    Examples:
        >>> list(prunable_parameters(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))))
        ['0.weight']
    """
    found = _found(model)
    for name, parameter in found.items():
        if parameter.is_meta:
            raise PruningError(f"{name} is on the meta device and has no values: give the model storage first")
    return found


def prunable_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shapes of what `prunable_parameters` gives, which a model on the meta device has too."""
    return {name: parameter.shape for name, parameter in _found(model).items()}


def _found(model: nn.Module) -> dict[str, nn.Parameter]:
    weights = {id(parameter) for _, _, parameter in weights_of_modules(model)}
    found = {name: p for name, p in model.named_parameters() if id(p) in weights}
    if not found:
        odd = unsupported_parameters(model)
        raise PruningError(
            "the model has no Linear or convolution weight to prune"
            + (f"; not supported: {listed(odd)}" if odd else "")
        )
    for name, parameter in found.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise PruningError(f"{name} has no shape yet: run the model once on an example, then prune")
    return found


def weight_layouts(model: nn.Module) -> dict[str, Layout]:
    """The layout of every prunable parameter, by name. A tied weight is read as its first module reads it."""
    layouts: dict[int, Layout] = {}
    for module, _, parameter in weights_of_modules(model):
        layouts.setdefault(id(parameter), _layout(module, parameter))
    return {name: layouts[id(parameter)] for name, parameter in prunable_parameters(model).items()}


def weights_of_modules(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """(module, attribute, parameter) of every weight of every module; a tied weight comes once per module.

    A weight that is an embedding, too (a language model's tied head), is left out.
    """
    modules = list(model.modules())
    embeddings = {id(m._parameters.get("weight")) for m in modules if isinstance(m, _EMBEDDINGS)}
    for module in modules:
        for attribute in _weight_attributes(module):
            parameter = module._parameters.get(attribute)
            if parameter is not None and id(parameter) not in embeddings:
                yield module, attribute, parameter


def unsupported_parameters(model: nn.Module) -> list[str]:
    """Names of parameters of two or more axes that are neither weights nor known to be left alone.

    Such are the matrices of recurrent layers, of modules that hold a bare parameter, weights under a
    parametrisation or under `torch.nn.utils.prune`, and weights that are tied to an embedding.
    """
    weights = {id(parameter) for _, _, parameter in weights_of_modules(model)}
    left_alone: set[int] = set()
    of_layers: set[int] = set()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if isinstance(module, _NEVER_PRUNED) or name in _NEVER_PRUNED_NAMES or _is_bias_of_experts(module, name):
                left_alone.add(id(parameter))
            elif name in _weight_attributes(module):
                of_layers.add(id(parameter))
    known = weights | (left_alone - of_layers)
    return [n for n, p in model.named_parameters() if id(p) not in known and _axes(p) >= 2]


def _axes(parameter: nn.Parameter) -> int:
    return 0 if isinstance(parameter, nn.parameter.UninitializedParameter) else parameter.dim()


def _weight_attributes(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)) or is_hugging_face_conv1d(module):
        return ("weight",)
    if is_hugging_face_experts(module):
        return EXPERTS_WEIGHTS
    return ATTENTION_WEIGHTS if isinstance(module, nn.MultiheadAttention) else ()


def is_hugging_face_conv1d(module: nn.Module) -> bool:
    """Whether `module` is transformers' `Conv1D`, a Linear layer whose weight is (inputs, outputs)."""
    transformers: Any = sys.modules.get("transformers.pytorch_utils")  # loaded if such a module exists at all
    return transformers is not None and isinstance(module, transformers.Conv1D)


def is_hugging_face_experts(module: nn.Module) -> bool:
    """Whether `module` holds the experts of a mixture as transformers does: (experts, outputs, inputs) each weight, or
    (experts, inputs, outputs) where it `is_transposed`."""
    if not type(module).__module__.startswith("transformers.") or not hasattr(module, "is_transposed"):
        return False
    found = [module._parameters.get(name) for name in EXPERTS_WEIGHTS]
    return all(weight is None or _axes(weight) == 3 for weight in found)


def _is_bias_of_experts(module: nn.Module, name: str) -> bool:
    """Two axes, because every expert has one."""
    return name.removesuffix("_bias") in EXPERTS_WEIGHTS and is_hugging_face_experts(module)


def _layout(module: nn.Module, parameter: nn.Parameter) -> Layout:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        return Layout(torch.Size())  # refused by `prunable_parameters`
    if isinstance(module, CONVOLUTIONS):
        return Layout(parameter.shape, "convolution", module.groups, isinstance(module, _ConvTransposeNd))
    if is_hugging_face_experts(module):
        return Layout(parameter.shape, "linear", len(parameter), bool(module.is_transposed), stacked=True)
    return Layout(parameter.shape, inputs_first=is_hugging_face_conv1d(module))


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
