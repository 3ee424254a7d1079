"""A network as a file for others: what is in it, what loads it, and what is refused."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tombola
from tombola.compression.export.exported import Exported, lost
from tombola.compression.export.onnx_files import run_onnx
from tombola.compression.export.zeros import counted_zeros, found_in
from tombola.compression.onnx_packages import required
from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ConfigError, ModelError, StorageError, TombolaError
from tombola.models import ModelSpec, build
from tombola.pruning import Masks, prune
from tombola.training import Recipe, fit
from tombola.training.classification import Classification
from tombola.training.task import ACCURACY, Measure

FORMATS = ("onnx", "pt2", "keras")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), seed=0)


@pytest.fixture(scope="module")
def network(digits: DataSet) -> tuple[nn.Module, Masks]:
    """A small convolutional network, pruned to a third, that has learned something; one filter is empty."""
    model = build(ModelSpec(architecture="conv2", widths=(4, 4, 16, 12), input_shape=(1, 8, 8), classes=10, seed=0))
    with torch.no_grad():
        model.get_submodule("conv_1").weight[1] = 0
    masks = prune(model, 0.67)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with masks.held(model, optimizer):
        batches = list(zip(digits.train.inputs.split(32), digits.train.targets.split(32), strict=True))
        for inputs, targets in 5 * batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model.eval(), masks


@pytest.fixture(scope="module")
def int8(network: tuple[nn.Module, Masks], digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model, masks = network
    path = tmp_path_factory.mktemp("int8") / "net.onnx"
    return tombola.export(model, path, digits, masks=masks, int8=True, max_drop=0.05)


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(inputs)
    return found


class TestInt8:
    def test_its_zeros_are_the_removed_weights(self, int8: Exported, network: tuple[nn.Module, Masks]) -> None:
        onnx = required("onnx")
        _, masks = network
        stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(int8.path).graph.initializer}
        for name, mask in masks.items():
            numbers = stored[f"{name}_quantized"]
            assert numbers.dtype == np.int8
            assert not stored[f"{name}_zero_point"].any()
            assert not numbers[~mask.keep.numpy()].any()
            assert np.abs(numbers).max() <= 64  # 7 bits: sums of 8 overflow on processors without VNNI
            assert stored[f"{name}_scale"].shape == (mask.shape[0],)
        assert (int8.zeros.weights, int8.zeros.removed) == (masks.total, masks.total - masks.kept)
        assert int8.zeros.zeros == sum(int((stored[f"{name}_quantized"] == 0).sum()) for name in masks)
        assert int8.zeros.unseen == ()

    def test_it_is_one_file_for_any_batch(self, int8: Exported, network: tuple[nn.Module, Masks]) -> None:
        onnx = required("onnx")
        model = onnx.load(int8.path)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert not any(i.external_data for i in model.graph.initializer)
        assert [path.name for path in int8.path.parent.iterdir()] == ["net.onnx"]
        inputs = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        run, wanted = run_onnx(int8.path), outputs(network[0], inputs)
        for size in (1, 7):
            assert (run(inputs[:size]) - wanted[:size]).abs().max() < 0.1 * wanted.abs().max()

    def test_it_says_nothing_of_the_machine_that_wrote_it(self, int8: Exported) -> None:
        content = int8.path.read_bytes()
        assert b".py" not in content
        assert str(Path.home()).encode() not in content

    def test_what_is_measured(self, int8: Exported) -> None:
        engines = [(one.engine, one.precision) for one in int8.running]
        assert engines == [("torch eager", "float32"), ("ONNX Runtime", "float32"), ("ONNX Runtime", "int8")]
        dense, plain, small = int8.running
        assert dense.score == plain.score > 0.5  # it has learned, so that there is something to lose
        assert int8.drop == dense.score - small.score
        assert 0 < plain.error <= 1e-4 < small.error
        assert small.bytes == int8.path.stat().st_size
        assert small.deflated < small.bytes
        assert [times.batch for times in small.times] == [1, 64]
        assert all(times.seconds is not None and times.seconds[1] > 0 for one in int8.running for times in one.times)


def test_pt2_loads_with_torch_alone(network: tuple[nn.Module, Masks], digits: DataSet, tmp_path: Path) -> None:
    model, masks = network
    loose = copy.deepcopy(model)  # of a model that is not under its masks, the file is
    with torch.no_grad():
        for name, parameter in masks.parameters_of(loose).items():
            parameter[~masks[name].keep] = 9.0
    exported = tombola.export(loose, tmp_path / "net.pt2", digits, masks=masks)
    assert exported.zeros.zeros >= exported.zeros.removed == masks.total - masks.kept
    inputs = digits.test.inputs[:5]
    torch.save({"inputs": inputs, "outputs": outputs(model, inputs)}, tmp_path / "wanted.pt")
    program = (
        "import sys, torch\n"
        "wanted = torch.load('wanted.pt', weights_only=True)\n"
        "found = torch.export.load('net.pt2').module()(wanted['inputs'])\n"
        "assert torch.allclose(found, wanted['outputs'], atol=1e-5), 'other outputs'\n"
        "assert not [name for name in sys.modules if name.startswith(('tombola', 'onnx'))], 'not torch alone'\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b".py" not in exported.path.read_bytes()


def test_keras_has_the_zeros_too(network: tuple[nn.Module, Masks], digits: DataSet, tmp_path: Path) -> None:
    model, masks = network
    exported = tombola.export(model, tmp_path / "net.keras", digits, masks=masks)
    assert exported.zeros.removed == masks.total - masks.kept
    assert exported.running[1].score == exported.running[0].score


class Rows(nn.Module):
    """Reads the rows of an image as a sequence, behind a token for every example: `len` asks for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Linear(8, 16), nn.Linear(16, 10)
        self.token, self.place = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(9, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.embedding(inputs.flatten(1, 2))
        rows = torch.cat([self.token.expand(len(rows), -1, -1), rows], 1) + self.place
        found: Tensor = self.head(self.encoder(rows)[:, 0])
        return found


@pytest.mark.parametrize(("name", "options"), [("net.onnx", {"int8": True, "max_drop": 0.05}), ("net.pt2", {})])
def test_a_transformer(name: str, options: dict[str, Any], digits: DataSet, tmp_path: Path) -> None:
    """The projections of attention are int8 as well, and removed weights 0."""
    torch.manual_seed(0)
    model = Rows()
    recipe = Recipe(length="4ep", evaluate_every="4ep", learning_rate=1e-2, batch_size=32)
    trained = fit(model, digits, recipe, Masks.full(model), 0)
    model.load_state_dict(trained.early_stop_state)
    masks = prune(model, 0.3)
    masks.apply_(model)
    exported = tombola.export(model, tmp_path / name, digits, masks=masks, **options)
    assert exported.running[0].score > 0.6
    assert exported.zeros.unseen == ()
    assert exported.zeros.weights == masks.total
    assert exported.zeros.zeros >= exported.zeros.removed == masks.total - masks.kept
    with zipfile.ZipFile(tmp_path / name) if name.endswith("pt2") else contextlib.nullcontext() as archive:
        written = [archive.read(part) for part in archive.namelist()] if archive else [(tmp_path / name).read_bytes()]
    assert not any(Path(__file__).name.encode() in part for part in written)  # no line of the code
    if name.endswith("onnx"):
        onnx = required("onnx")
        types = {node.op_type for node in onnx.load(tmp_path / name).graph.node}
        assert {"QuantizeLinear", "Softmax"} <= types
        stored = [onnx.numpy_helper.to_array(part) for part in onnx.load(tmp_path / name).graph.initializer]
        assert sum(array.size for array in stored if array.dtype == np.int8) >= masks.total


def ranges() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Int8 learns the range of inputs from training examples, and those of the test are 100 times as large."""
    inputs = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    part = (inputs, inputs.argmax(1))
    model = nn.Sequential(OrderedDict(fc=nn.Linear(2, 2, bias=False)))
    with torch.no_grad():
        model.get_submodule("fc").weight.copy_(torch.eye(2))
    return model, [part, part, (100 * inputs, inputs.argmax(1))]


def test_a_file_that_loses_too_much_is_refused_and_the_older_one_stays(tmp_path: Path) -> None:
    model, parts = ranges()
    path = tmp_path / "net.onnx"
    path.write_bytes(b"older")
    with pytest.raises(ModelError, match=r"net.onnx: not written, .*% accuracy on 40 test examples is .* points worse"):
        tombola.export(model, path, parts, int8=True)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("net.onnx", b"older")]
    exported = tombola.export(model, path, parts, int8=True, max_drop=1.0)
    assert exported.drop > 0.2
    assert path.stat().st_size == exported.running[-1].bytes


class Otherwise(nn.Module):
    """Computes something else when an exporter looks."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.fc(inputs)
        return 1.01 * found + 1 if torch.compiler.is_exporting() else found


class Looking(Otherwise):
    """Branches on values, which no exporter can follow."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(inputs) if inputs.sum() > 0 else self.fc(-inputs)


@pytest.mark.parametrize(
    ("model", "said"), [(Otherwise(), "not written, its outputs differ from torch's"), (Looking(), "cannot follow")]
)
def test_what_would_compute_something_else_is_refused(model: nn.Module, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        tombola.export(model, tmp_path / "net.pt2", ranges()[1])
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_written_are_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("it was begun"))
    (tmp_path / "folder.pt2").mkdir()
    os.mkfifo(tmp_path / "pipe.pt2")
    (tmp_path / "link.pt2").symlink_to(tmp_path / "pipe.pt2")
    before = sorted(tmp_path.iterdir())
    for name in (
        "folder.pt2",
        "pipe.pt2",
        "link.pt2",
        "missing/net.pt2",
        "pipe.pt2/net.pt2",
        "n\0.pt2",
        "x" * 300 + ".pt2",
    ):
        with pytest.raises(StorageError, match="cannot write"):
            tombola.export(*ranges_in(tmp_path / name))
    assert sorted(tmp_path.iterdir()) == before


def ranges_in(path: Path) -> tuple[nn.Module, Path, list[tuple[Tensor, Tensor]]]:
    model, parts = ranges()
    return model, path, parts


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("net.h5", {}, "its name says no format"),
        ("net", {}, "its name says no format"),
        ("net.onnx", {"to": "pt2"}, "a name that ends with .pt2"),
        ("net.pt2", {"to": "tflite"}, "unknown format 'tflite'"),
        ("net.pt2", {"int8": True}, "int8 goes into ONNX files"),
        ("net.pt2", {"max_drop": -0.1}, "max_drop=-0.1"),
        ("net.pt2", {"max_drop": 5.0}, "max_drop=5"),
        ("net.pt2", {"max_drop": float("nan")}, "max_drop=nan"),
    ],
)
def test_what_does_not_go_together(name: str, options: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        tombola.export(*ranges_in(tmp_path / name), **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "extra", "name"),
    [("onnxscript", "onnx", "net.onnx"), ("onnx", "onnx", "net.onnx"), ("keras", "keras", "net.keras")],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, extra: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"{package}.* is not installed: pip install 'tombola\[{extra}\]'"):
        tombola.export(*ranges_in(tmp_path / name))


class ByError(Classification):
    """Networks are compared by how often they err."""

    compares = Measure("error", higher_is_better=False)


def test_another_measure_has_no_default(tmp_path: Path, digits: DataSet) -> None:
    with pytest.raises(ConfigError, match="say how much error the file may lose"):
        tombola.export(nn.Linear(1, 1), tmp_path / "net.pt2", ByError(digits))


@pytest.mark.parametrize(("measure", "worse"), [(ACCURACY, 0.25), (ByError.compares, 0.75)])
def test_worse_is_positive_whatever_the_measure(measure: Measure, worse: float) -> None:
    assert lost(measure, 0.5, worse) == 0.25


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_zeros_are_counted_against_the_masks(seed: int, rows: int, columns: int) -> None:
    """However a file names and lays a matrix; and one removed weight that is not 0 is seen."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(rows, columns)).astype(np.float32)
    keep = random.random((rows, columns)) < 0.5
    weight[~keep] = 0
    zeros = int((weight == 0).sum())
    for stored in ({"w": weight}, {"val_3": np.ascontiguousarray(weight.T)}):
        found = counted_zeros(stored, {"w": keep}, found_in(stored, {"w": weight}))
        assert (found.weights, found.removed, found.zeros, found.unseen) == (keep.size, int((~keep).sum()), zeros, ())
    assert counted_zeros({}, {"w": keep}, found_in({}, {"w": weight})).unseen == ("w",)
    if not keep.all():
        damaged = weight.copy()
        damaged[np.nonzero(~keep)[0][0], np.nonzero(~keep)[1][0]] = 1e-30
        with pytest.raises(TombolaError, match="1 removed weights of w are not 0"):
            counted_zeros({"w": damaged}, {"w": keep}, {"w": ("w", False)})
