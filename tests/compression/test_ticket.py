"""A ticket's files can be read without Tombola, and come back as they were."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.compression.ticket import MASK, MASK_INDEX, SPEC, WEIGHTS, read_mask, write_mask, write_ticket
from tombola.errors import ModelError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Mask, Masks, prune


def _random_masks(shapes: list[list[int]], seed: int = 0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    keeps = [torch.rand(shape, generator=generator) < 0.4 for shape in shapes]
    return Masks({f"layer{index}.weight": Mask(keep) for index, keep in enumerate(keeps)})


SHAPES = st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=4)


@given(shapes=SHAPES, seed=st.integers(0, 1_000))
@settings(max_examples=60)
def test_masks_come_back_as_they_were(shapes: list[list[int]], seed: int) -> None:
    masks = _random_masks(shapes, seed)
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder), masks)
        loaded = read_mask(Path(folder))
        flat = np.load(Path(folder) / MASK, allow_pickle=False)
        index = json.loads((Path(folder) / MASK_INDEX).read_text())
    assert list(loaded) == list(masks)
    assert all(loaded[name] == masks[name] for name in masks)
    assert (flat.dtype, flat.shape) == (np.bool_, (masks.total,))
    assert (index["size"], flat.sum()) == (masks.total, masks.kept)
    for layer in index["layers"]:  # what another program would do
        part = flat[layer["offset"] : layer["offset"] + layer["size"]].reshape(layer["shape"])
        assert np.array_equal(part, masks[layer["name"]].keep.numpy())
        assert part.sum() == layer["kept"]


def test_a_ticket_is_four_files(tmp_path: Path) -> None:
    spec = ModelSpec(input_shape=(1, 3, 3), classes=2, seed=4, widths=(5,))
    model = build(spec)
    masks = prune(model, 0.6)
    masks.apply_(model)
    write_ticket(tmp_path / "results", spec, model, masks, {"round": 2})
    folder = tmp_path / "results"
    assert sorted(path.name for path in folder.iterdir()) == sorted([MASK, MASK_INDEX, SPEC, WEIGHTS])
    content = json.loads((folder / SPEC).read_text())
    assert content["history"] == {"round": 2}
    rebuilt = build(ModelSpec(**content["model"]))
    rebuilt.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    assert content_sha256(rebuilt.state_dict()) == content_sha256(model.state_dict())
    assert read_mask(folder).removed_nonzeros(rebuilt) == 0


def _npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _npz(array: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


MASKS = _random_masks([[4, 3], [2]])
GOOD = _npy(torch.cat([mask.keep.reshape(-1) for mask in MASKS.values()]).numpy())
BAD_ARRAYS = {
    "empty": b"",
    "text": b"not an array",
    "cut short": GOOD[:-1],
    "cut in its header": GOOD[:50],
    "left over": GOOD + b"\0",
    "pickled objects": _npy(np.array([{}] * 14, dtype=object)),
    "an archive": _npz(np.ones(14, dtype=bool)),
    "numbers": _npy(np.ones(14)),
    "a matrix": _npy(np.ones((7, 2), dtype=bool)),
    "another size": _npy(np.ones(15, dtype=bool)),
    "enormous": GOOD.replace(b"(14,), }" + b" " * 14, b"(1" + b"0" * 15 + b",), }"),
    "unclosed header": GOOD.replace(b"(14,)", b"(14, "),
    "one bit flipped": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "no booleans": GOOD[:-14] + bytes(7 * byte for byte in GOOD[-14:]),
}


def test_the_good_array_is_good(tmp_path: Path) -> None:
    write_mask(tmp_path, MASKS)
    assert (tmp_path / MASK).read_bytes() == GOOD
    assert len(set(BAD_ARRAYS.values()) | {GOOD}) == len(BAD_ARRAYS) + 1


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_damaged_array_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    write_mask(tmp_path, MASKS)
    (tmp_path / MASK).write_bytes(BAD_ARRAYS[case])
    _refused(tmp_path)


def _refused(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_mask(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_INDEXES: dict[str, Callable[[dict], object]] = {
    "not a mapping": lambda index: [],
    "no layers": lambda index: {"size": 14},
    "fewer layers": lambda index: {**index, "layers": index["layers"][:1]},
    "the same layer twice": lambda index: {**index, "layers": [index["layers"][0]] * 2},
    "another order": lambda index: {**index, "layers": index["layers"][::-1]},
    "a wider layer": lambda index: {**index, "layers": [{**index["layers"][0], "shape": [4, 4]}, index["layers"][1]]},
    "a negative size": lambda index: {
        **index,
        "layers": [index["layers"][0], {**index["layers"][1], "shape": [-1, -2]}],
    },
    "text for a shape": lambda index: {**index, "layers": [{**index["layers"][0], "shape": "12"}, index["layers"][1]]},
    "a layer without a name": lambda index: {**index, "layers": [{"shape": [14], "offset": 0, "kept": 3}]},
    "another count": lambda index: {**index, "layers": [{**index["layers"][0], "kept": 99}, index["layers"][1]]},
}


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    write_mask(tmp_path, MASKS)
    path = tmp_path / MASK_INDEX
    path.write_text(json.dumps(BAD_INDEXES[case](json.loads(path.read_text()))))
    _refused(tmp_path)


@pytest.mark.parametrize("name", [MASK, MASK_INDEX])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    write_mask(tmp_path, MASKS)
    (tmp_path / name).write_bytes(b'{"size": ')
    _refused(tmp_path)
    (tmp_path / name).unlink()
    _refused(tmp_path)
