"""`.keras` files that are damaged or made to harm: one line, nothing executed, nothing read that is not in the file."""

from __future__ import annotations

import copy
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tombola.errors import ModelError, TombolaError
from tombola.models import keras_archive
from tombola.models.keras_models import read_keras

h5py = pytest.importorskip("h5py")

Write = Callable[[Any], None]


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def dense(name: str, units: int, activation: str = "linear") -> dict[str, Any]:
    return layer("Dense", name=name, units=units, activation=activation, use_bias=True)


def a_config() -> dict[str, Any]:
    layers = [
        layer("InputLayer", name="input", batch_shape=[None, 4]),
        layer("Rescaling", name="scale", scale=2.0, offset=0.0),
        dense("fc1", 3, "relu"),
        dense("output", 2, "softmax"),
    ]
    return {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}


ARRAYS = {
    "layers/dense/vars/0": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "layers/dense/vars/1": np.array([1, 2, 3], np.float32),
    "layers/dense_1/vars/0": np.linspace(-2, 1, 6, dtype=np.float32).reshape(3, 2),
    "layers/dense_1/vars/1": np.array([4, 5], np.float32),
}


def weights(change: Write | None = None, without: str = "") -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in ARRAYS.items():
            if name != without:
                file[name] = array
        if change:
            change(file)
    return buffer.getvalue()


MEMBERS = {
    "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
    "config.json": json.dumps(a_config()).encode(),
    "model.weights.h5": weights(),
}


def written(path: Path, **changes: bytes | None) -> Path:
    """A `.keras` file; `changes` are members by the first part of their names, None to leave one out."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in MEMBERS.items():
            found = changes.get(name.partition(".")[0], content)
            if found is not None:
                archive.writestr(name, found)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.keras"


def refused(path: Path, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        read_keras(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_file_made_by_hand_is_read(path: Path) -> None:
    """Else none of the following would say anything."""
    read = read_keras(written(path))
    assert (read.architecture, read.widths, read.classes) == ("lenet-300-100", (3,), 2)
    assert read.normalisation.std == (0.5,)
    assert torch.equal(read.weights["fc1.weight"], torch.from_numpy(ARRAYS["layers/dense/vars/0"]).T)
    assert torch.equal(read.weights["output.bias"], torch.tensor([4.0, 5.0]))


ELSEWHERE: dict[str, tuple[Callable[[Any, Path], None], str]] = {
    "a link to another file": (
        lambda file, there: file.__setitem__("layers/dense/vars/0", h5py.ExternalLink(str(there), "/secret")),
        "layers/dense/vars/0 is a link to elsewhere, which is not followed",
    ),
    "a group in another file": (
        lambda file, there: (
            file.__delitem__("layers/dense"),
            file.__setitem__("layers/dense", h5py.ExternalLink(str(there), "/")),
        )[0],
        "is a link to elsewhere",
    ),
    "a soft link": (
        lambda file, there: file.__setitem__("layers/dense/vars/0", h5py.SoftLink("/layers/dense_1/vars/0")),
        "is a link to elsewhere",
    ),
    "bytes of another file": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", (4, 3), "f4", external=[(str(there), 0, 48)]),
        "array layers/dense/vars/0 lies in another file, which is not opened",
    ),
    "a virtual array": (
        lambda file, there: file.create_virtual_dataset("layers/dense/vars/0", _virtual(there)),
        "lies in another file",
    ),
    "packed": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", (4, 3), "f4", compression="gzip"),
        "is packed, as Keras never packs",
    ),
    "huge and not there": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", (1 << 40,), "f4"),
        r"says \(1099511627776,\), more than the file holds",
    ),
    "in double precision": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.ones((4, 3))),
        "holds float64, wanted is float32",
    ),
    "Python objects": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=["x"] * 4, dtype=h5py.string_dtype()),
        "holds object, wanted is float32",
    ),
    "references": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", (4,), dtype=h5py.ref_dtype),
        "holds object, wanted is float32",
    ),
    "a group": (lambda file, there: file.create_group("layers/dense/vars/0"), "holds no array layers/dense/vars/0"),
    "not a number": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.full((4, 3), np.nan, np.float32)),
        "holds NaN or infinite values",
    ),
    "infinite": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.full((4, 3), np.inf, np.float32)),
        "holds NaN or infinite values",
    ),
    "another shape": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.ones((4, 2), np.float32)),
        r"layer fc1: its weight is \(2, 4\) in our layout, its place takes \(3, 4\)",
    ),
    "other axes": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.ones((4, 3, 1), np.float32)),
        r"layer fc1: its kernel of shape \(4, 3, 1\) does not fit its place",
    ),
    "no axes": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.float32(3)),
        r"layer fc1: its kernel of shape \(\) does not fit",
    ),
    "an empty one": (
        lambda file, there: file.create_dataset("layers/dense/vars/0", data=np.ones((0, 3), np.float32)),
        "its weight is|does not fit",
    ),
}


def _virtual(there: Path) -> Any:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(str(there), "secret", (4, 3))
    return layout


@pytest.mark.parametrize("case", ELSEWHERE)
def test_arrays_that_are_not_plainly_there(case: str, path: Path, tmp_path: Path) -> None:
    change, said = ELSEWHERE[case]
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones((4, 3), np.float32)
        other["vars/0"] = np.ones((4, 3), np.float32)

    def changed(file: Any) -> None:
        if "layers/dense/vars/0" in file:
            del file["layers/dense/vars/0"]
        change(file, tmp_path / "other.h5")

    refused(written(path, model=weights(changed)), said)


def test_many_arrays_in_the_room_of_one_are_not_read(path: Path) -> None:
    """Each layer's kernel is the same 40 KB of the file; read one by one they would be 8 MB."""
    config = a_config()
    inputs, hidden = layer("InputLayer", name="input", batch_shape=[None, 100]), 200
    layers = [dense(f"fc{number}", 100, "relu") for number in range(hidden - 1)]
    config["config"]["layers"] = [inputs, *layers, dense("output", 100)]

    def link(file: Any) -> None:
        del file["layers"]
        file["kernel"], file["bias"] = np.ones((100, 100), np.float32), np.ones(100, np.float32)
        for number in range(hidden):
            group = file.create_group(f"layers/dense_{number}/vars" if number else "layers/dense/vars")
            group["0"], group["1"] = file["kernel"], file["bias"]

    content = weights(link)
    assert len(content) < 1 << 20
    refused(written(path, config=json.dumps(config).encode(), model=content), "more than the file holds")


