"""Engines that run ONNX files: onnxruntime and OpenVINO, for batches of one size, whose shapes they then know."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tombola.compression.engines.engine import BFLOAT16, Call, Job, bound
from tombola.compression.export.onnx_files import session
from tombola.compression.onnx_packages import required
from tombola.errors import KernelError, ModelError
from tombola.kernels.target import host

HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""What OpenVINO calls a precision; int8 is in the file, and the rest of it is computed in float32."""
SPARSE_RATE = {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.5}
"""From which sparsity on OpenVINO stores int8 weights as kept values and a bit each."""


def onnxruntime(job: Job, file: Path) -> list[Call]:
    """Inputs and outputs bound to memory beforehand, which saves about a fifth of a call at batch 1."""
    ort = required("onnxruntime")
    opened = session(file, job.threads, job.batch)
    (given,), (made,) = opened.get_inputs(), opened.get_outputs()
    calls = []
    for batch in job.batches:
        output = ort.OrtValue.ortvalue_from_numpy(np.empty(made.shape, np.float32))
        binding = opened.io_binding()
        binding.bind_ortvalue_input(given.name, ort.OrtValue.ortvalue_from_numpy(batch.numpy()))
        binding.bind_ortvalue_output(made.name, output)
        calls.append(bound(partial(opened.run_with_iobinding, binding), output.numpy))
    return calls


def openvino(job: Job, file: Path, precision: str = "float32", more: Mapping[str, Any] | None = None) -> list[Call]:
    """One request per batch with its tensor set beforehand; outputs are not copied."""
    ov = required("openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "ENABLE_CPU_PINNING": False,  # on a shared machine a pinned thread waits for its core
        **(more or {}),
    }
    core = ov.Core()
    if precision == BFLOAT16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError("this processor has no bfloat16, OpenVINO would compute in float32")
    model = core.read_model(file)
    model.reshape({model.input(0): list(job.batches[0].shape)})
    network = core.compile_model(model, "CPU", settings)
    calls = []
    for batch in job.batches:
        request = network.create_infer_request()
        request.set_input_tensor(ov.Tensor(batch.numpy(), shared_memory=True))
        calls.append(bound(partial(request.infer, share_outputs=True), partial(_output, request)))
    return calls


def openvino_sparse(job: Job, file: Path) -> list[Call]:
    """OpenVINO's decompression of sparse weights, which is off by default."""
    try:
        amx = "+amx-int8" in host().features.split(",")
    except KernelError:
        amx = False
    if not amx:
        raise ModelError("decompresses int8 weights of dense layers on processors with AMX, which this one has not")
    return openvino(job, file, more=SPARSE_RATE)


def _output(request: Any) -> Any:
    return request.get_output_tensor(0).data
