"""Masks and values as bytes: exact, near the entropy, and anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tombola.compression.tickets import blocks, mask_codes, values
from tombola.compression.tickets.mask_codes import Code
from tombola.compression.tickets.values import Values
from tombola.errors import ModelError
from tombola.models.tensors import same_bits

RANDOM = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(RANDOM, st.integers(0, 3000), st.sampled_from((0.0, 0.001, 0.05, 0.5, 0.95, 0.999, 1.0)), st.booleans())
def test_masks_come_back(random: np.random.Generator, total: int, density: float, in_runs: bool) -> None:
    keep = np.sort(random.random(total)) < density if in_runs else random.random(total) < density
    code, content = mask_codes.encoded(keep)
    assert np.array_equal(mask_codes.decoded(code, content, total), keep)
    for other, chosen in ((Code.KEPT, keep), (Code.REMOVED, ~keep)):
        assert np.array_equal(mask_codes.decoded(other, mask_codes._gaps(chosen), total), keep)


@given(st.sampled_from(Code), st.binary(max_size=40), st.integers(0, 400))
def test_any_bytes_are_a_mask_of_that_size_or_refused(code: Code, content: bytes, total: int) -> None:
    try:
        found = mask_codes.decoded(code, np.frombuffer(content, np.uint8), total)
    except ValueError:
        return
    assert (found.dtype, found.shape) == (np.bool_, (total,))


@pytest.mark.parametrize("content", [[9], [255, 0], [3, 255], [4, 5]])
def test_gaps_that_do_not_end_within_their_weights(content: list[int]) -> None:
    with pytest.raises(ValueError, match="gap"):
        mask_codes.decoded(Code.KEPT, np.array(content, np.uint8), 9)


@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.99])
def test_a_mask_is_packed_within_5_percent_of_its_entropy(density: float) -> None:
    keep = np.random.default_rng(0).random(200_000) < density
    code, content = mask_codes.encoded(keep)
    taken = blocks.sizes(blocks.packed({"mask/0": torch.from_numpy(content)}, {}))["mask/0"]
    bound = mask_codes.entropy(len(keep), int(keep.sum()))
    assert 0.99 * bound < taken < 1.05 * bound
    assert (code == Code.BITS) == (0.1 < density < 0.9)


def _weight(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A weight whose channels differ in size, and a mask that leaves some channels nothing."""
    scales = 10.0 ** random.uniform(-6, 6, (shape[0], *[1] * (len(shape) - 1)))
    keep = torch.from_numpy(random.random(shape) < random.choice((0.0, 0.3, 1.0), (shape[0], *[1] * (len(shape) - 1))))
    return torch.from_numpy(random.standard_normal(shape) * scales).float(), keep


def _decoded(rows: list[Tensor], keep: Tensor, kind: Values, steps: Tensor | None) -> Tensor:
    values.check(rows, keep, kind, steps)
    found = torch.full(keep.shape, torch.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "AT_ONCE", 7)  # parts end amid channels
        values.write(rows, keep, kind, steps, found)
    return found


SHAPES = st.sampled_from(((1, 1), (7, 30), (4, 3, 3, 3), (0, 5), (3, 0)))


@given(RANDOM, SHAPES)
def test_float32_is_exact(random: np.random.Generator, shape: tuple[int, ...]) -> None:
    weight, keep = _weight(random, shape)
    rows, steps = values.encoded("w", weight, keep, Values.FLOAT32)
    assert len(rows) == 4
    assert same_bits(_decoded(rows, keep, Values.FLOAT32, steps), torch.where(keep, weight, 0.0))


@given(RANDOM, SHAPES)
def test_int8_is_off_by_half_a_step_of_its_channel(random: np.random.Generator, shape: tuple[int, ...]) -> None:
    weight, keep = _weight(random, shape)
    rows, exponents = values.encoded("w", weight, keep, Values.INT8)
    assert exponents is not None
    found = _decoded(rows, keep, Values.INT8, exponents)
    error = (found - torch.where(keep, weight, 0.0)).abs().reshape(len(weight), weight[:1].numel())
    steps = torch.ldexp(torch.ones(len(weight)), exponents.int())
    assert (error <= steps[:, None] / 2).all()
    kept = torch.where(keep, weight, 0.0).reshape(error.shape)
    assert (found[~keep] == 0).all()
    for channel, step in enumerate(steps):
        used = kept[channel][keep.reshape(error.shape)[channel]]
        if len(used):
            most = max(0.049 * float(used.square().mean().sqrt()), 2 * float(used.abs().max()) / 127)
            assert float(step) <= most * (1 + 1e-6)


def test_values_that_a_type_does_not_have() -> None:
    keep = torch.ones(1, 2, dtype=torch.bool)
    for weight, kind in ((torch.tensor([[1e6, 0]]), Values.FLOAT16), (torch.tensor([[torch.inf, 0]]), Values.INT8)):
        with pytest.raises(ModelError, match=r"fc: holds values .*; store float32"):
            values.encoded("fc", weight, keep, kind)
    weight = torch.tensor([[torch.nan, -torch.inf]])
    assert torch.allclose(_decoded(*_both(weight, keep, Values.FLOAT16)), weight, equal_nan=True)
    largest = torch.full((1, 2), torch.finfo(torch.float32).max)
    assert torch.allclose(_decoded(*_both(largest, keep, Values.INT8)), largest, rtol=0.02)


def _both(weight: Tensor, keep: Tensor, kind: Values) -> tuple[list[Tensor], Tensor, Values, Tensor | None]:
    rows, steps = values.encoded("w", weight, keep, kind)
    return rows, keep, kind, steps


@pytest.mark.parametrize("changed", ["a row less", "shorter rows", "another type", "no steps", "other steps", "beyond"])
def test_rows_that_do_not_fit_are_refused(changed: str) -> None:
    rows, keep, kind, steps = _both(torch.eye(3), torch.eye(3) > 0, Values.INT8)
    assert steps is not None
    made: dict[str, tuple[list[Tensor], Tensor | None]] = {
        "a row less": (rows[1:], steps),
        "shorter rows": ([row[1:] for row in rows], steps),
        "another type": ([row.view(torch.int8) for row in rows], steps),
        "no steps": (rows, None),
        "other steps": (rows, steps[1:]),
        "beyond": (rows, torch.full_like(steps, 127)),
    }
    values.check(rows, keep, kind, steps)
    with pytest.raises(ValueError, match="has "):
        values.check(made[changed][0], keep, kind, made[changed][1])
