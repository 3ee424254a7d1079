"""The layers of the sparse engine for a chain, and how activations lie between them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tombola.errors import TrainingError
from tombola.kernels.target import host
from tombola.kernels.windows import Panel, Window
from tombola.training.sparse.activations import panel_of
from tombola.training.sparse.chain import Link
from tombola.training.sparse.convolution import ConvLayer, padding_of_gradient
from tombola.training.sparse.layer import Layer
from tombola.training.sparse.layers import DenseLayer, SparseLayer


def build_layers(
    chain: Sequence[Link], sparse: Sequence[bool], keeps: Sequence[Tensor], shape: Sequence[int]
) -> list[Layer]:
    """A layer for each link, dense ones on kernels where `sparse` says so; `keeps` are their masks.

    Examples are of `shape`. Raises TrainingError where a chain of convolutions cannot take them.
    """
    windows = [link.window for link in chain if link.window is not None]
    panels = _panels(chain, windows, shape) if windows else []
    layers: list[Layer] = []
    for number, (link, on_kernels, keep) in enumerate(zip(chain, sparse, keeps, strict=True)):
        module, relu = link.module, link is not chain[-1]
        if link.window is not None:
            assert isinstance(module, nn.Conv2d)
            last = number == len(windows) - 1
            layers.append(ConvLayer(module, keep, link.window, panels[number], panels[number + 1], last))
        else:
            assert isinstance(module, nn.Linear)
            layers.append(SparseLayer(module, keep, relu) if on_kernels else DenseLayer(module, keep, relu))
    return layers


def _panels(chain: Sequence[Link], windows: Sequence[Window], shape: Sequence[int]) -> list[Panel]:
    """How the inputs of every convolution lie, then the results of the last."""
    convolutions = [link.module for link in chain[: len(windows)]]
    if len(shape) != 3 or shape[0] != convolutions[0].weight.shape[1]:
        raise _misfit(shape)
    channels = [shape[0], *(len(convolution.weight) for convolution in convolutions)]
    sizes = [(shape[1], shape[2])]
    for window in windows:
        sizes.append(window.outputs(*sizes[-1]))
    height, width = sizes[-1]
    if (
        min(min(size) for size in sizes) < 1
        or channels[-1] * height * width != chain[len(windows)].module.weight.shape[1]
    ):
        raise _misfit(shape)
    lanes = host().lanes
    panels = []
    for number, (count, size) in enumerate(zip(channels, sizes, strict=True)):
        border = max(windows[number].padding) if number < len(windows) else 0
        if 1 < number < len(windows) and windows[number - 1].pool == 1:
            # The gradient lies like these inputs, and is itself looked at on a border.
            border = max(border, *padding_of_gradient(windows[number - 1]))
        as_they_come_in = number == 0 and border == 0  # nothing has to be moved
        panel = Panel(count, *size, border, lanes)
        panels.append(panel if as_they_come_in else panel_of(count, *size, border, lanes))
    return panels


def _misfit(shape: Sequence[int]) -> TrainingError:
    return TrainingError(f"inputs of shape {tuple(shape)} do not fit the convolutions and dense layers of the network")
