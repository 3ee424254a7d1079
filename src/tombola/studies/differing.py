"""`tombola diff`: two networks out of any folders or ticket files, compared, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tombola.compression.difference import Difference, LayerDifference, diff
from tombola.data import DataConfig, DataSet, dataset, load_data, normalised
from tombola.errors import ConfigError, ModelError
from tombola.models.config import Spec
from tombola.pruning import Masks
from tombola.reports.tables import MISSING, Table
from tombola.reports.terminal import drawn, say
from tombola.runs.configs import validate
from tombola.studies.base.output import Numbers
from tombola.studies.lottery.packing import found_in

UNITS = {
    **dict.fromkeys(("density_a", "density_b", "overlap", "by_chance", "flips", "change", "others"), "fraction"),
    **dict.fromkeys(("agreement", "accuracy_a", "accuracy_b"), "fraction"),
}


def diff_of(
    a: Path,
    b: Path,
    data: DataConfig | None = None,
    *,
    data_dir: Path | None = None,
    density: float | None = None,
    factory: str | None = None,
) -> Difference:
    """The difference of two networks; with `data` also of their outputs on its test part.

    Data that `a` was trained on are split as they were for it, others by seed 0. Of runs it is replicate 0's trained
    ticket, at `density` or that of the verdict. Raises an error in one line for what is no network, or does not fit.
    """
    (model_a, spec_a, masks_a, history), (model_b, spec_b, masks_b, _) = (_network(p, density, factory) for p in (a, b))
    if data is None:
        return diff(model_a, model_b, masks_a, masks_b)
    if data.base is not None or data.normalise:
        raise ConfigError("--data: names data as they are read; leave `base` and `normalise` out, networks have them")
    examples = load_data(*_split(history, data), data_dir)
    for spec, path in ((spec_a, a), (spec_b, b)):
        if (examples.input_shape, examples.classes) != (spec.input_shape, spec.classes):
            raise ModelError(
                f"{path}: made for inputs {spec.input_shape} and {spec.classes} classes, but {examples.name} has "
                f"{examples.input_shape} and {examples.classes}"
            )
    inputs_a, inputs_b = (_as_taken(examples, spec) for spec in (spec_a, spec_b))
    return diff(model_a, model_b, masks_a, masks_b, inputs_a, examples.test.targets, inputs_b)


def numbers(found: Difference) -> Numbers:
    """For a program: a row a layer, and the rest as the verdict."""
    return Numbers(found.layers, {"total": found.total, "others": found.others, "outputs": found.outputs}, UNITS)


def outcome(found: Difference) -> str:
    """The difference in a sentence or two."""
    total = found.total
    said = [f"{total.density_a:.2%} and {total.density_b:.2%} of {total.weights:,} weights are kept"]
    if total.overlap is not None and total.by_chance is not None:
        said.append(f"the masks overlap by {total.overlap:.1%} (chance: {total.by_chance:.1%})")
    if total.change is not None:
        said.append(f"kept weights moved by {total.change:.1%}")
    sentences = [f"{'; '.join(said)}."]
    if (out := found.outputs) is not None:
        sentences.append(
            f"On {out.examples:,} examples {out.agreement:.2%} of predictions agree, outputs differ by up to "
            f"{out.largest:.2g}, and {out.accuracy_a:.2%} and {out.accuracy_b:.2%} are right."
        )
    return " ".join(sentences)


def show(console: Console, found: Difference) -> None:
    """The layers as a table, and the outcome."""
    console.print(drawn(table(found), left=1))
    say(console, outcome(found))


def table(found: Difference) -> Table:
    """One line a layer, the total last."""
    columns = ("Layer", "Weights", "Kept in A", "in B", "Overlap", "Chance", "Change", "Signs flipped")
    return Table(columns, [_line(layer) for layer in (*found.layers, found.total)])


def _line(layer: LayerDifference) -> tuple[str, ...]:
    parts = (layer.density_a, layer.density_b, layer.overlap, layer.by_chance, layer.change, layer.flips)
    shown = (MISSING if part is None else f"{part:.2%}" for part in parts)
    return layer.layer.removesuffix(".weight"), f"{layer.weights:,}", *shown


def _network(path: Path, density: float | None, factory: str | None) -> tuple[nn.Module, Spec, Masks, dict[str, Any]]:
    found = found_in(path, density=density, factory=factory)
    model = found.start if found.trained is None else found.trained
    assert model is not None, "there is one of both"
    return model, found.spec, found.masks, found.history


def _split(history: dict[str, Any], data: DataConfig) -> tuple[DataConfig, int]:
    """The data and the seed of their split, as `a` has recorded them where they are the same."""
    found = history.get("data")
    if not isinstance(found, dict) or not isinstance(found.get("split_seed"), int):
        return data, 0
    recorded = validate(found.get("config"), DataConfig, "the data that the network records")
    if (recorded.name, recorded.folder) != (data.name, data.folder):
        return data, 0
    return recorded.model_copy(update={"base": None, "normalise": False}), found["split_seed"]


def _as_taken(examples: DataSet, spec: Spec) -> Any:
    given = dataset.Normalisation(spec.normalisation.mean, spec.normalisation.std)
    return normalised(examples, given).test.inputs
