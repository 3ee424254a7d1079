"""One finished stress study that several modules look at, made as users of Python make it."""

from __future__ import annotations

import pytest
from stress_nets import OTHERS, Evaluated, model_folder, shorten

from tombola.studies.stress.evaluator import PruningStressEvaluator


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory, _in_no_time: None) -> Evaluated:
    root = tmp_path_factory.mktemp("evaluated")
    model = model_folder(root)
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch.setattr)
        evaluator = PruningStressEvaluator(str(model), ["entropy"], [0.4], root / "out", "cpu", 42)
        found = evaluator.run_evaluation("diverse", cycles=2, epochs_per_task=2, **OTHERS)
    return Evaluated(model, root / "out", found)


@pytest.fixture
def evaluated(_made: Evaluated, monkeypatch: pytest.MonkeyPatch) -> Evaluated:
    """The study; its folder is not to be changed. Studies of the test are as short."""
    shorten(monkeypatch.setattr)
    return _made
