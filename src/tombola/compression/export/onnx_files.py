"""A network as one ONNX file of any batch size, how onnxruntime runs it, and the weights that are in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.compression.export.any_batch import BATCH, any_batch, followed
from tombola.compression.onnx_packages import required
from tombola.compression.quiet import quiet
from tombola.errors import ModelError, one_line

OPSET = 20
INPUT, OUTPUT = "input", "output"
QUANTISED, ZERO_POINT = "_quantized", "_zero_point"
"""What onnxruntime puts behind the name of a weight that it made int8, and behind that of its zero point."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(path: Path, model: nn.Module, example: Tensor) -> None:
    """Writes `model` as ONNX, opset 20, weights inside, with any number of examples in a batch.

    The file says nothing of the machine that wrote it: what the exporter keeps of source files goes. ModelError, in one
    line, for a model that torch cannot follow, or not in batches of any size.
    """
    onnx = required("onnx")
    for name in PACKAGES:
        required(name)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                followed(model, example),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=any_batch(),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
            assert program is not None
            content = _without_origin(program.model_proto).SerializeToString()
        path.write_bytes(content)
        onnx.checker.check_model(path)
    except OSError:
        raise
    except Exception as error:  # the exporter has its own, and those of the model that it follows
        raise ModelError(f"torch cannot write this network as ONNX: {one_line(error)}") from None


def _without_origin(model: Any) -> Any:
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model


def session(path: Path, threads: int = 1, batch: int | None = None) -> Any:
    """The file in onnxruntime, on the CPU; with `batch` for batches of that size alone, whose shapes it then knows."""
    ort = required("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if batch is not None:
        options.add_free_dimension_override_by_name(BATCH, batch)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """What onnxruntime makes of a batch, on one thread."""
    opened = session(path)

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(opened.run(None, {INPUT: batch.numpy()})[0])

    return run


def weights_in(path: Path) -> dict[str, NDArray[Any]]:
    """The numbers of the file by name; of int8 weights the integers, less what stands for 0."""
    onnx = required("onnx")
    found = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    for name in [name.removesuffix(QUANTISED) for name in found if name.endswith(QUANTISED)]:
        points = found.get(name + ZERO_POINT)
        if points is not None and (points.size == 1 or not points.any()):
            found[name] = found[name + QUANTISED].astype(np.int16) - points.reshape(-1)[:1]
    return found
