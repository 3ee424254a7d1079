"""Tasks of somebody's own that are odd: one line names the task and what is odd, before anything is trained."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sparse_steps import recipe
from torch import Tensor, nn

import own_tasks
from tombola import find_ticket
from tombola.errors import TombolaError, TrainingError
from tombola.pruning import Masks
from tombola.training import LanguageModelling, fit
from tombola.training.task import METHODS, Scored
from tombola.training.tried import check_batches, check_said, check_scores

COUNTED = itertools.count()


def odd(**attributes: Any) -> LanguageModelling:
    """A task of somebody's own class with these attributes."""
    kind = type("Odd", (LanguageModelling,), {"name": "odd", "__module__": __name__, **attributes})
    task = kind(own_tasks.counting(60, 0), own_tasks.counting(20, 1), own_tasks.counting(20, 2))
    assert isinstance(task, LanguageModelling)
    return task


def of_batches(at: Callable[[Any, int], Any]) -> Any:
    """A method `batches` whose `at` is another one."""

    def batches(self: LanguageModelling, *given: Any) -> Any:
        source = LanguageModelling.batches(self, *given)
        plain = source.at
        source.at = lambda iteration: at(plain, iteration)  # type: ignore[method-assign]
        return source

    return batches


def scoring(**changed: Any) -> Any:
    """A method `scores` that gives other fields."""

    def scores(self: LanguageModelling, model: nn.Module, part: Any) -> Scored:
        found = LanguageModelling.scores(self, model, part)
        return Scored(**{**vars(found), **changed})

    return scores


def changing(self: LanguageModelling, model: nn.Module, part: Any) -> Scored:
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    return LanguageModelling.scores(self, model, part)


def fails(*_: Any) -> Any:
    raise KeyError("no\nsuch thing")


def look_at(task: LanguageModelling) -> Scored:
    """As a study does."""
    check_said(task)
    check_batches(task, recipe())
    return check_scores(task, own_tasks.Context())


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"name": None}, "has no name: set `name`"),
        ({"compares": None}, "the task odd: compares is None, not a tombola.training.task.Measure"),
        ({"identity": lambda self: None}, r"identity\(\) gives None, not a tuple of texts"),
        ({"identity": lambda self: "abc"}, "identity.. gives 'abc', not a tuple"),
        ({"checksum": property(lambda self: 3)}, "checksum is 3, not a text"),
        ({"count": lambda self, part: 0}, "its train part is empty"),
        ({"count": lambda self, part: 9 * (part != "test")}, "its test part is empty"),
        ({"batches": lambda self, *given: object()}, "size = None, not a whole number from 1"),
        ({"batches": of_batches(lambda at, i: at(random.randrange(9)))}, "other examples each time"),
        ({"batches": of_batches(lambda at, i: at(int(torch.randint(9, ()))))}, "other examples each time"),
        ({"batches": of_batches(lambda at, i: at(next(COUNTED) % 9))}, "other examples each time"),
        ({"batches": of_batches(fails)}, r"at\(0\) of its batches fails: KeyError: 'no.*such thing'"),
        ({"scores": lambda self, *given: {"loss": 1.0}}, "gives a dict, not a tombola.training.task.Scored"),
        ({"scores": scoring(loss=torch.ones(()))}, "has the loss a Tensor: give a number"),
        ({"scores": scoring(values={"nats": torch.ones(())})}, "has the nats a Tensor: give a number"),
        ({"scores": scoring(values=3)}, "has values that are 3, not numbers by name"),
        ({"scores": scoring(each=torch.ones(3))}, r"`each` of the shape \(3,\): give one number for each of its 20"),
        ({"scores": changing}, "changes the network that it scores"),
        ({"naive": lambda self, part: 3}, r"naive\('validation'\) gives 3, not"),
    ],
)
def test_what_no_study_can_use(attributes: dict[str, Any], said: str) -> None:
    task = odd(**attributes)
    with pytest.raises(TrainingError, match=said) as caught:
        look_at(task)
    assert "\n" not in str(caught.value)


def test_augmentation_that_a_task_ignores() -> None:
    def deaf(self: LanguageModelling, size: int, seed: int, augmentation: Any = ()) -> Any:
        return LanguageModelling.batches(self, size, seed)

    def heard(self: LanguageModelling, size: int, seed: int, augmentation: Any = ()) -> Any:
        return LanguageModelling.batches(self, size, seed + bool(augmentation))

    asked = recipe().model_copy(update={"augmentation": ("flip",)})
    check_batches(odd(batches=heard), asked)
    check_batches(odd(batches=deaf), recipe())
    with pytest.raises(TrainingError, match="the task odd: its batches do not use the augmentation"):
        check_batches(odd(batches=deaf), asked)


def test_what_is_not_odd() -> None:
    assert look_at(odd()).examples == 20


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda self, model, ids: 1.0, "the loss of the task odd is 1.0: it has to be a tensor"),
        (lambda self, model, ids: model(ids).sum((1, 2)), r"has the shape \(60,\): take its mean"),
        (lambda self, model, ids: torch.ones(()), "has no gradient: it, or the network, detaches"),
        (lambda self, model, ids: model(ids).mean() * torch.nan, "is nan on the first batch, before anything"),
        (fails, "the task odd: loss fails: KeyError"),
    ],
)
def test_a_loss_that_teaches_nothing(loss: Callable[..., Tensor], said: str) -> None:
    model = own_tasks.Context()
    with pytest.raises(TrainingError, match=said):
        fit(model, odd(loss=loss), recipe(), Masks.full(model), 0)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_error_in_somebodys_method_names_it(method: str) -> None:
    for made in (fails, property(fails), functools.cached_property(lambda self: fails())):
        if isinstance(made, (property, functools.cached_property)) != (method == "checksum"):
            continue
        task = odd(**{method: made})
        with pytest.raises(TrainingError, match=f"the task odd: {method} fails: KeyError: 'no") as caught:
            getattr(task, method)()
        assert "\n" not in str(caught.value)


def test_an_odd_task_leaves_nothing_behind(tmp_path: Path) -> None:
    for attributes in ({"scores": scoring(each=torch.ones(3))}, {"loss": lambda *_: 1.0}, {"identity": fails}):
        with pytest.raises(TombolaError, match="the task odd"):
            find_ticket(own_tasks.Context, odd(**attributes), replicates=1, tolerance=1, out=tmp_path)
        assert not list(tmp_path.iterdir())
