"""A whole network in one call: a list of steps that one piece of machine code goes through.

A step says which kernel, and where its numbers lie: in the input, in the output, in a workspace of the call, or in
arrays of the program. So a program whose steps write to the first three only holds no state, and any number of threads
may run it at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from tombola.errors import KernelError
from tombola.kernels.compiler import Kernel, compiled
from tombola.kernels.emit import FLOAT, INT64, POINTER, VOID, Emitter, i64
from tombola.kernels.target import Target

READABLE = (np.float32, np.int32, np.int64, np.uint16, np.uint8)
STACK = 2048
"""Floats of workspace that machine code may take from the stack, where they cost nothing. Threads may have as little as
32 KiB of it."""
FIELDS = 16
"""64-bit numbers of a step: the kernel's entry and its arguments."""


class Place(IntEnum):
    """What the address of a step's numbers is counted from."""

    INPUT = 0
    OUTPUT = 1
    WORKSPACE = 2
    NOWHERE = 3


@dataclass(frozen=True)
class Where:
    """`offset` floats from the beginning of a place, or of an array, which the program keeps alive."""

    place: Place | NDArray[np.float32]
    offset: int = 0


Argument = int | Where | NDArray[np.generic]
"""Of a step: a number, a place of the call, or an array, which the program keeps alive."""


@dataclass(frozen=True)
class Step:
    """A kernel and its arguments."""

    kernel: Kernel
    arguments: tuple[Argument, ...]


class Program:
    """Steps, ready to run. `workspace` is how many floats a call needs beside input and output.

    `run(x, y, workspace)` runs all steps, as a call of the program does; the arguments are addresses of floats.
    `run_alone(x, y)` needs no workspace: it is there where a small one is enough.
    """

    def __init__(self, steps: Sequence[Step], workspace: int = 0, target: Target | None = None) -> None:
        self.steps = tuple(steps)
        self.workspace = workspace
        self._table = np.zeros((len(steps), FIELDS), dtype=np.int64)
        for row, step in zip(self._table, self.steps, strict=True):
            kernel = compiled(step.kernel, target)
            if [not isinstance(argument, int) for argument in step.arguments] != list(kernel.pointers):
                raise KernelError(f"{step.kernel.name} does not take these {len(step.arguments)} arguments")
            row[0] = kernel.entry
            row[1 : 1 + len(step.arguments)] = [_field(argument) for argument in step.arguments]
        table = self._table.ctypes.data, len(self.steps)
        self.run = functools.partial(compiled(RUN_STEPS, target).call, *table)
        self.run_alone: Callable[[int, int], None] | None = None
        if workspace <= STACK:
            self.run_alone = functools.partial(compiled(RUN_STEPS_ON_STACK, target).call, *table)
        for call in (self.run, self.run_alone):
            if call is not None:
                call.__dict__["program"] = self  # whoever holds a call holds the arrays

    def __call__(self, x: int, y: int, workspace: int) -> None:
        self.run(x, y, workspace)


def _field(argument: Argument) -> int:
    """An argument as `compiler._emit_entry` reads it."""
    if isinstance(argument, Where):
        if isinstance(argument.place, Place):
            return (4 * argument.offset << 2) | argument.place
        return _field(argument.place) + (4 * argument.offset << 2)
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous or argument.dtype not in READABLE:
            raise KernelError(
                f"an array of a program has to be contiguous and of numbers that kernels read, not {argument.dtype}"
            )
        return (argument.ctypes.data << 2) | Place.NOWHERE
    return (int(argument) << 2) | Place.NOWHERE


def _emit_run_steps(module: ir.Module, name: str, lanes: int) -> None:
    """name(steps, count, x, y, workspace): enters every step's kernel in turn."""
    emit = Emitter.begin(module, name, [POINTER, INT64, POINTER, POINTER, POINTER], lanes)
    _enter_steps(emit, emit.function.args)


def _emit_run_steps_on_stack(module: ir.Module, name: str, lanes: int) -> None:
    """name(steps, count, x, y): the same with a workspace of STACK floats that is gone afterwards."""
    emit = Emitter.begin(module, name, [POINTER, INT64, POINTER, POINTER], lanes)
    workspace = emit.builder.alloca(ir.ArrayType(FLOAT, STACK))
    workspace.align = 64
    _enter_steps(emit, [*emit.function.args, workspace])


def _enter_steps(emit: Emitter, arguments: Sequence[ir.Value]) -> None:
    steps, count, *places = arguments
    builder = emit.builder
    bases = builder.alloca(INT64, size=i64(len(Place)))
    for place, address in zip(Place, [*places, i64(0)], strict=True):
        number = address if address.type == INT64 else builder.ptrtoint(address, INT64)
        emit.store(number, bases, i64(place), align=8)
    with emit.loop(i64(0), count) as step:
        first = builder.mul(step.index, i64(FIELDS))
        kernel = emit.load(steps, first, INT64, align=8)
        fields = emit.at(steps, builder.add(first, i64(1)), INT64)
        emit.call_address(kernel, ir.FunctionType(VOID, [POINTER, POINTER]), [fields, bases])
    emit.end()


RUN_STEPS = Kernel("run_steps", _emit_run_steps, vectorise=False)
RUN_STEPS_ON_STACK = Kernel("run_steps_on_stack", _emit_run_steps_on_stack, vectorise=False)
