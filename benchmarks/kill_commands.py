"""The commands that `kill_runs.py` kills: small ones on the digits and on drawn images, and what they begin with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kill_lives import Command, run_whole

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from small_hybrid import draw_images, hybrid_study
from small_models import FINE_TUNING, SMALL_PARENT
from small_study import SMALL_STUDY

TRAINING = {"length": "60it", "evaluate_every": "12it", "learning_rate": "1e-2", "patience": 6}
IMP = SMALL_STUDY | {
    "checkpoint_seconds": 0,
    "training": TRAINING,
    "rewind": ["init", "step:12it"],
    "early_bird": {"distance": 0.4, "window": 1},
    "controls": ["random"],
    "pruning": {"densities": [0.5, 0.2]},
}
GRADUAL = {"method": "gradual", "sparsity": 0.8, "end": "400it", "every": "50it"}
TRAIN = SMALL_PARENT | {
    "checkpoint_seconds": 0,
    "training": TRAINING | {"length": "800it", "evaluate_every": "100it", "patience": None},
    "evolution": GRADUAL,
}
GRID = SMALL_PARENT | {
    "name": "grid",
    "replicates": 2,
    "checkpoint_seconds": 0,
    "fine_tuning": FINE_TUNING,
    "criteria": ["random", "magnitude"],
    "structures": ["weight", "neuron"],
    "sparsities": [0.5],
}
FINE = ("--finetune", "400it", "--batch-size", "32", "--lr", "1e-3")
DENSE_PARENT = {key: value for key, value in TRAIN.items() if key != "evolution"} | {"name": "dense"}


def prepared_commands(place: Path, wanted: Sequence[str]) -> list[Command]:
    """The commands, or those that are wanted; what they begin with is made first."""

    def config(name: str, content: dict[str, Any]) -> str:
        path = place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    imp, train, dense = config("imp", IMP), config("train", TRAIN), config("dense", DENSE_PARENT)
    finished, parents = place / "finished", place / "parents"
    run_whole(["imp", imp, "--out", str(finished), "--workers", "1"], place / "stderr")
    run_whole(["train", dense, "--out", str(parents)], place / "stderr")
    (run,), (parent,) = finished.iterdir(), parents.iterdir()
    commands = [
        Command("imp", (imp, "--out", "OUT")),
        Command("train", (train, "--out", "OUT")),
        Command("prune", (str(parent), "--sparsity", "0.6", "--out", "OUT/child", *FINE)),
        Command("compare", (config("grid", GRID), "--out", "OUT")),
        Command("stability", (f"OUT/{run.name}", "--round", "1"), finished),
        Command("report", (f"OUT/{run.name}",), finished),
        Command("show", (f"OUT/{run.name}",), finished),
        Command("extract", (f"OUT/{run.name}", "--density", "0.5", "--out", "OUT/ticket"), finished),
        Command("list", ("runs", "--out", "OUT"), finished),
    ]
    if not wanted or "hybrid" in wanted:
        study = hybrid_study(draw_images(place / "images"), lenet=None, trees=60)
        for role in ("cnn", "head"):
            study[role] |= {"pruning": {"densities": [0.4]}, "controls": []}
        commands.append(Command("hybrid", (config("hybrid", study), "--out", "OUT")))
    return [command for command in commands if not wanted or command.name in wanted]
