"""What a sparse model and its chains refuse alike: to learn, to change, to be copied tensor by tensor.

Their weights are arrays that machine code holds addresses of. Torch's ways to store, convert and share modules go
through a module's tensors, would not see these, and would say nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from tombola.errors import KernelError, ModelError

_NO_STATE = (
    "a sparse model has no state_dict: its weights are kept by machine code; write it with save_sparse and read it "
    "with load_sparse, or store or export the dense model with its masks applied"
)

_NOT_HERE = "tombola: the state holds nothing of this module"


class Fixed(nn.Module):
    """A module whose weights are not torch's: always in evaluation mode, without gradients, float32 on the CPU."""

    def train(self, mode: bool = True) -> Fixed:
        if mode:
            raise ModelError("a sparse model does not learn: train the model it was made of and call sparsify again")
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Fixed:
        if requires_grad:
            raise ModelError("a sparse model has no gradients: train the model it was made of and call sparsify again")
        return super().requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Fixed:
        probe = fn(torch.zeros(1, dtype=torch.float32, device="cpu"))
        if probe.dtype is not torch.float32 or not probe.is_cpu:
            raise KernelError("a sparse model is float32 on the CPU; convert the model it was made of, or the input")
        super()._apply(fn, recurse)
        return self

    def share_memory(self) -> NoReturn:
        raise ModelError("a sparse model cannot be shared between processes: call load_sparse in each of them")

    def state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(keywords.get("destination"), _Rest):
            return keywords["destination"]
        raise ModelError(_NO_STATE)

    def load_state_dict(self, *arguments: Any, **keywords: Any) -> NoReturn:
        raise ModelError(_NO_STATE)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *further: Any) -> None:
        if not local_metadata.get(_NOT_HERE):  # else: as a part of a larger model
            raise ModelError(_NO_STATE)

    def __prepare_scriptable__(self) -> NoReturn:
        raise ModelError(
            "a sparse model is machine code, which torch.jit.script cannot read; script the dense model with its masks "
            "applied, masks.apply_(model), instead"
        )


class _Rest(OrderedDict[str, Any]):
    """Where `state_dict` collects the state of what is not fixed."""


def rest_of(network: nn.Module) -> dict[str, Any]:
    """The state of all modules of a network that are not fixed, as `state_dict` names it."""
    rest: dict[str, Any] = network.state_dict(destination=_Rest())
    return rest


def load_rest(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Reads what `rest_of` gave into a network of the same modules; RuntimeError where they are others."""
    own = OrderedDict(state)
    fixed = (name for name, module in network.named_modules() if isinstance(module, Fixed))
    own.__dict__["_metadata"] = {name: {_NOT_HERE: True} for name in fixed}
    network.load_state_dict(own, strict=True)
