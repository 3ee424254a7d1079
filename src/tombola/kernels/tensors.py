"""Which tensors machine code may read and write: real, dense numbers of the CPU with memory behind all of them.

A kernel takes an address and believes it. Whoever calls one asks here first, in one of two ways: `address_of` is fast
and gives None for whatever is not plainly readable; `readable` makes such a tensor plain where that changes no number,
and says why not otherwise. Traces, exports and transforms follow torch's operations and see nothing of a kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from tombola.errors import KernelError

INSTEAD = "export or transform the dense model with its masks applied, masks.apply_(model), instead"
"""What to do where a sparse model is recorded or transformed."""
_PLAIN_TYPES = (Tensor, nn.Parameter)


def _keys_of(tensor: Tensor) -> int:
    """What torch does with a tensor, as bits: device, layout, wrappers, pending negation and the like."""
    keys: int = torch._C._dispatch_keys(tensor).raw_repr()
    return keys


def _plain_keys() -> frozenset[int]:
    """Those of real dense tensors of the CPU, made under inference mode or not."""
    keys = set()
    for inference in (False, True):
        with torch.inference_mode(inference):
            keys.add(_keys_of(torch.empty(0, device="cpu")))
    return frozenset(keys)


_PLAIN_KEYS = _plain_keys()


def address_of(tensor: Tensor) -> int | None:
    """Where the numbers of a float32 tensor lie one after the other; None where a kernel must not look there.

    Takes one to two microseconds. What gets None may still be made `readable`.
    """
    if type(tensor) not in _PLAIN_TYPES or _len_torch_function_stack() or _len_torch_dispatch_stack():
        return None
    try:
        plain = (
            _get_tracing_state() is None
            and tensor.dtype is torch.float32
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and not tensor.is_nested
            and tensor.is_contiguous()
            and not tensor.is_neg()
            and not (tensor.requires_grad and torch.is_grad_enabled())
            and forward_ad._current_level < 0
            and 4 * tensor.storage_offset() + tensor.nbytes <= tensor.untyped_storage().nbytes()
        )
        address = tensor.data_ptr() if plain else 1
        if not address and tensor.nbytes:  # a wrapper around another tensor
            return None
    except RuntimeError:  # tensors without memory, such as those inside of vmap, and nested ones
        return None
    return None if address % 4 else address


def readable(tensor: Any, name: str) -> Tensor:
    """The same numbers as a tensor that `address_of` takes: itself, or a copy of other strides.

    Raises KernelError, which begins with `name`, for what is no real dense float32 tensor of the CPU with memory behind
    all of it, for one whose gradient would be lost, and while torch records or transforms what is called.
    """
    reason = _why_recorded() or _why_no_numbers(tensor) or _why_no_gradient(tensor)
    if reason is not None:
        raise KernelError(f"{name}: {reason}")
    with torch.no_grad():
        plain: Tensor = tensor.detach().resolve_neg().contiguous()
        return plain.clone() if plain.data_ptr() % 4 else plain


def _why_recorded() -> str | None:
    """Why calls are no real ones now; None where they are."""
    if _get_tracing_state() is not None:
        return f"sparse kernels are machine code, which torch.jit.trace and ONNX export cannot follow; {INSTEAD}"
    modes = [mode for mode in _get_current_function_mode_stack() if not isinstance(mode, DeviceContext)]
    modes += torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    if modes:
        kind = type(modes[-1]).__name__
        return f"sparse kernels are machine code, of which {kind} would see nothing; {INSTEAD}, or leave the mode"
    return None


def _why_no_numbers(tensor: Any) -> str | None:
    """Why a tensor is not one of real numbers on the CPU with memory behind them; None where it is."""
    if type(tensor) not in _PLAIN_TYPES:
        return f"sparse kernels take a plain torch.Tensor, not a {type(tensor).__name__}; {INSTEAD}"
    if tensor.device.type != "cpu" or tensor.dtype is not torch.float32:
        return (
            f"sparse kernels take torch.float32 on the CPU, not {tensor.dtype} on {tensor.device}; "
            "convert it: input.to('cpu', torch.float32)"
        )
    if tensor.is_nested or tensor.layout is not torch.strided:
        kind = "nested" if tensor.is_nested else tensor.layout
        return f"sparse kernels take dense tensors, not {kind} ones; give a padded or dense one: input.to_dense()"
    keys = torch._C._dispatch_keys(tensor)
    if keys.remove(torch._C.DispatchKey.Negative).raw_repr() not in _PLAIN_KEYS:
        return f"sparse kernels are machine code, which vmap, grad and other transforms cannot follow; {INSTEAD}"
    if (held := cut_to(tensor)) is not None:
        return f"the input's memory was freed or cut to {held} bytes; fill it again before the call"
    return None


def cut_to(tensor: Tensor) -> int | None:
    """How many bytes are left to a strided tensor whose memory was freed or cut; None where all of it is there."""
    if not tensor.numel():
        return None
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    held = tensor.untyped_storage().nbytes()
    return held if tensor.element_size() * (tensor.storage_offset() + last + 1) > held else None


def _why_no_gradient(tensor: Tensor) -> str | None:
    if tensor.requires_grad and torch.is_grad_enabled():
        return "sparse kernels give no gradients; call under torch.no_grad(), or detach the input"
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        return "sparse kernels give no gradients, forward ones neither; give the primal tensor alone"
    return None
