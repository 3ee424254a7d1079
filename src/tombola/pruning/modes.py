"""A model's modes: evaluation for a while, and every module's own mode back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def evaluation_mode(model: nn.Module, *, batch_statistics: bool = False) -> Iterator[None]:
    """The model in evaluation mode, with gradients on: no dropout, stored batch-norm statistics.

    With `batch_statistics` batch norms go by the batch at hand, as an untrained network must, whose stored ones say
    nothing: for copies (`copies.copy_of`), since statistics are stored then.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for module in modes:
            if batch_statistics and isinstance(module, _BatchNorm):
                module.training = True
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
