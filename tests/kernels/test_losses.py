"""The gradient of the cross-entropy on a panel, against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fenced_arrays import Fences, address
from hypothesis import given, settings
from hypothesis import strategies as st
from small_matrices import BATCHES, padded

from tombola.kernels.compiler import compiled
from tombola.kernels.losses import CROSS_ENTROPY_GRADIENT
from tombola.kernels.target import Target


@settings(max_examples=60)
@given(
    count=st.sampled_from(BATCHES),
    classes=st.integers(1, 20),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 99),
    at_end=st.booleans(),
)
def test_is_that_of_torch(target: Target, count: int, classes: int, scale: float, seed: int, at_end: bool) -> None:
    random, fences, width = np.random.default_rng(seed), Fences(at_end), padded(count, target.lanes)
    logits = (scale * random.standard_normal((classes, width))).astype(np.float32)
    every = random.integers(0, classes, 50)
    chosen = random.integers(0, 50, count)
    positions, targets, z, delta = *map(fences.given, (chosen, every, logits)), fences.room((classes, width))
    compiled(CROSS_ENTROPY_GRADIENT, target).call(
        address(positions), address(targets), count, classes, address(z), address(delta), width
    )
    fences.check()
    exact = torch.tensor(logits[:, :count].T.astype(np.float64), requires_grad=True)
    torch.nn.functional.cross_entropy(exact, torch.tensor(every[chosen])).backward()
    assert exact.grad is not None
    assert np.abs(delta[:, :count].T - exact.grad.numpy()).max() <= 4e-7 / count * (1 + classes / 10)
    assert (delta[:, count:] == 0).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_no_number_stays_none(target: Target, strange: float) -> None:
    """A training that diverges has to be seen."""
    width = target.lanes
    logits, delta = np.zeros((3, width), np.float32), np.zeros((3, width), np.float32)
    logits[1, 0] = strange
    positions, targets = np.arange(width), np.zeros(width, np.int64)
    compiled(CROSS_ENTROPY_GRADIENT, target).call(
        address(positions), address(targets), width, 3, address(logits), address(delta), width
    )
    assert np.isnan(delta[1, 0])
    assert np.isfinite(delta[:, 1:]).all()
