"""A layer as sparse kernels take it: kept weights, their places, a bias, perhaps a ReLU. Linear or a convolution.

Batch norm is folded into weights and bias here. How layers lie in a model is `chains`, how they run `plans`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.kernels.packing import Floats

Doubles = NDArray[np.float64]

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Modules that give their input unchanged in evaluation."""


@dataclass(frozen=True, eq=False)
class Layer:
    """y = W x + bias, then max(·, 0) where `relu`.

    W has `shape` (outputs, inputs), or (outputs, inputs of a group, height, width) in a convolution; `bits` says which
    of its weights are kept (`numpy.packbits`, row by row) and `values` holds these in the same order. A kept weight
    may be 0.
    """

    name: str
    shape: tuple[int, ...]
    bits: NDArray[np.uint8]
    values: Floats
    bias: Floats
    relu: bool = False

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def inputs(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def density(self) -> float:
        return len(self.values) / (self.outputs * self.inputs)

    def keep(self) -> NDArray[np.bool_]:
        """The mask, of the layer's shape."""
        flat = np.unpackbits(self.bits, count=self.outputs * self.inputs)
        return flat.view(np.bool_).reshape(self.shape)

    def matrix(self) -> Floats:
        """The dense weights, removed ones 0; aligned as torch's own, which is worth a tenth."""
        matrix: Floats = torch.zeros(self.shape, dtype=torch.float32, device="cpu").numpy()
        matrix[self.keep()] = self.values
        return matrix


def layer_of(name: str, module: nn.Linear | nn.Conv2d, keep: Tensor | None) -> Layer:
    """The layer of a module in float32 on the CPU; without a mask all its weights are kept."""
    weight = module.weight.detach()
    kept = torch.ones(weight.shape, dtype=torch.bool) if keep is None else keep.cpu()
    bias = torch.zeros(len(weight), dtype=torch.float32) if module.bias is None else module.bias.detach()
    values = weight[kept].numpy().copy()
    return Layer(name, tuple(weight.shape), np.packbits(kept.numpy()), values, bias.numpy().copy())


@dataclass(frozen=True, eq=False)
class Affine:
    """x · scale + shift, feature by feature or channel by channel: batch norm with stored statistics."""

    scale: Doubles
    shift: Doubles


def affine_of(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Affine:
    """(x - mean) / sqrt(variance + eps) · weight + bias, in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return Affine(scale.numpy(), shift.numpy())


def norm_after(layer: Layer, norm: Affine) -> Layer:
    """The layer that does both, `norm` second: s (W x + b) + t = (s W) x + (s b + t)."""
    per_row = layer.keep().reshape(layer.outputs, -1).sum(1)
    values = layer.values * np.repeat(norm.scale, per_row)
    return replace(layer, values=_single(values), bias=_single(layer.bias * norm.scale + norm.shift))


def norm_before(norm: Affine, layer: Layer) -> Layer:
    """The layer that does both, `norm` first: W (s x + t) + b = (W s) x + (W t + b)."""
    rows, columns = np.nonzero(layer.keep())
    constant = np.bincount(rows, weights=layer.values * norm.shift[columns], minlength=layer.outputs)
    return replace(layer, values=_single(layer.values * norm.scale[columns]), bias=_single(layer.bias + constant))


def _single(numbers: NDArray[np.floating]) -> Floats:
    return np.ascontiguousarray(numbers, dtype=np.float32)
