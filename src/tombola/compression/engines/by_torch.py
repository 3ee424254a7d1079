"""Torch as an engine: eager, compiled; and our sparse kernels, which are a module of torch."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator

import torch

from tombola.compression.engines.engine import Call, Job, module_calls
from tombola.compression.quiet import quiet

CACHE = "TORCHINDUCTOR_CACHE_DIR"
SETTINGS = {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
"""Inductor at its best: weights frozen and packed, its own matrix products tried."""


@contextlib.contextmanager
def in_own_cache() -> Iterator[None]:
    """Within the block, and in processes that are started there, what torch compiles is kept in a folder that goes."""
    before = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory(prefix="tombola-inductor-", ignore_cleanup_errors=True) as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            os.environ.pop(CACHE) if before is None else os.environ.update({CACHE: before})


def eager(job: Job) -> list[Call]:
    return module_calls(job.network.model, job.batches)


def eager_bf16(job: Job) -> list[Call]:
    """Weights and inputs converted beforehand."""
    model = copy.deepcopy(job.network.model).bfloat16()
    return module_calls(model, [batch.bfloat16() for batch in job.batches])


def compiled(job: Job) -> list[Call]:
    """By inductor, without checks before a call."""
    from torch._inductor import config

    torch.compiler.reset()
    unchecked = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    # Freezing does nothing when it is among torch.compile's options: it is read before they hold.
    with config.patch(SETTINGS), quiet():
        model = copy.deepcopy(job.network.model)
        function = torch.compile(model, dynamic=False, fullgraph=True, options=unchecked)  # type: ignore[arg-type]
        function(job.batches[0])
    return module_calls(function, job.batches)


def sparse(job: Job) -> list[Call]:
    return module_calls(job.network.sparse, job.batches)
