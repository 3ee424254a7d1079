"""What is known of a file that was exported: scores, sizes, latency, zeros."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tombola.compression.export.zeros import Zeros
from tombola.compression.measured import Quartiles
from tombola.training.task import ACCURACY, Measure


@dataclass(frozen=True)
class Times:
    """Seconds per call in one batch size: quartiles, or why there are none."""

    batch: int
    seconds: Quartiles | None
    reason: str | None = None


@dataclass(frozen=True)
class Running:
    """A network as an engine runs it: how well, how large, how fast.

    `score` is that of the test part, in the task's own measure; `bytes` are those of the file (of torch, of its
    tensors), and `deflated` what a zip makes of them. `error` is the largest difference to torch's outputs, relative to
    the largest of these where that is above 1.
    """

    engine: str
    precision: str
    score: float
    error: float
    bytes: int
    deflated: int
    times: tuple[Times, ...] = ()


@dataclass(frozen=True)
class Exported:
    """A file that was written, with what was measured of it: `running` begins with torch, and ends with the file.

    `drop` is what the file's score lost, positive where it is worse. `zeros` were counted in the file.
    """

    path: Path
    measure: Measure
    examples: int
    running: tuple[Running, ...]
    drop: float
    zeros: Zeros


def content_of(network: nn.Module) -> bytes:
    """The numbers of a network's state, one tensor after the other: what it takes without a file format."""
    tensors = (tensor.reshape(-1).view(torch.uint8) for tensor in network.state_dict().values())  # of any type
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def deflated(content: bytes) -> int:
    """How many bytes a zip makes of some."""
    return len(zlib.compress(content))


def lost(measure: Measure, before: float, after: float) -> float:
    """What a score lost: positive where it is worse."""
    return (before - after) * (1 if measure.higher_is_better else -1)


def scored(measure: Measure, value: float) -> str:
    """A score as a person reads it: `97.50% accuracy`, `mean absolute error 0.031`."""
    if measure == ACCURACY:
        return f"{100 * value:.2f}% {measure.words}"
    return f"{measure.words} {amount(measure, value)}"


def amount(measure: Measure, value: float) -> str:
    """A difference of two scores: `0.28 points`, `0.031`."""
    number = f"{measure.scale * value:.2f}" if measure == ACCURACY else f"{measure.scale * value:.4g}"
    return f"{number} {measure.unit}".strip()
