"""Pruning: what is removed. Tensors and modules in, masks out; no files, no data sets, no command line.

`prune(model, sparsity, ...)` is the verb; criteria, structures, distributions and schedules are registries whose
pieces compose freely.
"""

from tombola.pruning.criteria import criteria
from tombola.pruning.distributions import PerLayerRates, distributions
from tombola.pruning.emptied import NearlyEmptyLayerWarning, nearly_empty
from tombola.pruning.mask import Mask
from tombola.pruning.masks import LayerSparsity, Masks
from tombola.pruning.prunable import prunable_parameters
from tombola.pruning.prune import UnsupportedParameterWarning, prune
from tombola.pruning.schedules import schedules
from tombola.pruning.structures import structures

__all__ = [
    "LayerSparsity",
    "Mask",
    "Masks",
    "NearlyEmptyLayerWarning",
    "PerLayerRates",
    "UnsupportedParameterWarning",
    "criteria",
    "distributions",
    "nearly_empty",
    "prunable_parameters",
    "prune",
    "schedules",
    "structures",
]
