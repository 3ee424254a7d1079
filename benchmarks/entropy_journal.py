"""What the journal of entropies adds to a training step of `tombola stress --model tiny`, written files and all.

    python benchmarks/entropy_journal.py [--blocks 15] [--quick]

Phases of the German task with and without a journal take turns within one run, on one thread; the figure is the median
of their ratios. At most 1.25 is wanted. `attention_entropy.py` measures the recorder alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from tombola.runs.atomic import make_folder
from tombola.runs.folder import machine
from tombola.studies.stress.cells import LEARN, CellKey
from tombola.studies.stress.config import DENSE, TINY, StressConfig
from tombola.studies.stress.living.cell import CellSpec, Living
from tombola.studies.stress.living.entropy import journal_of
from tombola.studies.stress.living.learning import Phase
from tombola.studies.stress.living.state import State, all_kept
from tombola.studies.stress.subjects.curriculum import Curriculum
from tombola.studies.stress.subjects.networks import open_subject

TASK = "german"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=15, help="pairs of phases")
    arguments.add_argument("--quick", action="store_true", help="the quick tiny model")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = {journal: living(Path(folder), options.quick, journal) for journal in (False, True)}
        ratios, steps = [], []
        for block in range(options.blocks + 1):
            without, with_ = (seconds_of_a_step(ways[journal]) for journal in (False, True))
            if block:  # the first one is not counted
                ratios.append(with_ / without)
                steps.append(without)
    print(f"{machine()}, torch {torch.__version__}, one thread")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(
        f"with the journal {statistics.median(ratios):.3f} ({spread}) of {1e3 * statistics.median(steps):.1f} ms a step"
    )


def living(folder: Path, quick: bool, journal: bool) -> Living:
    config = StressConfig(model=(TINY,), quick=quick, entropy=journal, device="cpu")
    subject = open_subject(TINY, quick)
    spec = CellSpec(config, CellKey(TINY, DENSE), TINY, folder / str(journal), subject.loaded.sha256)
    make_folder(spec.home)
    return Living(spec, subject, Curriculum(config, 0, subject.tokenizer))


def seconds_of_a_step(cell: Living) -> float:
    """Of one phase as a cell learns it, without the looks on its way."""
    state = State(cell.network(), all_kept(cell.subject.layers, cell.subject.heads))
    moment = next(one for one in cell.moments if one.does == LEARN and cell.name_at(one) == TASK)
    phase = Phase(cell, moment, state, TASK, 1)
    with journal_of(cell, moment, state, TASK) as listener:
        began = time.perf_counter()
        phase.train(state.network, phase.task.heard_by(listener), 1, None)
        return (time.perf_counter() - began) / phase.steps


if __name__ == "__main__":
    main()
