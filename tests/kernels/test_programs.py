"""Programs: whole networks in one call, for any number of threads, without the interpreter's lock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from uuid import uuid4

import numpy as np
import pytest
from fenced_arrays import Fences, address
from llvmlite import ir
from small_matrices import BATCHES, assert_sums, padded, sum_terms

from tombola.errors import KernelError
from tombola.kernels.compiler import Kernel, compiled
from tombola.kernels.emit import INT32, INT64, POINTER, Emitter, i64
from tombola.kernels.layouts import TO_PANEL
from tombola.kernels.packing import pack, values_of
from tombola.kernels.products import Epilogue, panel_product
from tombola.kernels.program import STACK, Place, Program, Step, Where
from tombola.kernels.steps import columns_times_vector, from_panel, panel_products, rows_times_vector, to_panel
from tombola.kernels.target import Target
from tombola.kernels.vectors import columns_scratch

INPUT, OUTPUT, WORKSPACE = Where(Place.INPUT), Where(Place.OUTPUT), Where(Place.WORKSPACE)
SIZES = (50, 30, 20, 10)


@dataclass(frozen=True)
class Layer:
    keep: np.ndarray
    weights: np.ndarray
    bias: np.ndarray


@pytest.fixture
def network() -> list[Layer]:
    rng = np.random.default_rng(3)
    layers = []
    for inputs, outputs in pairwise(SIZES):
        keep = rng.random((outputs, inputs)) < 0.3
        weights = (rng.standard_normal(keep.shape) * keep).astype(np.float32)
        layers.append(Layer(keep, weights, rng.standard_normal(outputs).astype(np.float32)))
    return layers


def digits(count: int, seed: int = 0) -> np.ndarray:
    """Half of the numbers are 0."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, SIZES[0])) * (rng.random((count, SIZES[0])) < 0.5)).astype(np.float32)


