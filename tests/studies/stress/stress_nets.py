"""Small networks and tasks for tests of the stress study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tombola.data.text import TextTask, tiny_tokenizer
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.subjects.protocols import protocol_tasks
from tombola.training.completions import Completions


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
    """The first two tasks of the diverse protocol, with few items."""
    return protocol_tasks("diverse", 0, count, count)[2:4]


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
