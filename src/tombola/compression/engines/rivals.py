"""All engines by name, in the order in which they are shown."""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tombola.compression.engines import by_file, by_torch
from tombola.compression.engines.engine import BFLOAT16, FLOAT32, INT8, Engine, Network
from tombola.compression.sparse_files import save_sparse


def _onnx(network: Network) -> Path:
    return network.onnx


def _int8(network: Network) -> Path:
    return network.int8


def _sparse(network: Network) -> Path:
    path = network.folder / "sparse.safetensors"
    save_sparse(path, network.sparse)
    return path


EAGER = Engine("torch eager", FLOAT32, by_torch.eager)
EAGER_BF16 = Engine("torch eager bf16", BFLOAT16, by_torch.eager_bf16)
COMPILED = Engine("torch.compile", FLOAT32, by_torch.compiled)
ORT, OV = "onnxruntime", "openvino"
ONNXRUNTIME = Engine("ONNX Runtime", FLOAT32, lambda job: by_file.onnxruntime(job, _onnx(job.network)), _onnx, ORT)
ONNXRUNTIME_INT8 = Engine(
    "ONNX Runtime int8", INT8, lambda job: by_file.onnxruntime(job, _int8(job.network)), _int8, ORT
)
OPENVINO = Engine("OpenVINO", FLOAT32, lambda job: by_file.openvino(job, _onnx(job.network)), _onnx, OV)
OPENVINO_BF16 = Engine(
    "OpenVINO bf16", BFLOAT16, lambda job: by_file.openvino(job, _onnx(job.network), BFLOAT16), _onnx, OV
)
OPENVINO_INT8 = Engine("OpenVINO int8", INT8, lambda job: by_file.openvino(job, _int8(job.network)), _int8, OV)
OPENVINO_SPARSE = Engine(
    "OpenVINO int8 sparse", INT8, lambda job: by_file.openvino_sparse(job, _int8(job.network)), _int8, OV
)
SPARSE = Engine("sparse kernels", FLOAT32, by_torch.sparse, _sparse)
DENSE = (EAGER, COMPILED, ONNXRUNTIME, OPENVINO, OPENVINO_BF16, EAGER_BF16)
"""What `sparse kernels` are held against in the published results."""
ENGINES = (
    EAGER,
    COMPILED,
    ONNXRUNTIME,
    ONNXRUNTIME_INT8,
    OPENVINO,
    OPENVINO_BF16,
    OPENVINO_INT8,
    OPENVINO_SPARSE,
    SPARSE,
)
"""What `tombola bench` measures."""


def versions() -> dict[str, str]:
    """The versions of torch, llvmlite and the engines that are installed."""
    found = {}
    for name in ("torch", "llvmlite", "onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
