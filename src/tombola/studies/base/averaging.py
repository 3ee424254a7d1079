"""Averaged weights of a training (`ema` in the recipe), measured beside the raw ones. They decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tombola.data import DataSet
from tombola.runs.rows import Row
from tombola.training.classification import as_task
from tombola.training.task import Part, Task
from tombola.training.trained import Evaluation, Trained

PARTS: tuple[Part, ...] = ("validation", "test")

AVERAGED = "averaged.safetensors"
"""The file with the state of a model with averaged weights."""


def averaged_state(trained: Trained) -> Mapping[str, Tensor] | None:
    """The state with averaged weights at their early stop, beside which a model of its early stop is measured."""
    return None if trained.averaged is None else trained.averaged.early_stop_state


def averaged_columns(model: nn.Module, state: Mapping[str, Tensor], data: DataSet | Task) -> Row:
    """`averaged_<part>_<measure>` on validation and test, of `model` with this state. The model is as before."""
    raw = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    task = as_task(data)
    found = {part: task.scores(model, part) for part in PARTS}
    model.load_state_dict(raw)
    return {
        f"averaged_{part}_{name}": value
        for part, scores in found.items()
        for name, value in {"loss": scores.loss, **scores.values}.items()
    }


def averaged_look(look: Evaluation, prefix: str = "averaged_", measures: Sequence[str] = ("accuracy",)) -> Row:
    """The columns of averaged weights in the row of an evaluation; none where nothing is averaged."""
    if look.averaged is None:
        return {}
    values = look.averaged.values
    return {f"{prefix}loss": look.averaged.loss, **{f"{prefix}{name}": values[name] for name in measures}}
