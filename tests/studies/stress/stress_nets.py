"""Small networks and tasks for tests of the stress study."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import nn

import forked
from finished_runs import files_of, invoke
from tombola.data.text import TextTask, tiny_tokenizer
from tombola.data.text.generated import arithmetic
from tombola.data.text.written import written
from tombola.runs.rows import Row, read_rows
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.living import looking
from tombola.studies.stress.subjects import curriculum, protocols
from tombola.training.completions import Completions

NAMED = ("pruning_stress_results.json", "experiment_summaries.json")
"""Where users of stress evaluations look for numbers."""


def gpt2(heads: int = 4, layers: int = 2) -> Any:
    """A GPT-2 of width 32 with weights large enough that every head matters."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": layers, "n_head": heads, "vocab_size": 512, "n_positions": 80}
    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"))
    model: nn.Module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **none, **ends))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def texts(count: int = 16) -> list[TextTask]:
    """Two tasks of the diverse protocol, with few items."""
    return [written("names", 0, count, count), arithmetic(0, count, count)]


def completions(count: int = 16) -> Completions:
    """Names, as the tiny model's tokens."""
    return Completions.of(texts(count)[0], tiny_tokenizer())


def model_folder(root: Path) -> Path:
    """A folder as transformers saves a model, without a tokenizer."""
    gpt2().save_pretrained(root / "small-gpt2")
    return root / "small-gpt2"


def own_tasks(root: Path, count: int = 16) -> Path:
    """A file of two small tasks."""
    lines = [
        {"task": task.name[:4], "prompt": item.prompt, "completion": item.completion, "split": part}
        for task in texts(count)
        for part, items in (("train", task.train), ("held_out", task.held_out))
        for item in items
    ]
    path = root / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def small_config(root: Path, **others: Any) -> StressConfig:
    """A study of two tasks and two cycles that takes seconds."""
    asked: dict[str, Any] = {
        "model": (str(model_folder(root)),),
        "tasks": own_tasks(root),
        "cycles": 2,
        "levels": (0.4,),
        "draws": 2,
        "quick": True,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "device": "cpu",
    }
    return StressConfig(**{**asked, **others})


def shorten(replace: Callable[[Any, str, Any], object]) -> None:
    """Quick studies become quicker: two tasks of 16 items in the diverse protocol, and a probe of two steps."""
    replace(looking, "QUICK_PROBE_STEPS", 2)
    replace(curriculum, "QUICK_TRAIN", 16)
    replace(curriculum, "QUICK_HELD_OUT", 16)
    replace(protocols, "PROTOCOLS", {**protocols.PROTOCOLS, "diverse": ("german", "names")})


def shorten_here() -> None:
    """In a process of its own."""
    shorten(setattr)


class BeginShortWorker(forked.BeginWorker):
    """Begins a worker process in which quick studies are shortened."""

    def __call__(self, channel: Any, stop: Any, parent: int) -> None:
        super().__call__(channel, stop, parent)
        shorten_here()


def rows_of_run(folder: Path) -> list[Row]:
    """In the order of the table, without what was measured with a clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(folder / "rows.jsonl")]


def journals_of_run(folder: Path) -> dict[str, list[Row]]:
    """Every entropy journal without the times of its lines."""
    found = {}
    for path in sorted(folder.glob("*/entropy_tracking/entropy_journal.jsonl")):
        lines = map(json.loads, path.read_text().splitlines())
        found[path.parent.parent.name] = [{k: v for k, v in line.items() if k != "timestamp"} for line in lines]
    return found


def assert_same(run: Path, other: Path) -> None:
    """All that must not hang on how a study came to its end."""
    ours, theirs = ([json.dumps(row, sort_keys=True) for row in rows_of_run(one)] for one in (run, other))
    assert sorted(ours) == sorted(theirs)
    assert journals_of_run(run) == journals_of_run(other)
    for name in NAMED:
        assert json.loads((run / name).read_text()) == json.loads((other / name).read_text())
    assert files_of(run).keys() == files_of(other).keys()


OTHERS: dict[str, Any] = {"quick": True, "batch_size": 8, "learning_rate": 0.03}
"""So that a few steps teach and make forget beyond noise."""


@dataclass(frozen=True)
class Evaluated:
    """A folder of a finished study, what Python was given of it, and the command that asks for the same."""

    model: Path
    folder: Path
    result: dict[str, Any]

    def arguments(self, folder: Path, *more: object) -> list[object]:
        asked = ("--model", self.model, "--strategies", "entropy", "--levels", "0.4", "--cycles", 2)
        asked += ("--epochs", 2, "--quick")
        ways = ("--set", "batch_size=8", "--set", "learning_rate=0.03", "--device", "cpu", "--output_dir", folder)
        return ["stress", *asked, *ways, *more]

    def command(self, folder: Path, *more: object) -> Result:
        """The same study in `folder`: begun, continued, extended or shown."""
        return invoke(*self.arguments(folder, *([] if "--workers" in more else ["--workers", 1]), *more))
