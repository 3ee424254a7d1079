"""From instructions to functions that Python can call; compiled once per process and target.

`ctypes` gives the interpreter's lock back while a kernel runs, and kernels hold no state: any number of threads may
run them at once.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from llvmlite import binding as llvm
from llvmlite import ir

from tombola.errors import KernelError, one_line
from tombola.kernels.emit import FLOAT, INT64, POINTER, VOID, i64
from tombola.kernels.room import with_room
from tombola.kernels.target import Target, host


@dataclass(frozen=True)
class Kernel:
    """A function in LLVM's instructions: `emit(module, name, lanes)` adds it to a module.

    Its arguments are 64-bit integers and pointers. `vectorise` allows LLVM to make vectors of scalar code. The name
    says all that it depends on: kernels of the same name are the same.
    """

    name: str
    emit: Callable[[ir.Module, str, int], None] = field(compare=False)
    vectorise: bool = True


@dataclass(frozen=True)
class Compiled:
    """A kernel in memory: to call from Python with its arguments, and the address at which a program enters it.

    `pointers` says of each argument whether it is an address.
    """

    call: Callable[..., None]
    entry: int
    pointers: tuple[bool, ...]


class _Compiler:
    """Everything compiled for one target. What it made is gone with it, so it lives as long as the process."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.machine = target.machine()
        self.jit = llvm.create_lljit_compiler(self.machine)
        self.kernels: dict[Kernel, Compiled] = {}
        self.trackers: list[object] = []

    def compiled(self, kernel: Kernel) -> Compiled:
        if kernel not in self.kernels:
            module, function = _module_of(kernel, self.target)
            text = str(_optimised(kernel, module, self.machine))
            entry = _entry_name(kernel)
            library = llvm.JITLibraryBuilder().add_ir(text).export_symbol(kernel.name).export_symbol(entry)
            tracker = library.link(self.jit, kernel.name)
            self.trackers.append(tracker)
            call = ctypes.CFUNCTYPE(None, *map(_ctype, function.args))(tracker[kernel.name])
            pointers = tuple(argument.type == POINTER for argument in function.args)
            self.kernels[kernel] = Compiled(call, tracker[entry], pointers)
        return self.kernels[kernel]


_lock = threading.Lock()
_compilers: dict[Target, _Compiler] = {}


def compiled(kernel: Kernel, target: Target | None = None) -> Compiled:
    """The kernel, ready to run on `target` (default: this machine), which has to be one that can run here."""
    target = target or host()
    found = _compilers[target].kernels.get(kernel) if target in _compilers else None
    return found or with_room(lambda: _compile(kernel, target))


def _compile(kernel: Kernel, target: Target) -> Compiled:
    with _lock:
        if target not in _compilers:
            _compilers[target] = _Compiler(target)
        return _compilers[target].compiled(kernel)


def assembly(kernel: Kernel, target: Target) -> str:
    """The assembly of a kernel for any target, this machine's or not."""
    machine = target.machine()
    module, _ = _module_of(kernel, target)
    return str(machine.emit_assembly(_optimised(kernel, module, machine)))


def _module_of(kernel: Kernel, target: Target) -> tuple[ir.Module, ir.Function]:
    module = ir.Module(kernel.name)
    module.triple = target.triple
    kernel.emit(module, kernel.name, target.lanes)
    function = module.get_global(kernel.name)
    _emit_entry(module, _entry_name(kernel), function)
    return module, function


def _entry_name(kernel: Kernel) -> str:
    return f"{kernel.name}_entry"


def _emit_entry(module: ir.Module, name: str, function: ir.Function) -> None:
    """name(fields, bases): calls the kernel with its arguments read from the fields of a program's step.

    Four times a number, plus which of four bases it is counted from, makes a field; the last base is 0.
    """
    entry = ir.Function(module, ir.FunctionType(VOID, [POINTER, POINTER]), name)
    fields, bases = entry.args
    builder = ir.IRBuilder(entry.append_basic_block("entry"))

    def read(base: ir.Value, index: ir.Value) -> ir.Value:
        return builder.load(builder.gep(base, [index], source_etype=INT64), typ=INT64, align=8)

    arguments = []
    for number, argument in enumerate(function.args):
        field = read(fields, i64(number))
        value = builder.add(read(bases, builder.and_(field, i64(3))), builder.ashr(field, i64(2)))
        arguments.append(builder.inttoptr(value, POINTER) if argument.type == POINTER else value)
    builder.call(function, arguments)
    builder.ret_void()


def _optimised(kernel: Kernel, module: ir.Module, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    try:
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
    except RuntimeError as error:
        raise KernelError(f"{kernel.name}: LLVM refuses the kernel: {one_line(error)}") from None
    # Kernels are unrolled as they are written: LLVM's unrolling on top was measured 1 to 4 % slower.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False
    # Nonzeros that follow one another are at unrelated places: packing their scalars into vectors was measured slower.
    options.slp_vectorization = kernel.vectorise
    options.loop_vectorization = kernel.vectorise
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return parsed


def _ctype(argument: ir.Argument) -> type:
    return {str(INT64): ctypes.c_int64, str(POINTER): ctypes.c_void_p, str(FLOAT): ctypes.c_float}[str(argument.type)]
