"""What machine code is made for: the host, or a machine that a test names."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from llvmlite import binding as llvm

from tombola.errors import KernelError


@dataclass(frozen=True)
class Target:
    """An instruction set: LLVM's triple, processor and features; `lanes` float32 numbers fill a vector register."""

    triple: str
    cpu: str
    features: str
    lanes: int

    def machine(self) -> llvm.TargetMachine:
        """A new LLVM target machine, which compiles for it."""
        found = llvm.Target.from_triple(self.triple)
        return found.create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, codemodel="jitdefault" if self.is_host else "default"
        )

    @property
    def is_host(self) -> bool:
        return self == host()


@functools.cache
def host() -> Target:
    """This machine. Raises KernelError where vectors could not be multiplied and added in one instruction."""
    initialise()
    features = llvm.get_host_cpu_features()
    triple = llvm.get_default_triple()
    lanes = _lanes(triple, features)
    return Target(triple, llvm.get_host_cpu_name(), features.flatten(), lanes)


@functools.cache
def avx2() -> Target:
    """The host without its 512-bit vectors, as most x86 machines are."""
    full = host()
    kept = [f for f in full.features.split(",") if "avx512" not in f and "avx10" not in f]
    return Target(full.triple, "x86-64-v3", ",".join(kept), 8)


def aarch64() -> Target:
    """A 64-bit ARM with NEON, to look at its assembly."""
    initialise()
    return Target("aarch64-unknown-linux-gnu", "generic", "+neon", 4)


@functools.cache
def initialise() -> None:
    """LLVM, for this machine and for those of tests."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _lanes(triple: str, features: dict[str, bool]) -> int:
    if triple.startswith(("aarch64", "arm64")):
        return 4
    if features.get("avx512f"):
        return 16
    if features.get("avx2") and features.get("fma"):
        return 8
    raise KernelError(
        "this processor has neither AVX2 with FMA nor NEON: sparse kernels would be slower than dense ones here; "
        "leave the model to torch"
    )
