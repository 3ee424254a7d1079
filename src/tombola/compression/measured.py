"""The latency of a network: as torch runs it against the same network on sparse kernels, taking turns on one thread.

What is measured is a whole call on real inputs. Nothing is claimed that was not run: where sparse kernels cannot be
had there is a reason instead of a number.
"""

from __future__ import annotations

import itertools
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.latency import BUSY, Blocks, Way, interleaved
from tombola.compression.runtime import sparsify
from tombola.compression.turns import warm_turns
from tombola.errors import one_line
from tombola.pruning import Masks
from tombola.pruning.modes import evaluation_mode
from tombola.training.threads import one_thread

BATCH_SIZES = (1, 64)
SECONDS = 0.3
"""How long a batch size is measured, both ways together."""
LEAST_BLOCKS = 3
"""However long a call takes: large convolutions take seconds."""
DENSE, SPARSE = "torch eager", "sparse kernels"

Quartiles = tuple[float, float, float]
"""Lower quartile, median and upper quartile of seconds per call."""


@dataclass(frozen=True)
class Latency:
    """A network's time per call in one batch size, float32 on one thread: `dense` by torch, `sparse` by sparse kernels.

    A time that could not be measured is None, and `reason` says why. `on_torch` names the layers that sparse kernels
    left to torch. `clock` says that neither time is there because they could not be trusted.
    """

    batch: int
    dense: Quartiles | None
    sparse: Quartiles | None
    reason: str | None
    on_torch: tuple[str, ...] = ()
    clock: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """As rows of a tidy table, always two; all that depends on the clock is in the columns `seconds` and
        `clock`, which says why there are no seconds where they could not be trusted."""
        shared = {"batch": self.batch, "dtype": "float32", "threads": 1, "clock": self.clock}
        dense_reason = self.reason if self.dense is None and self.clock is None else None
        return [
            {**shared, "engine": DENSE, "on_torch": [], "reason": dense_reason, "seconds": listed(self.dense)},
            {
                **shared,
                "engine": SPARSE,
                "on_torch": list(self.on_torch),
                "reason": self.reason,
                "seconds": listed(self.sparse),
            },
        ]


def measure_latency(
    model: nn.Module, masks: Masks, inputs: Tensor, batch_sizes: Sequence[int] = BATCH_SIZES
) -> list[Latency]:
    """Measures `model`, which holds `masks`, in every batch size on the examples of `inputs`, one after the other.

    Takes about `SECONDS` for each batch size, and as long again to choose the kernels. Never raises for what cannot
    be measured: work that is done already must not be lost for want of a number.
    """
    with one_thread(), evaluation_mode(model), torch.no_grad():
        sparse, reason = sparsified(model, masks, inputs, batch_sizes)
        return [_measured(model, sparse, reason, batches_of(inputs, size)) for size in batch_sizes]


def sparsified(
    model: nn.Module, masks: Masks, inputs: Tensor, batch_sizes: Sequence[int]
) -> tuple[nn.Module | None, str | None]:
    """The model on sparse kernels, or why there is none. What it leaves to torch is named in the rows: no warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sparsify(model, masks, inputs, batch_sizes), None
    except Exception as error:  # no such kernels on this machine; or somebody's own model, which may raise anything
        return None, one_line(error)


def _measured(model: nn.Module, sparse: nn.Module | None, reason: str | None, batches: Sequence[Tensor]) -> Latency:
    ways = {DENSE: in_turn(model, batches)}
    if sparse is not None:
        ways[SPARSE] = in_turn(sparse, batches)
    size = len(batches[0])
    try:
        quartiles, clock = timed(ways, SECONDS)
    except Exception as error:  # a model may refuse a batch of this size
        return Latency(size, None, None, one_line(error))
    left = tuple(getattr(sparse, "unsupported", ()))
    if clock is not None:
        return Latency(size, None, None, reason, left, clock)
    return Latency(size, quartiles[DENSE], quartiles.get(SPARSE), reason, left)


def timed(ways: Mapping[Way, Callable[[], object]], seconds: float) -> tuple[dict[Way, Quartiles], str | None]:
    """The quartiles of ways that take turns for about `seconds` altogether; none, and why, where they mean nothing."""
    times = interleaved(ways, seconds, LEAST_BLOCKS)
    clock = why_untrusted(times.values())
    return ({} if clock else {way: quartiles_of(blocks.quiet) for way, blocks in times.items()}), clock


def warmly_timed(ways: Mapping[Way, Callable[[], object]], seconds: float) -> tuple[dict[Way, Quartiles], str | None]:
    """As `timed`, each way with its own weights in the caches: what is to be compared has no order then."""
    taken = warm_turns(ways, seconds, LEAST_BLOCKS)
    if any(2 * one.disturbed > one.blocks for one in taken.values()):
        return {}, BUSY
    return {way: quartiles_of(one.seconds) for way, one in taken.items()}, None


def why_untrusted(measured: Iterable[Blocks]) -> str | None:
    """Why the times of ways that took turns cannot be compared; None where each has enough undisturbed blocks."""
    return None if all(len(blocks.quiet) >= LEAST_BLOCKS for blocks in measured) else BUSY


def batches_of(inputs: Tensor, size: int) -> list[Tensor]:
    """Batches of exactly `size`, from as many examples as there are, or from some of them again."""
    count = max(1, len(inputs) // size)
    return list(inputs[torch.arange(count * size) % len(inputs)].split(size))


def in_turn(call: Callable[[Any], object], inputs: Sequence[Any]) -> Callable[[], object]:
    """A call that takes the next of the inputs each time, and begins again after the last."""
    turns = itertools.cycle(inputs)
    return lambda: call(next(turns))


def quartiles_of(blocks: Sequence[float]) -> Quartiles:
    """Of the seconds per call of some blocks."""
    low, median, high = statistics.quantiles(blocks, n=4, method="inclusive")
    return low, median, high


def listed(quartiles: Quartiles | None) -> list[float] | None:
    """As a row holds them."""
    return None if quartiles is None else list(quartiles)
