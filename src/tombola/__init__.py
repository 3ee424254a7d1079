"""Tombola finds winning lottery tickets in neural networks and proves that they won.

The names below are loaded when they are first used, so that `import tombola` does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tombola.compression.dead import dead_units
    from tombola.compression.difference import diff
    from tombola.compression.export.exporting import export
    from tombola.compression.removal.plan import plan_removal
    from tombola.compression.removal.remove import remove_units
    from tombola.compression.removal.whole_layers import removable_layers, remove_layers
    from tombola.compression.runtime import sparsify
    from tombola.compression.sensitivity import sensitivity
    from tombola.compression.sparse_files import load_sparse, save_sparse
    from tombola.compression.tickets.files import read_ticket, unpack
    from tombola.compression.tickets.writing import pack
    from tombola.errors import TombolaError
    from tombola.models import load_masks, load_model, save_masks, save_model
    from tombola.pruning import Mask, Masks, PerLayerRates, prune
    from tombola.studies.lottery.find import find_ticket
    from tombola.studies.stress.evaluator import PruningStressEvaluator

__version__ = "0.1.0"

__all__ = [
    "Mask",
    "Masks",
    "PerLayerRates",
    "PruningStressEvaluator",
    "TombolaError",
    "__version__",
    "dead_units",
    "diff",
    "export",
    "find_ticket",
    "load_masks",
    "load_model",
    "load_sparse",
    "pack",
    "plan_removal",
    "prune",
    "read_ticket",
    "removable_layers",
    "remove_layers",
    "remove_units",
    "save_masks",
    "save_model",
    "save_sparse",
    "sensitivity",
    "sparsify",
    "unpack",
]

_HOMES = {
    "Mask": "tombola.pruning",
    "Masks": "tombola.pruning",
    "PerLayerRates": "tombola.pruning",
    "PruningStressEvaluator": "tombola.studies.stress.evaluator",
    "TombolaError": "tombola.errors",
    "dead_units": "tombola.compression.dead",
    "diff": "tombola.compression.difference",
    "export": "tombola.compression.export.exporting",
    "find_ticket": "tombola.studies.lottery.find",
    "load_masks": "tombola.models",
    "load_model": "tombola.models",
    "load_sparse": "tombola.compression.sparse_files",
    "pack": "tombola.compression.tickets.writing",
    "plan_removal": "tombola.compression.removal.plan",
    "prune": "tombola.pruning",
    "read_ticket": "tombola.compression.tickets.files",
    "removable_layers": "tombola.compression.removal.whole_layers",
    "remove_layers": "tombola.compression.removal.whole_layers",
    "remove_units": "tombola.compression.removal.remove",
    "save_masks": "tombola.models",
    "save_model": "tombola.models",
    "save_sparse": "tombola.compression.sparse_files",
    "sensitivity": "tombola.compression.sensitivity",
    "sparsify": "tombola.compression.runtime",
    "unpack": "tombola.compression.tickets.files",
}

if not TYPE_CHECKING:  # a type checker that saw it would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'tombola' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
