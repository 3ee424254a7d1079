"""What a model's code may change around it, and what must stay: random numbers, torch's switches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.backends import cudnn

from tombola.pruning.wrapped import eager


@contextlib.contextmanager
def surroundings_kept() -> Iterator[None]:
    """Within the block somebody's model may run; afterwards all is as it was, as after `put_back`.

    Within the block nothing is compiled, and attention takes the path that it takes in training: the fast path of
    evaluation passes by the layers whose inputs and gradients are looked at.
    """
    with put_back(), eager():
        torch.backends.mha.set_fastpath_enabled(False)
        yield


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """After the block, also after an exception, what somebody's model may have changed is as it was.

    That is the random states of torch (all devices in use), numpy and Python, the default type of tensors, whether
    gradients are on, cuDNN's switches and that of attention's fast path. Within the block all is as it is outside.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    of_numpy, of_python = np.random.get_state(), random.getstate()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    switches = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = switches
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
