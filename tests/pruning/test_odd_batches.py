"""Batches and numbers of other kinds than most: taken as they are meant, or refused by their real cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from direct_scores import assert_one_line
from torch import Tensor, nn

from odd_models import Net, rows
from tombola.errors import PruningError, TombolaError
from tombola.pruning import PerLayerRates, criteria, prune, schedules

WITH_LOSS = ("gradient", "taylor", "fisher", "snip", "grasp", "movement")


class OfKeywords(Net):
    def forward(self, x: Tensor, more: Tensor) -> Any:
        return super().forward(x + more)


@pytest.mark.parametrize("criterion", WITH_LOSS)
def test_inputs_by_keyword_are_those_of_a_tuple(criterion: str) -> None:
    torch.manual_seed(0)
    model = OfKeywords()
    expected = prune(model, 0.5, criterion, batches=[((x, x), y) for x, y in rows_of(3)])
    found = prune(model, 0.5, criterion, batches=[({"more": x, "x": x}, y) for x, y in rows_of(3)])
    assert found == expected


def rows_of(seed: int) -> Any:
    torch.manual_seed(seed)
    return rows()


@pytest.mark.parametrize("criterion", WITH_LOSS)
def test_a_third_part_of_a_batch_is_named(criterion: str) -> None:
    with pytest.raises(PruningError, match=r"this one has 3 parts; give several inputs as \(\(a, b\), targets\)"):
        prune(Net(), 0.5, criterion, batches=[(x, y, y) for x, y in rows()])


def test_fisher_refuses_what_has_no_examples_to_take_apart() -> None:
    def loss(output: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.ctc_loss(output.log_softmax(2), targets, torch.tensor([6, 6]), torch.tensor([3, 3]))

    data = [(torch.rand(6, 2, 8), torch.randint(1, 5, (2, 3)))]  # time first, as CTC has it
    assert prune(nn.Linear(8, 5), 0.5, "taylor", batches=data, loss=loss).kept == 20
    with pytest.raises(PruningError, match="the parts of a batch have 2 and 6 rows there: put the examples first"):
        prune(nn.Linear(8, 5), 0.5, "fisher", batches=data, loss=loss)
    with pytest.raises(PruningError, match=r"no gradient can be computed: .*derivative"):
        prune(nn.Linear(8, 5), 0.5, "grasp", batches=data, loss=loss)


@pytest.mark.parametrize("criterion", [name for name in criteria if not criteria.get(name).outputs_only])
@pytest.mark.parametrize("bad", [(), None, "text", 3, [None, None], ({}, 1), (torch.rand(2, 8), "y"), ([], [])])
def test_what_is_no_batch_is_one_line(criterion: str, bad: Any) -> None:
    try:
        masks = prune(Net(), 0.5, criterion, batches=[bad])
    except TombolaError as error:
        assert_one_line(error)
    else:
        assert masks.kept == 88


def test_under_inference_mode_as_outside_of_it() -> None:
    model, data = Net(), rows()
    expected = prune(model, 0.5, "taylor", batches=data)
    with torch.inference_mode():
        assert prune(model, 0.5, "taylor", batches=[(x + 0, y) for x, y in data]) == expected


@pytest.mark.usefixtures("few_rounds")
def test_softmax_at_the_end_changes_nothing_for_synflow() -> None:
    model = Net()
    expected = prune(model, 0.5, "synflow", batches=rows())
    for end in (nn.LogSoftmax(1), nn.Softmax(1)):
        found = prune(nn.Sequential(model, end), 0.5, "synflow", batches=rows())
        assert [mask.keep.tolist() for mask in found.values()] == [mask.keep.tolist() for mask in expected.values()]


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.tensor, np.array])
def test_numbers_of_numpy_and_torch_are_numbers(kind: Any) -> None:
    assert prune(Net(), kind(0.5)).kept == 88
    assert schedules.get("linear")(kind(0.5), 2) == [0.25, 0.5]
    assert prune(Net(), distribution=PerLayerRates(kind(0.5), {"b": kind(0.25)})).kept == 64 + 36


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor, np.array])
def test_whole_numbers_too(kind: Any) -> None:
    model = Net()
    assert prune(model, 0.5, "random", seed=kind(3), min_keep=kind(2)) == prune(model, 0.5, "random", seed=3)
    for truth in (np.True_, torch.tensor(True)):
        with pytest.raises(PruningError, match="min_keep"):
            prune(model, 0.5, min_keep=truth)
