"""Measured time of the ways to a class: a network up to an exit and a forest behind it, a forest alone, a network.

Whole calls on real inputs, on one thread, taking turns. What cannot be measured has a reason instead of a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression import measured
from tombola.compression.latency import interleaved
from tombola.compression.measured import BATCH_SIZES, DENSE, LEAST_BLOCKS, SPARSE, Quartiles
from tombola.errors import ConfigError
from tombola.models.exits import Exit
from tombola.pruning import Masks
from tombola.pruning.modes import evaluation_mode
from tombola.runs.rows import Row
from tombola.studies.hybrid.exits import extractor
from tombola.studies.hybrid.forests import Forest
from tombola.training.threads import one_thread

FOREST_ENGINE = "onnxruntime"
WAYS_IN_SECONDS = 2
"""How many ways `measured.SECONDS` are for."""


@dataclass(frozen=True)
class Pipeline:
    """A way from pictures to classes, by the name of its `network` in the rows.

    With `model`, `exit`, `pooling` and `forest`: the network up to the exit, then the forest. With `model` alone: the
    whole network. With `forest` alone: it takes the pictures' pixels as they are. The network runs on sparse kernels
    where there are `masks`, which it holds, else as torch runs it.
    """

    network: str
    model: nn.Module | None = None
    masks: Masks | None = None
    exit: Exit | None = None
    pooling: str | None = None
    forest: Forest | None = None

    def __post_init__(self) -> None:
        cut = self.model is not None and self.forest is not None
        nothing = self.model is None and self.forest is None
        if nothing or cut != (self.exit is not None) or cut != (self.pooling is not None):
            raise ConfigError("a pipeline is a model, a forest, or both with the exit and the pooling between them")

    def part(self) -> nn.Module | None:
        """What of the network runs: all of it, or up to the features of the exit."""
        if self.model is None or self.exit is None or self.pooling is None:
            return self.model
        return extractor(self.model, self.exit, self.pooling)


@dataclass(frozen=True)
class _Call:
    """One thing to measure, and its key in the rows; where there is no `call` there is a reason."""

    pipeline: Pipeline
    part: str
    engine: str
    call: Callable[[Any], object] | None
    inputs: Callable[[int], list[Any]]
    """A batch size -> batches of what the call takes; not timed."""
    reason: str | None = None
    on_torch: tuple[str, ...] = ()

    def row(self, batch: int, reason: str | None, quartiles: Quartiles | None) -> Row:
        return {
            "kind": "latency",
            "replicate": 0,
            "network": self.pipeline.network,
            "exit": None if self.pipeline.exit is None else self.pipeline.exit.name,
            "features": self.pipeline.pooling,
            "batch": batch,
            "part": self.part,
            "engine": self.engine,
            "dtype": "float32",
            "threads": 1,
            "on_torch": list(self.on_torch),
            "reason": reason,
            "seconds": measured.listed(quartiles),
        }


def measure_pipelines(
    pipelines: Sequence[Pipeline], inputs: Tensor, batch_sizes: Sequence[int] = BATCH_SIZES
) -> list[Row]:
    """Rows of kind `latency`, batch size by batch size, of all pipelines on the pictures `inputs` (n, c, h, w).

    A network with a forest has the parts `cnn`, `forest` and `whole`, all others `whole` alone. All ways of a batch
    size take turns, for about half of `measured.SECONDS` each. All that depends on the clock is in the column
    `seconds`. Never raises for what cannot be measured.
    """
    models = {id(pipeline.model): pipeline.model for pipeline in pipelines if pipeline.model is not None}
    with contextlib.ExitStack() as modes:
        modes.enter_context(one_thread())
        for model in models.values():
            modes.enter_context(evaluation_mode(model))
        modes.enter_context(torch.no_grad())
        calls = [call for pipeline in pipelines for call in _calls(pipeline, inputs, batch_sizes)]
        return [row for size in batch_sizes for row in _rows(calls, size)]


def _calls(pipeline: Pipeline, inputs: Tensor, batch_sizes: Sequence[int]) -> list[_Call]:
    dense, forest = pipeline.part(), pipeline.forest
    pictures = partial(measured.batches_of, inputs)
    if dense is None:
        assert forest is not None
        return [_Call(pipeline, "whole", FOREST_ENGINE, forest.predict, _arrays(lambda: inputs.flatten(1)))]
    network: nn.Module | None = dense
    engine, reason = DENSE, None
    if pipeline.masks is not None:
        engine = SPARSE
        network, reason = measured.sparsified(dense, _within(pipeline.masks, dense), inputs, batch_sizes)
    left = tuple(getattr(network, "unsupported", ()))
    if forest is None:
        return [_Call(pipeline, "whole", engine, network, pictures, reason, left)]
    whole = None if network is None else lambda batch: forest.predict(network(batch).numpy())
    return [
        _Call(pipeline, "cnn", engine, network, pictures, reason, left),
        _Call(pipeline, "forest", FOREST_ENGINE, forest.predict, _arrays(lambda: dense(inputs))),
        _Call(pipeline, "whole", f"{engine} + {FOREST_ENGINE}", whole, pictures, reason, left),
    ]


def _arrays(make: Callable[[], Tensor]) -> Callable[[int], list[Any]]:
    """Batches of what is made once, when it is first asked for."""
    made = cache(make)
    return lambda size: [batch.numpy() for batch in measured.batches_of(made(), size)]


def _within(masks: Masks, part: nn.Module) -> Masks:
    """The masks of the weights that a part of the network has, under the same names."""
    names = {name for name, _ in part.named_parameters()}
    return Masks({name: mask for name, mask in masks.items() if name in names})


def _rows(calls: Sequence[_Call], size: int) -> list[Row]:
    """A row for each call, on batches of one size."""
    ways: dict[int, Callable[[], object]] = {}
    reasons = {position: call.reason for position, call in enumerate(calls)}
    for position, call in enumerate(calls):
        if call.call is None:
            continue
        try:  # a model may refuse a batch of this size, and must not take the others with it
            ways[position] = measured.in_turn(call.call, call.inputs(size))
            ways[position]()
        except Exception as error:
            ways.pop(position, None)
            reasons[position] = measured.one_line(error)
    times = interleaved(ways, measured.SECONDS * len(ways) / WAYS_IN_SECONDS, LEAST_BLOCKS) if ways else {}
    quartiles = {position: measured.quartiles_of(blocks) for position, blocks in times.items()}
    return [call.row(size, reasons[position], quartiles.get(position)) for position, call in enumerate(calls)]
