"""How cells run: one after the other in this process, or spread over one-thread processes.

A cell is a function of a picklable spec that reports finished work through `emit` as it goes. Events of all
cells reach the parent's `on_event` in the parent process, which is the only one that writes the table.

Events are small (a path, a few numbers): results travel through files that are written atomically, so a
worker that is killed in the middle of a message cannot leave half a result behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any

from tombola.errors import RunFailure
from tombola.runs import stopping

Emit = Callable[[Any], None]
Cell = Callable[[Any, Emit], None]

POLL_SECONDS = 0.1
GRACE_SECONDS = 1.0
"""A worker that is asked to stop and has not by then ends as if it were killed, which every run survives."""
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
_CONTEXT: multiprocessing.context.BaseContext = multiprocessing.get_context("spawn")
"""Spawned, not forked: a child inherits neither the run's lock nor a half-used thread pool."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_cells(cell: Cell, specs: Sequence[Any], workers: int, on_event: Emit) -> None:
    """Runs `cell(spec, emit)` for every spec with at most `workers` processes, or here when one suffices.

    Results do not depend on `workers`: cells share nothing, and each computes on one thread. The first
    error stops the other cells within about a second and is raised here, as is KeyboardInterrupt.
    """
    if min(workers, len(specs)) <= 1:
        for spec in specs:
            cell(spec, on_event)
    else:
        _run_in_processes(cell, specs, min(workers, len(specs)), on_event)


def _run_in_processes(cell: Cell, specs: Sequence[Any], workers: int, on_event: Emit) -> None:
    _begin_tracker()
    channel = _CONTEXT.SimpleQueue()
    stop = _CONTEXT.Event()
    restore = _one_thread_for_children()
    executor = ProcessPoolExecutor(
        workers, mp_context=_CONTEXT, initializer=_begin_worker, initargs=(channel, stop, os.getpid())
    )
    try:
        with stopping.held_back():
            futures = [executor.submit(_run_in_worker, cell, spec) for spec in specs]
        _listen(futures, channel, on_event)
    except BrokenProcessPool:
        raise RunFailure(
            "a worker process died (killed, or out of memory); run the same command again: it continues"
        ) from None
    finally:
        stop.set()
        _close(executor, channel)
        restore()


def _listen(futures: Sequence[Future[None]], channel: Any, on_event: Emit) -> None:
    pending = set(futures)
    while pending:
        stopping.check()
        done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
        while not channel.empty():
            on_event(channel.get())
        for future in done:
            future.result()


def _begin_tracker() -> None:
    """Starts what frees semaphores of processes that were ended at once, without its word on stderr that it does."""
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "ignore:resource_tracker"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _close(executor: ProcessPoolExecutor, channel: Any) -> None:
    """Waits for the workers while emptying the channel: one that is blocked on it could not see the flag."""
    closing = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True})
    closing.start()
    while closing.is_alive():
        while not channel.empty():
            channel.get()
        closing.join(POLL_SECONDS)


def _one_thread_for_children() -> Callable[[], None]:
    """Sets the thread variables that children inherit; returns a function that restores them."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return restore


# What follows runs in the worker processes.
_channel: Any = None


def _begin_worker(channel: Any, stop: Any, parent: int) -> None:
    global _channel
    _channel = channel
    sys.stdout = sys.stderr  # the parent's has results alone, and not what somebody's own code prints
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_watch, args=(stop, parent), daemon=True).start()


def _end_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends: no thread of ours runs while native code holds Python's
    lock. Elsewhere `_watch` alone sees to it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(stop: Any, parent: int) -> None:
    """Ends this worker when its parent asks for it, gently at first, and at once when its parent is gone: an orphan
    must not go on writing into a folder whose lock nobody holds."""
    deadline = math.inf
    while os.getppid() == parent and time.monotonic() < deadline:
        if stop.is_set() and deadline == math.inf:
            stopping.request(signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _run_in_worker(cell: Cell, spec: Any) -> None:
    with contextlib.suppress(stopping.Stopped):
        cell(spec, _emit)


def _emit(event: Any) -> None:
    stopping.check()
    _channel.put(event)
