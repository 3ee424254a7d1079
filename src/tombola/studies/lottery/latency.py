"""How fast a run's tickets are: replicate 0's trained networks, measured once at the end of a study.

By the parent process, alone, on test images. A network that the table has already is not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tombola.compression.measured import BATCH_SIZES, Latency, measure_latency
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.speed import IMAGES
from tombola.studies.lottery.networks import trained_network
from tombola.studies.lottery.result import Result, trained_weights
from tombola.studies.lottery.tasks import plain_examples, task_of
from tombola.training.classification import Classification

REPLICATE = 0
ROWS = 2 * len(BATCH_SIZES)
"""Of a whole unit: dense and on sparse kernels, in every batch size."""


def rounds_to_measure(result: Result) -> list[int]:
    """The rounds of the first mode of rewinding, the dense network's 0 among them, that have no latency yet."""
    rounds = sorted({row["round"] for row in result.rows if row["branch"] in ("dense", "ticket")})
    latencies = rows_of(result.rows, kind="latency")
    return [index for index in rounds if len(rows_of(latencies, round=index)) < ROWS]


def latency_units(result: Result, rounds: list[int], data_dir: Path | None) -> Iterator[list[Row]]:
    """One unit of rows for each of the rounds, measured when it is asked for."""
    if not rounds:
        return
    task = task_of(result.config, REPLICATE, data_dir)
    images = task.data.test.inputs[:IMAGES] if isinstance(task, Classification) else plain_examples(task, IMAGES)
    if images is None or images.dtype != torch.float32:
        reason = f"sparse kernels take float32 tensors of one shape, and examples of the task {task.name} are none"
        unmeasured = [Latency(size, None, None, reason) for size in BATCH_SIZES]
        density = {summary.round: summary.density for summary in result.summaries}
        yield from (_rows(result, index, density[index], unmeasured) for index in rounds)
        return
    for index in rounds:
        yield _unit(result, index, images)


def _unit(result: Result, index: int, images: Tensor) -> list[Row]:
    mode = result.config.rewinds[0]
    recorded = trained_weights(result).get((REPLICATE, index))
    network, _, masks = trained_network(result.folder, mode, REPLICATE, index, recorded, result.config.model.factory)
    return _rows(result, index, masks.density, measure_latency(network, masks, images))


def _rows(result: Result, index: int, density: float, measured: Sequence[Latency]) -> list[Row]:
    mode = str(result.config.rewinds[0]) if index else None
    key = {"replicate": REPLICATE, "rewind": mode, "round": index, "branch": "latency"}
    return [{"kind": "latency", **key, "density": density, **row} for latency in measured for row in latency.rows()]
