"""Ticket files: small, exact where they say so, and never believed further than their own size."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from torch import Tensor, nn

from tombola import Masks, pack, prune, read_ticket, remove_units, unpack
from tombola.compression.tickets import blocks
from tombola.compression.tickets.stored import facts_of, mask_tensors, masks_in
from tombola.errors import ConfigError, ModelError, StorageError, TombolaError
from tombola.models import FactorySpec, ModelSpec, build
from tombola.models import tensors as tensor_files
from tombola.models.tensors import content_sha256, same_bits, to_bytes

SPEC = ModelSpec(architecture="lenet-300-100", widths=(30, 20), input_shape=(1, 8, 8), classes=10, seed=3)
RESIDUAL = ModelSpec(architecture="resnet20", widths=(4, 4, 8), input_shape=(3, 8, 8), classes=10, seed=3)


def trained(spec: ModelSpec, sparsity: float = 0.8) -> tuple[nn.Module, Masks]:
    """A network with other numbers than its seed's in every tensor, and its masks."""
    model, chance = build(spec), torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand(tensor.shape, generator=chance)
        else:
            tensor += 7
    masks = prune(model, sparsity)
    masks.apply_(model)
    return model, masks


def digest(model: nn.Module) -> str:
    return content_sha256(model.state_dict())


@pytest.mark.parametrize("spec", [SPEC, RESIDUAL], ids=lambda spec: spec.architecture)
def test_float32_comes_back_to_the_bit(spec: ModelSpec, tmp_path: Path) -> None:
    model, masks = trained(spec)
    before = digest(model)
    made = pack(tmp_path / "a.ticket", spec, masks, trained=model, history={"from": "here"})
    found, its_spec, its_masks = unpack(tmp_path / "a.ticket")
    assert digest(found) == digest(model) == before
    assert (its_spec, its_masks, list(its_masks)) == (spec, masks, list(masks))
    read = read_ticket(tmp_path / "a.ticket")
    assert len(repr(read)) < 300
    assert (read.history, read.start, read.bytes) == ({"from": "here"}, None, made.bytes)
    assert sum(read.sizes.values()) == read.bytes == (tmp_path / "a.ticket").stat().st_size
    assert read.bytes < read.dense_bytes / 2


@pytest.mark.parametrize(("values", "error"), [("float16", 1e-3), ("int8", 0.02)])
def test_shorter_values_are_near(values: str, error: float, tmp_path: Path) -> None:
    model, masks = trained(RESIDUAL)
    exact = pack(tmp_path / "exact.ticket", RESIDUAL, masks, trained=model)
    short = pack(tmp_path / "short.ticket", RESIDUAL, masks, trained=model, values=values)
    found = unpack(tmp_path / "short.ticket")[0].state_dict()
    for name, tensor in model.state_dict().items():
        assert found[name].dtype == tensor.dtype
        assert (found[name] - tensor).float().norm() <= error * tensor.float().norm()
    assert masks.removed_nonzeros(unpack(tmp_path / "short.ticket")[0]) == 0
    assert short.sizes["trained"] < exact.sizes["trained"] * 0.7


@pytest.mark.parametrize("spec", [SPEC, RESIDUAL], ids=lambda spec: spec.architecture)
def test_a_start_is_of_the_seed_as_far_as_it_goes(spec: ModelSpec, tmp_path: Path) -> None:
    model, masks = trained(spec)
    alone = pack(tmp_path / "a.ticket", spec, masks)
    assert alone.sizes["start"] == 0
    given = pack(tmp_path / "b.ticket", spec, masks, start=build(spec))
    assert (given.start, given.bytes) == (alone.start, alone.bytes)
    first = build(spec)
    masks.apply_(first)
    assert digest(unpack(tmp_path / "a.ticket")[0]) == digest(first)

    other = build(spec)
    changed = next(iter(masks))
    other.get_parameter(changed).data *= 2
    both = pack(tmp_path / "c.ticket", spec, masks, trained=model, start=other, restart="step:5it")
    assert both.start is not None
    assert (both.start.stored, both.start.restart) == ((0,), "step:5it")
    masks.apply_(other)
    assert digest(unpack(tmp_path / "c.ticket", "start")[0]) == digest(other)
    assert digest(unpack(tmp_path / "c.ticket")[0]) == digest(model)


