"""A static int8 network in ONNX: a scale for each output channel, activations as wide as on training examples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.compression.export.onnx_files import INPUT
from tombola.compression.onnx_packages import required
from tombola.compression.quiet import quiet
from tombola.errors import ModelError, one_line


def write_int8(path: Path, float_path: Path, batches: Iterable[Tensor]) -> None:
    """Writes the float32 network of `float_path` as int8, calibrated on `batches` of training inputs.

    Weights are symmetric, so that 0 is 0, and have 7 bits: with 8, the sums of processors without VNNI overflow, and
    the file would compute something else there than where it was checked. ModelError for a network that onnxruntime
    cannot quantise.
    """
    quantization: Any = required("onnxruntime.quantization")
    given = iter(batches)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, unused-ignore]
        def get_next(self) -> dict[str, Any] | None:
            batch = next(given, None)
            return None if batch is None else {INPUT: batch.numpy()}

    try:
        with quiet():
            quantization.quantize_static(
                float_path,
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    except OSError:
        raise
    except Exception as error:  # of onnxruntime, of many kinds
        raise ModelError(f"onnxruntime cannot make this network int8: {one_line(error)}") from None
