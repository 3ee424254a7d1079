"""Optimizer updates of one vector, as machine code: every number is read and written once.

All vectors have a multiple of `lanes` numbers; `settings` are float32 numbers, computed for each step in double
precision.
"""

from __future__ import annotations

from llvmlite import ir

from tombola.kernels.compiler import Kernel
from tombola.kernels.emit import FLOAT, INT32, INT64, POINTER, Emitter, i64


def emit_sgd(module: ir.Module, name: str, lanes: int) -> None:
    """name(count, values, gradients, momenta, settings = (rate, momentum, weight decay)).

    g += weight decay · value, m = momentum · m + g, value -= rate · m: stochastic gradient descent as torch.optim.SGD.
    """
    emit = Emitter.begin(module, name, [INT64, *[POINTER] * 4], lanes)
    count, values, gradients, momenta, settings = emit.function.args
    rate, momentum, decay = _settings(emit, settings, 3)
    with emit.loop(i64(0), count, step=lanes) as at:
        value, gradient, before = (emit.load(base, at.index, emit.vector) for base in (values, gradients, momenta))
        gradient = emit.fma(decay, value, gradient)
        after = emit.fma(momentum, before, gradient)
        emit.store(after, momenta, at.index)
        emit.store(emit.fma(emit.builder.fneg(rate), after, value), values, at.index)
    emit.end()


def emit_adam(module: ir.Module, name: str, lanes: int) -> None:
    """name(count, values, gradients, means, squares, settings).

    settings = (step, 1 - beta1, beta2, 1 - beta2, 1 / sqrt(1 - beta2^t), epsilon, decay, shrink) with
    step = rate / (1 - beta1^t). g += decay · value, value *= shrink, mean += (1 - beta1) · (g - mean), square = beta2 ·
    square + (1 - beta2) · g², value -= step · mean / (sqrt(square) / sqrt(1 - beta2^t) + epsilon): Adam (Kingma & Ba
    2015, arXiv 1412.6980) with shrink = 1, AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with decay = 0.
    """
    emit = Emitter.begin(module, name, [INT64, *[POINTER] * 5], lanes)
    count, values, gradients, means, squares, settings = emit.function.args
    builder = emit.builder
    step, toward, beta2, beta2_rest, correction, epsilon, decay, shrink = _settings(emit, settings, 8)
    with emit.loop(i64(0), count, step=lanes) as at:
        value, gradient, mean, square = (
            emit.load(base, at.index, emit.vector) for base in (values, gradients, means, squares)
        )
        gradient = emit.fma(decay, value, gradient)
        mean = emit.fma(toward, builder.fsub(gradient, mean), mean)
        square = emit.fma(beta2, square, builder.fmul(beta2_rest, builder.fmul(gradient, gradient)))
        root = emit.fma(emit.square_root(square), correction, epsilon)
        value = builder.fsub(builder.fmul(value, shrink), builder.fdiv(builder.fmul(step, mean), root))
        emit.store(mean, means, at.index)
        emit.store(square, squares, at.index)
        emit.store(value, values, at.index)
    emit.end()


def emit_gather(module: ir.Module, name: str, lanes: int) -> None:
    """name(count, places, values, out): out[k] = values[places[k]], for a matrix in another order."""
    emit = Emitter.begin(module, name, [INT64, POINTER, POINTER, POINTER], lanes)
    count, places, values, out = emit.function.args
    with emit.loop(i64(0), count) as k:
        emit.store(emit.load(values, emit.number(places, k.index, INT32), FLOAT), out, k.index)
    emit.end()


def _settings(emit: Emitter, settings: ir.Value, count: int) -> list[ir.Value]:
    return [emit.broadcast(emit.load(settings, i64(number), FLOAT)) for number in range(count)]


SGD = Kernel("sgd", emit_sgd)
ADAM = Kernel("adam", emit_adam)
GATHER = Kernel("gather", emit_gather)
