"""How much each layer minds being pruned: the accuracy of a network of which one layer at a time loses units.

Li et al. 2017 (arXiv 1608.08710) choose the sparsity of each layer by these curves. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tombola.data import DataSet
from tombola.errors import PruningError
from tombola.pruning import Masks, PerLayerRates, prune
from tombola.pruning.copies import copy_of
from tombola.pruning.criteria import Needs, make_criterion
from tombola.pruning.emptied import not_warning
from tombola.pruning.observe import output_weights
from tombola.pruning.structures import Neuron, make_structure
from tombola.pruning.units import count_units
from tombola.training.classification import as_task
from tombola.training.task import Measure, Part, Task

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
BATCH_SIZE, SCORE_BATCHES = 64, 16


@dataclass(frozen=True)
class Point:
    """One layer at one sparsity: `removed` of its `units`. `drop` is in the measure's unit, and worse is positive."""

    layer: str
    sparsity: float
    units: int
    removed: int
    score: float
    drop: float


@dataclass(frozen=True)
class Sensitivity:
    """The curves of all layers: `before` is the score of the network as it was given; points in the order measured."""

    measure: Measure
    before: float
    points: tuple[Point, ...]

    @property
    def layers(self) -> list[str]:
        """Their weights' names, in the network's order."""
        return list(dict.fromkeys(point.layer for point in self.points))

    def curve(self, layer: str) -> list[Point]:
        """A layer's points, the sparsest last."""
        return sorted((p for p in self.points if p.layer == layer), key=lambda point: point.sparsity)

    def within(self, max_drop: float) -> dict[str, float]:
        """By layer the largest sparsity up to which no measured drop is above `max_drop` (in the measure's unit); 0.0
        where the first already is. Layers are pruned alone here: together they lose more."""
        found = dict.fromkeys(self.layers, 0.0)
        for layer in found:
            for point in self.curve(layer):
                if point.drop > max_drop:
                    break
                found[layer] = point.sparsity
        return found

    def rates(self, max_drop: float) -> PerLayerRates:
        """The distribution that prunes every layer as far as it may alone.

        Args:
            max_drop: in the measure's unit; 1.0 is one point of accuracy.
        """
        return PerLayerRates(0.0, self.within(max_drop))


def sensitivity(
    model: nn.Module,
    data: DataSet | Task,
    *,
    masks: Masks | None = None,
    criterion: str = "magnitude",
    structure: str = "weight",
    sparsities: Sequence[float] = SPARSITIES,
    part: Part = "validation",
    seed: int = 0,
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Prunes one layer at a time and scores the network, each layer at each sparsity.

    Args:
        model: The trained network; it is not changed.
        data: A data set whose classes it knows, or a task.
        masks: Of what is removed already, which stays removed.
        criterion: What a unit is worth, by name. Those that need data get `SCORE_BATCHES` training batches.
        structure: What is removed whole: weight, neuron, filter, ...
        sparsities: Fractions of a layer's units that are left, each between 0 and 1. A layer keeps one unit.
        part: The examples that it is scored on. The test part is for the end.
        seed: Makes the batches and the chance of criteria.
        on_point: Told how many points of how many are measured.

    Returns:
        The scores by layer and sparsity; `Sensitivity.rates` makes a distribution of them.

    Raises:
        PruningError: for names and sparsities that are none, and for structures that no layer has.

    Examples:
        >>> from tombola import prune
        >>> from tombola.data import DataConfig, load_data
        >>> from tombola.models import ModelSpec, build
        >>> data = load_data(DataConfig(name="digits"), 0)
        >>> model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0, widths=(20, 10)))
        >>> found = sensitivity(model, data, sparsities=(0.5, 0.9))
        >>> [point.removed for point in found.curve("output.weight")]
        [50, 90]
        >>> pruned = prune(model, distribution=found.rates(max_drop=1.0))
    """
    asked = sorted(set(sparsities))
    if not asked or not all(0 < sparsity < 1 for sparsity in asked):
        raise PruningError(f"sparsities {list(sparsities)}: give fractions between 0 and 1, such as 0.5 and 0.9")
    task, kept = as_task(data), Masks.full(model) if masks is None else masks.of(model)
    layers = _units(model, task, kept, structure)
    base = copy_of(model)
    kept.apply_(base)
    count = {Needs.WEIGHTS: 0, Needs.EXAMPLE: 1}.get(make_criterion(criterion).needs, SCORE_BATCHES)
    batches: list[Any] | None = task.scoring(BATCH_SIZE, count, seed) if count else None
    before, sign = _score(task, base, part), -1 if task.compares.higher_is_better else 1
    points: list[Point] = []
    for layer, units in layers.items():
        for sparsity in asked:
            on_point(len(points), len(layers) * len(asked))
            removed = min(round(sparsity * units), units - 1)
            with not_warning():  # nearly empty layers are what is looked at
                pruned = prune(
                    base, None, criterion, structure, PerLayerRates(0.0, {layer: removed / units}), kept, batches,
                    loss=task.criterion_loss, seed=seed,
                )  # fmt: skip
            tried = copy_of(base)
            pruned.apply_(tried)
            score = _score(task, tried, part)
            points.append(Point(layer, sparsity, units, removed, score, sign * (score - before)))
    return Sensitivity(task.compares, before, tuple(points))


def _units(model: nn.Module, task: Task, kept: Masks, structure: str) -> dict[str, int]:
    """The units that each layer has left. Of whole outputs, not the model's own, which are its classes."""
    chosen = make_structure(structure)
    own = output_weights(model, task.inputs(2, 2)[0]) if isinstance(chosen, Neuron) else []
    counts = count_units(model, kept, chosen)
    found = {name: c.total - c.removed for name, c in counts.items() if name not in own and c.total > c.removed}
    if not found:
        raise PruningError(f"no layer of the model has units of the structure {structure!r}")
    return found


def _score(task: Task, model: nn.Module, part: Part) -> float:
    """What networks are compared by, in the unit that it is shown in."""
    return task.compares.scale * task.scores(model, part).values[task.compares.name]
