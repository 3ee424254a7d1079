"""What a criterion is, what it may use, and the registry.

A criterion is a function `(model, context) -> {parameter name: scores}`, one score tensor of the parameter's
shape per parameter that is asked for; a higher score means worth keeping. Adding one is the function, about ten lines,
and its `register` line, which says what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import PruningError
from tombola.pruning.masks import Masks
from tombola.pruning.prunable import prunable_parameters
from tombola.registry import Registry, described

Scores = dict[str, Tensor]
Loss = Callable[[Any, Any], Tensor]
"""(what the model gave, targets) -> the mean loss of a batch, a scalar."""


class Needs(StrEnum):
    """What a criterion looks at beside the weights."""

    WEIGHTS = "weights"
    EXAMPLE = "an example input"
    ACTIVATIONS = "activations"
    GRADIENTS = "gradients"


def same(name: str, tensor: Tensor) -> Tensor:
    """The sum over units that are single weights."""
    return tensor


@dataclass(frozen=True)
class ScoringContext:
    """What a criterion may use: data, a loss, the masks so far, the units that will be removed, a seed.

    `batches` are pairs (inputs, targets), or mappings that a model takes as keywords and answers with an object
    that has a `loss`. All of them are used, and each may be used more than once. Criteria look at the network
    *under* its `masks`, and score the parameters called `names` (None: all prunable ones).
    `sum_over_units(name, tensor)` gives every weight the sum over its unit, for criteria that judge a unit by the
    joint effect of its weights.
    """

    seed: int = 0
    batches: Iterable[Any] | None = None
    loss: Loss = functional.cross_entropy
    masks: Masks | None = None
    names: Collection[str] | None = None
    sum_over_units: Callable[[str, Tensor], Tensor] = field(default=same)

    def scored(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters to score, by name."""
        parameters = prunable_parameters(model)
        return {n: p for n, p in parameters.items() if self.names is None or n in self.names}


ScoreFunction = Callable[[nn.Module, ScoringContext], Scores]


@dataclass(frozen=True)
class Criterion:
    """A registered score function.

    `outputs_only`: it scores whole outputs of a layer, so only structures that remove these go with it.
    `of_units`: every weight carries the score of its whole unit (from `sum_over_units`, say), which a unit therefore
    keeps, however many of its weights are removed. Otherwise a unit's score is the mean over its weights, removed
    ones counting 0.
    `rounds`: into how many rounds of scoring and pruning one pruning is divided, on a geometric schedule.
    `at`: the same with another number in it, for names such as `movement:0.1`; None where it has none.
    """

    name: str
    score: ScoreFunction
    needs: Needs
    outputs_only: bool = False
    of_units: bool = False
    rounds: int = 1
    at: Callable[[float], Criterion] | None = None

    @property
    def description(self) -> str:
        """What it says of itself, its source included."""
        return described(self.score)

    def __call__(self, model: nn.Module, context: ScoringContext) -> Scores:
        if self.needs is not Needs.WEIGHTS and context.batches is None:
            raise PruningError(
                f"the criterion {self.name!r} needs {self.needs}: pass batches=, an iterable of (inputs, targets) "
                "such as a DataLoader"
            )
        return self.score(model, context)


criteria: Registry[Criterion] = Registry("criterion")


def register(
    name: str,
    needs: Needs = Needs.WEIGHTS,
    *,
    outputs_only: bool = False,
    of_units: bool = False,
    rounds: int = 1,
    at: Callable[[float], Criterion] | None = None,
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Decorator that files a score function as a criterion."""

    def decorate(score: ScoreFunction) -> ScoreFunction:
        criteria.register(name)(Criterion(name, score, needs, outputs_only, of_units, rounds, at))
        return score

    return decorate


def make_criterion(criterion: str | Criterion | ScoreFunction) -> Criterion:
    """A criterion from its name, from a plain score function, or the criterion object itself.

    A name is a registered one, with a number where the criterion has one: `movement:0.1`.
    """
    if isinstance(criterion, Criterion):
        return criterion
    if isinstance(criterion, str):
        return _named(criterion)
    if not callable(criterion):
        raise PruningError(f"a criterion is a name or a function of (model, context), not a {type(criterion).__name__}")
    return Criterion(getattr(criterion, "__name__", "custom"), criterion, Needs.WEIGHTS)


def _named(text: str) -> Criterion:
    name, colon, number = text.partition(":")
    criterion = criteria.get(name)
    if not colon:
        return criterion
    if criterion.at is None:
        raise PruningError(f"criterion {text!r}: {name} has no number to set; leave {colon + number!r} out")
    try:
        return criterion.at(float(number))
    except ValueError:
        raise PruningError(f"criterion {text!r}: write it as {name}:0.1") from None


def checked_batches(batches: Iterable[Any] | None) -> Iterable[Any] | None:
    """`batches` as something that can be gone through again and again; PruningError when it holds no batches."""
    if batches is None:
        return None
    if isinstance(batches, (Tensor, Mapping)) or _is_one_batch(batches):
        raise PruningError("`batches` is one batch, not an iterable of them: write batches=[(inputs, targets)]")
    if not isinstance(batches, Iterable):
        raise PruningError(f"`batches` is an iterable of (inputs, targets), not {type(batches).__name__}")
    again = list(batches) if iter(batches) is batches else batches  # an iterator would be used up by one pass
    if isinstance(again, Sized) and not len(again):
        raise PruningError("`batches` is empty: a criterion needs at least one batch")
    return again


def _is_one_batch(batches: Any) -> bool:
    """Also a list, as a DataLoader gives it, when its parts are not alike and so cannot be two batches of inputs."""
    pair = isinstance(batches, (tuple, list)) and len(batches) == 2 and all(isinstance(p, Tensor) for p in batches)
    if not pair or isinstance(batches, tuple):
        return pair
    return batches[0].dtype != batches[1].dtype or batches[0].dim() != batches[1].dim()
