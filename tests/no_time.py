"""What lets a small study finish at once: stand-ins for what takes seconds and most tests do not look at.

A worker process has them where `executors._begin_worker` is replaced by `begin_worker`.

Latency is measured for a moment, on torch and a copy of the model instead of sparse kernels; the cost of a plan or a
new run is timed over a few iterations; PNG and SVG files are empty figures; no Keras export is written; dead units are
counted in chains alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from torch import nn

from tombola.compression import latency, measured, turns
from tombola.compression.engines.rivals import EAGER
from tombola.errors import ModelError
from tombola.reports import printed
from tombola.runs import executors
from tombola.studies.base import timing
from tombola.studies.compress import costs
from tombola.studies.lottery import artefacts, dead_tickets

NO_EXPORT = {"model": None, "difference": None, "reason": "these tests write none", "extra_missing": False}
DRAWN = printed._drawn
"""What draws figures as users get them."""
DEAD_UNITS = dead_tickets.dead_units
"""What traces a network for its dead units."""
UNDISTURBED = turns.UNDISTURBED
"""Below which a block was disturbed, for users."""
_BEGIN_WORKER = executors._begin_worker


def stand_in(replace: Callable[[Any, str, Any], None]) -> None:
    """Puts every stand-in in its place by `replace`: a MonkeyPatch's setattr, or the plain one."""

    def sparsify(model: nn.Module, *_: Any) -> nn.Module:
        return copy.deepcopy(model)

    def empty(*_: Any) -> Any:
        from matplotlib.figure import Figure

        return Figure(figsize=(1, 1))

    def uncounted(*_: Any) -> Any:
        raise ModelError("these tests count none")

    replace(measured, "SECONDS", 0.001)
    replace(turns, "UNDISTURBED", -1.0)
    replace(costs, "DENSE", (EAGER,))
    replace(measured, "sparsify", sparsify)
    # A thread that seems to compute twice as fast as the wall's clock goes is never disturbed, however busy it is.
    replace(latency, "CLOCK", latency.Clock(thread=lambda: 2 * time.perf_counter()))
    for sample in ("SAMPLE_SECONDS", "QUICK_SECONDS"):
        replace(timing, sample, 0.0)
    replace(printed, "_drawn", empty)
    replace(dead_tickets, "dead_units", uncounted)
    replace(artefacts, "write_keras_ticket", lambda *_: NO_EXPORT)


def begin_worker(*arguments: Any) -> None:
    """In a worker process: with the stand-ins. A busy machine would else measure latency again and again."""
    _BEGIN_WORKER(*arguments)
    stand_in(setattr)
