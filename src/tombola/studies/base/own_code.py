"""Networks that a config's `model.factory` makes: recorded, so that a run goes on with no other one."""

from __future__ import annotations

from typing import Any

from torch import nn

from tombola.models import ModelConfig
from tombola.models.tensors import content_sha256


def network_facts(model: ModelConfig, network: nn.Module) -> dict[str, Any]:
    """What the manifest says of somebody's own initial network, so that a run goes on with no other one: the function
    may have been edited since. Nothing of a network of the zoo, which the config says all of."""
    return {} if model.factory is None else {"network": content_sha256(network.state_dict())}
