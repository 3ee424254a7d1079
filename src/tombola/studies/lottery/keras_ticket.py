"""`winning_ticket_model.keras`: the trained ticket as a Keras model, and its masks as Keras lays kernels out.

What is pruned and trained stays torch's; the file is for those who deploy with Keras. A head's export has its base in
front of it. Where there can be none, the summary of the results says why.
"""

from __future__ import annotations

import importlib.util
import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tombola.data import load_raw
from tombola.errors import ModelError, TombolaError
from tombola.models.keras_export import keras_masks, write_keras
from tombola.models.spec import Normalisation
from tombola.pruning import Masks
from tombola.runs.atomic import write_bytes
from tombola.studies.lottery.networks import trained_network
from tombola.studies.lottery.result import Result, base_facts, trained_weights
from tombola.training.frozen import base_of

MODEL, MASKS = "winning_ticket_model.keras", "winning_ticket_model_masks.npz"
EXTRA = ("keras", "h5py")
EXAMPLES = 16


@dataclass(frozen=True)
class Whole:
    """A network from pixels in [0, 1] (of `input_shape`, once normalised) to logits, and the masks of its ticket."""

    network: nn.Sequential
    input_shape: tuple[int, ...]
    normalisation: Normalisation
    masks: Masks


def write_keras_ticket(result: Result, data_dir: Path | None) -> dict[str, Any]:
    """Writes both files of the run's ticket, replicate 0's at the end of its training; gives what the summary says.

    Compared are outputs of noise and of real examples. `difference` is the largest to torch's, as `write_keras` has it;
    None with a `reason` where there is no export, and then no file of an earlier ticket is left.
    """
    results = result.folder.results
    for name in (MODEL, MASKS):
        (results / name).unlink(missing_ok=True)
    try:
        if result.config.task is not None:
            raise ModelError("a network for a task of one's own has inputs that Keras files do not describe")
        whole = _whole(result, data_dir)
        examples = load_raw(result.config.images, data_dir).training.inputs[:EXAMPLES]
        difference = write_keras(results / MODEL, whole.network, whole.input_shape, whole.normalisation, examples)
    except TombolaError as error:
        return {"model": None, "difference": None, "reason": str(error), "extra_missing": extra_is_missing()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **keras_masks(whole.network, whole.input_shape, whole.masks))
    write_bytes(results / MASKS, buffer.getvalue())
    return {"model": MODEL, "difference": difference, "reason": None, "extra_missing": False}


def extra_is_missing() -> bool:
    """Whether Keras files cannot be written for want of the extra `keras`."""
    return any(importlib.util.find_spec(name) is None for name in EXTRA)


def _whole(result: Result, data_dir: Path | None) -> Whole:
    recorded = trained_weights(result).get((0, result.ticket_round))
    config, index = result.config, result.ticket_round
    network, spec, masks = trained_network(result.folder, config.rewinds[0], 0, index, recorded, config.model.factory)
    if not isinstance(network, nn.Sequential):
        raise ModelError(f"a {config.model.title} is no chain of layers and cannot be exported to Keras")
    base = base_of(result.config.images, data_dir)
    if base is None:
        assert spec.input_shape is not None, "data have shapes"
        return Whole(network, spec.input_shape, spec.normalisation, masks)
    if base_facts(base) != result.data.get("base"):
        raise ModelError("the base is another one now than the head was trained on; put it back")
    return Whole(behind(base.network, network), base.input_shape, base.normalisation, masks)


def behind(base: nn.Sequential, head: nn.Sequential) -> nn.Sequential:
    """A base and a head as one chain, modules shared; the head's names stay, so that its masks do."""
    names = {name for name, _ in head.named_children()}
    before = [(f"base_{name}" if name in names else name, layer) for name, layer in base.named_children()]
    return nn.Sequential(OrderedDict([*before, *head.named_children()]))
