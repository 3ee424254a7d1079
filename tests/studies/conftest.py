"""Parents that several modules share; none of their tests changes a parent's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_models import CONVOLUTIONAL, make_parent


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_parent(tmp_path_factory.mktemp("parents")).folder


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_parent(tmp_path_factory.mktemp("parents"), **CONVOLUTIONAL).folder
