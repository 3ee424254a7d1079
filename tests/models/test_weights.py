"""Weights of other makers: read by name, shape and type, never run, refused in one line."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import own_models
from tombola.errors import ModelError, TombolaError
from tombola.models.tensors import SIZE_LIMIT, content_sha256
from tombola.models.weights import load_weights, read_weights


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return own_models.dense()


@pytest.fixture
def other() -> nn.Module:
    torch.manual_seed(1)
    return own_models.dense()


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: state, id="state dict"),
        pytest.param(dict, id="plain dict"),
        pytest.param(lambda state: {"state_dict": state, "epoch": 3, "best": 0.9}, id="lightning"),
        pytest.param(lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}}, id="tutorial"),
        pytest.param(lambda state: {"model": state, "args": ["a", 1, None]}, id="model"),
        pytest.param(lambda state: OrderedDict((f"module.{k}", v) for k, v in state.items()), id="data parallel"),
        pytest.param(lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}, id="both"),
        pytest.param(lambda state: {k: nn.Parameter(v) for k, v in state.items()}, id="parameters"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_forms_of_a_checkpoint(wrap: Any, suffix: str, model: nn.Module, other: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(model.state_dict()), path)
    load_weights(other, path)
    assert content_sha256(other.state_dict()) == content_sha256(model.state_dict())
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_safetensors_and_old_files_of_torch(model: nn.Module, other: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert content_sha256(other.state_dict()) == content_sha256(model.state_dict())
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    again = own_models.dense()
    load_weights(again, tmp_path / "old.pt")
    assert content_sha256(again.state_dict()) == content_sha256(model.state_dict())


def test_a_prefix_that_the_model_has_itself_stays(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(module=nn.Linear(3, 2)))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    other = nn.Sequential(OrderedDict(module=nn.Linear(3, 2)))
    load_weights(other, tmp_path / "w.pt")
    assert torch.equal(other.module.weight, model.module.weight)


def changed(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: tensor for name, tensor in (state | changes).items() if tensor is not None}


def _first(state: dict[str, Any], tensor: Any) -> dict[str, Any]:
    return changed(state, **{"1.weight": tensor})


WRONG: dict[str, tuple[Any, str]] = {
    "transposed": (lambda s: _first(s, s["1.weight"].T.contiguous()), r"1.weight is torch.float32 \(64, 16\), the m"),
    "other type": (lambda s: _first(s, s["1.weight"].double()), "1.weight is torch.float64"),
    "half": (lambda s: _first(s, s["1.weight"].half()), "1.weight is torch.float16"),
    "missing": (lambda s: _first(s, None), "not the weights of this model: it lacks 1.weight"),
    "unknown": (lambda s: changed(s, extra=torch.ones(2)), "it also has extra"),
    "many unknown": (lambda s: changed(s, **{f"x{i}": torch.ones(1) for i in range(9)}), "and 6 more"),
    "of another": (lambda s: {"a": torch.ones(2)}, "it lacks 1.bias, 1.weight, 3.bias and 1 more; it also has a"),
    "sparse": (lambda s: _first(s, s["1.weight"].to_sparse()), "1.weight is no plain tensor"),
    "on meta": (lambda s: _first(s, s["1.weight"].to("meta")), "1.weight is no plain tensor"),
    "a number": (lambda s: _first(s, 3.0), "holds no state dict"),
    "a name that is none": (lambda s: {1: torch.ones(2)}, "holds no state dict"),
    "empty": (lambda s: {}, "holds no state dict"),
    "a list": (lambda s: [torch.ones(2)], "holds no state dict"),
    "a tensor": (lambda s: torch.ones(2), "holds no state dict"),
    "nested deeper": (lambda s: {"state_dict": {"model": s}}, "holds no state dict"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line_and_changes_nothing(case: str, model: nn.Module, tmp_path: Path) -> None:
    wrap, said = WRONG[case]
    torch.save(wrap(model.state_dict()), tmp_path / "w.pt")
    before = content_sha256(model.state_dict())
    with pytest.raises(ModelError, match=said) as caught:
        load_weights(model, tmp_path / "w.pt")
    assert str(tmp_path / "w.pt") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content_sha256(model.state_dict()) == before


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


@pytest.mark.parametrize("form", ["torch", "nested", "plain pickle", "old torch", "numpy object"])
def test_code_in_a_pickle_does_not_run(
    form: str, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    if form == "torch":
        torch.save({**model.state_dict(), "attack": Attack()}, path)
    elif form == "nested":
        torch.save({"state_dict": model.state_dict(), "hooks": [Attack()]}, path)
    elif form == "old torch":
        torch.save(Attack(), path, _use_new_zipfile_serialization=False)
    elif form == "numpy object":
        torch.save({"a": np.array([Attack()], dtype=object)}, path)
    else:
        path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ModelError, match=r"w\.pt: damaged") as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


def test_a_whole_pickled_model_is_refused_with_the_way_out(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"which are not loaded; save it again with torch\.save\(model\.state_dict"):
        load_weights(model, tmp_path / "model.pt")


def test_a_scripted_model_is_refused(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scripted/constants.pkl", b"")
        archive.writestr("scripted/data.pkl", b"")
        archive.writestr("scripted/code/x.py", b"")
    with pytest.raises(ModelError, match="damaged"):
        load_weights(model, path)


def saved(new_format: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(own_models.dense().state_dict(), buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


FILES = {"new": saved(True), "old": saved(False)}


@given(
    form=st.sampled_from(tuple(FILES)),
    end=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_an_error_of_ours_or_none(form: str, end: float, flips: list[Any], tmp_path: Path) -> None:
    content = FILES[form]
    damaged = bytearray(content[: round(end * len(content))] if not flips else content)
    for position, bits in flips:
        damaged[int(position * len(damaged))] ^= bits
    path = tmp_path / "w.pt"
    path.write_bytes(damaged)
    said = ""
    try:
        load_weights(own_models.dense(), path)
    except TombolaError as error:
        said = str(error)
    assert "\n" not in said
    assert not said or str(path) in said


@given(content=st.binary(max_size=300), suffix=st.sampled_from((".pt", ".safetensors")))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(TombolaError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 10, len(FILES["new"]) // 2, len(FILES["new"]) - 1])
def test_cut_short(size: int, model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(FILES["new"][:size])
    with pytest.raises(ModelError, match=r"w\.pt: damaged"):
        load_weights(model, tmp_path / "w.pt")


class TestLimits:
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_a_huge_file_is_not_read(self, suffix: str, model: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / f"w{suffix}"
        path.touch()
        os.truncate(path, SIZE_LIMIT + 1)  # takes no room on the disk
        with pytest.raises(TombolaError, match="expected at most"):
            load_weights(model, path)

    def test_nor_one_that_unpacks_to_too_much(
        self, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tombola.models.weights.SIZE_LIMIT", 1 << 20)
        path = tmp_path / "w.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("w/data/0", bytes(2 << 20))
        assert path.stat().st_size < 1 << 16
        with pytest.raises(ModelError, match="expected at most"):
            load_weights(model, path)

    @pytest.mark.parametrize("name", ["w.ckpt", "w.pkl", "w", "w.npz", "w.PT"])
    def test_other_kinds_of_file(self, name: str, model: nn.Module, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(FILES["new"])
        with pytest.raises(ModelError, match=r"weights come as \.safetensors or as torch's \.pt"):
            load_weights(model, tmp_path / name)

    @pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "folder.pt", "folder.safetensors"])
    def test_no_file(self, name: str, model: nn.Module, tmp_path: Path) -> None:
        if name.startswith("folder"):
            (tmp_path / name).mkdir()
        with pytest.raises(TombolaError, match=name):
            load_weights(model, tmp_path / name)


class TestPendingOperations:
    """Torch stores what is still to be done to a tensor's numbers beside them."""

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_pending_negation_is_done(self, legacy: bool, tmp_path: Path) -> None:
        negative = torch.complex(torch.zeros(2, 3), torch.ones(2, 3)).conj().imag
        assert negative.is_neg()
        path = tmp_path / "w.pt"
        torch.save({"w": negative}, path, _use_new_zipfile_serialization=not legacy)
        assert torch.equal(read_weights(path)["w"], -torch.ones(2, 3))
