"""A model folder gives back the same model anywhere, or says in one line why not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from tombola.errors import ConfigError, ModelError, StorageError, TombolaError
from tombola.models import ModelSpec, build, load_model, save_model
from tombola.models.tensors import content_sha256, load_tensors, save_tensors
from tombola.pruning import Masks, prune

SPEC = ModelSpec(input_shape=(1, 4, 4), classes=3, seed=11, widths=(6, 5))


def _ticket() -> tuple[nn.Module, Masks]:
    model = build(SPEC)
    masks = prune(model, 0.5)
    masks.apply_(model)
    return model, masks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, masks = _ticket()
    save_model(tmp_path / "model", SPEC, model, masks, {"round": 1})
    return tmp_path / "model"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


LOGITS = """
import sys
from pathlib import Path
import torch
from tombola.models import load_model
torch.set_num_threads(1)
model, spec, masks = load_model(Path(sys.argv[1]))
logits = model(torch.linspace(0, 1, 2 * 16).reshape(2, 1, 4, 4))
print(logits.detach().numpy().tobytes().hex(), masks.kept, spec.seed)
"""


def test_a_fresh_process_computes_the_same_bits(folder: Path) -> None:
    model, masks = _ticket()
    here = model(torch.linspace(0, 1, 2 * 16).reshape(2, 1, 4, 4)).detach().numpy().tobytes().hex()
    there = subprocess.run(
        [sys.executable, "-c", LOGITS, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    assert there.stdout.split() == [here, str(masks.kept), "11"]


def test_weights_masks_and_spec_come_back(folder: Path) -> None:
    model, masks = _ticket()
    loaded, spec, loaded_masks = load_model(folder)
    assert spec == SPEC
    assert content_sha256(loaded.state_dict()) == content_sha256(model.state_dict())
    assert loaded_masks is not None
    assert list(loaded_masks) == list(masks)
    assert all(loaded_masks[name] == masks[name] for name in masks)
    assert json.loads((folder / "spec.json").read_text())["history"] == {"round": 1}


def test_a_dense_model_has_no_masks(tmp_path: Path) -> None:
    save_model(tmp_path, SPEC, build(SPEC))
    assert load_model(tmp_path)[2] is None
    assert sorted(_contents(tmp_path)) == ["spec.json", "weights.safetensors"]


def test_a_killed_attempt_leaves_nothing_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = prune(build(SPEC), 0.5)
    with monkeypatch.context() as patch:
        patch.setattr("tombola.models.folder.write_sealed", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save_model(tmp_path / "model", SPEC, build(SPEC), masks)
    assert not (tmp_path / "model").exists()
    save_model(tmp_path / "model", SPEC, build(SPEC))
    assert load_model(tmp_path / "model")[2] is None  # and nothing of the killed one got in
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_weights_of_another_type_are_refused_not_converted(folder: Path) -> None:
    weights, _ = load_tensors(folder / "weights.safetensors")
    save_tensors(folder / "weights.safetensors", {name: tensor.double() for name, tensor in weights.items()})
    with pytest.raises(ModelError, match=r"is torch\.float64, the spec says torch\.float32"):
        load_model(folder)


@pytest.mark.parametrize("left", [("spec.json",), ("weights.safetensors",), ("masks.safetensors",), ()])
def test_nothing_is_overwritten(folder: Path, left: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if left and path.name not in left:
            path.unlink()
    before = _contents(folder)
    with pytest.raises(StorageError, match="exists and is not an empty folder") as caught:
        save_model(folder, SPEC, build(SPEC))
    assert str(folder) in str(caught.value)
    assert _contents(folder) == before


def test_a_model_without_a_spec_is_refused_with_the_way_to_make_one(folder: Path) -> None:
    (folder / "spec.json").unlink()
    with pytest.raises(ModelError, match=r"tombola\.models\.save_model\(folder, spec, model\)") as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def _change_spec(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "spec.json"
        content = json.loads(path.read_text())
        content["model"].update(fields)
        path.write_text(json.dumps(content))

    return change


def _replace(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return replace


def _other_masks(folder: Path) -> None:
    save_tensors(folder / "masks.safetensors", {"fc1.weight": torch.ones(6, 16, dtype=torch.bool)})


def _masks_of_numbers(folder: Path) -> None:
    masks = load_tensors(folder / "masks.safetensors")[0]
    save_tensors(folder / "masks.safetensors", {name: mask.float() for name, mask in masks.items()})


def _transposed_weight(folder: Path) -> None:
    weights = load_tensors(folder / "weights.safetensors")[0]
    save_tensors(folder / "weights.safetensors", {**weights, "fc2.weight": weights["fc2.weight"].T})


def _flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "wider spec": (_change_spec(widths=[7, 5]), "size mismatch"),
    "deeper spec": (_change_spec(widths=[6, 5, 5]), "Missing key"),
    "transposed weight": (_transposed_weight, "size mismatch"),
    "truncated weights": (_replace("weights.safetensors", lambda content: content[:-7]), "weights.safetensors"),
    "empty weights": (_replace("weights.safetensors", lambda _: b""), "weights.safetensors"),
    "text for weights": (_replace("weights.safetensors", lambda _: b"not tensors at all"), "weights.safetensors"),
    "huge header": (_replace("weights.safetensors", lambda content: b"\xff" * 8 + content[8:]), "weights.safetensors"),
    "altered weight": (_replace("weights.safetensors", _flip_last_byte), "checksum"),
    "altered mask": (_replace("masks.safetensors", _flip_last_byte), "checksum"),
    "missing weights": (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors"),
    "masks of another model": (_other_masks, "fc2.weight"),
    "masks of numbers": (_masks_of_numbers, "boolean"),
    "unknown architecture": (_change_spec(architecture="lenet-5"), "unknown architecture 'lenet-5'"),
    "wrong types": (_change_spec(classes="ten", widths=3), "classes"),
    "unknown key": (_change_spec(colour=3), "colour"),
    "enormous spec": (_change_spec(widths=[10**15]), "size mismatch"),
    "spec is a list": (_replace("spec.json", lambda _: b"[]"), "not a Tombola model spec"),
    "model is a list": (_replace("spec.json", lambda _: b'{"model": []}'), "spec.json"),
    "damaged spec": (_replace("spec.json", lambda content: content[:-9]), "not readable as JSON"),
    "huge spec": (_replace("spec.json", lambda content: content + b" " * (1 << 20)), "more than"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_folder_that_does_not_fit_is_one_line_that_names_it(folder: Path, case: str) -> None:
    damage, says = DAMAGE[case]
    damage(folder)
    with pytest.raises((ModelError, ConfigError, StorageError)) as caught:
        load_model(folder)
    message = str(caught.value)
    assert says in message
    assert case == "enormous spec" or str(folder) in message
    assert "\n" not in message


def test_any_altered_byte_of_the_weights_is_found(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in range(start, len(content), 17):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(ModelError, match="checksum"):
            load_model(folder)


def test_tensors_of_every_kind_come_back_to_the_bit(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(0.1),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "strided": torch.arange(12.0).reshape(3, 4).T,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "counts": torch.tensor([2**62]),
    }
    save_tensors(tmp_path / "t", tensors, {"step": 3})
    loaded, facts = load_tensors(tmp_path / "t")
    assert facts == {"step": 3}
    assert content_sha256(loaded) == content_sha256(tensors)
    assert content_sha256({**loaded, "odd": -loaded["odd"]}) != content_sha256(tensors)


def test_tensors_that_share_storage_are_saved_as_their_own(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    save_tensors(tmp_path / "t", {"a": whole, "b": whole, "c": whole[2:]})
    assert load_tensors(tmp_path / "t")[0]["c"].tolist() == [2, 3, 4, 5]


def test_files_of_other_makers_are_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    tensors, facts = load_tensors(tmp_path / "t")
    assert tensors["a"].tolist() == [1, 1]
    assert facts == {}


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "t")
    with pytest.raises(TombolaError, match="this is a zip archive"):
        load_tensors(tmp_path / "t")
