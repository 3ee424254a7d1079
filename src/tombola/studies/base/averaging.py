"""Averaged weights of a training (`ema` in the recipe), measured beside the raw ones. They decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor, nn

from tombola.data import DataSet
from tombola.runs.rows import Row
from tombola.training.metrics import evaluate
from tombola.training.trained import Evaluation

AVERAGED = "averaged.safetensors"
"""The file with the state of a model with averaged weights."""


def averaged_columns(model: nn.Module, state: Mapping[str, Tensor], data: DataSet) -> Row:
    """`averaged_<part>_<measure>` on validation and test, of `model` with this state. The model is as before."""
    raw = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    found = {part: asdict(evaluate(model, getattr(data, part))) for part in ("validation", "test")}
    model.load_state_dict(raw)
    measures = ("loss", "accuracy", "f1")
    return {f"averaged_{part}_{name}": scores[name] for part, scores in found.items() for name in measures}


def averaged_look(look: Evaluation, prefix: str = "averaged_") -> Row:
    """The columns of averaged weights in the row of an evaluation; none where nothing is averaged."""
    if look.averaged is None:
        return {}
    return {f"{prefix}loss": look.averaged.loss, f"{prefix}accuracy": look.averaged.accuracy}
