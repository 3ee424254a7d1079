"""Masks as bits and kept values only: exact, small, and damage to them is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tombola import Masks, load_masks, load_model, prune, save_masks, save_model
from tombola.errors import PruningError, StorageError
from tombola.models import ModelSpec, build, weights_form
from tombola.models.packing import pack, unpack
from tombola.models.tensors import content_sha256, read_stored, same_bits, save_tensors

TYPES = (
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e8m0fnu),
    *(torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.bool),
)


@given(
    st.sampled_from(TYPES),
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from((0.0, 0.02, 0.5, 1.0)),
    st.integers(0, 2**32 - 1),
)
def test_what_is_unpacked_is_equal_to_the_bit(kind: torch.dtype, shape: list[int], density: float, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (*shape, max(1, kind.itemsize)), generator=chance, dtype=torch.uint8)
    kept = torch.rand(shape, generator=chance) < density
    masked = raw * kept.unsqueeze(-1)  # any bits: NaN, -0
    tensor = kept if kind == torch.bool else masked.view(kind).reshape(shape)
    packed, forms = pack({"weight": tensor, "other": torch.zeros(3, 1)})
    found = unpack(packed, json.loads(json.dumps(forms)))
    assert found.keys() == {"weight", "other"}
    assert same_bits(found["weight"], tensor)
    assert sum(t.nbytes for t in packed.values()) <= tensor.nbytes + 12


def test_masks_take_a_bit_a_weight(tmp_path: Path) -> None:
    mask = torch.rand(300, 1001) < 0.5
    checksum = save_tensors(tmp_path / "masks.safetensors", {"weight": mask})
    assert (tmp_path / "masks.safetensors").stat().st_size < mask.numel() / 8 + 1000
    stored = read_stored(tmp_path / "masks.safetensors")
    assert torch.equal(stored.tensors["weight"], mask)
    assert stored.sha256 == checksum


def test_a_child_stores_its_kept_values(tmp_path: Path) -> None:
    spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
    model = build(spec)
    save_model(tmp_path / "parent", spec, model)
    masks = prune(model, 0.9)
    masks.apply_(model)
    save_model(tmp_path / "child", spec, model, masks)

    def size(name: str) -> int:
        return sum(path.stat().st_size for path in (tmp_path / name).glob("*.safetensors"))

    assert size("child") <= 0.25 * size("parent")
    assert (weights_form(tmp_path / "parent"), weights_form(tmp_path / "child")) == ("dense", "kept values")
    loaded, _, found = load_model(tmp_path / "child")
    assert found == masks
    assert content_sha256(loaded.state_dict()) == content_sha256(model.state_dict())


def test_the_checksum_is_of_the_tensors_and_not_of_their_form(tmp_path: Path) -> None:
    tensors = {"weight": torch.eye(64)}
    packed = save_tensors(tmp_path / "packed.safetensors", tensors)
    whole = {"tombola": json.dumps({"facts": "{}", "sha256": packed})}
    safetensors.torch.save_file(tensors, tmp_path / "dense.safetensors", whole)
    assert read_stored(tmp_path / "dense.safetensors").sha256 == packed


def _damaged(path: Path, change: Any) -> None:
    """Writes a packed file whose stored tensors and forms `change` has altered."""
    save_tensors(path, {"weight": torch.eye(64)})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    own = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["tombola"])
    stored, forms = safetensors.torch.load(content), json.loads(own["packed"])
    own["packed"] = json.dumps(change(stored, forms))
    safetensors.torch.save_file(stored, path, {"tombola": json.dumps(own)})


def _shape(*shape: Any) -> Any:
    return lambda stored, forms: {"weight": {**forms["weight"], "shape": list(shape)}}


def _without_bits(stored: dict[str, Tensor], forms: Any) -> Any:
    del stored["weight:kept"]
    return forms


def _fewer_values(stored: dict[str, Tensor], forms: Any) -> Any:
    stored["weight"] = stored["weight"][1:].clone()
    return forms


def _moved(stored: dict[str, Tensor], forms: Any) -> Any:
    stored["weight:kept"] = stored["weight:kept"].roll(1)
    return forms


@pytest.mark.parametrize(
    "change",
    [
        _shape(64, 63),
        _shape(63, 64),
        _shape(-64, -64),
        _shape(2**40, 2**40),
        _shape(64.0, 64),
        _shape(True, 4096),
        _shape("64", 64),
        _without_bits,
        _fewer_values,
        _moved,
        lambda stored, forms: [],
        lambda stored, forms: {"weight": "bits"},
        lambda stored, forms: {"weight": {**forms["weight"], "form": "zip"}},
        lambda stored, forms: {"gone": forms["weight"]},
        lambda stored, forms: {},
    ],
)
def test_damage_is_refused(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "weights.safetensors"
    _damaged(path, change)
    with pytest.raises(StorageError, match=r"weights\.safetensors: "):
        read_stored(path)


def test_a_shape_of_very_many_axes_is_refused_before_it_is_multiplied(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    _damaged(path, _shape(*[1] * 100, 64, 64))
    with pytest.raises(StorageError, match="weight has no shape of at most 64 axes"):
        read_stored(path)


def test_a_small_file_cannot_claim_the_memory_of_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    bits = torch.zeros(2**20, dtype=torch.uint8)
    names = [f"w{i}" for i in range(300)]
    stored = {n + end: bits if end else torch.zeros(0, dtype=torch.float64) for n in names for end in ("", ":kept")}
    forms = {name: {"form": "nonzero", "shape": [2**23]} for name in names}
    own = {"facts": "{}", "sha256": "", "packed": json.dumps(forms)}
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    safetensors.torch.save_file(stored, path, {"tombola": json.dumps(own)})
    with pytest.raises(StorageError, match="more than"):
        read_stored(path)


def test_masks_of_no_entries_and_of_names_that_look_like_places(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    tensors = {"a": torch.eye(64), "a:kept": torch.zeros(50, 100), "none": torch.zeros(0, 3, dtype=torch.bool)}
    save_tensors(path, tensors)
    found = read_stored(path).tensors
    assert found.keys() == tensors.keys()
    assert all(same_bits(found[n], t) for n, t in tensors.items())
    assert isinstance(Masks.from_tensors({"none": found["none"]}), Masks)


def test_masks_in_a_file_of_their_own(tmp_path: Path) -> None:
    spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
    model = build(spec)
    masks = prune(model, 0.9)
    save_masks(tmp_path / "masks.safetensors", masks)
    assert load_masks(tmp_path / "masks.safetensors") == masks
    save_model(tmp_path / "model", spec, model, masks)
    assert load_masks(tmp_path / "model" / "masks.safetensors") == masks
    with pytest.raises(StorageError, match="holds no masks: "):
        load_masks(tmp_path / "model" / "weights.safetensors")
    with pytest.raises(StorageError, match="gone"):
        load_masks(tmp_path / "gone.safetensors")
    with pytest.raises(PruningError, match="not a dict"):
        save_masks(tmp_path / "other.safetensors", masks.to_tensors())  # type: ignore[arg-type]
    assert not (tmp_path / "other.safetensors").exists()
