"""Every family through the units of a cell: pruned, taught, looked at, and left as a folder that loads again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stress_nets import own_tasks, shorten

from small_language_models import FAMILIES, logits, small_model
from tombola.models.causal.pruned import load_pruned_language_model
from tombola.runs.rows import rows_of
from tombola.studies.base.work import Finished, unit_rows
from tombola.studies.stress.cells import CellKey
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.living.cell import CellSpec
from tombola.studies.stress.living.keeping import MODEL
from tombola.studies.stress.living.life import live
from tombola.studies.stress.living.state import State
from tombola.studies.stress.subjects.networks import open_subject

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch.setattr)
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task."""
    path = own_tasks(tmp_path_factory.mktemp("tasks"))
    path.write_text("\n".join(path.read_text().splitlines()[:32]))
    return path


class Lived:
    """One cycle in the life of a small model of a family, and what it left."""

    def __init__(self, family: str, root: Path, tasks: Path, strategy: str, level: float, **others: Any) -> None:
        small_model(family, vocab_size=512, **others.pop("sizes", {})).save_pretrained(root / "model")
        ways: dict[str, Any] = {"quick": True, "cycles": 1, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"}
        config = StressConfig(
            model=(str(root / "model"),), tasks=tasks, save_models=True, function=False, **ways, **others
        )
        self.subject = open_subject(config.model[0], True)
        key = CellKey("model", strategy, level)
        self.spec = CellSpec(config, key, config.model[0], root / "checkpoints", self.subject.loaded.sha256)
        live(self.spec, self._keep)
        self.rows = [row for unit in range(3) for row in unit_rows(self.spec.unit(unit))]
        self.lines = [json.loads(line) for line in self.spec.journal(1).read_text().splitlines()]
        (self.pruned,) = rows_of(self.rows, kind="pruned")
        self.folder = self.spec.home / MODEL

    def _keep(self, event: Any) -> None:
        """The network as it is at its end, masked; its file goes then."""
        if isinstance(event, Finished) and event.path == self.spec.unit(2):
            self.masked = State.load(self.spec.state(2), self.subject.network()).network

    def assert_same_outputs(self, smaller: Any) -> None:
        ids = torch.randint(3, 512, (3, 20), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(logits(smaller, ids), logits(self.masked, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_taught_and_saved(family: str, tmp_path: Path, tasks: Path) -> None:
    lived = Lived(family, tmp_path, tasks, "entropy", 0.4)
    assert lived.pruned["units_removed"] == round(0.4 * 8) == 8 - sum(lived.pruned["kept_by_layer"])
    assert lived.pruned["check_exact"]
    assert lived.pruned["check_changed"]
    assert lived.pruned["nats_after"] != lived.pruned["nats_before"]
    assert lived.pruned["parameters_removed"] > 0
    assert lived.pruned["removal_error"] < 1e-4
    assert [row["check_held"] for row in rows_of(lived.rows, kind="phase")] == [True]
    assert all(0 < row["entropy"] <= 1 for row in rows_of(lived.rows, kind="state"))
    assert len(lived.lines) == 2 * 8  # steps, heads
    assert all(0 < line["entropy"] <= 1 for line in lived.lines)
    assert sum(line["gate_value"] == 0 for line in lived.lines) == 2 * 3
    smaller = load_pruned_language_model(lived.folder)
    lived.assert_same_outputs(smaller)
    assert (
        sum(p.numel() for p in smaller.parameters()) == lived.pruned["parameters"] - lived.pruned["parameters_removed"]
    )


def test_equal_layers_need_no_tombola(tmp_path: Path, tasks: Path) -> None:
    sizes = {"num_key_value_heads": 4}
    lived = Lived("llama", tmp_path, tasks, "magnitude", 0.5, equal=True, sizes=sizes)
    assert lived.pruned["kept_by_layer"] == [2, 2]
    smaller = transformers.AutoModelForCausalLM.from_pretrained(lived.folder)
    assert smaller.config.num_attention_heads == 2
    lived.assert_same_outputs(smaller.eval())
    assert transformers.AutoTokenizer.from_pretrained(lived.folder)("ab")["input_ids"]
