"""A copy of a model with chains in place of their modules; the weights these replace are not copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from tombola.compression.fast_path import leave_fast_path
from tombola.compression.graphs.nodes import Graph
from tombola.compression.layers import IDENTITIES
from tombola.compression.sparse_modules import SparseChain
from tombola.pruning.copies import copy_of


def exchanged(model: nn.Module, chains: Mapping[tuple[str, ...], SparseChain]) -> nn.Module:
    """A copy of `model` in which each chain stands where the first of its sites was, and nothing at the others.

    Where nothing but one chain is left, that chain itself.
    """
    instead: dict[int, nn.Module] = {}
    for sites, chain in chains.items():
        for site in sites:
            module = model.get_submodule(site)
            if type(module) is nn.Linear or isinstance(chain.chain, Graph):
                instead[id(module)] = chain if len(sites) == 1 else nn.Identity()
    network = copy_of(model, instead=instead)
    for sites, chain in chains.items():
        if len(sites) > 1:
            _set(network, sites[0], chain)
            for site in sites[1:]:
                _set(network, site, nn.Identity())
    leave_fast_path(network)
    network = _only(network, list(chains.values())) or network
    for chain in chains.values():  # a model asks its parameters for their type and device; a chain alone has no model
        empty = nn.Parameter(torch.empty(0, dtype=torch.float32), requires_grad=False)
        chain.register_parameter("placeholder", None if network is chain else empty)
    return network


def _set(network: nn.Module, site: str, module: nn.Module) -> None:
    parent, _, own = site.rpartition(".")
    network.get_submodule(parent)._modules[own] = module


def _only(network: nn.Module, chains: Sequence[nn.Module]) -> nn.Module | None:
    """The one chain that does everything the network does, if there is one."""
    if len(chains) != 1 or isinstance(network, type(chains[0])):
        return None
    others = [module for module in network.modules() if module is not chains[0]]
    return chains[0] if all(type(module) in (nn.Sequential, *IDENTITIES) for module in others) else None
