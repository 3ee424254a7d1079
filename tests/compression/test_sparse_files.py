"""Sparse models on disk: what is loaded is what was saved, and a file that is not that is one line."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tombola import load_sparse, prune, save_sparse, sparsify
from tombola.compression.sparse_modules import SparseModel
from tombola.errors import ModelError, StorageError, TombolaError
from tombola.models.tensors import load_tensors, save_tensors


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 7))


def mixed() -> nn.Module:
    torch.manual_seed(0)
    reflecting = nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")  # which stays with torch
    own = [reflecting, nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 20), nn.ReLU()]
    return nn.Sequential(*own, nn.Linear(20, 5), nn.Tanh(), nn.Linear(5, 3))


def sparse_of(model: nn.Module, example: Tensor, sparsity: float = 0.8) -> SparseModel:
    return sparsify(model, prune(model, sparsity, distribution="uniform"), example)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_sparse(tmp_path / "net.safetensors", sparse_of(network(), torch.randn(4, 48)))
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_a_chain_comes_back_to_the_bit_without_its_model(tmp_path: Path, sparsity: float) -> None:
    sparse = sparse_of(network(), torch.randn(4, 3, 16), sparsity)
    save_sparse(tmp_path / "net.safetensors", sparse)
    loaded = load_sparse(tmp_path / "net.safetensors")
    for n in (1, 3, 64, 200):
        x = torch.randn(n, 2, 24)
        assert torch.equal(loaded(x), sparse(x))
    assert str(loaded) == str(sparse)
    assert loaded.chains[0].plans == sparse.chains[0].plans
    assert not loaded.training


def test_the_file_is_small(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100))
    save_sparse(tmp_path / "net", sparse_of(model, torch.randn(4, 784), 0.95))
    dense = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "net").stat().st_size < dense / 10


def test_of_a_larger_model_the_rest_is_stored_and_its_code_is_given(tmp_path: Path) -> None:
    model = mixed().eval()
    model[1].running_mean.fill_(0.3)
    with pytest.warns(UserWarning, match="left to torch"):
        sparse = sparse_of(model, torch.randn(4, 1, 8, 8))
    save_sparse(tmp_path / "net", sparse)
    skeleton = mixed()
    for parameter in skeleton.parameters():
        parameter.data.fill_(1)
    loaded, x = load_sparse(tmp_path / "net", model=skeleton), torch.randn(9, 1, 8, 8)
    assert torch.equal(loaded(x), sparse(x))
    assert (
        loaded.unsupported
        == sparse.unsupported
        == ["0: Conv2d (torch.float32, padding reflect)", "1: BatchNorm2d", "7: Tanh"]
    )
    assert all((parameter == 1).all() for parameter in skeleton.parameters())
    with pytest.raises(ModelError, match=r"0: Conv2d.*load_sparse\(path, model="):
        load_sparse(tmp_path / "net")
    for other in (network(), nn.Sequential(*list(mixed())[:-1]), nn.Sequential(nn.Linear(2, 2))):
        with pytest.raises(ModelError, match="not a sparse model that can be loaded") as caught:
            load_sparse(tmp_path / "net", model=other)
        assert "\n" not in str(caught.value)


def test_a_whole_file_needs_no_model(saved: Path) -> None:
    with pytest.raises(ModelError, match="leave `model` out"):
        load_sparse(saved, model=network())


@pytest.mark.parametrize("arguments", [(3,), ("file", "model"), (None,)])
def test_a_path_and_a_model_are_asked_for(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match="load_sparse takes a path and a model, not"):
        load_sparse(*arguments)


def test_only_sparse_models_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a Sequential"):
        save_sparse(tmp_path / "net", network())  # type: ignore[arg-type]


def test_damage_is_one_line(saved: Path) -> None:
    content = saved.read_bytes()
    for damaged in (b"", content[:7], content[:200], content[:-1], content[:-40] + b"x" * 40, b"\x80\x04" + content):
        saved.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"net\.safetensors") as caught:
            load_sparse(saved)
        assert "\n" not in str(caught.value)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "other", network().state_dict())
    with pytest.raises(ModelError, match="not written by save_sparse"):
        load_sparse(tmp_path / "other")
    with pytest.raises((ModelError, StorageError), match="nowhere"):
        load_sparse(tmp_path / "nowhere")


Facts = dict[str, Any]
HOSTILE: dict[str, Callable[[dict[str, Tensor], Facts], Any]] = {
    "a later format": lambda tensors, facts: facts.update(format=3),
    "an unknown fact": lambda tensors, facts: facts.update(code="import os"),
    "no chains": lambda tensors, facts: facts.update(chains=[]),
    "two wholes": lambda tensors, facts: facts.update(chains=facts["chains"] * 2),
    "an unknown kernel": lambda tensors, facts: plan(facts)["choices"][0].update(kernel="os.system"),
    "a kernel of the other form": lambda tensors, facts: plan(facts)["choices"][0].update(kernel="rows"),
    "blocks of no columns": lambda tensors, facts: plan(facts)["choices"][0].update(block=0),
    "blocks too wide": lambda tensors, facts: plan(facts)["choices"][0].update(block=1 << 17),
    "a million rows one by one": lambda tensors, facts: plan(facts).update(form="vectors", rows=1 << 20),
    "a kernel too few": lambda tensors, facts: plan(facts)["choices"].pop(),
    "layers that do not follow": lambda tensors, facts: layer(facts).update(outputs=31),
    "a huge layer": lambda tensors, facts: layer(facts).update(inputs=1 << 40),
    "other inputs": lambda tensors, facts: layer(facts).update(inputs=47),
    "a layer more": lambda tensors, facts: facts["chains"][0]["layers"].append(layer(facts)),
    "a tensor too few": lambda tensors, facts: tensors.pop("0/0/bias"),
    "a tensor too many": lambda tensors, facts: tensors.update(more=torch.zeros(1)),
    "values too few": lambda tensors, facts: tensors.update({"0/0/values": tensors["0/0/values"][:-1].clone()}),
    "values of another type": lambda tensors, facts: tensors.update({"0/0/values": tensors["0/0/values"].double()}),
    "a bias of another shape": lambda tensors, facts: tensors.update({"0/0/bias": torch.zeros(29)}),
    "a bomb": lambda tensors, facts: tensors.update({"0/0/kept": packed(b"\0" * (1 << 26))}),
    "places too few": lambda tensors, facts: tensors.update({"0/0/kept": packed(b"\xff")}),
    "places that are no zlib": lambda tensors, facts: tensors.update({"0/0/kept": torch.zeros(9, dtype=torch.uint8)}),
    "places without an end": lambda tensors, facts: tensors.update({"0/0/kept": tensors["0/0/kept"][:-3].clone()}),
    "places of another type": lambda tensors, facts: tensors.update({"0/0/kept": tensors["0/0/kept"].float()}),
    "the rest of a model": lambda tensors, facts: tensors.update({"rest/x": torch.zeros(1)}),
}


def plan(facts: Facts) -> Facts:
    found: Facts = next(plan for plan in facts["chains"][0]["plans"] if plan["batch"] == 64)
    return found


def layer(facts: Facts) -> Facts:
    found: Facts = facts["chains"][0]["layers"][0]
    return found


def packed(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(zlib.compress(content)), dtype=torch.uint8)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(saved: Path, name: str) -> None:
    tensors, facts = load_tensors(saved)
    for stored in facts["chains"][0]["plans"]:
        stored["form"] = "panels"
        stored["choices"] = [choice | {"kernel": "panel", "block": 16} for choice in stored["choices"]]
    save_tensors(saved, tensors, facts)
    load_sparse(saved)
    HOSTILE[name](tensors, facts)
    save_tensors(saved, tensors, facts)
    with pytest.raises(TombolaError, match=r"net\.safetensors") as caught:
        load_sparse(saved)
    assert isinstance(caught.value, ModelError)
    assert "\n" not in str(caught.value)


def test_a_huge_layer_that_keeps_nothing_is_refused(saved: Path) -> None:
    """Its file would be small, and the model too large for the memory."""
    tensors, facts = load_tensors(saved)
    layer(facts).update(inputs=1 << 17, outputs=1 << 17)
    save_tensors(saved, tensors, facts)
    with pytest.raises(ModelError, match="more than 1073741824"):
        load_sparse(saved)


def test_a_file_replaces_nothing_but_layers_of_chains(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="left to torch"):
        sparse = sparse_of(mixed(), torch.randn(4, 1, 8, 8))
    save_sparse(tmp_path / "net", sparse)
    tensors, facts = load_tensors(tmp_path / "net")
    facts["chains"][0]["sites"].append("0")
    facts["chains"][0]["types"].append("Conv2d")
    save_tensors(tmp_path / "net", tensors, facts)
    with pytest.raises(ModelError, match="0 of the given model is nothing that a sparse chain replaces"):
        load_sparse(tmp_path / "net", model=mixed())


def test_a_loaded_model_keeps_no_dense_matrices(saved: Path) -> None:
    loaded = load_sparse(saved)
    loaded(torch.randn(100, 48))
    arrays = loaded.chains[0]._engine.arrays
    needed = {
        number
        for plan in loaded.chains[0].plans
        for number, choice in enumerate(plan.choices)
        if choice.kernel in ("dense", "dense columns")
    }
    assert set(arrays._dense) | set(arrays._columns) <= needed


@pytest.mark.parametrize("other", [nn.Sigmoid(), nn.ReLU()])
def test_a_model_of_other_modules_is_refused(tmp_path: Path, other: nn.Module) -> None:
    """Modules without weights leave no trace in a state, and change what is computed."""

    def between(module: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), module, nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

    save_sparse(tmp_path / "net", sparse_of(between(nn.Tanh()), torch.randn(4, 6)))
    with pytest.raises(ModelError, match=f"1 is a {type(other).__name__} in the given model, and a Tanh in the file"):
        load_sparse(tmp_path / "net", model=between(other))
    replaced = between(nn.Tanh())
    replaced[3] = nn.GELU()
    with pytest.raises(ModelError, match="3 is a GELU in the given model, and a ReLU in the file"):
        load_sparse(tmp_path / "net", model=replaced)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sparse = sparse_of(network(), torch.randn(4, 48))
    with pytest.raises(StorageError, match="a device or a pipe"):
        save_sparse(pipe, sparse)
    assert pipe.is_fifo()
    for nothing in ("", "\0"):
        with pytest.raises(StorageError, match="names no file"):
            save_sparse(nothing, sparse)


def test_pickle_is_refused_with_a_way_out() -> None:
    with pytest.raises(ModelError, match="write it with save_sparse"):
        pickle.dumps(sparse_of(network(), torch.randn(4, 48)))
