"""What all tests share: one thread, the data home, small studies that finish in no time, and finished runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process that tests start would compile all of ours anew
os.environ["COLUMNS"] = "500"  # sentences stay on one line; `tests/cli/test_width.py` looks at how they wrap
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background ignores Ctrl-C, and what it starts inherits that: commands that tests stop must not.
    with contextlib.suppress(ValueError):  # of a thread that is not the main one
        signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings

import forked
import no_time
from finished_runs import Runs
from tombola.pruning import criteria
from tombola.reports import printed
from tombola.runs import executors

ROOT = Path(__file__).parent.parent

settings.register_profile("any machine", deadline=None)  # no test waits on the clock
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _in_no_time() -> Iterator[None]:
    """Most tests are not about speed, figures or Keras, which `no_time` puts stand-ins for."""
    with pytest.MonkeyPatch.context() as patch:
        no_time.stand_in(patch.setattr)
        yield


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes in no time, too: forked, not spawned, with stand-ins."""
    monkeypatch.setattr(executors, "_CONTEXT", forked.FORKS)
    monkeypatch.setattr(executors, "_begin_worker", forked.BeginWorker())


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """SynFlow in 5 rounds instead of its 100, where a test is not about their number."""
    monkeypatch.setitem(criteria._items, "synflow", dataclasses.replace(criteria.get("synflow"), rounds=5))


@pytest.fixture(scope="module")
def real_figures(_in_no_time: None) -> Iterator[None]:
    """Files of figures as users get them, for a module that looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printed, "_drawn", no_time.DRAWN)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, _in_no_time: None) -> Runs:
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
