"""What several test modules share: one thread, and the data home."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data_home_with_mnist() -> Path:
    """The data home, when real MNIST is there."""
    home = Path(os.environ.get("TOMBOLA_DATA", ROOT.parent / "shared" / "data"))
    if not (home / "mnist" / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("no MNIST: point TOMBOLA_DATA at a folder that holds mnist/")
    return home
