"""A network as torch.export's pt2 file, which torch alone loads: `torch.export.load("net.pt2").module()`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tombola.compression.export.any_batch import followed
from tombola.compression.quiet import quiet
from tombola.errors import ModelError, one_line


def write_pt2(path: Path, model: nn.Module, example: Tensor) -> None:
    """Writes `model` as torch.export follows it on batches like `example`, of any number of examples.

    Neither the example nor source lines of the machine that wrote it are in the file. ModelError, in one line, for a
    model that torch cannot follow, or not in batches of any size.
    """
    try:
        with quiet(), torch.no_grad():
            program = followed(model, torch.zeros_like(example))
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)
            torch.export.save(program, path)
    except OSError:
        raise
    except Exception as error:  # torch's own, and those of the model that it follows
        raise ModelError(f"torch.export cannot follow this network: {one_line(error)}") from None


def run_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    """What the loaded file makes of a batch."""
    module = torch.export.load(path).module()

    def run(batch: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = module(batch)
        return result

    return run


def weights_in(path: Path) -> dict[str, NDArray[Any]]:
    """The numbers of the file by the names they had in torch."""
    state = torch.export.load(path).state_dict
    return {name: tensor.detach().numpy() for name, tensor in state.items()}