def test_a_seed_that_gives_other_weights_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, masks = trained(SPEC)
    pack(tmp_path / "a.ticket", SPEC, masks)
    other = build(SPEC.model_copy(update={"seed": 4}))
    monkeypatch.setattr("tombola.compression.tickets.files.rebuilt", lambda *_: other)
    with pytest.raises(ModelError, match="the seed gives other weights here than where the file was written"):
        unpack(tmp_path / "a.ticket")


def test_a_network_whose_units_are_gone(tmp_path: Path) -> None:
    model, masks = trained(SPEC, 0.98)
    removed = remove_units(model, masks, torch.rand(2, 1, 8, 8))
    assert removed.parameters_after < removed.parameters_before
    spec, path = SPEC.without_units(removed.removal), tmp_path / "a.ticket"
    pack(path, spec, removed.masks, trained=removed.model)
    found, its_spec, its_masks = unpack(path)
    assert digest(found) == digest(removed.model)
    assert (its_spec, its_masks) == (spec, removed.masks)
    pack(path, spec, removed.masks)
    first = build(spec)
    removed.masks.apply_(first)
    assert digest(unpack(path)[0]) == digest(first)


def shared() -> nn.Module:
    """Two layers that share a weight, and a buffer in half precision."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    model.register_buffer("short", torch.ones(3, dtype=torch.float16))
    return model


def test_somebody_s_own_network(tmp_path: Path) -> None:
    spec = FactorySpec(factory="mine:shared", input_shape=None, classes=None, seed=1)
    model = shared()
    masks = prune(model, 0.5)
    masks.apply_(model)
    path = tmp_path / "a.ticket"
    file = pack(path, spec, masks, trained=model, start=model, values="int8")
    assert file.dense_bytes is None
    found, _, its_masks = unpack(path, factory=shared)
    assert found[2].weight is found[0].weight
    assert its_masks == masks
    assert digest(unpack(path, "start", shared)[0]) == digest(model)
    with pytest.raises(ModelError, match="code of its owner, mine:shared"):
        unpack(path)
    with pytest.raises(ModelError, match="code of its owner, mine:shared"):
        pack(path, spec, masks)
    assert pack(path, spec, masks, factory=shared).sizes["start"] == 0
    unpack(path, factory=shared)
    with pytest.raises(ModelError, match="does not make the network of its spec"):
        unpack(path, factory=lambda: nn.Linear(3, 4))


def test_what_is_refused_is_not_written(tmp_path: Path) -> None:
    model, masks = trained(SPEC)
    path = tmp_path / "a.ticket"
    dense = build(SPEC)
    refused: list[tuple[type[TombolaError], str, dict[str, Any]]] = [
        (ModelError, r"removed weights of the trained network are not 0", {"trained": dense}),
        (ConfigError, "values: float32, float16, int8, not 'int4'", {"trained": model, "values": "int4"}),
        (ConfigError, "values='int8' is how a trained network is stored", {"values": "int8"}),
        (ModelError, "is not the lenet-300-100 of its spec", {"trained": build(RESIDUAL)}),
        (ModelError, "is not the lenet-300-100 of its spec", {"start": build(RESIDUAL)}),
    ]
    for kind, said, given in refused:
        with pytest.raises(kind, match=said):
            pack(path, SPEC, masks, **given)
    with pytest.raises(ModelError, match="the masks do not belong to this model"):
        pack(path, SPEC, prune(build(RESIDUAL), 0.5), trained=model)
    model.get_parameter("fc1.bias").data[0] = torch.inf
    pack(path, SPEC, masks, trained=model, values="int8")  # a bias stays single where half is too short
    assert unpack(path)[0].get_parameter("fc1.bias")[0] == torch.inf
    with pytest.raises(ModelError, match="holds no start weights, only trained"):
        unpack(path, "start")
    with pytest.raises(ModelError, match=r"cannot read .*gone"):
        read_ticket(tmp_path / "gone.ticket")


# What strangers may do to a file.


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model, masks = trained(SPEC)
    path = tmp_path_factory.mktemp("good") / "a.ticket"
    start = build(SPEC)
    start.get_parameter("fc1.weight").data += 1
    pack(path, SPEC, masks, trained=model, start=start, values="int8")
    return path.read_bytes()


def _refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        unpack(path)
    said = str(caught.value)
    assert said.isprintable()
    assert path.name in said
    return said


def test_a_file_that_is_cut_short_or_goes_on(good: bytes, tmp_path: Path) -> None:
    for length in (*range(24), *range(24, len(good), len(good) // 20), len(good) - 1):
        _refused(tmp_path / "a.ticket", good[:length])
    _refused(tmp_path / "a.ticket", good + b"\0")
    _refused(tmp_path / "a.ticket", good + good)


def test_a_flipped_bit_is_never_read(good: bytes, tmp_path: Path) -> None:
    """Of single bits zstandard or the checksum finds each."""
    for place in range(4, 8 * len(good), 8 * len(good) // 60):
        content = bytearray(good)
        content[place // 8] ^= 1 << place % 8
        path = tmp_path / "a.ticket"
        if zstandard_reads(bytes(content)) == zstandard.decompress(good):
            continue  # a bit that zstandard itself does not look at
        _refused(path, bytes(content))


def zstandard_reads(content: bytes) -> bytes | None:
    try:
        return zstandard.decompress(content)
    except zstandard.ZstdError:
        return None


def _frame(claimed: int, content: bytes = b"") -> bytes:
    """A zstandard frame of one segment that claims `claimed` bytes, its only block `content` as it is."""
    block = (len(content) << 3 | 1).to_bytes(3, "little") + content
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + claimed.to_bytes(8, "little") + block


def test_frames_that_claim_much_are_refused_by_their_claim(tmp_path: Path) -> None:
    for claimed in (1 << 27, 1 << 40, 1 << 62):
        assert "are the most for its size" in _refused(tmp_path / "a.ticket", _frame(claimed, b"x" * 100))
    assert "no ticket file" in _refused(tmp_path / "a.ticket", _frame(1 << 20, b"x"))
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    assert len(bomb) < 1 << 15
    assert "are the most for its size" in _refused(tmp_path / "a.ticket", bomb)
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    assert "does not say what it unpacks to" in _refused(
        tmp_path / "a.ticket", unsaid.compress(bytes(100)) + unsaid.flush()
    )


@pytest.mark.parametrize("kind", ["safetensors", "zip", "nothing", "a model's spec"])
def test_other_files_are_named(kind: str, tmp_path: Path) -> None:
    model, _ = trained(SPEC)
    contents = {
        "safetensors": to_bytes(model.state_dict())[0],
        "zip": b"PK\x03\x04" + bytes(60),
        "nothing": b"",
        "a model's spec": b"{}",
    }
    said = {"nothing": "an empty file", "a model's spec": "JSON or text"}
    assert said.get(kind, kind) in _refused(tmp_path / "a.ticket", contents[kind])


Facts = dict[str, Any]


def _layer(**changes: Any) -> Callable[[Facts, dict[str, Tensor]], None]:
    return lambda facts, tensors: facts["layers"][0].update(changes)


CHANGES: dict[str, tuple[Callable[[Facts, dict[str, Tensor]], Any], str]] = {
    "of another kind": (lambda f, t: f.update(kind="a sparse model"), "it was not written by tombola pack"),
    "of a later format": (lambda f, t: f.update(format=2), "of format 2 .*, this Tombola reads 1"),
    "an unknown key": (lambda f, t: f.update(more=1), "more"),
    "an unknown architecture": (lambda f, t: f["model"].update(architecture="nope"), "nope"),
    "another network": (lambda f, t: f["model"].update(widths=[30_000, 30_000]), "the spec says"),
    "very many weights": (_layer(shape=[2**40, 2**20]), "are the most that are read"),
    "an odd count": (_layer(kept=3), "does not keep 3 weights"),
    "a negative size": (_layer(shape=[-1, 3]), "shape"),
    "axes without end": (_layer(shape=[1] * 100), "shape"),
    "a path for a name": (_layer(name="../../etc/passwd"), "passwd is|the spec says"),
    "a layer twice": (_layer(name="fc2.weight"), "a layer is there twice"),
    "no layers": (lambda f, t: f.update(layers=[]), "the spec says"),
    "another code": (_layer(code="bits"), "bytes of bits"),
    "a mask of another type": (lambda f, t: t.update({"mask/0": t["mask/0"].float()}), "no row of bytes"),
    "no mask": (lambda f, t: t.pop("mask/1"), "mask/1"),
    "a row more": (lambda f, t: t.update({"trained/9/0": t["mask/0"]}), "trained/9/0 belongs to nothing"),
    "a row less": (lambda f, t: t.pop("trained/1/0"), "has other rows of bytes"),
    "steps of a layer": (lambda f, t: t.pop("trained/1/steps"), "steps"),
    "no bias": (lambda f, t: t.pop("trained/rest/fc1.bias"), "fc1.bias"),
    "another bias": (lambda f, t: t.update({"trained/rest/fc1.bias": torch.ones(3)}), "fc1.bias"),
    "a type of values": (lambda f, t: f["trained"].update(values="int4"), "int4"),
    "no weights": (lambda f, t: f.update(trained=None, start=None), "belongs to nothing"),
    "a place of none": (lambda f, t: f["start"].update(stored=[7]), "out of range"),
    "a place below": (lambda f, t: f["start"].update(stored=[-1]), "start.stored.0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_content_that_does_not_fit_is_refused(change: str, good: bytes, tmp_path: Path) -> None:
    """Under a right checksum."""
    found = blocks.unpacked(good, tmp_path)
    facts, tensors = json.loads(json.dumps(found.facts)), dict(found.tensors)
    CHANGES[change][0](facts, tensors)
    said = _refused(tmp_path / "a.ticket", blocks.packed(tensors, facts))
    assert re.search(CHANGES[change][1], said), said


def test_a_wrong_checksum_and_none(good: bytes, tmp_path: Path) -> None:
    plain = zstandard.decompress(good)
    start = 8 + int.from_bytes(plain[:8], "little")
    said = json.loads(json.loads(plain[8:start])["__metadata__"]["tombola"])["sha256"]
    wrong = plain.replace(said.encode(), hashlib.sha256(b"").hexdigest().encode())
    assert "does not match its checksum" in _refused(tmp_path / "a.ticket", zstandard.compress(wrong))
    altered = plain[:-1] + bytes([plain[-1] ^ 1])
    assert "does not match its checksum" in _refused(tmp_path / "a.ticket", zstandard.compress(altered))
    bare = json.dumps({"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    foreign = len(bare).to_bytes(8, "little") + bare
    assert "no checksum" in _refused(tmp_path / "a.ticket", zstandard.compress(foreign))


@pytest.mark.parametrize("header", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 100_000, b"{}", b"null"])
def test_headers_that_are_deep_long_or_empty(header: bytes, tmp_path: Path) -> None:
    _refused(tmp_path / "a.ticket", zstandard.compress(len(header).to_bytes(8, "little") + header))


def test_packed_zeros_cannot_claim_more_than_the_size_allows(tmp_path: Path) -> None:
    """Tensors in a file of ours may lie as bits; a ticket of a few bytes may not become gigabytes by that."""
    bits = torch.zeros(1 << 22, dtype=torch.uint8)
    masks = {f"start/rest/{number}": bits for number in range(4)}
    with pytest.MonkeyPatch.context() as patch:
        forms = {name: {"form": "bits", "shape": [1 << 25]} for name in masks}
        patch.setattr(tensor_files, "pack", lambda own: (own, forms))
        content = blocks.packed(masks, {})
    assert "more than" in _refused(tmp_path / "a.ticket", content)


def test_masks_of_no_weights_and_of_names_alike() -> None:
    masks = Masks.from_tensors({"a": torch.zeros(0, 3, dtype=torch.bool), "a/0": torch.ones(2, 2, dtype=torch.bool)})
    layers, rows = mask_tensors(masks)
    assert masks_in(layers, rows, 1) == masks
    assert not rows


def test_facts_are_checked_before_tensors() -> None:
    with pytest.raises(ConfigError, match="no ticket file"):
        facts_of({}, "here")


def test_equal_tickets_make_equal_files(tmp_path: Path) -> None:
    model, masks = trained(SPEC)
    for name in ("a", "b"):
        pack(tmp_path / name, SPEC, masks, trained=model, start=build(SPEC), history={"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        pack(tmp_path / "no folder" / "a.ticket", SPEC, prune(build(SPEC), 0.5))


def test_a_real_ticket_s_mask_is_near_its_entropy(tmp_path: Path) -> None:
    spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
    model = build(spec)
    masks = prune(model, 0.9)
    masks.apply_(model)
    sizes = {v: pack(tmp_path / "a.ticket", spec, masks, trained=model, values=v) for v in ("float32", "int8")}
    assert sizes["float32"].sizes["masks"] < 1.05 * sizes["float32"].mask_entropy
    ratios = {name: file.dense_bytes / file.bytes for name, file in sizes.items()}
    assert ratios["float32"] >= 8
    assert ratios["int8"] >= 28
    assert np.isfinite(list(ratios.values())).all()
    assert same_bits(unpack(tmp_path / "a.ticket")[0].fc1.bias, model.fc1.bias)
