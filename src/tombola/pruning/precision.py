"""Numbers of more bits than some device has."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices that have no numbers of 64 bits."""


def has_float64(device: torch.device) -> bool:
    """Whether the device has numbers of 64 bits."""
    return device.type not in WITHOUT_FLOAT64


def where_float64_is(tensor: Tensor) -> Tensor:
    """The tensor, on the CPU where its device has no numbers of 64 bits."""
    return tensor if has_float64(tensor.device) else tensor.cpu()
