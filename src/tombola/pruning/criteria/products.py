"""The product that a layer of somebody's own class computes: which weight multiplies which inputs.

A subclass of Linear or of a convolution may standardise, normalise or quantise its weight, or change its inputs, before
it multiplies the two. What is multiplied is seen where torch multiplies it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tombola.pruning.criteria.network import at_least_float32
from tombola.pruning.prunable import CONVOLUTIONS, is_hugging_face_conv1d

_PRODUCTS: tuple[Callable[..., Tensor], ...] = (
    *(functional.linear, torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
)
_PLAIN = (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS)


def computes_plainly(module: nn.Module) -> bool:
    """Whether what `module` computes is what torch's class, or transformers' `Conv1D`, computes."""
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return False
    kinds: tuple[Any, ...] = _PLAIN
    if is_hugging_face_conv1d(module):
        kinds = (sys.modules["transformers.pytorch_utils"].Conv1D,)
    base = next((kind for kind in kinds if isinstance(module, kind)), None)
    names = ("forward", "_conv_forward")
    return all(getattr(type(module), name, None) is getattr(base, name, None) for name in names)


@dataclass
class Product:
    """One call of a function of torch that is linear in its weight."""

    function: Callable[..., Tensor]
    inputs: Tensor
    weight: Tensor
    options: tuple[tuple[Any, ...], dict[str, Any]] = field(default=((), {}))
    """What follows the bias by position, and what is given by name."""

    def squared_inputs(self) -> Tensor:
        """Σ x² of the inputs that each entry of the weight multiplies, of its shape.

        The function is linear in the weight, so the derivative of its summed outputs for an entry is the sum of the
        inputs that the entry multiplies.
        """
        weight = torch.zeros_like(at_least_float32(self.weight)).requires_grad_()
        squares = at_least_float32(self.inputs.detach()).square()
        positions, names = self.options
        with torch.enable_grad():
            output = self.function(squares, weight, None, *positions, **names)
            return torch.autograd.grad(output.sum(), weight)[0]


def products(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Product]:
    """The products of inputs and a weight of the shape of the module's own that one call of it computes.

    The call is made again, on copies of its parameters and buffers.
    """
    state = {name: t.detach().clone() for name, t in (*module.named_parameters(), *module.named_buffers())}
    seen = _Seen(state["weight"].shape)
    with torch.no_grad(), seen:
        functional_call(module, state, arguments, keywords)
    return seen.found


class _Seen(TorchFunctionMode):
    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        self.found: list[Product] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        names = dict(kwargs or {})
        if func in _PRODUCTS:
            given = dict(zip(("input", "weight", "bias"), args, strict=False))
            given |= {name: names.pop(name) for name in ("input", "weight", "bias") if name in names}
            if given["weight"].shape == self.shape:
                product = Product(func, given["input"].clone(), given["weight"].clone(), (args[3:], names))
                self.found.append(product)
        return func(*args, **(kwargs or {}))
