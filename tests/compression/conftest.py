"""The fences around arrays that the tests of kernels have, for whole networks, too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tombola.compression import sparse_modules
from tombola.compression.plans import Plan

sys.path.append(str(Path(__file__).parent.parent / "kernels"))


@pytest.fixture
def same_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a size that was not tuned go by the first plan. Measured, two copies of a graph may choose differently
    on a busy machine, and then agree up to rounding only."""

    def first(arrays: object, plans: Sequence[Plan], x: object) -> Plan:
        return plans[0]

    monkeypatch.setattr(sparse_modules, "best_of", first)
