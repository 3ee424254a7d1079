"""The gradient of the mean cross-entropy on a panel of logits, as machine code. Examples lie in the lanes."""

from __future__ import annotations

import math

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT32, INT64, POINTER, Emitter, i64

LN2 = math.log(2)
LN2_HIGH = 355 / 512
"""The leading bits of ln 2: times a small whole number it is exact in float32."""
TAYLOR = 7
"""Degree at which the series of exp on |r| <= ln 2 / 2 is exact to float32: the next term is below 6e-9."""


def emit_cross_entropy_gradient(module: ir.Module, name: str, lanes: int) -> None:
    """name(positions, targets, count, classes, logits, delta, width).

    delta[c·width + e] = (softmax(logits of e)[c] - (c is targets[positions[e]])) / count for e < count, else 0.
    Positions and targets are 64-bit.
    """
    emit = Emitter.begin(module, name, [POINTER, POINTER, INT64, INT64, POINTER, POINTER, INT64], lanes)
    _, _, count, classes, logits, delta, width = emit.function.args
    builder = emit.builder
    weight = builder.fdiv(ir.Constant(FLOAT, 1.0), builder.sitofp(count, FLOAT))
    with emit.loop(i64(0), width, step=lanes) as example:
        target, inside = _targets(emit, example.index)

        def place(number: ir.Value, first: ir.Value = example.index) -> ir.Value:
            return builder.add(builder.mul(number, width), first)

        with emit.loop(i64(0), classes, [emit.constant(-math.inf)]) as c:
            c.next[0] = emit.maximum(emit.load(logits, place(c.index), emit.vector), c.values[0])
        largest = c.values[0]
        with emit.loop(i64(0), classes, [emit.zeros()]) as c:
            power = exponential(emit, builder.fsub(emit.load(logits, place(c.index), emit.vector), largest))
            emit.store(power, delta, place(c.index))
            c.next[0] = builder.fadd(c.values[0], power)
        weights = builder.select(inside, emit.broadcast(weight), emit.zeros())
        factor = builder.fdiv(weights, c.values[0])
        with emit.loop(i64(0), classes) as c:
            number = emit.broadcast_integer(builder.trunc(c.index, INT32))
            own = builder.select(builder.icmp_signed("==", target, number), weights, emit.zeros())
            power = emit.load(delta, place(c.index), emit.vector)
            emit.store(builder.fsub(builder.fmul(power, factor), own), delta, place(c.index))
    emit.end()


def _targets(emit: Emitter, first: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The targets of a vector of examples, and which of them are real."""
    positions, targets, count, *_ = emit.function.args
    builder = emit.builder
    found = ir.Constant(ir.VectorType(INT32, emit.lanes), ir.Undefined)
    inside = ir.Constant(ir.VectorType(ir.IntType(1), emit.lanes), ir.Undefined)
    last = builder.sub(count, i64(1))
    for lane in range(emit.lanes):
        example = builder.add(first, i64(lane))
        position = emit.number(positions, emit.least(example, last), INT64)
        target = builder.trunc(emit.number(targets, position, INT64), INT32)
        found = builder.insert_element(found, target, ir.Constant(INT32, lane))
        real = builder.icmp_signed("<", example, count)
        inside = builder.insert_element(inside, real, ir.Constant(INT32, lane))
    return found, inside


def exponential(emit: Emitter, x: ir.Value) -> ir.Value:
    """exp(x) for x <= 0, to about an ulp; below -87, where it is hardly a number of float32 any more, exp(-87).

    exp(x) = 2^n · exp(r) with n the whole number nearest to x / ln 2 and r = x - n · ln 2 by its Taylor series.
    """
    builder = emit.builder
    x = emit.maximum(x, emit.constant(-87.0))
    n = emit.rounded(builder.fmul(x, emit.constant(1 / LN2)))
    r = emit.fma(n, emit.constant(-LN2_HIGH), x)
    r = emit.fma(n, emit.constant(LN2_HIGH - LN2), r)
    series = emit.constant(1 / math.factorial(TAYLOR))
    for degree in range(TAYLOR - 1, -1, -1):
        series = emit.fma(series, r, emit.constant(1 / math.factorial(degree)))
    integers = ir.VectorType(INT32, emit.lanes)
    exponent = builder.add(builder.fptosi(n, integers), ir.Constant(integers, [127] * emit.lanes))
    power = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [23] * emit.lanes)), emit.vector)
    return builder.fmul(series, power)


CROSS_ENTROPY_GRADIENT = Kernel("cross_entropy_gradient", emit_cross_entropy_gradient)
