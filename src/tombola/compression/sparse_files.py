"""Sparse models on disk: one safetensors file that holds kept weights, their places, what was chosen, and a checksum.

A model that is one chain is whole in its file. Of another, the file holds the chains and the state of the rest; its
code comes from whoever loads it. Files hold no machine code: kernels are made where the file is read.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from tombola.compression.chains import Chain, kind_of
from tombola.compression.exchange import exchanged
from tombola.compression.fixed import load_rest, rest_of
from tombola.compression.graphs.nodes import Graph
from tombola.compression.graphs.stored import StoredGraph, graph_of, modules_of, stored_graph, tensors_of_graph
from tombola.compression.layers import Layer
from tombola.compression.sparse_modules import SparseChain, SparseModel
from tombola.compression.stored_layers import (
    MOST_WEIGHTS,
    OF_LINEAR,
    StoredLayer,
    StoredPlan,
    plan_of,
    read_layer,
    stored_plan,
    tensors_of,
)
from tombola.errors import ConfigError, ModelError, StorageError, one_line
from tombola.kernels.target import host
from tombola.models.tensors import load_tensors, save_tensors
from tombola.pruning.wrapped import unwrapped
from tombola.runs import limits
from tombola.runs.configs import Config, validate

FORMAT, READ = 2, (1, 2)
"""Written, and read: files of format 1 know no graphs."""
REST = "rest/"


class StoredChain(Config):
    sites: tuple[str, ...] = Field(min_length=1)
    types: tuple[str, ...]
    layers: tuple[StoredLayer, ...] = Field(min_length=1)
    flatten: bool
    flat_only: bool
    plans: tuple[StoredPlan, ...] = Field(max_length=limits.PLANS)

    @model_validator(mode="after")
    def _fits_together(self) -> StoredChain:
        if len(self.types) != len(self.sites):
            raise ValueError("its modules do not have one type each")
        if any(a.outputs != b.inputs for a, b in itertools.pairwise(self.layers)):
            raise ValueError("its layers do not follow one another")
        for plan in self.plans:
            plan.check_kernels([OF_LINEAR] * len(self.layers))
        return self


class StoredModel(Config):
    """`whole`: the model is its one chain. `machine` says where kernels were chosen."""

    kind: Literal["tombola sparse model"]
    format: Literal[1, 2]
    tombola: str
    machine: str
    whole: bool
    unsupported: tuple[str, ...]
    chains: tuple[StoredChain, ...]
    graphs: tuple[StoredGraph, ...] = ()

    @model_validator(mode="after")
    def _whole_is_one(self) -> StoredModel:
        parts: tuple[StoredChain | StoredGraph, ...] = (*self.chains, *self.graphs)
        sites = [site for part in parts for site in part.sites]
        layers = [layer for part in parts for layer in part.layers]
        if sum(layer.outputs * layer.inputs for layer in layers) > MOST_WEIGHTS:
            raise ValueError(f"has more than {MOST_WEIGHTS} weights")
        if (self.whole and len(parts) != 1) or len(set(sites)) != len(sites):
            raise ValueError("its chains do not make one model")
        return self


def save_sparse(path: Path | str, sparse: SparseModel) -> None:
    """Writes a sparse model to a file, all or nothing; a file that is there is replaced.

    Values are exact; which weights are kept takes a bit each, compressed by zlib.

    Args:
        path: The file.
        sparse: What `sparsify` gave.

    Raises:
        StorageError: where it cannot be written.

    Examples:
        >>> import pathlib, tempfile, torch
        >>> from tombola import prune, sparsify
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> inputs = torch.rand(1, 64)
        >>> sparse = sparsify(model, prune(model, 0.9), inputs, batch_sizes=(1,))
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.sparse"
        >>> save_sparse(path, sparse)
        >>> torch.equal(load_sparse(path)(inputs), sparse(inputs))
        True
    """
    if not isinstance(sparse, SparseModel):
        raise ModelError(f"save_sparse writes what sparsify made, not a {type(sparse).__name__}")
    tensors = {REST + name: tensor for name, tensor in rest_of(sparse.network).items()}
    chains, graphs = _by_kind(sparse)
    for number, (_, chain) in enumerate(chains):
        for place, layer in enumerate(chain.layers):
            tensors |= tensors_of(layer, f"{number}/{place}/")
    for number, (_, graph) in enumerate(graphs):
        tensors |= tensors_of_graph(graph, f"graph-{number}/")
    stored = StoredModel(
        kind="tombola sparse model",
        format=FORMAT,
        tombola=version("tombola"),
        machine=_machine(),
        whole=isinstance(sparse.network, SparseChain),
        unsupported=tuple(sparse.unsupported),
        chains=tuple(_stored(module, chain) for module, chain in chains),
        graphs=tuple(stored_graph(graph, module.plans) for module, graph in graphs),
    )
    _check_total(stored, sum(tensor.nbytes for tensor in tensors.values()))
    save_tensors(Path(path), tensors, stored.model_dump(mode="json"))


def _check_total(stored: StoredModel, size: int) -> None:
    """Removed weights take hardly any room in a file, but memory where the model runs."""
    parts: tuple[StoredChain | StoredGraph, ...] = (*stored.chains, *stored.graphs)
    total = sum(layer.outputs * layer.inputs for part in parts for layer in part.layers)
    if total > (most := limits.weights(size)):
        raise ModelError(
            f"has {total:,} weights, removed ones included, in {size:,} bytes; {most:,} are the most that are read "
            "from so few"
        )


def _by_kind(sparse: SparseModel) -> tuple[list[tuple[SparseChain, Chain]], list[tuple[SparseChain, Graph]]]:
    """The chains of a model and its graphs, each with its module."""
    chains, graphs = [], []
    for module in sparse.chains:
        if isinstance(module.chain, Graph):
            graphs.append((module, module.chain))
        else:
            chains.append((module, module.chain))
    return chains, graphs


def load_sparse(path: Path | str, model: nn.Module | None = None) -> SparseModel:
    """The sparse model that `save_sparse` wrote. Kernels are made for this machine; which ones, was measured where the
    file was written.

    Args:
        path: The file.
        model: A model as the sparse one was made of, in any state; it is not changed. Not needed where that was nothing
            but a chain of layers.

    Returns:
        A module for evaluation on the CPU.

    Raises:
        ModelError: for a file that is damaged, of another format, or does not fit `model`.

    Examples:
        See `save_sparse`.
    """
    if not isinstance(path, str | Path) or not isinstance(model, nn.Module | None):
        raise ModelError(f"load_sparse takes a path and a model, not {type(path).__name__} and {type(model).__name__}")
    path = Path(path)
    model = None if model is None else unwrapped(model)
    try:
        tensors, facts = load_tensors(path)
        stored = validate(_of_this_format(facts), StoredModel, str(path))
        _check_total(stored, path.stat().st_size)
        rest = {name[len(REST) :]: tensors.pop(name) for name in list(tensors) if name.startswith(REST)}
        chains = [_chain(entry, number, tensors) for number, entry in enumerate(stored.chains)]
        for number, entry in enumerate(stored.graphs):
            graph, plans = graph_of(entry, f"graph-{number}/", tensors)
            chains.append(SparseChain(graph, plans))
        if tensors:
            raise ValueError(f"{', '.join(sorted(tensors)[:3])} belong to no layer")
        network = _network(stored, chains, rest, model)
    except (StorageError, ConfigError) as error:
        raise ModelError(str(error)) from None
    except ModelError as error:
        raise ModelError(f"{path}: not a sparse model that can be loaded: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, zlib.error) as error:
        raise ModelError(f"{path}: not a sparse model that can be loaded: {one_line(error)}") from None
    return SparseModel(network, stored.unsupported)


def _of_this_format(facts: Any) -> dict[str, Any]:
    if not isinstance(facts, dict) or facts.get("kind") != "tombola sparse model":
        raise ValueError("it was not written by save_sparse")
    if facts.get("format") not in READ:
        raise ValueError(
            f"its format is {facts.get('format')!r} (Tombola {facts.get('tombola')}), this Tombola reads {READ}; "
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
        own = chain.chain
        for layer in own.layers:
            _check_layer(model, own.sites, layer)
        names = list(own.sites) if isinstance(own, Chain) else modules_of(model, own.sites)
        if len(names) != len(own.types):
            raise ValueError(
                f"{', '.join(own.sites[:3])} of the given model has {len(names)} modules, not {len(own.types)}"
            )
        for name, kind in zip(names, own.types, strict=True):
            _check_type(model, name, kind)
        odd = [site for site in own.sites if isinstance(own, Chain) and kind_of(model.get_submodule(site)) is None]
        if odd:
            raise ValueError(f"{odd[0]} of the given model is nothing that a sparse chain replaces")
    for entry in stored.unsupported:
        name, _, described = entry.partition(": ")
        _check_type(model, "" if name == "the model" else name, described.partition(" ")[0])
    network = exchanged(model, {chain.chain.sites: chain for chain in chains})
    load_rest(network, rest)
    return network


def _check_type(model: nn.Module, name: str, kind: str) -> None:
    """That the given model has the module that the saved one had. What a module without weights does is its type."""
    found = type(model.get_submodule(name)).__name__
    if found != kind:
        raise ValueError(f"{name or 'the model'} is a {found} in the given model, and a {kind} in the file")


def _check_layer(model: nn.Module, sites: Sequence[str], layer: Layer) -> None:
    inside = [site for site in sites if site in ("", layer.name) or layer.name.startswith(f"{site}.")]
    if not inside:
        raise ValueError(f"{layer.name} is not among the modules that its chain replaces")
    module = model.get_submodule(layer.name)
    kind = nn.Linear if len(layer.shape) == 2 else nn.Conv2d
    if type(module) is not kind or tuple(module.weight.shape) != layer.shape:
        raise ValueError(
            f"{layer.name} is {module} in the given model, and a {kind.__name__} with weights {layer.shape} in the file"
        )


def _stored(module: SparseChain, chain: Chain) -> StoredChain:
    layers = tuple(
        StoredLayer(name=layer.name, outputs=layer.outputs, inputs=layer.inputs, relu=layer.relu)
        for layer in chain.layers
    )
    return StoredChain(
        sites=chain.sites,
        types=chain.types,
        layers=layers,
        flatten=chain.flatten,
        flat_only=chain.flat_only,
        plans=tuple(map(stored_plan, module.plans)),
    )


def _chain(stored: StoredChain, number: int, tensors: dict[str, Tensor]) -> SparseChain:
    layers = tuple(
        read_layer(layer, (layer.outputs, layer.inputs), f"{number}/{place}/", tensors)
        for place, layer in enumerate(stored.layers)
    )
    chain = Chain(stored.sites, layers, stored.flatten, stored.flat_only, stored.types)
    return SparseChain(chain, list(map(plan_of, stored.plans)))


def _machine() -> str:
    target = host()
    return f"{target.cpu}, {target.lanes} lanes"
