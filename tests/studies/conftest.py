"""Parents that several modules share, none of whose tests changes a parent's folder; and real sparse kernels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from small_models import CONVOLUTIONAL, make_parent
from tombola.compression import measured, runtime


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
