"""Cells for the executor's tests, in a module of their own that worker processes import quickly."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from tombola.errors import DataError, RunFailure
from tombola.runs.executors import Emit


def squares(spec: int, emit: Emit) -> None:
    for power in (1, 2, 3):
        emit((spec, spec**power))


def threads(spec: int, emit: Emit) -> None:
    emit((os.getpid(), os.environ.get("OMP_NUM_THREADS")))


def fails_or_runs_on(folder: Path | None, emit: Emit) -> None:
    """Without a folder: fails once the sibling works. With one: emits until stopped, and says how it ended."""
    if folder is None:
        time.sleep(0.3)
        raise DataError("the cell found bad data")
    for number in range(600):
        emit(number)
        time.sleep(0.05)
    (folder / "ran to its end").touch()


def dies(spec: Any, emit: Emit) -> None:
    emit("alive")
    if spec == "die":
        os._exit(9)
    time.sleep(0.2)


def fails_or_computes(fails: bool, emit: Emit) -> None:
    """Fails once its sibling is in a native call of minutes, or is that sibling."""
    if fails:
        time.sleep(0.3)
        raise RunFailure("the sibling failed")
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
