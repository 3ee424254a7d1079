"""What a machine takes for a candidate: latency beside the parent's on dense engines, and peak memory.

All take turns in one process, on one thread. The parent has the faster of torch and ONNX Runtime, in float32.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tombola.compression import measured
from tombola.compression.bench.peak import peak_memory
from tombola.compression.engines.engine import Call, Engine, Job, Network
from tombola.compression.engines.rivals import EAGER, ONNXRUNTIME
from tombola.errors import TombolaError, one_line
from tombola.runs.atomic import make_folder
from tombola.runs.rows import Row
from tombola.studies.compress.forms import Form, Workshop, form_of
from tombola.studies.compress.making import Shape
from tombola.studies.compress.outcome import key_of
from tombola.studies.compress.shipping import level_folder
from tombola.training.threads import one_thread

EXAMPLES = 256
"""Validation inputs that calls are made of."""
ATTEMPTS = 3
"""How often latency is measured on a machine that is too busy, until it is left out."""
DENSE: tuple[Engine, ...] = (EAGER, ONNXRUNTIME)


@dataclass(frozen=True)
class Costs:
    """Measures candidates, whose files are below `folder`; `memory` says whether their memory, too."""

    workshop: Workshop
    folder: Path
    memory: bool

    def rows(self, candidates: Sequence[Row]) -> list[Row]:
        """A row for each of some candidates of one level.

        Tickets of one level run the same kernels in float32, whatever their values are stored in: they share a time.
        """
        rows: list[Row] = []
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that sparse kernels leave to torch
            for candidate in candidates:
                if rows and candidate["structure"] == "weight":
                    rows.append(rows[0] | {"precision": candidate["precision"]})
                else:
                    rows.append(self._row(candidate))
        return rows

    @functools.cached_property
    def parent(self) -> Network:
        """The parent on its way to dense engines."""
        folder = self.folder / "parent"
        make_folder(folder)
        return self.workshop.network(self.workshop.given(Shape.of(self.workshop.parent)), folder)

    def _row(self, candidate: Row) -> Row:
        form = form_of(candidate["structure"], candidate["precision"])
        row: Row = {
            "kind": "cost",
            **{name: candidate[name] for name in ("structure", "distribution", "level", "precision")},
            "batch": self.workshop.config.batch,
            "reason": None,
            **dict.fromkeys(("seconds", "clock", "memory", "memory_parent")),
        }
        level = level_folder(self.folder, key_of(candidate))
        try:
            network = self.workshop.network(self.workshop.opened(form, level), level)
            row |= self._latency(form, network)
            if self.memory:
                row |= self._memory(form, network)
        except Exception as error:  # of engines that are not ours, of any kind
            row["reason"] = one_line(error)
        return row

    def _latency(self, form: Form, network: Network) -> Row:
        calls: dict[str, Callable[[], object]] = {}
        batches = self._batches()
        for engine in DENSE:
            with contextlib.suppress(TombolaError):  # a package that is not installed
                calls[engine.name] = _in_turn(engine.prepare(Job(self.parent, batches)))
        calls["model"] = _in_turn(form.engine.prepare(Job(network, batches)))
        clock = None
        for _ in range(ATTEMPTS):
            with torch.inference_mode():
                quartiles, clock = measured.warmly_timed(calls, measured.SECONDS * len(calls))
            if clock is None:
                listed = {name: list(found) for name, found in quartiles.items()}
                return {"seconds": {"model": listed.pop("model"), "parent": listed}}
        return {"clock": clock}

    def _memory(self, form: Form, network: Network) -> Row:
        (batch, *_) = self._batches()
        return {"memory": peak_memory(form.engine, network, batch, 1), "memory_parent": self._of_parent}

    @functools.cached_property
    def _of_parent(self) -> int | None:
        """The least memory that the parent takes on a dense engine."""
        (batch, *_) = self._batches()
        found = []
        for engine in DENSE:
            with contextlib.suppress(TombolaError):
                found.append(peak_memory(engine, self.parent, batch, 1))
        return min(found, default=None)

    def _batches(self) -> list[torch.Tensor]:
        inputs = self.workshop.around.data.validation.inputs[:EXAMPLES]
        return measured.batches_of(inputs, self.workshop.config.batch)


def _in_turn(calls: Sequence[Call]) -> Callable[[], Any]:
    return measured.in_turn(lambda call: call.run(), calls)
