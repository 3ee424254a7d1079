"""LeNet-5, the convolutional LeNet: LeCun et al. 1998 with ReLU and max pools, as pruning papers use it.

Its 5×5 convolutions are not padded, so 28×28 images go in as they are and not on a 32×32 canvas. The wider one
of Caffe's examples, pruned by Han et al. 2015 (arXiv 1506.02626) and many since, differs in its widths only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tombola.models.chain import convolutional_chain


def lenet5(input_shape: Sequence[int], classes: int, widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """conv_1, pool_1, conv_2, pool_2, then a dense layer per further width, then output."""
    first, second, *dense = widths
    return convolutional_chain(input_shape, classes, [[first], [second]], dense, kernel=5, padding=0, dropout=dropout)
