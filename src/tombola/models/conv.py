"""Conv-2, Conv-4 and Conv-6: small VGGs for CIFAR-10, Frankle & Carbin 2019 (arXiv 1803.03635), figure 2."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tombola.models.chain import convolutional_chain


def conv(input_shape: Sequence[int], classes: int, widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Pairs of 3×3 convolutions with padding 1, a 2×2 max pool after each pair, dense_1, dense_2, output.

    `widths` are the filters of every convolution, then the units of the two dense layers.
    """
    filters, dense = widths[:-2], widths[-2:]
    pairs = [filters[start : start + 2] for start in range(0, len(filters), 2)]
    return convolutional_chain(input_shape, classes, pairs, dense, kernel=3, padding=1, dropout=dropout)