@pytest.mark.parametrize("without", ARRAYS)
def test_every_array_must_be_there(without: str, path: Path) -> None:
    refused(
        written(path, model=weights(without=without)), "holds no array|the file holds 1 arrays of it, a Dense has 2"
    )


def test_an_array_more(path: Path) -> None:
    content = weights(lambda file: file.create_dataset("layers/dense/vars/2", data=np.ones(3, np.float32)))
    refused(written(path, model=content), "layer fc1: the file holds 3 arrays of it, a Dense has 2")


@pytest.mark.parametrize("name", MEMBERS)
def test_missing_members(name: str, path: Path) -> None:
    refused(
        written(path, **{name.partition(".")[0]: None}), rf"holds 0 members called {name}, a \.keras file of Keras 3"
    )


def test_members_of_the_same_name(path: Path) -> None:
    written(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    refused(path, "holds 2 members called config.json")


def test_other_members_are_left_alone(path: Path, tmp_path: Path) -> None:
    written(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside", "x")
        archive.writestr("assets/run.py", "raise SystemExit")
    read_keras(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model.keras"]
    assert not (tmp_path.parent / "outside").exists()


def test_packed_members_are_no_bombs(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, bytes(64 << 20) if name == "model.weights.h5" else content)
    assert path.stat().st_size < 1 << 20
    refused(path, "metadata.json is packed|config.json is packed|model.weights.h5 is packed or encrypted, which Keras")


def test_members_that_say_they_are_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keras_archive.LIMITS, "config.json", 100)
    refused(written(path), r"config\.json of [\d,]+ bytes is more than is expected at most")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (b'{"keras_version": "2.15.0"}', "written by Keras '2.15.0', not Keras 3; load it and save it with Keras 3"),
        (b'{"keras_version": 3}', "written by Keras 3, not Keras 3"),
        (b"{}", "written by Keras None"),
        (b"[]", "metadata.json is damaged"),
        (b"\xff", "metadata.json is damaged"),
    ],
)
def test_versions(metadata: bytes, said: str, path: Path) -> None:
    refused(written(path, metadata=metadata), said)


def edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    config = copy.deepcopy(a_config())
    edit(config)
    return json.dumps(config).encode()


def layers_of(config: dict[str, Any]) -> list[Any]:
    return config["config"]["layers"]


