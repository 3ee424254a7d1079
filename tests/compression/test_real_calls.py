"""Machine code believes an address: a call that is not a real one on real numbers is refused in one line, or right."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tombola import TombolaError, load_sparse, prune, save_sparse, sparsify
from tombola.compression.sparse_modules import SparseModel
from tombola.errors import KernelError, ModelError
from tombola.kernels.tensors import address_of, readable

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def _sparse(model: nn.Module, x: Tensor) -> tuple[nn.Module, SparseModel]:
    masks = prune(model, 0.5)
    sparse = sparsify(model, masks, x, (len(x),))
    dense = copy.deepcopy(model).requires_grad_(False)
    masks.apply_(dense)
    return dense, sparse


def _whole() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def _partly() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3))


WHOLE, PARTLY = _sparse(_whole(), X), _sparse(_partly(), X)


class Passing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    """A tensor of somebody's own."""


def _within(mode: Callable[[], Any]) -> Callable[[nn.Module], object]:
    def call(model: nn.Module) -> object:
        with mode():
            return model(X)

    return call


def _fake(model: nn.Module) -> object:
    with FakeTensorMode() as mode:
        return model(mode.from_tensor(X))


def _fake_outside(model: nn.Module) -> object:
    return model(FakeTensorMode().from_tensor(X))


def _dual(model: nn.Module) -> object:
    with forward_ad.dual_level():
        return model(forward_ad.make_dual(X, torch.ones_like(X)))


CAPTURES: dict[str, Callable[[nn.Module], object]] = {
    "torch.jit.trace": lambda model: torch.jit.trace(model, (X,)),
    "torch.jit.script": torch.jit.script,
    "ONNX by tracing": lambda model: torch.onnx.export(model, (X,), io.BytesIO(), dynamo=False),
    "torch.export": lambda model: torch.export.export(model, (X,)),
    "make_fx": lambda model: make_fx(model)(X),
    "make_fx, symbolic": lambda model: make_fx(model, tracing_mode="symbolic")(X),
    "make_fx, before dispatch": lambda model: make_fx(model, pre_dispatch=True)(X),
    "torch.fx": torch.fx.symbolic_trace,
    "vmap": lambda model: torch.func.vmap(model)(X),
    "grad": lambda model: torch.func.grad(lambda x: model(x).sum())(X),
    "jvp": lambda model: torch.func.jvp(model, (X,), (X,)),
    "jacrev": lambda model: torch.func.jacrev(model)(X),
    "functionalize": lambda model: torch.func.functionalize(model)(X),
    "a functional tensor": lambda model: model(torch._to_functional_tensor(X)),
    "a dual tensor": _dual,
    "a fake tensor": _fake,
    "a fake tensor outside": _fake_outside,
    "a function mode": _within(Passing),
    "a dispatch mode": _within(Watching),
    "a FLOP counter": _within(lambda: FlopCounterMode(display=False)),
}
INPUTS: dict[str, Callable[[], Any]] = {
    "meta": lambda: X.to("meta"),
    "double": X.double,
    "half": X.half,
    "subclass": lambda: X.as_subclass(Own),
    "sparse": X.to_sparse,
    "rows of a sparse one": X.to_sparse_csr,
    "nested": lambda: torch.nested.nested_tensor([X, X[:2]]),
    "jagged": lambda: torch.nested.nested_tensor([X, X[:2]], layout=torch.jagged),
    "quantised": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
    "zeros without memory": lambda: torch._efficientzerotensor(4, 8),
    "wants a gradient": lambda: X.clone().requires_grad_(),
    "freed": lambda: _resized(X.clone(), 0),
    "freed behind its beginning": lambda: _resized(torch.cat([X, X])[3:7], 0),
    "cut": lambda: _resized(X.clone(), 4 * X.numel() - 4),
    "cut, in columns": lambda: _resized(torch.rand(8, 4).T, 4 * X.numel() - 4),
    "no tensor": lambda: X.tolist(),
    "an array": X.numpy,
}


def _resized(x: Tensor, size: int) -> Tensor:
    x.untyped_storage().resize_(size)
    return x


@pytest.mark.parametrize("sparse", [WHOLE[1], PARTLY[1]], ids=["whole", "partly"])
@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.filterwarnings("ignore")
def test_what_would_record_or_transform_a_call_is_refused(
    capture: Callable[[nn.Module], object], sparse: SparseModel
) -> None:
    with pytest.raises(TombolaError) as refused:
        capture(sparse)
    assert "\n" not in str(refused.value)
    assert "dense model" in str(refused.value) or "primal" in str(refused.value)
    close(WHOLE)  # and nothing is left behind


@pytest.mark.filterwarnings("ignore")
def test_an_export_that_reads_python_is_told_what_to_do() -> None:
    """Its errors are torch's own, whatever the code that it reads would raise."""
    with pytest.raises(Exception, match="export or transform the dense model"):
        torch.export.export(PARTLY[1], (X,), strict=True)


@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_real_dense_float32_tensor_is_refused(make: Callable[[], Any]) -> None:
    close(WHOLE)  # the shape is known
    with pytest.raises(KernelError) as refused:
        WHOLE[1](make())
    assert "\n" not in str(refused.value)


