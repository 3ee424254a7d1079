"""Parents that several modules share, none of whose tests changes a parent's folder; and latency in no time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from small_models import CONVOLUTIONAL, make_parent
from tombola.compression import measured, runtime


@pytest.fixture(scope="session", autouse=True)
def _latency_in_no_time() -> Iterator[None]:
    """Most tests are not about speed: their studies measure for a moment, on a stand-in for sparse kernels."""

    def stand_in(model: nn.Module, *_: Any) -> nn.Module:
        return copy.deepcopy(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "SECONDS", 0.001)
        patch.setattr(measured, "sparsify", stand_in)
        yield


@pytest.fixture(scope="module")
def sparse_kernels() -> Iterator[None]:
    """The real ones, for a module that asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "sparsify", runtime.sparsify)
        yield


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_parent(tmp_path_factory.mktemp("parents")).folder


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_parent(tmp_path_factory.mktemp("parents"), **CONVOLUTIONAL).folder
