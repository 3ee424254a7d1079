"""The files that a candidate is shipped as, and what each of them is and costs on any machine.

Where single weights are gone that is a ticket file, which sparse kernels run; where units are, or nothing is, an ONNX
file. Both are there in float32 and in int8. A ticket's int8 are stored values, an ONNX file's what it computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.compression.engines.engine import FLOAT32, INT8, Engine, Network, largest_error
from tombola.compression.engines.rivals import ONNXRUNTIME, ONNXRUNTIME_INT8, SPARSE
from tombola.compression.export.exporting import CALIBRATION, TOLERANCE
from tombola.compression.export.formats import EngineModule, Run
from tombola.compression.export.onnx_files import PACKAGES, run_onnx
from tombola.compression.onnx_packages import required
from tombola.compression.tickets.files import unpack
from tombola.compression.tickets.values import Values
from tombola.compression.tickets.writing import pack
from tombola.errors import ModelError, one_line
from tombola.models import load_model
from tombola.pruning import Masks
from tombola.pruning.copies import copy_of
from tombola.studies.compress.config import CompressConfig, Structure
from tombola.studies.compress.making import Shape
from tombola.studies.given_model import GivenModel, Surroundings
from tombola.studies.single.of_parent import own_maker
from tombola.studies.single.parents import Parent

COMPARED = 64
"""Training inputs on which the outputs of an ONNX file are compared with torch's."""


@dataclass(frozen=True)
class Form:
    """How networks of a structure are shipped in a precision: the file's name, and the engine that runs it."""

    structure: Structure
    precision: str
    file: str
    engine: Engine


FORMS = (
    Form("weight", FLOAT32, "float32.ticket", SPARSE),
    Form("weight", INT8, "int8.ticket", SPARSE),
    Form("dense", FLOAT32, "float32.onnx", ONNXRUNTIME),
    Form("dense", INT8, "int8.onnx", ONNXRUNTIME_INT8),
    Form("unit", FLOAT32, "float32.onnx", ONNXRUNTIME),
    Form("unit", INT8, "int8.onnx", ONNXRUNTIME_INT8),
)


def form_of(structure: str, precision: str) -> Form:
    return next(form for form in FORMS if (form.structure, form.precision) == (structure, precision))


def factory_of(config: CompressConfig) -> str | None:
    """The function that makes networks of the parent's spec, where it is somebody's own."""
    return config.factory or next(iter(own_maker(config.model)), None)


def refuse_missing(config: CompressConfig) -> None:
    """ModelError, which says what to install, where ONNX files cannot be written."""
    if set(config.structures) != {"weight"}:
        try:
            for package in PACKAGES:
                required(package)
        except ModelError as error:
            raise ModelError(f"{error}; or leave ONNX files out: --structure weight") from None


def loaded(folder: Path, factory: str | None, sparsity: float = 0.0) -> Shape:
    """A candidate from its model folder."""
    model, spec, masks = load_model(folder, factory)
    return Shape(model, Masks.full(model) if masks is None else masks, spec, sparsity)


@dataclass(frozen=True)
class Workshop:
    """What candidates are shipped with: the search, its parent and what stands before their networks."""

    config: CompressConfig
    parent: Parent
    around: Surroundings

    def given(self, shape: Shape) -> GivenModel:
        """A candidate's network as it takes the data as they are read."""
        return self.around.given(copy_of(shape.model), shape.masks)

    def network(self, given: GivenModel, folder: Path) -> Network:
        """It on its way to engines, whose files are in `folder`."""
        examples = given.data.train.inputs[:CALIBRATION]
        return Network(given.network, given.masks, examples, (self.config.batch,), folder)

    def opened(self, form: Form, folder: Path) -> GivenModel:
        """The network of a candidate in `folder`, with the values that its file holds where that is a ticket."""
        factory = factory_of(self.config)
        if form.structure == "weight":
            model, spec, masks = unpack(folder / form.file, factory=factory)
            return self.given(Shape(model, masks, spec))
        return self.given(loaded(folder, factory))

    def computed(self, form: Form, folder: Path) -> nn.Module:
        """What a file that was shipped computes, as a module that can be scored."""
        if form.structure == "weight":
            return self.opened(form, folder).network
        return EngineModule(_engine(folder / form.file))

    def ship(self, form: Form, shape: Shape, folder: Path, history: Mapping[str, Any]) -> nn.Module:
        """Writes the file of a form into `folder`; returns what it computes, as a module that can be scored.

        Raises ModelError where the file cannot be written, or computes something else.
        """
        if form.structure == "weight":
            values, factory = Values(form.precision), factory_of(self.config)
            pack(
                folder / form.file,
                shape.spec,
                shape.masks,
                trained=shape.model,
                values=values,
                factory=factory,
                history=history,
            )
            return self.computed(form, folder)
        given = self.given(shape)
        network = self.network(given, folder)
        run = _engine(network.onnx if form.precision == FLOAT32 else network.int8)
        if form.precision == FLOAT32:
            _refuse_other_outputs(form, run, given)
        return EngineModule(run)


def _engine(file: Path) -> Run:
    """What ONNX Runtime makes of a batch; its own errors, which are of many kinds, as ModelError in one line."""

    def in_one_line(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            raise ModelError(f"ONNX Runtime does not run {file.name}: {one_line(error)}") from None

    run = in_one_line(run_onnx, file)
    return lambda batch: in_one_line(run, batch)


def _refuse_other_outputs(form: Form, run: Run, given: GivenModel) -> None:
    inputs = given.data.train.inputs[:COMPARED]
    with torch.no_grad():
        error = largest_error([run(inputs)], [given.network(inputs)])
    if not error <= TOLERANCE:
        raise ModelError(f"outputs of {form.file} differ from torch's by {error:.1e} of the largest")
