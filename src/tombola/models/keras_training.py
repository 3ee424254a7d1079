"""What a `.keras` file says of training only, and our network does not take over: said, never dropped silently.

None of it changes what the model computes, but all of it changes how it learns on.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tombola.models.keras_archive import KerasLayer

MOMENTUM = 0.9
"""Of our batch norm's statistics, as Keras counts it: torch's 0.1 is the fraction of the new."""
SHOWN = 5
_RESTRAINTS = ("regularizer", "constraint")


def left_behind(layers: Sequence[KerasLayer], dropout: float) -> list[str]:
    """A sentence for each kind of thing that a network of our zoo with this `dropout` does not have."""
    dropped = [layer for layer in layers if layer.kind == "Dropout" and layer.config.get("rate")]
    kept = _behind_dense(layers) if dropout else set()
    restrained = [layer.name for layer in layers if _has_restraint(layer.config)]
    frozen = [layer.name for layer in layers if layer.config.get("trainable") is False and _learns(layer)]
    norms = [layer for layer in layers if layer.kind == "BatchNormalization"]
    momenta = sorted({str(layer.config.get("momentum")) for layer in norms if layer.config.get("momentum") != MOMENTUM})
    halves = sorted({name for layer in layers if (name := _precision(layer.config)) not in (None, "float32")})
    found = {
        "dropout that our architecture has no place for is left out": [
            f"{layer.name} ({layer.config['rate']})" for layer in dropped if layer.name not in kept
        ],
        "regularisers and constraints are left out": restrained,
        "layers that were frozen are trained": frozen,
        f"batch norm keeps its statistics with momentum {MOMENTUM}, in the file with": momenta,
        "all is computed in float32, in the file in": halves,
    }
    return [f"{what}: {', '.join(names[:SHOWN])}{_more(names)}" for what, names in found.items() if names]


def say(path: Path, sentences: Sequence[str]) -> None:
    """Warns of them; the workers of a study read the same file and would repeat it."""
    if multiprocessing.parent_process() is None:
        for sentence in sentences:
            warnings.warn(f"{path}: {sentence}; this matters only where the network learns on", stacklevel=3)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


def _behind_dense(layers: Sequence[KerasLayer]) -> set[str]:
    """The dropouts that come right after a hidden dense layer and its activation: those that our networks have."""
    found, before = set(), ""
    for layer in layers:
        if layer.kind == "Dropout" and before == "Dense":
            found.add(layer.name)
        if layer.kind not in ("Activation", "ReLU"):
            before = layer.kind
    return found


def _learns(layer: KerasLayer) -> bool:
    return layer.kind in ("Conv2D", "Dense", "BatchNormalization")


def _has_restraint(config: Mapping[str, Any]) -> bool:
    return any(value is not None for key, value in config.items() if key.endswith(_RESTRAINTS))


def _precision(config: Mapping[str, Any]) -> str | None:
    """The name of a layer's policy of types."""
    policy = config.get("dtype")
    if isinstance(policy, Mapping):
        inner = policy.get("config")
        policy = inner.get("name") if isinstance(inner, Mapping) else None
    return policy if isinstance(policy, str) else None
