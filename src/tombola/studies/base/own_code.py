"""Networks that a config's `model.factory` makes: recorded, so that a run goes on with no other one."""

from __future__ import annotations

from typing import Any

from torch import nn

from tombola.models import ModelConfig
from tombola.models.tensors import content_sha256
from tombola.pruning.prunable import prunable_shapes


def network_facts(model: ModelConfig, network: nn.Module) -> dict[str, Any]:
    """What the manifest says of somebody's own initial network, so that a run goes on with no other one: the function
    may have been edited since. The weights of each layer are there for readers,
    who call no code. Nothing of a network of the zoo, which the config says all of."""
    if model.factory is None:
        return {}
    layers = {name: shape.numel() for name, shape in prunable_shapes(network).items()}
    return {"network": {"sha256": content_sha256(network.state_dict()), "layers": layers}}
