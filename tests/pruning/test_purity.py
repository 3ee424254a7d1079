"""Pruning changes nothing of the model, whatever a forward pass of it does, and however the scoring ends."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from odd_models import FOLLOWED, REACHED, ZOO, assert_same, everything_of, odd_model
from tombola.errors import TombolaError
from tombola.pruning import Masks, criteria, prune
from tombola.pruning.criteria import Criterion

STRUCTURES = ("2:4", "block:2x2", "filter", "channel")
COMBINATIONS = [
    *((criterion, "weight") for criterion in criteria),
    *((criterion, "neuron") for criterion in criteria if criteria.get(criterion).outputs_only),
    *itertools.product(("magnitude", "taylor", "wanda"), ("neuron", *STRUCTURES)),
]
REFUSED: dict[str, tuple[str, ...]] = {
    "Gradless": ("no gradient", "synflow does not go"),
    "Experts": ("experts.2.weight: no row of the batches reached it", "no gradient reaches it"),
    "ByBatch": ("Expected more than 1 value per channel",),  # a single example has no deviation
    "ReEntrant": ("use_reentrant=True",),  # no second derivatives
    "quantisation-aware": ("0.weight_fake_quant (FusedMovingAvgObsFakeQuantize): expected scalar type Float",),
}
"""What a zoo's model may be refused with by some criterion, beside what is refused of every model."""
WITH_ANY = (
    *("synflow does not go", "synflow needs inputs of real numbers", "no batch norm reads its output", "whole outputs"),
    *("has units of the structure", "not divide", "second", "is not implemented", "no real"),
)


def pruned(model: nn.Module, criterion: str | Criterion, structure: str, data: Any, **more: Any) -> Masks:
    sparsity = None if ":" in structure and "x" not in structure else 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prune(model, sparsity, criterion, structure, batches=data, **more)


@pytest.mark.parametrize("name", ZOO)
class TestTheZoo:
    def test_every_criterion_gives_exact_masks_or_says_why_not_and_changes_nothing(self, name: str) -> None:
        model, data = odd_model(name)
        given = [tuple(_copies(part) for part in batch) for batch in data]
        before = everything_of(model)
        for criterion, structure in COMBINATIONS:
            few_rounds = dataclasses.replace(criteria.get(criterion), rounds=min(2, criteria.get(criterion).rounds))
            try:
                masks = pruned(model, few_rounds, structure, data)
            except TombolaError as error:
                said = str(error)
                assert "\n" not in said
                assert any(part in said for part in (*WITH_ANY, *REFUSED.get(name, ()))), f"{criterion}: {said}"
            else:
                if structure == "weight":
                    assert masks.total - masks.kept == round(0.5 * masks.total)
            assert_same(before, everything_of(model))
        assert_same(given, [tuple(_copies(part) for part in batch) for batch in data])

    def test_whatever_stops_a_scoring_changes_nothing(self, name: str) -> None:
        model, data = odd_model(name)
        before = everything_of(model)
        for criterion, stop in (("wanda", ValueError), ("snip", KeyboardInterrupt), ("movement", MemoryError)):
            with pytest.raises((stop, TombolaError)):
                pruned(model, criterion, "weight", _stopping(data, stop))
            with pytest.raises((stop, TombolaError)):
                pruned(model, "taylor", "weight", data, loss=_raising(stop))
            assert_same(before, everything_of(model))


class TestReachedPastTheCopy:
    @pytest.mark.parametrize(("name", "part"), REACHED.items())
    def test_is_put_back_and_refused_by_name(self, name: str, part: str) -> None:
        model, data = odd_model(name)
        before = _contents(model)
        for criterion in ("wanda", "taylor"):
            with pytest.raises(TombolaError, match=f"^{part}[: ].*`self") as refusal:
                pruned(model, criterion, "weight", data)
            assert ("`self.holder`, which cannot be copied" in str(refusal.value)) == ("Holder" in name)
            assert "\n" not in str(refusal.value)
            assert_same(before, _contents(model))

    def test_is_put_back_when_the_scoring_is_stopped(self) -> None:
        model, data = odd_model("ByWeakReference")
        before = _contents(model)
        with pytest.raises(KeyboardInterrupt):
            pruned(model, "snip", "weight", _stopping(data, KeyboardInterrupt))
        assert_same(before, _contents(model))

    def test_by_a_loss_of_the_models_own_weights_is_refused(self) -> None:
        model, data = odd_model("tied")
        before = everything_of(model)
        with pytest.raises(TombolaError, match=r"the gradient of 0.weight was changed .* the loss"):
            pruned(model, "taylor", "weight", data, loss=lambda o, y: functional.cross_entropy(o, y) + _norm(model))
        assert_same(before, everything_of(model))

    def test_a_copy_follows_what_functions_hold_in_containers_and_defaults(self) -> None:
        model, data = odd_model(FOLLOWED)
        before = everything_of(model)
        for criterion in ("wanda", "taylor"):
            assert pruned(model, criterion, "weight", data).kept == 88
            assert_same(before, everything_of(model))


def _contents(model: nn.Module) -> dict[str, Any]:
    """`everything_of` and the bits, which tell 0 from -0, and the modes."""
    bits = {name: t.detach().view(-1).view(torch.uint8).clone() for name, t in model.state_dict().items()}
    return {"bits": bits, "modes": [module.training for module in model.modules()], **everything_of(model)}


def _norm(model: nn.Module) -> Tensor:
    return sum((p.square().sum() for p in model.parameters()), torch.zeros(()))


def _copies(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.clone()
    values = part.values() if isinstance(part, dict) else part
    return [_copies(value) for value in values] if isinstance(values, tuple | list) else list(values)


class _stopping:  # noqa: N801 (it reads as a verb)
    """Batches the second of which never comes."""

    def __init__(self, data: Any, stop: type[BaseException]) -> None:
        self.data, self.stop = data, stop

    def __iter__(self) -> Any:
        yield self.data[0]
        raise self.stop("enough")


def _raising(stop: type[BaseException]) -> Callable[[Any, Any], Tensor]:
    calls = itertools.count()

    def loss(output: Any, targets: Tensor) -> Tensor:
        if next(calls):
            raise stop("enough")
        return functional.cross_entropy(output, targets)

    return loss
