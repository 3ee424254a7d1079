"""Measured time from images to classes: a network up to an exit and a forest behind it, a forest alone, a network.

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
from tombola.compression.measured import BATCH_SIZES, DENSE, SPARSE, Quartiles
from tombola.errors import ConfigError, one_line
from tombola.models.exits import Exit, prefix
from tombola.pruning import Masks
from tombola.pruning.modes import evaluation_mode
from tombola.runs.rows import Row
from tombola.studies.hybrid.exits import poolings
from tombola.studies.hybrid.forests import Forest
from tombola.training.threads import one_thread

FOREST_ENGINE = "onnxruntime"
CALLS_IN_SECONDS = 2
"""How many calls `measured.SECONDS` are for."""


@dataclass(frozen=True)
class Pipeline:
    """From images to classes, by the name of its `network` in the rows.

    With `model`, `masks`, `exit`, `pooling` and `forest`: the network up to the exit, then the forest. With `model` and
    `masks` alone: the whole network. With `forest` alone: it takes the images' pixels as they are. `inputs`
    (n, c, h, w) are the images as the network wants them. `in_parts`: network and forest by themselves, too.
    """

    network: str
    inputs: Tensor
    model: nn.Module | None = None
    masks: Masks | None = None
    exit: Exit | None = None
    pooling: str | None = None
    forest: Forest | None = None
    in_parts: bool = False

    def __post_init__(self) -> None:
        cut = self.model is not None and self.forest is not None
        empty = self.model is None and self.forest is None
        halves = [(self.exit is not None) != cut, (self.pooling is not None) != cut, self.in_parts and not cut]
        if empty or any(halves) or (self.model is None) != (self.masks is None):
            raise ConfigError(
                "a pipeline is a model with its masks, a forest, or both with the exit and the pooling between them"
            )


@dataclass(frozen=True)
class _Engine:
    """A network, whole or up to an exit, as an engine runs it; where it cannot there is a reason."""

    name: str
    network: nn.Module | None
    reason: str | None = None
    on_torch: tuple[str, ...] = ()


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

    def row(self, batch: int, reason: str | None, clock: str | None, quartiles: Quartiles | None) -> Row:
        return {
            "kind": "latency",
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
            "clock": clock,
            "seconds": measured.listed(quartiles),
        }


def measure_pipelines(
    pipelines: Sequence[Pipeline],
    batch_sizes: Sequence[int] = BATCH_SIZES,
    on_prepared: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Rows of kind `latency`, batch size by batch size, of all pipelines, each on its own images.

    Every network is run by torch and on sparse kernels. What cuts it at the same exit shares the kernels: they are
    chosen up to the exit, and torch pools behind them. All calls of a batch size take turns, for about half of
    `measured.SECONDS` each. All that depends on the clock is in the columns `seconds` and `clock`. Never raises for
    what cannot be measured.
    """
    models = {id(pipeline.model): pipeline.model for pipeline in pipelines if pipeline.model is not None}
    with contextlib.ExitStack() as modes:
        modes.enter_context(one_thread())
        for model in models.values():
            modes.enter_context(evaluation_mode(model))
        modes.enter_context(torch.no_grad())
        engines: dict[tuple[int, Exit | None], list[_Engine]] = {}
        calls: list[_Call] = []
        for number, pipeline in enumerate(pipelines, start=1):
            place = (id(pipeline.model), pipeline.exit)
            if place not in engines:
                engines[place] = _engines(pipeline, batch_sizes)
            calls += _calls(pipeline, engines[place])
            on_prepared(number, len(pipelines))
        return [row for size in batch_sizes for row in _rows(calls, size)]


def _engines(pipeline: Pipeline, batch_sizes: Sequence[int]) -> list[_Engine]:
    """The engines that run the network up to the exit, or whole; none where there is no network."""
    if pipeline.model is None or pipeline.masks is None:
        return []
    part = pipeline.model if pipeline.exit is None else prefix(pipeline.model, pipeline.exit)
    sparse, reason = measured.sparsified(part, _within(pipeline.masks, part), pipeline.inputs, batch_sizes)
    left = tuple(getattr(sparse, "unsupported", ()))
    return [_Engine(DENSE, part), _Engine(SPARSE, sparse, reason, left)]


def _calls(pipeline: Pipeline, engines: Sequence[_Engine]) -> list[_Call]:
    images, forest = partial(measured.batches_of, pipeline.inputs), pipeline.forest
    if forest is None:
        return [_Call(pipeline, "whole", e.name, e.network, images, e.reason, e.on_torch) for e in engines]
    if pipeline.pooling is None:
        pixels = _arrays(lambda: pipeline.inputs.flatten(1))
        return [_Call(pipeline, "whole", FOREST_ENGINE, forest.predict, pixels)]
    calls = []
    pool = poolings.get(pipeline.pooling)()
    for engine in engines:
        extract = None if engine.network is None else nn.Sequential(engine.network, pool)
        if pipeline.in_parts:
            calls.append(_Call(pipeline, "cnn", engine.name, extract, images, engine.reason, engine.on_torch))
        name = f"{engine.name} + {FOREST_ENGINE}"
        whole = None if extract is None else partial(_classes, extract, forest)
        calls.append(_Call(pipeline, "whole", name, whole, images, engine.reason, engine.on_torch))
    if pipeline.in_parts:
        by_torch = engines[0].network
        assert by_torch is not None
        features = _arrays(lambda: pool(by_torch(pipeline.inputs)))
        calls.append(_Call(pipeline, "forest", FOREST_ENGINE, forest.predict, features))
    return calls


def _classes(extract: nn.Module, forest: Forest, batch: Tensor) -> object:
    return forest.predict(extract(batch).numpy())


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
    able: dict[int, Callable[[], object]] = {}
    reasons = {position: call.reason for position, call in enumerate(calls)}
    for position, call in enumerate(calls):
        if call.call is None:
            continue
        try:  # a model may refuse a batch of this size, and must not take the others with it
            able[position] = measured.in_turn(call.call, call.inputs(size))
            able[position]()
        except Exception as error:
            able.pop(position, None)
            reasons[position] = one_line(error)
    quartiles, clock = measured.timed(able, measured.SECONDS * len(able) / CALLS_IN_SECONDS) if able else ({}, None)
    return [
        call.row(size, reasons[position], clock if position in able else None, quartiles.get(position))
        for position, call in enumerate(calls)
    ]
