"""A little language over `llvmlite.ir`: loops, vectors, and functions that other code can call.

Kernels are written in it as Python functions that build instructions; nothing here knows what they compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

FLOAT = ir.FloatType()
INT32, INT64, INT16, INT8 = ir.IntType(32), ir.IntType(64), ir.IntType(16), ir.IntType(8)
POINTER = ir.PointerType()
VOID = ir.VoidType()


def i64(number: int) -> ir.Constant:
    return ir.Constant(INT64, number)


@dataclass
class Emitter:
    """Builds one function. `lanes` float32 numbers make a vector."""

    module: ir.Module
    function: ir.Function
    builder: ir.IRBuilder
    lanes: int

    @classmethod
    def begin(cls, module: ir.Module, name: str, arguments: Sequence[ir.Type], lanes: int) -> Emitter:
        """A new function without result; every pointer argument is the only way to its memory."""
        function = ir.Function(module, ir.FunctionType(VOID, list(arguments)), name)
        for argument in function.args:
            if argument.type == POINTER:
                argument.add_attribute("noalias")
        return cls(module, function, ir.IRBuilder(function.append_basic_block("entry")), lanes)

    @property
    def vector(self) -> ir.VectorType:
        return ir.VectorType(FLOAT, self.lanes)

    def end(self) -> None:
        self.builder.ret_void()

    @contextlib.contextmanager
    def loop(self, start: ir.Value, stop: ir.Value, carried: Sequence[ir.Value] = (), step: int = 1) -> Iterator[Loop]:
        """Runs its body for start, start + step, ... below stop. `carried` values go round; the body sets `next`."""
        builder = self.builder
        before = builder.block
        head, body = builder.append_basic_block("head"), builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(INT64)
        index.add_incoming(start, before)
        phis = [builder.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", index, stop), body, after)
        builder.position_at_end(body)
        state = Loop(index, list(phis), list(phis))
        yield state
        last = builder.block
        index.add_incoming(builder.add(index, i64(step)), last)
        for phi, value in zip(phis, state.next, strict=True):
            phi.add_incoming(value, last)
        builder.branch(head)
        builder.position_at_end(after)
        # After the loop the carried values are those of its head.

    def load(self, base: ir.Value, index: ir.Value, kind: ir.Type, align: int = 4) -> ir.Value:
        """kind base[index]; the index counts elements of `kind`, for vectors of their floats."""
        element = FLOAT if isinstance(kind, ir.VectorType) else kind
        return self.builder.load(self.builder.gep(base, [index], source_etype=element), typ=kind, align=align)

    def load_some(self, base: ir.Value, index: ir.Value, chosen: ir.Value, others: ir.Value) -> ir.Value:
        """The floats base[index], base[index + 1], ... that are chosen; nothing is read for the other ones."""
        kind = others.type
        name = f"llvm.masked.load.v{kind.count}f32.p0"
        function = self.module.globals.get(name) or ir.Function(
            self.module, ir.FunctionType(kind, [POINTER, INT32, chosen.type, kind]), name
        )
        return self.builder.call(function, [self.at(base, index), ir.Constant(INT32, 4), chosen, others])

    def store(self, value: ir.Value, base: ir.Value, index: ir.Value, align: int = 4) -> None:
        kind = value.type
        element = FLOAT if isinstance(kind, ir.VectorType) else kind
        self.builder.store(value, self.builder.gep(base, [index], source_etype=element), align=align)

    def number(self, base: ir.Value, index: ir.Value, kind: ir.Type = INT32) -> ir.Value:
        """The integer base[index] as 64 bits; those of 16 bits have no sign."""
        loaded = self.load(base, index, kind, align=kind.width // 8)
        if kind == INT64:
            return loaded
        return self.builder.zext(loaded, INT64) if kind == INT16 else self.builder.sext(loaded, INT64)

    def range_of(self, starts: ir.Value, row: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The first nonzero of a row, and the first of the next."""
        return self.number(starts, row), self.number(starts, self.builder.add(row, i64(1)))

    def broadcast(self, number: ir.Value) -> ir.Value:
        """A float in every lane."""
        one = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), number, ir.Constant(INT32, 0))
        return self.shuffled(one, one, [0] * self.lanes)

    def broadcast_integer(self, number: ir.Value) -> ir.Value:
        """A 32-bit integer in every lane."""
        kind = ir.VectorType(INT32, self.lanes)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INT32, 0))
        return self.shuffled(one, one, [0] * self.lanes)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a · b + c, rounded once."""
        return self.builder.call(self._intrinsic("fma", a.type, 3), [a, b, c])

    def call_address(self, address: ir.Value, kind: ir.FunctionType, arguments: Sequence[ir.Value]) -> ir.Value:
        """Calls the function at an address, a number."""
        return self.builder.call(self.builder.inttoptr(address, kind.as_pointer()), arguments)

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger one; a where one of them is NaN, so that max(a, 0) does not hide that a is."""
        return self.builder.select(self.builder.fcmp_ordered(">", b, a), b, a)

    def largest(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger one, NaN where one of them is, as in a max pool."""
        larger = self.builder.select(self.builder.fcmp_unordered(">", b, a), b, a)
        return self.builder.select(self.builder.fcmp_unordered("uno", a, a), a, larger)

    def zeros(self) -> ir.Value:
        return self.constant(0.0)

    def constant(self, number: float) -> ir.Value:
        """A number in every lane."""
        return ir.Constant(self.vector, [number] * self.lanes)

    def shuffled(self, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
        """The named lanes of two vectors end to end."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(lanes)), list(lanes)))

    def bytes(self, base: ir.Value, index: ir.Value) -> ir.Value:
        """A vector of 32-bit integers from as many bytes, which have no sign."""
        few = self.builder.load(self.at(base, index, INT8), typ=ir.VectorType(INT8, self.lanes), align=1)
        return self.builder.zext(few, ir.VectorType(INT32, self.lanes))

    def permuted(self, numbers: ir.Value, places: ir.Value) -> ir.Value:
        """numbers[places[lane]] in each lane, 0 for places from 16 to 31. AVX-512 only: LLVM has no word of its own."""
        name = "llvm.x86.avx512.vpermi2var.ps.512"
        kind = ir.FunctionType(self.vector, [self.vector, places.type, self.vector])
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return self.builder.call(function, [numbers, places, self.zeros()])

    def square_root(self, a: ir.Value) -> ir.Value:
        return self.builder.call(self._intrinsic("sqrt", a.type, 1), [a])

    def rounded(self, a: ir.Value) -> ir.Value:
        """The nearest whole number, as a float."""
        return self.builder.call(self._intrinsic("rint", a.type, 1), [a])

    def compressed(self, integers: ir.Value, chosen: ir.Value) -> ir.Value:
        """The chosen lanes of a vector of 32-bit integers moved to its front; whatever behind them."""
        name = f"llvm.experimental.vector.compress.v{self.lanes}i32"
        kind = ir.FunctionType(integers.type, [integers.type, chosen.type, integers.type])
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return self.builder.call(function, [integers, chosen, integers])

    def count_true(self, chosen: ir.Value) -> ir.Value:
        """How many lanes are chosen."""
        bits = ir.IntType(self.lanes)
        name = f"llvm.ctpop.i{self.lanes}"
        function = self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(bits, [bits]), name)
        return self.builder.zext(self.builder.call(function, [self.builder.bitcast(chosen, bits)]), INT64)

    def sum_of_lanes(self, a: ir.Value) -> ir.Value:
        """The sum of a vector's lanes, in the order that is fastest."""
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f32"
        kind = ir.FunctionType(FLOAT, [FLOAT, self.vector])
        reduce = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return self.builder.call(reduce, [ir.Constant(FLOAT, -0.0), a], fastmath=("reassoc",))

    def at(self, base: ir.Value, index: ir.Value, kind: ir.Type = FLOAT) -> ir.Value:
        """The address of base[index]."""
        return self.builder.gep(base, [index], source_etype=kind)

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def _intrinsic(self, name: str, kind: ir.Type, arguments: int) -> ir.Function:
        suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
        full = f"llvm.{name}.{suffix}"
        found = self.module.globals.get(full)
        return found or ir.Function(self.module, ir.FunctionType(kind, [kind] * arguments), full)


@dataclass
class Loop:
    """Inside a loop: its index, the values carried into this turn, and those for the next."""

    index: ir.Value
    values: list[ir.Value]
    next: list[ir.Value]
