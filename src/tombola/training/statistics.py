"""Re-estimating what batch norm knows of its inputs, for a network whose weights were changed by other than training.

After masking, rewinding or interpolating weights the stored means and variances belong to another network.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.data import DataSet
from tombola.errors import TrainingError
from tombola.pruning.criteria.batches import call
from tombola.training.classification import as_task
from tombola.training.device import device_of
from tombola.training.task import Task

BATCH = 500
"""Examples per forward pass: enough for a variance, few enough for the memory of a convolution."""


def reestimate_statistics(model: nn.Module, data: DataSet | Task, count: int, batch: int = BATCH) -> None:
    """Sets every batch norm's running mean and variance to their plain averages over forward passes.

    The passes go through the first `count` training examples in order, `batch` of them at a time (the rest is spread
    over the passes, so that none is too small for a variance), dropout off. Parameters, modes and momenta stay as they
    are, and a model without batch norm is not run at all. Of a model in training mode, batch norms that were frozen by
    `eval()` keep what they know. Raises TrainingError for less than two examples a pass.
    """
    found = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in found if norm.running_mean is not None and norm.training >= model.training]
    if not norms:
        return
    task = as_task(data).on(device_of(model))
    if (fewest := min(batch, count, task.count("train"))) < 2:
        raise TrainingError(f"statistics need two examples a pass, not {fewest}")
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a plain average
            norm.train()
        with torch.no_grad():
            for inputs in task.inputs(count, batch):
                call(model, inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
