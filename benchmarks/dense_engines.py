"""The dense engines that sparse inference is measured against, each in its best form of call.

An engine gets a model and batches of one shape, and gives one `Call` per batch with the input bound beforehand, so
that nothing but the engine's own work is timed. Everything runs on one thread, in torch.inference_mode().
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tombola.compression.onnx_packages import required

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Call:
    """One batch bound to an engine: `run` computes, `result` gives the output of the last run as float32."""

    run: Callable[[], object]
    result: Callable[[], Tensor]


@dataclass(frozen=True)
class Job:
    """What an engine is to run: the model, its batches of one shape, and a folder for files of its own."""

    model: nn.Module
    batches: Sequence[Tensor]
    folder: Path


@dataclass(frozen=True)
class Engine:
    """`prepare` makes the calls; only engines that compute in float32 count as the best dense one."""

    name: str
    prepare: Callable[[Job], list[Call]]
    fp32: bool = True


def require_packages() -> None:
    """Ends the program, in one line, where an engine is not installed: a missing rival would flatter us."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not installed; install the rivals with: pip install 'tombola[bench]'")


def versions() -> dict[str, str]:
    """The versions of torch, llvmlite and the engines that are installed."""
    found = {}
    for name in ("torch", "llvmlite", "onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def module_calls(model: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> list[Call]:
    """The calls of anything that is an ordinary module."""
    return [Call(partial(model, batch), lambda batch=batch: model(batch).float()) for batch in batches]


def eager(job: Job) -> list[Call]:
    return module_calls(job.model, job.batches)


def eager_bf16(job: Job) -> list[Call]:
    """Weights and inputs converted beforehand."""
    return module_calls(copy.deepcopy(job.model).bfloat16(), [batch.bfloat16() for batch in job.batches])


def compiled(job: Job) -> list[Call]:
    """Inductor at its best: weights frozen and packed, its own matrix products tried, no checks before a call."""
    from torch._inductor import config

    torch.compiler.reset()
    settings = {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
    unchecked = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    # Freezing does nothing when it is among torch.compile's options: it is read before they hold.
    with config.patch(settings), quiet():
        function = torch.compile(copy.deepcopy(job.model), dynamic=False, fullgraph=True, options=unchecked)
        function(job.batches[0])
    return module_calls(function, job.batches)


def onnxruntime(job: Job) -> list[Call]:
    """Inputs and outputs bound to memory beforehand, which saves about a fifth of a call at batch 1."""
    ort = required("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(onnx_file(job), options, providers=["CPUExecutionProvider"])
    shape = session.get_outputs()[0].shape
    calls = []
    for batch in job.batches:
        output = ort.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
        binding = session.io_binding()
        binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(batch.numpy()))
        binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
        calls.append(bound(partial(session.run_with_iobinding, binding), output.numpy))
    return calls


def openvino(job: Job, precision: str = "f32") -> list[Call]:
    """One request per batch with its tensor set beforehand; outputs are not copied."""
    ov = required("openvino")

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,  # on a shared machine a pinned thread waits for its core
    }
    network = ov.Core().compile_model(onnx_file(job), "CPU", settings)
    calls = []
    for batch in job.batches:
        request = network.create_infer_request()
        request.set_input_tensor(ov.Tensor(batch.numpy(), shared_memory=True))
        calls.append(
            bound(partial(request.infer, share_outputs=True), lambda request=request: request.get_output_tensor(0).data)
        )
    return calls


def bound(run: Callable[[], object], output: Callable[[], np.ndarray]) -> Call:
    """A call whose output lies in the engine's own memory."""

    def result() -> Tensor:
        run()
        return torch.from_numpy(np.array(output(), dtype=np.float32))

    return Call(run, result)


def onnx_file(job: Job) -> Path:
    """The model as ONNX of this one input shape; written once per job."""
    path = job.folder / "model.onnx"
    if not path.exists():
        with quiet(), torch.no_grad():
            torch.onnx.export(job.model, (job.batches[0],), path, dynamo=True, verbose=False)
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter and the compiler print what they do; standard output is the report's."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def job_of(model: nn.Module, batches: Sequence[Tensor]) -> Iterator[Job]:
    """A job with a temporary folder, which stays as long as engines may map its files into memory."""
    folder = Path(tempfile.mkdtemp(prefix="tombola-engines-"))
    try:
        yield Job(model, batches, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


EAGER = Engine("torch eager", eager)
ENGINES = (
    EAGER,
    Engine("torch.compile", compiled),
    Engine("ONNX Runtime", onnxruntime),
    Engine("OpenVINO", openvino),
    Engine("OpenVINO bf16", partial(openvino, precision="bf16"), fp32=False),
    Engine("torch eager bf16", eager_bf16, fp32=False),
)
