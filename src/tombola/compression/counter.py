"""FLOPs of one forward pass, counted operation by operation on a copy of the model that has no memory.

The copy is on the meta device: shapes without numbers. Nothing of the model itself is run, read or moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tombola.compression.fast_path import leave_fast_path
from tombola.errors import ModelError, one_line_by_name
from tombola.pruning.copies import copy_of
from tombola.pruning.surroundings import surroundings_kept
from tombola.pruning.untouched import left_alone


class Counter(FlopCounterMode):
    """Counts `dense` FLOPs, and of these what removed weights `saved`, by parameter id -> boolean tensor of the kept.

    An operation takes every number of a weight equally often, so the removed fraction of what it takes of a weight is
    the fraction that it saves. What is made of a weight first, such as a copy in another type, is another tensor: the
    parameters that no operation took itself are missing in `taken`.
    """

    def __init__(self, keeps: Mapping[int, Tensor]) -> None:
        super().__init__(display=False)
        self._keeps = keeps
        self.dense, self.saved = 0, 0.0
        self.taken: set[int] = set()

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if func_packet in self.flop_registry:
            flops = self.flop_registry[func_packet](*args, **kwargs, out_val=out)
            self.dense += flops
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, Tensor) and (keep := self._keeps.get(_memory(tensor))) is not None:
                    self.taken.add(_memory(tensor))
                    part = keep.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
                    self.saved += flops * (1 - float(part.sum()) / max(1, part.numel()))
        return super()._count_flops(func_packet, out, args, kwargs)


def counted(
    model: nn.Module, keeps: Mapping[str, Tensor], input_shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> tuple[Counter, set[str]]:
    """A counter after one example's forward pass in evaluation, and the names in `keeps` that no operation took.

    ModelError in one line for a model that cannot be copied, or does not run on such an input or without numbers.
    """
    example = torch.empty(1, *input_shape, device="meta", dtype=dtype)
    try:
        return _counted(model, keeps, example, contextlib.nullcontext())
    except ModelError:
        raise
    except Exception as error:  # anybody's model may raise anything
        # Tensors that a forward pass makes itself (positions, masks, a first state) lie on the CPU by default.
        with contextlib.suppress(Exception):
            return _counted(model, keeps, example, torch.device("meta"))
        raise ModelError(
            f"FLOPs are counted on a copy of the model without numbers (on torch's meta device), and it does not run "
            f"there on an input of shape {(1, *input_shape)}: {one_line_by_name(error)}"
        ) from error


def _counted(
    model: nn.Module, keeps: Mapping[str, Tensor], example: Tensor, making: AbstractContextManager[Any]
) -> tuple[Counter, set[str]]:
    """As `counted`; tensors that the forward pass makes are made within `making`."""
    shadow = copy_of(model, convert=_without_numbers).eval()
    leave_fast_path(shadow)  # nested tensors have no shapes without numbers
    parameters = dict(shadow.named_parameters(remove_duplicate=False))
    by_memory = {_memory(parameters[name]): name for name in keeps}
    counter = Counter({memory: keeps[name].cpu().contiguous() for memory, name in by_memory.items()})
    with surroundings_kept(), left_alone(model), torch.no_grad(), counter, making:
        shadow(example)
    return counter, {name for memory, name in by_memory.items() if memory not in counter.taken}


def _without_numbers(tensor: Tensor) -> Tensor:
    """Contiguous whatever the original is, so that masks lie as it does."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _memory(tensor: Tensor) -> int:
    """Which memory a tensor is of: the same for all its views."""
    return tensor.untyped_storage()._cdata
