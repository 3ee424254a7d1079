"""Machine code for this machine, for one with AVX2 and for a 64-bit ARM; and machines without any."""

from __future__ import annotations

import math
import platform
import re

import pytest

from tombola.errors import KernelError
from tombola.kernels.choices import UNPOOL, choosing_product
from tombola.kernels.compiler import Kernel, assembly
from tombola.kernels.copies import CLEAR, CLEAR_BORDER, COPY_ROWS, combine
from tombola.kernels.expansions import PIECES, expand
from tombola.kernels.layouts import FROM_PANEL, GATHER_PANEL, TO_PANEL
from tombola.kernels.losses import CROSS_ENTROPY_GRADIENT
from tombola.kernels.pools import PLANE_MEANS, PoolKind, pool
from tombola.kernels.products import Epilogue, panel_product
from tombola.kernels.program import RUN_STEPS, RUN_STEPS_ON_STACK
from tombola.kernels.samples import SAMPLED_PRODUCT
from tombola.kernels.target import _lanes, aarch64, avx2, host
from tombola.kernels.tile_samples import tile_samples
from tombola.kernels.tiles import tile_product
from tombola.kernels.updates import ADAM, GATHER, SGD
from tombola.kernels.vectors import COLUMNS_TIMES_VECTOR, DENSE_COLUMNS_TIMES_VECTOR, ROWS_TIMES_VECTOR

PRODUCTS = [
    DENSE_COLUMNS_TIMES_VECTOR,
    *(panel_product(first, e) for first in (True, False) for e in Epilogue),
    SAMPLED_PRODUCT,
    *(choosing_product(first) for first in (True, False)),
    *(tile_samples(4, pooled, biases=True) for pooled in (True, False)),
    *(tile_product(4, first, Epilogue.RELU, pooled, 2) for first in (True, False) for pooled in (True, False)),
]
IMAGES = [expand(piece, step, fill) for piece in PIECES for step in (1, 2, 3) for fill in (None, 0.0, -math.inf)]
IMAGES += [*map(pool, PoolKind), PLANE_MEANS, COPY_ROWS, CLEAR, CLEAR_BORDER, combine(True, True)]
LAYOUTS = [TO_PANEL, GATHER_PANEL, FROM_PANEL]
TRAINING = [CROSS_ENTROPY_GRADIENT, SGD, ADAM, GATHER]
SCALAR = [ROWS_TIMES_VECTOR, COLUMNS_TIMES_VECTOR]
every = pytest.mark.parametrize(
    "kernel",
    [*PRODUCTS, *IMAGES, *LAYOUTS, *SCALAR, UNPOOL, RUN_STEPS, RUN_STEPS_ON_STACK],
    ids=lambda kernel: kernel.name,
)
x86_only = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is an instruction set of x86")


@every
def test_aarch64(kernel: Kernel) -> None:
    text = assembly(kernel, aarch64())
    assert re.search(rf"^{kernel.name}:", text, re.MULTILINE)
    assert re.search(rf"^{kernel.name}_entry:", text, re.MULTILINE)
    assert "\tret\n" in text
    if kernel in PRODUCTS:
        assert len(re.findall(r"\bfmla\s+v\d+\.4s", text)) >= 4
    if kernel in LAYOUTS:
        assert re.search(r"\b(zip|trn|uzp)[12]\s+v\d+\.(4s|2d)", text), "transposed number by number"
    if kernel in SCALAR:
        assert re.search(r"\bfmadd\s+s", text)


@x86_only
@every
def test_avx2(kernel: Kernel) -> None:
    text = assembly(kernel, avx2())
    assert re.search(rf"^{kernel.name}:", text, re.MULTILINE)
    assert "zmm" not in text
    assert not re.search(r"%k[0-7]\b", text), "a mask register of AVX-512"
    if kernel in PRODUCTS:
        assert len(re.findall(r"vfmadd\d+ps\s.*ymm", text)) >= 4
    if kernel in LAYOUTS:
        assert re.search(r"v(unpck|perm|shuf|blend|insert)\w*\s.*ymm", text), "transposed number by number"
    if kernel in SCALAR:
        assert re.search(r"vfmadd\d+ss", text)
    assert "fmaf" not in text, "products are added by calls of the C library"


@x86_only
def test_the_host_uses_the_widest_vectors_it_has() -> None:
    register = {16: "zmm", 8: "ymm"}[host().lanes]
    assert re.search(rf"vfmadd\d+ps\s.*{register}", assembly(panel_product(True, Epilogue.NONE), host()))


@pytest.mark.parametrize(
    ("triple", "features", "lanes"),
    [
        ("x86_64-unknown-linux-gnu", {"avx512f": True, "avx2": True, "fma": True}, 16),
        ("x86_64-unknown-linux-gnu", {"avx512f": False, "avx2": True, "fma": True}, 8),
        ("x86_64-pc-windows-msvc", {"avx2": True, "fma": True}, 8),
        ("aarch64-unknown-linux-gnu", {}, 4),
        ("arm64-apple-darwin23.0.0", {}, 4),
    ],
)
def test_lanes(triple: str, features: dict[str, bool], lanes: int) -> None:
    assert _lanes(triple, features) == lanes


@pytest.mark.parametrize(
    ("triple", "features"),
    [
        ("x86_64-unknown-linux-gnu", {}),
        ("x86_64-unknown-linux-gnu", {"avx2": True, "fma": False}),
        ("x86_64-unknown-linux-gnu", {"avx2": False, "fma": True}),
        ("riscv64-unknown-linux-gnu", {"v": True}),
        ("armv7-unknown-linux-gnueabihf", {"neon": True}),
    ],
)
def test_a_processor_without_such_vectors_is_told_what_to_do(triple: str, features: dict[str, bool]) -> None:
    with pytest.raises(KernelError, match=r"neither AVX2 with FMA nor NEON.*leave the model to torch"):
        _lanes(triple, features)
