"""What of a processor decides the last bits of a result: a run is continued on one that has the same."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

from tombola.errors import KernelError
from tombola.kernels.target import host

VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""By which libraries below torch are told to use other instructions than they would."""


def processor_facts() -> dict[str, str]:
    """The instruction sets that torch and the sparse kernels use, and the maker, by whom MKL chooses its own."""
    told = {name: value for name in VARIABLES if (value := os.environ.get(name))}
    return {
        "maker": _maker(),
        "torch": str(torch.backends.cpu.get_cpu_capability()),
        "kernels": _kernels(),
        **told,
    }


def _kernels() -> str:
    try:
        return f"{host().lanes} lanes"
    except KernelError:
        return "none"


def _maker() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return "unknown"
