"""A study that dies at any of its writes, before or after it, continues to the identical end.

Cheaper than killed processes, and therefore everywhere: every kind of file that a run writes is hit, with
several modes of rewinding, early birds and shared trainings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from small_study import SMALL_STUDY, run_lottery
from tombola.models.tensors import content_sha256, load_tensors
from tombola.runs import atomic
from tombola.runs.configs import validate
from tombola.runs.rows import read_rows
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.stability import run_stability

STUDIES = {
    "steps and early birds": {"rewind": ["init", "step:10it"], "early_bird": {"distance": 0.4, "window": 1}},
    "weights that stay": {"rewind": ["lr", "finetune"]},
}
DEATHS = 14


def run(changes: dict[str, Any], out: Path) -> Path:
    study = {**SMALL_STUDY, "checkpoint_seconds": 0, "controls": ["random"], "replicates": 2, **changes}
    study["pruning"] = {"densities": [0.5, 0.2]}
    root = run_lottery(validate(study, LotteryConfig, "study"), out).folder.root
    run_stability(root, 1)
    return root


def contents(root: Path) -> dict[str, Any]:
    """What must be identical: rows without their times, tensors, artefacts, stability."""
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "clock")} for row in read_rows(root / "rows.jsonl")]
    found: dict[str, Any] = {"rows": sorted(json.dumps(row) for row in rows)}
    for path in sorted(root.rglob("*.safetensors")):
        found[str(path.relative_to(root))] = content_sha256(load_tensors(path)[0])
    for path in [root / "results" / "winning_ticket_mask.npy", *sorted((root / "stability").glob("*.json"))]:
        found[path.name] = path.read_bytes()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_that_dies_at_a_write_ends_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    original = Path.replace
    written: list[str] = []

    def counted(self: Path, target: Path) -> Path:
        written.append(target.name)
        return original(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    expected = contents(run(STUDIES[name], tmp_path / "whole"))
    total = len(written)
    assert total > 3 * DEATHS

    def dying(at: int, after: bool) -> Any:
        seen = 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal seen
            seen += 1
            if seen == at and not after:
                raise KeyboardInterrupt
            result = original(self, target)
            if seen == at:
                raise KeyboardInterrupt
            return result

        return replace

    out = tmp_path / "dying"
    deaths = 0
    for number in range(DEATHS):
        # Every life gets some writes further than the one before died; together they cross the whole run.
        monkeypatch.setattr(Path, "replace", dying(1 + total // DEATHS + number % 3, after=number % 2 == 0))
        try:
            run(STUDIES[name], out)
        except KeyboardInterrupt:
            deaths += 1
        atomic.remove_temporaries(out)
    assert deaths > DEATHS // 2
    monkeypatch.setattr(Path, "replace", original)
    assert contents(run(STUDIES[name], out)) == expected
