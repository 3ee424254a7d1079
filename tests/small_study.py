"""A lottery study small enough to run in a second a replicate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.study import Lottery

SMALL_STUDY = {
    "name": "small",
    "replicates": 2,
    "data": {"name": "digits"},
    "model": {"widths": [20, 10]},
    "training": {"length": "40it", "evaluate_every": "10it", "learning_rate": "1e-2"},
    "pruning": {"distribution": "rates", "rate": 0.5, "layer_rates": {"output": 0.25}, "target_density": 0.15},
}
"""Three rounds of a small network on digits; a replicate takes about a second."""


def run_lottery(config: LotteryConfig, out: Path, **call: Any) -> Result:
    """Runs a lottery below `out`; `call` has the other keys of a `Call`."""
    return run_study(Lottery, config, Call(out, **call))