def close(models: tuple[nn.Module, nn.Module], x: Tensor = X) -> None:
    dense, sparse = models
    assert torch.allclose(sparse(x), dense(x), atol=1e-5)


def _misaligned() -> Tensor:
    held = bytearray(4 * X.numel() + 1)
    held[1:] = X.numpy().tobytes()
    return torch.frombuffer(held, dtype=torch.float32, offset=1, count=X.numel()).view(4, 8)


def _negated() -> Tensor:
    return torch.complex(torch.zeros_like(X), X).conj().imag


REAL: dict[str, Callable[[], Tensor]] = {
    "a pending negation": _negated,
    "beside a float's boundary": _misaligned,
    "one row, often": lambda: X[:1].expand(4, 8),
    "one number, often": lambda: X[:1, :1].expand(4, 8),
    "columns": lambda: X.T.contiguous().T,
    "every second": lambda: torch.cat([X, X], 1)[:, ::2],
    "the end of a tensor": lambda: torch.cat([X, X])[4:],
    "a parameter": lambda: nn.Parameter(X, requires_grad=False),
}


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
def test_real_numbers_are_right_however_they_lie(make: Callable[[], Tensor]) -> None:
    close(WHOLE, make())
    close(PARTLY, make())


def test_modes_that_change_nothing_are_no_matter() -> None:
    for mode in (torch.inference_mode, torch.no_grad, lambda: torch.device("meta"), lambda: torch.autocast("cpu")):
        dense = WHOLE[0](X)
        with mode():
            assert torch.allclose(WHOLE[1](X), dense, atol=1e-5)
    with torch.inference_mode():
        x = X.clone()
    close(WHOLE, x)
    with forward_ad.dual_level():
        close(WHOLE)
    with torch.no_grad():
        close(WHOLE, X.clone().requires_grad_())
    assert WHOLE[1](X[:0]).shape == (0, 3)


def test_torch_compile_leaves_sparse_kernels_as_they_are() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(PARTLY[1], backend="aot_eager")
    for rows in (4, 1, 3, 3):
        x = torch.rand(rows, 8)
        assert torch.allclose(compiled(x), PARTLY[0](x), atol=1e-5)
    torch._dynamo.reset()


def test_the_gate_says_where_numbers_lie_only_where_they_do() -> None:
    assert address_of(X) == X.data_ptr() == readable(X, "x").data_ptr()
    for make in INPUTS.values():
        assert address_of(make()) is None
    assert readable(X.T, "x").is_contiguous()


SMALL_STACK = """
import sys, threading, torch
from torch import nn
from tombola import prune, sparsify
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
x = torch.randn(8, 20)
sparse = sparsify(model, prune(model, 0.9), x, (1,))
wanted = [sparse(x[:1]), sparse(x), None]
threading.stack_size(32768)
given = []
thread = threading.Thread(target=lambda: given.extend([sparse(x[:1]), sparse(x), sparse(x[:5])]))  # 5 are new: compiled
thread.start()
thread.join()
assert threading.stack_size() == 32768
assert len(given) == 3 and all(torch.equal(a, b) for a, b in zip(given[:2], wanted))
"""


def test_threads_with_the_least_stack_of_all_may_call() -> None:
    done = subprocess.run([sys.executable, "-c", SMALL_STACK], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


class TestWhatGoesThroughTensorsOnly:
    """Ways to store, convert and share a module that would lose its weights without a word."""

    @pytest.mark.parametrize("models", [WHOLE, PARTLY], ids=["whole", "partly"])
    def test_states_are_refused_alone_and_in_a_larger_model(self, models: tuple[nn.Module, SparseModel]) -> None:
        sparse = models[1]
        for module in (sparse, sparse.network, nn.Sequential(sparse, nn.Linear(3, 2))):
            with pytest.raises(ModelError, match="save_sparse"):
                module.state_dict()
            with pytest.raises(ModelError, match="save_sparse"):
                module.load_state_dict({})
            with pytest.raises(ModelError, match="save_sparse"):
                pickle.dumps(module)
            for convert in (module.half, module.double, lambda own=module: own.to("meta")):
                with pytest.raises(KernelError, match="float32 on the CPU"):
                    convert()

    def test_sharing_and_gradients_are_refused(self) -> None:
        with pytest.raises(ModelError, match="load_sparse in each"):
            PARTLY[1].share_memory()
        with pytest.raises(ModelError, match="no gradients"):
            PARTLY[1].requires_grad_()
        assert not any(parameter.requires_grad for parameter in PARTLY[1].parameters())

    def test_files_still_hold_the_rest(self, tmp_path: Path) -> None:
        save_sparse(tmp_path / "model.safetensors", PARTLY[1])
        again = load_sparse(tmp_path / "model.safetensors", _partly())
        assert torch.equal(again(X), PARTLY[1](X))
        close((PARTLY[0], copy.deepcopy(PARTLY[1])))


def test_kernels_are_compiled_once_whoever_asks() -> None:
    from tombola.kernels.compiler import compiled
    from tombola.kernels.layouts import TO_PANEL

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(compiled(TO_PANEL))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(kernel) for kernel in found}) == 1