CONFIGS: dict[str, tuple[bytes, str]] = {
    "code": (
        edited(lambda c: layers_of(c).insert(2, layer("Lambda", name="run", function={"value": "4wEAAAA"}))),
        "layer run is a Lambda; supported are: Input",
    ),
    "a class of one's own": (edited(lambda c: c.update(class_name="Mine")), "is a Mine of somebody's own"),
    "a module of one's own": (edited(lambda c: c.update(class_name=["os", "system"])), "of somebody's own|damaged"),
    "an activation that is an object": (
        edited(lambda c: layers_of(c)[2]["config"].update(activation={"class_name": "function", "config": "exec"})),
        "layer fc1 is a Dense whose activation is",
    ),
    "no layers": (edited(lambda c: c["config"].pop("layers")), "config.json is damaged"),
    "layers that are none": (edited(lambda c: c["config"].update(layers=[1, None])), "config.json is damaged"),
    "an empty list": (edited(lambda c: layers_of(c).clear()), "says nothing of its inputs"),
    "no input": (edited(lambda c: layers_of(c).pop(0)), "says nothing of its inputs"),
    "negative sizes": (edited(lambda c: layers_of(c)[0]["config"].update(batch_shape=[None, -4])), "takes inputs of"),
    "shape of words": (edited(lambda c: layers_of(c)[0]["config"].update(batch_shape="xxxx")), "takes inputs of"),
    "too many axes": (edited(lambda c: layers_of(c)[0]["config"].update(batch_shape=[None] + [4] * 4)), "takes inputs"),
    "units of words": (edited(lambda c: layers_of(c)[2]["config"].update(units="many")), "whose units is 'many'"),
    "huge units": (
        edited(lambda c: layers_of(c)[2]["config"].update(units=10**30)),
        "layer fc1 is a Dense whose units",
    ),
    "more units than there are": (edited(lambda c: layers_of(c)[2]["config"].update(units=2**30)), "its place takes"),
    "a scale of 0": (edited(lambda c: layers_of(c)[1]["config"].update(scale=0)), "layer scale: rescales by 0"),
    "a scale of nothing": (edited(lambda c: layers_of(c)[1]["config"].update(scale=None)), "its scale is None"),
    "an infinite scale": (edited(lambda c: layers_of(c)[1]["config"].update(scale=float("inf"))), "its scale is inf"),
    "scales for others": (
        edited(lambda c: layers_of(c)[1]["config"].update(scale=[1, 2])),
        "has 2 numbers for inputs of 4 channel",
    ),
    "ragged scales": (
        edited(lambda c: layers_of(c)[1]["config"].update(scale=[[1], [2, 3]])),
        "layer scale: its scale",
    ),
    "scales that differ in number": (
        edited(lambda c: layers_of(c)[1]["config"].update(scale=[1, 2, 3, 4], offset=[1, 2])),
        "layer scale: has 2 numbers for inputs of 4 channel",
    ),
    "a very long name": (
        edited(lambda c: layers_of(c).insert(2, layer("L" * 5000, name="n"))),
        "layer n is a LLLL",
    ),
    "a very deep one": (b"[" * 100_000, "config.json is damaged"),
    "not JSON": (b"\x80\x04pickle", "config.json is damaged"),
    "nothing": (b"", "config.json is damaged"),
    "a list": (b"[]", "config.json is damaged"),
    "a graph of nonsense": (edited(lambda c: c.update(class_name="Functional")), "config.json is damaged"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case: str, path: Path) -> None:
    config, said = CONFIGS[case]
    refused(written(path, config=config), said)


def test_models_within_models_without_end(path: Path) -> None:
    config = a_config()
    for _ in range(50):
        config = {"class_name": "Sequential", "config": {"name": "s", "layers": [config]}}
    refused(written(path, config=json.dumps(config).encode()), "more layers, or models within models")


class TestDamage:
    @pytest.mark.parametrize("size", [0, 1, 30, 500, 1500])
    def test_cut_short(self, size: int, path: Path) -> None:
        path.write_bytes(written(path).read_bytes()[:size])
        refused(path, r"damaged, cut short or no \.keras file")

    def test_weights_cut_short(self, path: Path) -> None:
        for share in (0, 0.1, 0.5, 0.99):
            content = MEMBERS["model.weights.h5"]
            refused(written(path, model=content[: int(share * len(content))]), "damaged|more than the file|no array")

    def test_no_file(self, tmp_path: Path) -> None:
        refused(tmp_path / "none.keras", "no such file")
        refused(tmp_path, "not a plain file")

    @given(data=st.data())
    @settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_damage_is_an_error_of_ours_or_none(self, data: st.DataObject, tmp_path: Path) -> None:
        member = data.draw(st.sampled_from((*MEMBERS, "zip")))
        content = bytearray(written(tmp_path / "w.keras").read_bytes() if member == "zip" else MEMBERS[member])
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        if member == "zip":
            (tmp_path / "w.keras").write_bytes(content)
        else:
            written(tmp_path / "w.keras", **{member.partition(".")[0]: bytes(content)})
        said = ""
        try:
            read_keras(tmp_path / "w.keras")
        except TombolaError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes are files of POSIX")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.keras")
    refused(tmp_path / "pipe.keras", "not a plain file")


def test_what_is_no_zip_says_what_it_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "two.keras", "w") as file:
        file["x"] = [1.0]
    with pytest.raises(ModelError, match="HDF5, as Keras 2 saved models"):
        read_keras(tmp_path / "two.keras")
    with pytest.raises(ModelError, match="not a plain file"):
        read_keras(Path("/dev/zero"))
