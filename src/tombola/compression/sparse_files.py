"""Sparse models on disk: one safetensors file that holds kept weights, their places, what was chosen, and a checksum.

A model that is one chain is whole in its file. Of another, the file holds the chains and the state of the rest; its
code comes from whoever loads it. Files hold no machine code: kernels are made where the file is read.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tombola.compression.chains import Chain, kind_of
from tombola.compression.exchange import exchanged
from tombola.compression.layers import Layer
from tombola.compression.plans import Choice, Form, Kernel, Plan
from tombola.compression.sparse_modules import SparseChain, SparseModel
from tombola.errors import ConfigError, ModelError, StorageError
from tombola.kernels.packing import MOST_COLUMNS
from tombola.kernels.target import host
from tombola.models.tensors import load_tensors, save_tensors
from tombola.runs.configs import Config, validate

FORMAT = 1
MOST_WEIGHTS = 1 << 30
MOST_ROWS = 1 << 24
MOST_VECTORS = 8
"""Rows that a plan takes one by one: its machine code names each."""
REST = "rest/"


class StoredChoice(Config):
    kernel: Kernel
    block: int = Field(ge=1, le=MOST_COLUMNS)
    seconds: float | None


class StoredPlan(Config):
    batch: PositiveInt
    rows: int = Field(ge=1, le=MOST_ROWS)
    form: Form
    choices: tuple[StoredChoice, ...]
    seconds: float | None
    dense: float | None

    @model_validator(mode="after")
    def _kernels_fit(self) -> StoredPlan:
        fit = {
            Form.VECTORS: {Kernel.ROWS, Kernel.COLUMNS, Kernel.DENSE_COLUMNS, Kernel.DENSE},
            Form.PANELS: {Kernel.PANEL, Kernel.DENSE},
            Form.TORCH: set(Kernel),
        }[self.form]
        if not {choice.kernel for choice in self.choices} <= fit:
            raise ValueError(f"has kernels that do not go by {self.form}")
        if self.form == Form.VECTORS and self.rows > MOST_VECTORS:
            raise ValueError(f"takes {self.rows} rows one by one, more than {MOST_VECTORS}")
        return self


class StoredLayer(Config):
    name: str
    outputs: PositiveInt
    inputs: PositiveInt
    relu: bool

    @model_validator(mode="after")
    def _not_too_large(self) -> StoredLayer:
        if self.outputs * self.inputs > MOST_WEIGHTS:
            raise ValueError(f"has {self.outputs} · {self.inputs} weights, more than {MOST_WEIGHTS}")
        return self


class StoredChain(Config):
    sites: tuple[str, ...] = Field(min_length=1)
    types: tuple[str, ...]
    layers: tuple[StoredLayer, ...] = Field(min_length=1)
    flatten: bool
    flat_only: bool
    plans: tuple[StoredPlan, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> StoredChain:
        if len(self.types) != len(self.sites):
            raise ValueError("its modules do not have one type each")
        if any(a.outputs != b.inputs for a, b in itertools.pairwise(self.layers)):
            raise ValueError("its layers do not follow one another")
        if any(len(plan.choices) != len(self.layers) for plan in self.plans):
            raise ValueError("a plan does not have one kernel for each layer")
        return self


class StoredModel(Config):
    """`whole`: the model is its one chain. `machine` says where kernels were chosen."""

    kind: Literal["tombola sparse model"]
    format: Literal[1]
    tombola: str
    machine: str
    whole: bool
    unsupported: tuple[str, ...]
    chains: tuple[StoredChain, ...]

    @model_validator(mode="after")
    def _whole_is_one(self) -> StoredModel:
        sites = [site for chain in self.chains for site in chain.sites]
        layers = [layer for chain in self.chains for layer in chain.layers]
        if sum(layer.outputs * layer.inputs for layer in layers) > MOST_WEIGHTS:
            raise ValueError(f"has more than {MOST_WEIGHTS} weights")
        if (self.whole and len(self.chains) != 1) or len(set(sites)) != len(sites):
            raise ValueError("its chains do not make one model")
        return self


def save_sparse(path: Path | str, sparse: SparseModel) -> None:
    """Writes a sparse model to the file `path`, all or nothing; a file that is there is replaced.

    Values are exact; which weights are kept takes a bit each, compressed by zlib.
    """
    if not isinstance(sparse, SparseModel):
        raise ModelError(f"save_sparse writes what sparsify made, not a {type(sparse).__name__}")
    tensors = {REST + name: tensor for name, tensor in sparse.network.state_dict().items()}
    for number, chain in enumerate(sparse.chains):
        for place, layer in enumerate(chain.chain.layers):
            packed = zlib.compress(layer.bits.tobytes())
            parts = {"values": layer.values, "bias": layer.bias, "kept": np.frombuffer(packed, np.uint8).copy()}
            tensors |= {f"{number}/{place}/{name}": torch.from_numpy(part) for name, part in parts.items()}
    stored = StoredModel(
        kind="tombola sparse model",
        format=FORMAT,
        tombola=version("tombola"),
        machine=_machine(),
        whole=isinstance(sparse.network, SparseChain),
        unsupported=tuple(sparse.unsupported),
        chains=tuple(_stored(chain) for chain in sparse.chains),
    )
    save_tensors(Path(path), tensors, stored.model_dump(mode="json"))


def load_sparse(path: Path | str, model: nn.Module | None = None) -> SparseModel:
    """The sparse model that `save_sparse` wrote. `model`: a model as the sparse one was made of, in any state, unless
    that was nothing but a chain; it is not changed.

    Kernels are made for this machine; which ones, was measured where the file was written.
    Raises ModelError for a file that is damaged, of another format, or does not fit `model`.
    """
    path = Path(path)
    try:
        tensors, facts = load_tensors(path)
        stored = validate(_of_this_format(facts), StoredModel, str(path))
        rest = {name[len(REST) :]: tensors.pop(name) for name in list(tensors) if name.startswith(REST)}
        chains = [_chain(entry, number, tensors) for number, entry in enumerate(stored.chains)]
        if tensors:
            raise ValueError(f"{', '.join(sorted(tensors)[:3])} belong to no layer")
        network = _network(stored, chains, rest, model)
    except (StorageError, ConfigError) as error:
        raise ModelError(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, zlib.error) as error:
        raise ModelError(f"{path}: not a sparse model that can be loaded: {' '.join(str(error).split())}") from None
    return SparseModel(network, stored.unsupported)


def _of_this_format(facts: Any) -> dict[str, Any]:
    if not isinstance(facts, dict) or facts.get("kind") != "tombola sparse model":
        raise ValueError("it was not written by save_sparse")
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"its format is {facts.get('format')!r} (Tombola {facts.get('tombola')}), this Tombola reads {FORMAT}; "
            "write it again with sparsify and save_sparse"
        )
    return facts


def _network(
    stored: StoredModel, chains: list[SparseChain], rest: Mapping[str, Tensor], model: nn.Module | None
) -> nn.Module:
    if stored.whole:
        if model is not None or rest:
            raise ValueError("it is whole and needs no model; leave `model` out")
        return chains[0]
    if model is None:
        raise ValueError(
            f"it is part of a larger model ({'; '.join(stored.unsupported[:3]) or 'its own forward'}); give one of "
            "that kind: load_sparse(path, model=...)"
        )
    for chain in chains:
        for layer in chain.chain.layers:
            _check_layer(model, chain.chain.sites, layer)
        for site, kind in zip(chain.chain.sites, chain.chain.types, strict=True):
            _check_type(model, site, kind)
        if odd := [site for site in chain.chain.sites if kind_of(model.get_submodule(site)) is None]:
            raise ValueError(f"{odd[0]} of the given model is nothing that a sparse chain replaces")
    for entry in stored.unsupported:
        name, _, described = entry.partition(": ")
        _check_type(model, "" if name == "the model" else name, described.partition(" ")[0])
    network = exchanged(model, {chain.chain.sites: chain for chain in chains})
    network.load_state_dict(dict(rest), strict=True)
    return network


def _check_type(model: nn.Module, name: str, kind: str) -> None:
    """That the given model has the module that the saved one had. What a module without weights does is its type."""
    found = type(model.get_submodule(name)).__name__
    if found != kind:
        raise ValueError(f"{name or 'the model'} is a {found} in the given model, and a {kind} in the file")


def _check_layer(model: nn.Module, sites: Sequence[str], layer: Layer) -> None:
    if layer.name not in sites:
        raise ValueError(f"{layer.name} is not among the modules that its chain replaces")
    module = model.get_submodule(layer.name)
    if type(module) is not nn.Linear or (module.out_features, module.in_features) != layer.shape:
        raise ValueError(f"{layer.name} is {module} in the given model, and Linear{layer.shape[::-1]} in the file")


def _stored(chain: SparseChain) -> StoredChain:
    layers = tuple(
        StoredLayer(name=layer.name, outputs=layer.outputs, inputs=layer.inputs, relu=layer.relu)
        for layer in chain.chain.layers
    )
    plans = tuple(
        StoredPlan(
            choices=tuple(StoredChoice(**vars(choice)) for choice in plan.choices),
            **{name: value for name, value in vars(plan).items() if name != "choices"},
        )
        for plan in chain.plans
    )
    own = chain.chain
    return StoredChain(
        sites=own.sites, types=own.types, layers=layers, flatten=own.flatten, flat_only=own.flat_only, plans=plans
    )


def _chain(stored: StoredChain, number: int, tensors: dict[str, Tensor]) -> SparseChain:
    layers = tuple(_layer(layer, f"{number}/{place}/", tensors) for place, layer in enumerate(stored.layers))
    plans = [
        Plan(
            choices=tuple(Choice(**vars(choice)) for choice in plan.choices),
            **{name: value for name, value in vars(plan).items() if name != "choices"},
        )
        for plan in stored.plans
    ]
    return SparseChain(Chain(stored.sites, layers, stored.flatten, stored.flat_only, stored.types), plans)


def _layer(stored: StoredLayer, prefix: str, tensors: dict[str, Tensor]) -> Layer:
    values, bias, kept = (tensors.pop(prefix + name) for name in ("values", "bias", "kept"))
    total = stored.outputs * stored.inputs
    bits = _unpacked(kept, math.ceil(total / 8))
    count = int(np.unpackbits(bits, count=total).sum(dtype=np.int64))
    if count != len(values) or np.unpackbits(bits[-1:])[(total - 1) % 8 + 1 :].any():
        raise ValueError(f"{stored.name} has {len(values)} values for {count} kept weights of {total}")
    if bias.shape != (stored.outputs,) or values.dim() != 1 or {values.dtype, bias.dtype} != {torch.float32}:
        raise ValueError(f"{stored.name} has values or a bias of another shape or type")
    return Layer(stored.name, (stored.outputs, stored.inputs), bits, values.numpy(), bias.numpy(), stored.relu)


def _unpacked(packed: Tensor, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bits. No more than these are unpacked: a small file cannot fill the memory."""
    content = packed.numpy().tobytes() if packed.dtype == torch.uint8 else b""
    decompress = zlib.decompressobj()
    bits = decompress.decompress(content, length)
    if len(bits) != length or decompress.decompress(decompress.unconsumed_tail, 1) or not decompress.eof:
        raise ValueError(f"the places of kept weights do not take {length} bytes")
    return np.frombuffer(bits, np.uint8).copy()


def _machine() -> str:
    target = host()
    return f"{target.cpu}, {target.lanes} lanes"
