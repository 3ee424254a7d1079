"""How Keras lays out what torch lays out otherwise: kernels, and images that are flattened. Both ways.

Torch keeps images as (channels, height, width), Keras as (height, width, channels). A dense layer on a flattened
image therefore meets its inputs in another order: its columns are permuted with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def flattened_channels(model: nn.Sequential, input_shape: Sequence[int]) -> dict[str, int]:
    """How many channels the inputs of each Linear layer of `model` had before they were flattened, by layer name.

    `input_shape` is without the batch: (channels, height, width), or (features,). Inputs that never were an image
    have as many channels as features.
    """
    channels, found = input_shape[0], {}
    for name, module in model.named_children():
        if isinstance(module, nn.Linear):
            found[name] = channels
            channels = module.out_features
        elif isinstance(module, nn.Conv2d):
            channels = module.out_channels
    return found


def to_keras(weight: Tensor, channels: int | None = None) -> Tensor:
    """A torch weight as a Keras kernel, or a mask likewise: (out, in, height, width) -> (height, width, in, out).

    That of a Linear layer, (out, in) -> (in, out), wants its `flattened_channels`.
    """
    if channels is None:
        return weight.permute(2, 3, 1, 0)
    return weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1).T


def from_keras(kernel: Tensor, channels: int | None = None) -> Tensor:
    """The inverse of `to_keras`."""
    if channels is None:
        return kernel.permute(3, 2, 0, 1).contiguous()
    return kernel.T.unflatten(1, (-1, channels)).transpose(1, 2).flatten(1)
