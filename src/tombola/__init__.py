"""Tombola finds winning lottery tickets in neural networks and proves that they won.

The names below are loaded when they are first used, so that `import tombola` does not load torch.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Mask": "tombola.pruning",
    "Masks": "tombola.pruning",
    "PerLayerRates": "tombola.pruning",
    "prune": "tombola.pruning",
    "find_ticket": "tombola.studies.lottery.find",
    "load_masks": "tombola.models",
    "load_model": "tombola.models",
    "load_sparse": "tombola.compression.sparse_files",
    "save_masks": "tombola.models",
    "save_model": "tombola.models",
    "save_sparse": "tombola.compression.sparse_files",
    "sparsify": "tombola.compression.runtime",
    "TombolaError": "tombola.errors",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tombola' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