def exact(network: list[Layer], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs, and how far those of float32 may be off: every layer passes on the error of the one before."""
    values, error = x.T.astype(np.float64), np.zeros(x.T.shape)
    for layer in network:
        weights, unit = np.abs(layer.weights).astype(np.float64), sum_terms(layer.keep)[:, None] * 2.0**-24
        error = weights @ error + 1.01 * unit * (np.abs(layer.bias)[:, None] + weights @ (np.abs(values) + error))
        values = layer.bias[:, None] + layer.weights.astype(np.float64) @ values
        if layer is not network[-1]:
            values = np.maximum(values, 0)
    return values.T, error.T


def on_panels(network: list[Layer], count: int, target: Target, block: int = 16) -> Program:
    """Two panels of the workspace take turns."""
    width = padded(count, target.lanes)
    places = [WORKSPACE, Where(Place.WORKSPACE, max(SIZES) * width)]
    steps = [to_panel(count, SIZES[0], INPUT, places[0], width)]
    for layer in network:
        pattern = pack(layer.keep, block)
        values = [values_of(layer.weights, own) for own in pattern.blocks]
        epilogue = Epilogue.NONE if layer is network[-1] else Epilogue.RELU
        steps += panel_products(pattern, values, layer.bias, *places, width, epilogue)
        places.reverse()
    steps.append(from_panel(count, SIZES[-1], places[0], width, OUTPUT))
    return Program(steps, 2 * max(SIZES) * width, target)


def by_rows(network: list[Layer], target: Target) -> Program:
    places = [INPUT, WORKSPACE, Where(Place.WORKSPACE, max(SIZES)), OUTPUT]
    steps = []
    for number, layer in enumerate(network):
        pattern = pack(layer.keep, 16)
        values = [values_of(layer.weights, own) for own in pattern.blocks]
        between = places[number : number + 2]
        steps += rows_times_vector(pattern, values, layer.bias, *between, relu=layer is not network[-1])
    return Program(steps, 2 * max(SIZES), target)


def by_columns(network: list[Layer], target: Target) -> Program:
    places = [INPUT, WORKSPACE, Where(Place.WORKSPACE, max(SIZES)), OUTPUT]
    scratch = Where(Place.WORKSPACE, 2 * max(SIZES))
    steps = []
    for number, layer in enumerate(network):
        transposed = pack(layer.keep.T.copy(), 16)
        values = [values_of(layer.weights.T, own) for own in transposed.blocks]
        relu, between = layer is not network[-1], places[number : number + 2]
        steps += columns_times_vector(transposed, values, layer.bias, *between, relu, scratch)
    return Program(steps, 2 * max(SIZES) + columns_scratch(max(SIZES), max(SIZES)), target)


def outputs(program: Program, x: np.ndarray) -> np.ndarray:
    """Of a call, inside its input, its output and its workspace."""
    fences = Fences(at_end=True)
    inputs, y, workspace = fences.given(x), fences.room((len(x), SIZES[-1])), fences.room(program.workspace)
    program(address(inputs), address(y), address(workspace))
    fences.check()
    return y


@pytest.mark.parametrize("count", BATCHES)
def test_a_network_on_panels_equals_float64(network: list[Layer], target: Target, count: int) -> None:
    x = digits(count)
    assert_sums(outputs(on_panels(network, count, target), x), *_bounded(network, x))


@pytest.mark.parametrize("way", [by_rows, by_columns])
def test_a_network_for_one_example_equals_float64(
    network: list[Layer], target: Target, way: Callable[[list[Layer], Target], Program]
) -> None:
    x = digits(1)
    assert_sums(outputs(way(network, target), x), *_bounded(network, x))


def _bounded(network: list[Layer], x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    values, error = exact(network, x)
    return values, error * 2**24, 1


def test_a_gate_lies_where_the_step_says(target: Target) -> None:
    """Backwards through ReLU: the gradient passes where the outputs, here the input, are above 0."""
    width = target.lanes
    pattern = pack(np.eye(3, dtype=bool))
    values, bias = [np.array([2, 3, 4], np.float32)], np.zeros(3, np.float32)
    delta = Where(Place.WORKSPACE, 5)
    program = Program(
        panel_products(pattern, values, bias, delta, OUTPUT, width, Epilogue.GATE, gate=INPUT), 5 + 3 * width, target
    )
    gate = np.resize(np.array([1, -1, 0], np.float32), (3, width))
    workspace, y = np.ones(program.workspace, np.float32), np.zeros((3, width), np.float32)
    program(address(gate), address(y), address(workspace))
    assert np.array_equal(y, np.array([[2], [3], [4]]) * (gate > 0))


def test_arrays_live_as_long_as_their_program(network: list[Layer], target: Target) -> None:
    x = digits(16)
    program, expected = on_panels(network, 16, target), outputs(on_panels(network, 16, target), x)
    for layer in list(network):
        layer.bias.setflags(write=False)
    network.clear()
    gc.collect()
    others = [np.full(size, np.nan, np.float32) for size in range(1, 400)]  # takes whatever was given back
    assert np.array_equal(outputs(program, x), expected)
    assert len(others) == 399


def test_a_call_of_a_program_keeps_it(network: list[Layer], target: Target) -> None:
    """Also when only the call is left, which needs no workspace."""
    x, y = digits(1), np.zeros((1, SIZES[-1]), np.float32)
    program = by_columns(network, target)
    expected, call = outputs(program, x), program.run_alone
    assert call is not None
    del program
    network.clear()
    gc.collect()
    others = [np.full(size, np.nan, np.float32) for size in range(1, 400)]  # takes whatever was given back
    call(address(x), address(y))
    assert np.array_equal(y, expected)
    assert len(others) == 399


def test_a_large_workspace_is_not_on_the_stack(target: Target) -> None:
    assert Program([], STACK, target).run_alone is not None
    assert Program([], STACK + 1, target).run_alone is None


def test_a_step_takes_its_kernels_arguments(target: Target) -> None:
    with pytest.raises(KernelError, match="to_panel does not take these 4 arguments"):
        Program([Step(TO_PANEL, (4, 4, WORKSPACE, OUTPUT))], target=target)
    with pytest.raises(KernelError, match="float64"):
        Program([Step(TO_PANEL, (4, 4, np.zeros(16), OUTPUT, target.lanes))], target=target)


def test_an_array_with_gaps_is_refused(target: Target) -> None:
    gaps = np.zeros((4, 8), np.float32)[:, ::2]
    with pytest.raises(KernelError, match="contiguous"):
        Program([Step(TO_PANEL, (4, 4, gaps, OUTPUT, target.lanes))], target=target)


def test_a_program_of_no_steps_does_nothing(target: Target) -> None:
    Program([], target=target)(0, 0, 0)


def test_threads_share_a_program(network: list[Layer], target: Target) -> None:
    """Each with an input, an output and a workspace of its own: equal bits, every time."""
    program = on_panels(network, 60, target)
    inputs = [digits(60, seed) for seed in range(8)]
    expected = [outputs(program, x) for x in inputs]
    together = threading.Barrier(8)

    def work(number: int) -> bool:
        workspace, y = np.zeros(program.workspace, np.float32), np.zeros_like(expected[number])
        together.wait()
        for _ in range(200):
            y[...] = np.nan
            program(address(inputs[number]), address(y), address(workspace))
            if y.tobytes() != expected[number].tobytes():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def _emit_wait(module: ir.Module, name: str, lanes: int) -> None:
    """name(most, flag, left): looks at the flag until it is not 0, `most` times at most; leaves what it saw in left."""
    emit = Emitter.begin(module, name, [INT64, POINTER, POINTER], lanes)
    most, flag, left = emit.function.args
    builder = emit.builder
    head, body, after = (builder.append_basic_block(block) for block in ("wait", "again", "done"))
    builder.branch(head)
    before, turn = builder.block, None
    builder.position_at_end(head)
    turn = builder.phi(INT64)
    turn.add_incoming(i64(0), before)
    seen = builder.load_atomic(flag, ordering="monotonic", align=4, typ=INT32)
    waiting = builder.and_(builder.icmp_signed("==", seen, ir.Constant(INT32, 0)), builder.icmp_signed("<", turn, most))
    builder.cbranch(waiting, body, after)
    builder.position_at_end(body)
    turn.add_incoming(builder.add(turn, i64(1)), body)
    builder.branch(head)
    builder.position_at_end(after)
    emit.store(seen, left, i64(0))
    emit.end()


WAIT = Kernel("wait", _emit_wait)


@pytest.mark.parametrize("as_program", [False, True])
def test_other_threads_run_while_a_kernel_does(target: Target, as_program: bool) -> None:
    """The kernel waits for what only another thread of Python does. Holding the lock, it would wait in vain."""
    flag, seen = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    most = 20_000_000_000  # some seconds
    if as_program:
        program = Program([Step(WAIT, (most, INPUT, OUTPUT))], target=target)
        waiting = threading.Thread(target=program, args=(address(flag), address(seen), 0))
    else:
        call = compiled(WAIT, target).call
        waiting = threading.Thread(target=call, args=(most, address(flag), address(seen)))
    entered = threading.Event()
    waiting.start()
    entered.wait(0.05)  # the kernel is under way by now, and where it is not, the test only shows less
    assert seen[0] == -1
    flag[0] = 7
    waiting.join()
    assert seen[0] == 7


def test_threads_compile_at_once(target: Target) -> None:
    """A kernel that nobody has compiled yet; all get the same one, and it works."""
    kernels = [
        replace(kernel, name=f"{kernel.name}_{uuid4().hex}")
        for kernel in (panel_product(True, Epilogue.NONE), TO_PANEL)
    ]
    together = threading.Barrier(8)

    def work(number: int) -> object:
        together.wait()
        return compiled(kernels[number % 2], target)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(8)))
    assert all(one is made[number % 2] for number, one in enumerate(made))
    assert made[0] is not made[1]
    x, y = np.arange(3, dtype=np.float32), np.full((3, target.lanes), np.nan, np.float32)
    made[1].call(1, 3, address(x), address(y), target.lanes)
    assert y[:, 0].tolist() == [0, 1, 2]
    assert not y[:, 1:].any()


def _emit_nonsense(module: ir.Module, name: str, lanes: int) -> None:
    """A function whose block does not end."""
    Emitter.begin(module, name, [INT64], lanes)


def test_what_llvm_refuses_is_named(target: Target) -> None:
    with pytest.raises(KernelError, match="nonsense: LLVM refuses the kernel"):
        compiled(Kernel("nonsense", _emit_nonsense), target)
