"""Layers and plans in a sparse model's file: what is checked before anything is made of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from tombola.compression.layers import Layer
from tombola.compression.plans import PANEL, Choice, Form, Kernel, Plan
from tombola.kernels.packing import MOST_COLUMNS
from tombola.runs.configs import Config

MOST_WEIGHTS = 1 << 30
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
"""How many bits of a byte are set."""
MOST_ROWS = 1 << 24
MOST_PANEL = 1 << 10


class StoredChoice(Config):
    kernel: Kernel
    block: int = Field(ge=1, le=MOST_COLUMNS)
    seconds: float | None


class StoredPlan(Config):
    batch: PositiveInt
    rows: int = Field(ge=1, le=MOST_ROWS)
    form: Form
    choices: tuple[StoredChoice, ...]
    seconds: float | None
    dense: float | None
    panel: int = Field(default=PANEL, ge=1, le=MOST_PANEL)

    def check_kernels(self, kinds: Sequence[Mapping[Form, set[Kernel]]]) -> None:
        """That there is a kernel for each layer, and one that it can run on; `kinds` has those for each."""
        if len(self.choices) != len(kinds):
            raise ValueError("a plan does not have one kernel for each layer")
        for choice, fit in zip(self.choices, kinds, strict=True):
            if self.form != Form.TORCH and choice.kernel not in fit[self.form]:
                raise ValueError(f"has kernels that do not go by {self.form}")


OF_LINEAR = {
    Form.VECTORS: {Kernel.ROWS, Kernel.COLUMNS, Kernel.DENSE_COLUMNS, Kernel.SIDE_BY_SIDE, Kernel.DENSE},
    Form.PANELS: {Kernel.PANEL, Kernel.DENSE},
}
OF_CONVOLUTION = {
    Form.VECTORS: {Kernel.SHIFTED_ROWS, Kernel.ALL_WINDOWS, Kernel.DENSE},
    Form.PANELS: {Kernel.PANEL, Kernel.DENSE},
}


class StoredLayer(Config):
    name: str
    outputs: PositiveInt
    inputs: PositiveInt
    relu: bool

    @model_validator(mode="after")
    def _not_too_large(self) -> StoredLayer:
        if self.outputs * self.inputs > MOST_WEIGHTS:
            raise ValueError(f"has {self.outputs} · {self.inputs} weights, more than {MOST_WEIGHTS}")
        return self


def tensors_of(layer: Layer, prefix: str) -> dict[str, Tensor]:
    """What a layer has beside its `StoredLayer`: kept values, bias, and which weights are kept."""
    packed = zlib.compress(layer.bits.tobytes())
    parts = {"values": layer.values, "bias": layer.bias, "kept": np.frombuffer(packed, np.uint8).copy()}
    return {prefix + name: torch.from_numpy(part) for name, part in parts.items()}


def stored_plan(plan: Plan) -> StoredPlan:
    """A plan as it is written."""
    choices = tuple(StoredChoice(**vars(choice)) for choice in plan.choices)
    return StoredPlan(**(vars(plan) | {"choices": choices}))


def plan_of(stored: StoredPlan) -> Plan:
    """A plan as it was read."""
    choices = tuple(Choice(**vars(choice)) for choice in stored.choices)
    return Plan(**(vars(stored) | {"choices": choices}))


def read_layer(stored: StoredLayer, shape: tuple[int, ...], prefix: str, tensors: dict[str, Tensor]) -> Layer:
    """The layer of `shape` whose tensors begin with `prefix`; they are taken out of `tensors`."""
    values, bias, kept = (tensors.pop(prefix + name) for name in ("values", "bias", "kept"))
    total = stored.outputs * stored.inputs
    bits = _unpacked(kept, math.ceil(total / 8))
    count = int(_ONES[bits].sum(dtype=np.int64))  # unpacked they would take eight times the memory
    if count != len(values) or np.unpackbits(bits[-1:])[(total - 1) % 8 + 1 :].any():
        raise ValueError(f"{stored.name} has {len(values)} values for {count} kept weights of {total}")
    if bias.shape != (stored.outputs,) or values.dim() != 1 or {values.dtype, bias.dtype} != {torch.float32}:
        raise ValueError(f"{stored.name} has values or a bias of another shape or type")
    return Layer(stored.name, shape, bits, values.numpy(), bias.numpy(), stored.relu)


def _unpacked(packed: Tensor, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bits. No more than these are unpacked: a small file cannot fill the memory."""
    content = packed.numpy().tobytes() if packed.dtype == torch.uint8 else b""
    decompress = zlib.decompressobj()
    bits = decompress.decompress(content, length)
    if len(bits) != length or decompress.decompress(decompress.unconsumed_tail, 1) or not decompress.eof:
        raise ValueError(f"the places of kept weights do not take {length} bytes")
    return np.frombuffer(bits, np.uint8).copy()
