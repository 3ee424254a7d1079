"""The targets that kernels are run for: this machine, and this machine as one with AVX2."""

from __future__ import annotations

import pytest

from tombola.kernels.target import Target, avx2, host


@pytest.fixture(scope="session", params=["host", "avx2"])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "host":
        return host()
    if not host().triple.startswith("x86_64"):
        pytest.skip("AVX2 is an instruction set of x86 processors")
    return avx2()
