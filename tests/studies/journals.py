"""Entropy journals, made up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TASKS = ("names", "verse", "code")


def entry(**other: Any) -> dict[str, Any]:
    """One entry of a journal."""
    return {
        "cycle_idx": 0,
        "cycle_name": "cycle 0",
        "layer_idx": 0,
        "head_idx": 0,
        "entropy": 0.5,
        "gate_value": 1.0,
        "timestamp": 1_700_000_000.0,
        "meta_step": 0,
        "meta_seed": 0,
        "meta_draw": 0,
        "meta_remedy": "none",
        "meta_model": "tiny",
        "meta_task": None,
        "meta_phase": 0,
    } | other


def entries(seeds: int = 3, cycles: int = 2, layers: int = 2, heads: int = 4, gap: int = 1) -> Iterator[dict[str, Any]]:
    """Head (0, 0) grows wider by 0.2 a cycle, (0, 1) narrower by 0.1; (1, 3) is removed; `code` adds 0.05 to all.

    Entropy is taken four times a phase, every `gap` steps.
    """
    change = {(0, 0): 0.2, (0, 1): -0.1}
    for seed in range(seeds):
        for phase in range(1 + cycles * len(TASKS)):
            cycle = 0 if phase == 0 else (phase - 1) // len(TASKS)
            task = None if phase == 0 else TASKS[(phase - 1) % len(TASKS)]
            for step in range(4):
                for layer in range(layers):
                    for head in range(heads):
                        value = 0.3 + 0.05 * layer + 0.02 * head + cycle * change.get((layer, head), 0.0)
                        value += 0.05 * (task == "code") + 0.001 * seed * (cycle + 1) + 0.004 * math.sin(step + head)
                        yield entry(
                            cycle_idx=cycle,
                            cycle_name=f"cycle {cycle + 1}",
                            layer_idx=layer,
                            head_idx=head,
                            entropy=value,
                            gate_value=0.0 if (layer, head) == (1, 3) and phase > 0 else 1.0,
                            meta_step=gap * (4 * phase + step),
                            meta_seed=seed,
                            meta_task=task,
                            meta_phase=phase,
                        )


def write_journal(path: Path, rows: Iterator[Mapping[str, Any]] | list[dict[str, Any]]) -> Path:
    """Writes a journal line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    return path
