"""A network as a graph of torch.export that takes batches of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tombola.pruning.surroundings import put_back

BATCH = "batch"


def followed(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """What torch.export makes of `model` on batches like `example`, of any number of examples.

    Code that asks for `len(x)` gets a plain number while it runs, and the graph one size of batch: then torch.compile's
    tracer reads the code instead. Raises what torch raises first for a model that it follows in neither way.
    """
    given: Any = {"dynamic_shapes": any_batch(), "strict": False}
    with put_back():
        torch.backends.mha.set_fastpath_enabled(False)  # an operation of torch's own, which no other engine knows
        try:
            return torch.export.export(model, (example,), **given)
        except Exception as first:  # torch's own, and those of the model that it follows
            try:
                return torch.export.export(model, (example,), **given | {"strict": True})
            except Exception:
                raise first from None


def any_batch() -> tuple[dict[int, torch.export.Dim]]:
    """That the first size of the input may be any."""
    return ({0: torch.export.Dim(BATCH)},)
