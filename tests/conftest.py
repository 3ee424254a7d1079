"""What all tests share: one thread, the data home, latency in no time, and studies that write no Keras export."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "500"  # sentences stay on one line; `tests/cli/test_width.py` looks at how they wrap
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background ignores Ctrl-C, and what it starts inherits that: commands that tests stop must not.
    with contextlib.suppress(ValueError):  # of a thread that is not the main one
        signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings
from torch import nn

from finished_runs import Runs
from tombola.compression import latency, measured
from tombola.reports import printed
from tombola.studies.base import timing
from tombola.studies.lottery import artefacts

ROOT = Path(__file__).parent.parent

settings.register_profile("any machine", deadline=None)  # no test waits on the clock
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _latency_in_no_time() -> Iterator[None]:
    """Most tests are not about speed: their studies measure for a moment, on a stand-in for sparse kernels."""

    def stand_in(model: nn.Module, *_: Any) -> nn.Module:
        return copy.deepcopy(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "SECONDS", 0.001)
        patch.setattr(measured, "sparsify", stand_in)
        # A thread that seems to compute twice as fast as the wall's clock goes is never disturbed, however busy it is.
        patch.setattr(latency, "CLOCK", latency.Clock(thread=lambda: 2 * time.perf_counter()))
        yield


@pytest.fixture(scope="session", autouse=True)
def _cost_in_no_time() -> Iterator[None]:
    """A line that says what a new run will cost is timed over a few iterations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "QUICK_SECONDS", 0.0)
        yield


DRAWN = printed._drawn
NO_EXPORT = {"model": None, "difference": None, "reason": "these tests write none", "extra_missing": False}


@pytest.fixture(scope="session", autouse=True)
def _no_keras_exports() -> Iterator[None]:
    """Keras takes seconds to import; what it writes of a study is looked at in `test_keras_study`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "write_keras_ticket", lambda *_: NO_EXPORT)
        yield


@pytest.fixture(scope="session", autouse=True)
def _files_of_figures_in_no_time() -> Iterator[None]:
    """Most of a small study's seconds are matplotlib's: its PNG and SVG files are empty, where nobody looks at them."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printed, "_drawn", lambda *_: Figure(figsize=(1, 1)))
        yield


@pytest.fixture(scope="module")
def real_figures(_files_of_figures_in_no_time: None) -> Iterator[None]:
    """Files of figures as users get them, for a module that looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printed, "_drawn", DRAWN)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, _latency_in_no_time: None, _no_keras_exports: None) -> Runs:
    """Finished runs of every cheap kind; whoever looks at one restores it first."""
    return Runs(tmp_path_factory.mktemp("finished") / "mine")


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
