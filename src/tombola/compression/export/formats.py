"""The formats that a network can be written in, by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.compression.export import keras_files, onnx_files, pt2_files
from tombola.compression.onnx_packages import required
from tombola.errors import ConfigError
from tombola.models.keras_export import loaded_keras
from tombola.registry import Registry, suggest

Run = Callable[[Tensor], Tensor]
"""What an engine makes of a batch."""


class EngineModule(nn.Module):
    """What an engine makes of a batch, as a module that can be scored."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def forward(self, inputs: Tensor) -> Tensor:
        return self.run(inputs)


@dataclass(frozen=True)
class Format:
    """How a network is written for batches like an example of two inputs, and what runs the file.

    `weights` are the numbers in a file by name. A format of `probabilities` ends in a softmax: its engine gives their
    logarithms.
    """

    name: str
    engine: str
    packages: Callable[[], object]
    """Raises ModelError, which names the extra, where what writes or runs it is not installed."""
    write: Callable[[Path, nn.Module, Tensor], None]
    run: Callable[[Path], Run]
    weights: Callable[[Path, nn.Module, Tensor], dict[str, NDArray[Any]]]
    int8: bool = False
    probabilities: bool = False

    @property
    def suffix(self) -> str:
        return f".{self.name}"


formats: Registry[Format] = Registry("format")
for one in (
    Format(
        "onnx",
        "ONNX Runtime",
        lambda: [required(name) for name in onnx_files.PACKAGES],
        onnx_files.write_onnx,
        onnx_files.run_onnx,
        lambda path, model, example: onnx_files.weights_in(path),
        int8=True,
    ),
    Format(
        "pt2",
        "torch.export",
        lambda: None,
        pt2_files.write_pt2,
        pt2_files.run_pt2,
        lambda path, model, example: pt2_files.weights_in(path),
    ),
    Format(
        "keras",
        "Keras",
        loaded_keras,
        keras_files.write,
        keras_files.run_keras,
        keras_files.weights_in,
        probabilities=True,
    ),
):
    formats.register(one.name)(one)


def format_of(path: Path, to: str | None) -> Format:
    """The format of that name, or the one that the file's name ends with; ConfigError where the two part."""
    if to is None:
        ending = path.suffix.removeprefix(".")
        if ending not in formats:
            raise ConfigError(f"{path}: its name says no format{suggest(ending, formats)}")
        return formats.get(ending)
    chosen = formats.get(to)
    if path.suffix != chosen.suffix:
        raise ConfigError(f"{path}: a file in the format {to} has a name that ends with {chosen.suffix}")
    return chosen
