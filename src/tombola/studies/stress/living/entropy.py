"""The journal of entropies: how evenly every head looked at every step of a training, written as it goes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from typing import IO

from torch import Tensor

from tombola.models.causal.entropy import EntropyRecorder
from tombola.runs.atomic import TEMPORARY_SUFFIX, storage_errors
from tombola.runs.rows import Row
from tombola.studies.stress.cells import Moment
from tombola.studies.stress.living.cell import Living
from tombola.studies.stress.living.state import State
from tombola.training.completions import Listener


@contextlib.contextmanager
def journal_of(living: Living, moment: Moment, state: State, task: str) -> Iterator[Listener | None]:
    """Within the block the network's trainings are recorded; gives who is to be told of batches, None without journal.

    The file is there once the block has ended without an error.
    """
    if not living.config.entropy:
        yield None
        return
    path = living.spec.journal(moment.unit)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with storage_errors("write", path):
        with temporary.open("w", encoding="utf-8") as file:
            journal = _Journal(file, living, moment, state, task)
            recorder = EntropyRecorder(state.network, journal.add)

            def listen(valid: Tensor) -> None:
                recorder.valid = valid
                journal.next_step()

            with recorder:
                yield listen
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


class _Journal:
    """Writes a line for every head and step."""

    def __init__(self, file: IO[str], living: Living, moment: Moment, state: State, task: str) -> None:
        key = living.spec.key
        self.file = file
        self.step = state.steps
        self.gates = _gates(living, state)
        self.cycle: Row = {"cycle_idx": moment.cycle, "cycle_name": f"cycle {moment.cycle}"}
        self.about: Row = {
            "meta_seed": key.seed,
            "meta_draw": key.draw,
            "meta_remedy": key.remedy,
            "meta_model": key.model,
            "meta_task": task,
            "meta_phase": state.phase + 1,
        }

    def next_step(self) -> None:
        self.step += 1

    def add(self, layer: int, entropy: Tensor) -> None:
        now = time.time()
        for head, value in enumerate(entropy.tolist()):
            line = {
                **self.cycle,
                "layer_idx": layer,
                "head_idx": head,
                "entropy": value if math.isfinite(value) else None,  # of a training that diverges
                "gate_value": self.gates[layer][head],
                "timestamp": now,
                "meta_step": self.step,
                **self.about,
            }
            self.file.write(json.dumps(line, allow_nan=False) + "\n")


def _gates(living: Living, state: State) -> list[list[float]]:
    """1 for a head that is there, 0 for one that is removed, by layer."""
    if living.config.structure != "head":
        return [[1.0] * living.subject.heads] * living.subject.layers
    return [keep.float().tolist() for keep in state.keep]
