"""Torch's fused transformer layers, which read weights past the modules that hold them, and how to leave them."""

from __future__ import annotations

from torch import nn


def leave_fast_path(network: nn.Module) -> None:
    """Makes transformer layers call their Linear modules, on tensors that are padded and not nested."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
