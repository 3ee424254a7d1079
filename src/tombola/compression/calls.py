"""Calls of a compiled chain: workspaces, several panels one after the other or side by side.

Kernels hold no state and give the interpreter's lock back, and a workspace belongs to one call at a time: any number
of threads may call at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import torch

from tombola.compression.compiled import Compiled, Weights
from tombola.compression.plans import Choice, Form, Plan
from tombola.kernels.program import Program

Call = Callable[[int, int], None]
"""Called with the addresses of the input's rows and the output's."""
MOST_VECTORS = 8
"""Rows that are taken one by one in one program: its table names each."""
WORTH_A_THREAD = 1e-4
"""Seconds of work from which handing it to a thread, tens of microseconds, is worth it."""


class Part:
    """A compiled chain with workspaces that calls take and give back."""

    def __init__(self, compiled: Compiled) -> None:
        self.segments = compiled.segments
        self._runs = [segment.run if isinstance(segment, Program) else segment for segment in compiled.segments]
        self._size = compiled.workspace
        self._free: list[int] = []
        self._alive: list[torch.Tensor] = []

    def __call__(self, x: int, y: int) -> None:
        try:
            workspace = self._free.pop()
        except IndexError:  # as many are made as calls ever ran at once
            numbers = torch.empty(self._size, dtype=torch.float32, device="cpu")
            self._alive.append(numbers)
            workspace = numbers.data_ptr()
        for run in self._runs:
            run(x, y, workspace)
        self._free.append(workspace)


Wholes = dict[tuple[Form, int, tuple[Choice, ...]], Part]
"""What does a full panel, by all that it depends on."""


class Panels:
    """Rows panel by panel and the last ones by themselves, on as many threads as torch may use."""

    def __init__(self, arrays: Weights, plan: Plan, rows: int, whole: Part) -> None:
        together = _together(plan)
        self._whole, self._count, rest = whole, rows // together, rows % together
        self._last = Part(arrays.compile(plan, rest)) if rest else None
        self._x, self._y = (4 * together * features for features in (arrays.inputs, arrays.outputs))
        seconds = plan.seconds or 0.0
        torch_inside = not all(isinstance(segment, Program) for segment in whole.segments)
        self._spread = not torch_inside and seconds / plan.rows * together * self._count > WORTH_A_THREAD

    def __call__(self, x: int, y: int) -> None:
        threads = min(torch.get_num_threads(), self._count) if self._spread else 1
        if threads == 1:
            self._some(0, self._count, x, y)
        else:
            ends = [self._count * number // threads for number in range(threads + 1)]
            pool = _pool(threads - 1)
            others = [pool.submit(self._some, begin, end, x, y) for begin, end in pairwise(ends[1:])]
            try:
                self._some(0, ends[1], x, y)
            finally:
                wait(others)  # whatever happens here: input and output have to live until the last is done
            for other in others:
                other.result()
        if self._last is not None:
            self._last(x + self._count * self._x, y + self._count * self._y)

    def _some(self, begin: int, end: int, x: int, y: int) -> None:
        for number in range(begin, end):
            self._whole(x + number * self._x, y + number * self._y)


def call_of(arrays: Weights, plan: Plan, rows: int, wholes: Wholes | None = None) -> Call:
    """The chain for `rows` rows, by panels or by vectors; `wholes` keeps what does a full panel."""
    together = _together(plan)
    if rows < together or (plan.form == Form.VECTORS and rows <= MOST_VECTORS):
        return _call(arrays.compile(plan, rows))
    wholes = {} if wholes is None else wholes
    way = plan.form, plan.panel, plan.choices
    if way not in wholes:
        wholes[way] = Part(arrays.compile(plan, together))
    return wholes[way] if rows == together else Panels(arrays, plan, rows, wholes[way])


def _together(plan: Plan) -> int:
    """Rows of which each is a call of its own where there are many: one of vectors, else a panel."""
    return 1 if plan.form == Form.VECTORS else plan.panel


def _call(compiled: Compiled) -> Call:
    """Machine code alone where one program does it all on the stack: Python around it would cost as much as a layer."""
    first = compiled.segments[0]
    if len(compiled.segments) == 1 and isinstance(first, Program) and first.run_alone is not None:
        return first.run_alone
    return Part(compiled)


_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    """Helping threads of this process; a fork has none of its parent's."""
    key = os.getpid(), threads
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="tombola-panels")
        return _pools[key]
