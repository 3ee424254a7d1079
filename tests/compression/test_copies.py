"""Sparse models and counts of FLOPs are of copies, whatever a model holds, and change nothing of the model."""

from __future__ import annotations

import functools
import random
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from odd_models import ZOO, Chance, Counts, Net, assert_same, everything_of, odd_model
from tombola import prune, sparsify
from tombola.compression.cost import count_flops
from tombola.errors import ModelError, TombolaError
from tombola.pruning import Masks

pytestmark = pytest.mark.filterwarnings("ignore:pruned, but left to torch")


def _closed_forward() -> nn.Module:
    model = Net()

    def forward(x: Tensor) -> Tensor:
        return model.b(torch.relu(model.a(x)))

    model.forward = forward
    return model


def _bound_forward() -> nn.Module:
    model = Net()
    model.forward = types.MethodType(lambda self, x: self.b(torch.relu(self.a(x))), model)
    return model


def _wrapped_layer() -> nn.Module:
    model = Net()
    inner = model.a.forward
    model.a.forward = lambda x: inner(x) * 2
    return model


def _old_forward() -> nn.Module:
    model = Net()
    old = model.a.forward

    @functools.wraps(old)
    def forward(*arguments: Any) -> Any:
        return old(*arguments)

    model.a._old_forward, model.a.forward = old, forward
    return model


def _partial_forward() -> nn.Module:
    model = Net()
    model.a._old_forward = model.a.forward
    model.a.forward = functools.partial(lambda layer, x: layer._old_forward(x), model.a)
    return model


def _calling_hook() -> nn.Module:
    model = Net()
    model.b.register_forward_hook(
        lambda module, inputs, output: (
            output + model.a(torch.ones_like(output[:, :1]).expand(-1, 8)).sum(1, keepdim=True)
        )
    )
    return model


def _locked() -> nn.Module:
    model = Net()
    model.lock = threading.Lock()
    return model


def _older_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 3)).train()


MAKERS = (
    *(_closed_forward, _bound_forward, _wrapped_layer, _old_forward, _partial_forward, _calling_hook, _locked),
    *(_older_weight_norm, Counts),
)


def _masked(model: nn.Module, masks: Masks, x: Tensor) -> Tensor:
    """What the model itself computes in evaluation under masks; it is changed by that."""
    model.eval()
    masks.apply_(model)
    with torch.no_grad():
        output: Tensor = model(x)
    return output


@pytest.mark.parametrize("make", MAKERS)
class TestWhatAModelHolds:
    def test_the_sparse_model_computes_what_the_masked_model_does(self, make: Callable[[], nn.Module]) -> None:
        torch.manual_seed(0)
        model, x = make(), torch.rand(6, 8)
        masks = prune(model, 0.8)
        before = everything_of(model)
        sparse = sparsify(model, masks, x, batch_sizes=(6,))
        assert_same(before, everything_of(model))
        given = sparse(x)
        assert_same(before, everything_of(model))
        torch.testing.assert_close(given, _masked(model, masks, x), rtol=0, atol=1e-5)

    def test_flops_are_counted_on_a_copy(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        masks = prune(model, 0.5)
        before = everything_of(model)
        flops = count_flops(model, (8,), masks)
        assert_same(before, everything_of(model))
        calls_of_a = 2 if make is _calling_hook else 1
        assert flops.dense == 2 * (calls_of_a * 8 * 16 + 16 * 3)


@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_is_left_as_it_was(name: str) -> None:
    model, data = odd_model(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            masks = prune(model, 0.5)
        except TombolaError:
            return
        before = everything_of(model)
        for run in (
            lambda: sparsify(model, masks, data[0][0], batch_sizes=(6,)),
            lambda: count_flops(model, tuple(getattr(data[0][0], "shape", (0, 8))[1:]), masks),
        ):
            try:
                run()
            except TombolaError as error:
                said = str(error)
                assert "\n" not in said
            assert_same(before, everything_of(model))


class Draws(Net):
    def between(self, h: Tensor) -> Tensor:
        torch.rand(1), random.random(), np.random.rand()
        return h


@pytest.mark.parametrize("make", [Draws, Chance])
def test_chance_is_followed_and_random_numbers_are_as_before(make: Callable[[], nn.Module]) -> None:
    model, x = make(), torch.rand(6, 8)
    masks = prune(model, 0.5)
    before = everything_of(model)
    count_flops(model, (8,), masks)
    assert_same(before, everything_of(model))
    sparse = sparsify(model, masks, x, batch_sizes=(1, 6))
    assert_same(before, everything_of(model))
    outputs = []
    for run in (sparse, lambda x: _masked(model, masks, x)):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        outputs.append(run(x))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


def test_a_model_that_computes_otherwise_with_every_call_is_refused_in_one_line() -> None:
    model, calls = nn.Sequential(nn.Linear(8, 3)), list[int]()

    def count(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls.append(1)
        return output + len(calls)

    model[0].register_forward_hook(count)
    masks = prune(model, 0.5)
    with pytest.raises(ModelError, match=r"two copies of the model do not compute the same: outputs would differ"):
        sparsify(model, masks, torch.rand(6, 8), batch_sizes=(6,))


def test_layers_that_a_copy_cannot_follow_are_refused() -> None:
    model, parts = Net(), list[nn.Module]()
    parts.append(model.a)

    class ByGlobal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = model

        def forward(self, x: Tensor) -> Tensor:
            return self.own.b(torch.relu(parts[0](x)))

    whole, x = ByGlobal(), torch.rand(6, 8)
    masks, before = prune(whole, 0.5), everything_of(whole)
    for run in (lambda: sparsify(whole, masks, x), lambda: count_flops(whole, (8,), masks)):
        with pytest.raises(ModelError, match=r"own\.a: your code reaches this layer outside the model"):
            run()
        assert_same(before, everything_of(whole))


def test_a_generator_of_the_models_own_goes_on_where_it_was() -> None:
    class OwnGenerator(Net):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(3)

        def forward(self, x: Tensor) -> Any:
            return super().forward(x + torch.rand(8, generator=self.generator))

    model = OwnGenerator()
    state = model.generator.get_state()
    assert count_flops(model, (8,), Masks.full(model)) == count_flops(Net(), (8,), Masks.full(Net()))
    assert torch.equal(model.generator.get_state(), state)


def test_a_count_that_fails_says_why_in_one_line() -> None:
    class AsksForANumber(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x * 2 if x.sum() > 0 else x)

    model = AsksForANumber()
    with pytest.raises(ModelError, match=r"does not run there on an input of shape \(1, 8\)") as error:
        count_flops(model, (8,), Masks.full(model))
    assert "\n" not in str(error.value)
