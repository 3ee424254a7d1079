"""Masks hold in a training loop of one's own, whatever the optimizer does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from tombola.errors import PruningError
from tombola.pruning import Mask, Masks, prunable_parameters, prune
from tombola.pruning.held import held

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "Adam": lambda p: Adam(p, 1e-2, weight_decay=1e-2),
    "AdamW": lambda p: AdamW(p, 1e-2, weight_decay=0.1, amsgrad=True),
    "AdamW, fused": lambda p: AdamW(p, 1e-2, fused=True),
    "RMSprop": lambda p: RMSprop(p, 1e-2, momentum=0.9, weight_decay=1e-2),
    "Adagrad": lambda p: Adagrad(p, 1e-2, weight_decay=1e-2),
    "LBFGS": lambda p: LBFGS(p, 0.5, max_iter=4),
}


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))


def step(model: nn.Module, optimizer: Optimizer, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(8, 1, 5, 5, generator=generator), torch.randint(4, (8,), generator=generator)
    dtype = next(model.parameters()).dtype

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs.to(dtype)), targets)
        loss.backward()
        return loss

    optimizer.step(closure)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_removed_weights_are_0_after_every_step_and_the_others_learn(kind: str) -> None:
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    step(model, optimizer)  # momentum for weights that will be removed
    masks = prune(model, 0.7)
    before = snapshot(model)
    with masks.held(model, optimizer) as holding:
        assert holding is masks
        assert masks.removed_nonzeros(model) == 0  # from the beginning
        for seed in range(5):
            step(model, optimizer, seed)
            assert masks.removed_nonzeros(model) == 0
    for name, parameter in prunable_parameters(model).items():
        kept = masks[name].keep
        assert (parameter[kept] != before[name][kept]).any()
    hooks = len(optimizer._optimizer_step_post_hooks)
    assert hooks == 0
    if kind in ("SGD", "Adam", "RMSprop"):  # why all this: without it, momentum and decay bring them back
        step(model, optimizer)
        assert masks.removed_nonzeros(model) > 0


def test_a_step_is_the_optimizers_own_but_for_what_is_removed() -> None:
    model, free = net(), net()
    masks = prune(model, 0.5)
    masks.apply_(free)
    optimizer, other = OPTIMIZERS["SGD"](model.parameters()), OPTIMIZERS["SGD"](free.parameters())
    with masks.held(model, optimizer):
        step(model, optimizer)
    step(free, other)
    masks.apply_(free)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), free.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_in_any_precision(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    masks = prune(model, 0.5)
    with masks.held(model, optimizer):
        step(model, optimizer)
        step(model, optimizer)
    assert masks.removed_nonzeros(model) == 0
    assert model[0].weight.dtype == dtype


def test_any_mapping_of_masks_is_held() -> None:
    model = net()
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    masks = dict(prune(model, 0.5))
    with held(masks, model, optimizer) as holding:
        step(model, optimizer)
        assert holding is masks
    assert Masks(masks).removed_nonzeros(model) == 0


def overwrite(masks: Masks, model: nn.Module, optimizer: Optimizer, error: Exception | None) -> None:
    """Trains, sets every weight to 1 behind the masks' back, and maybe fails."""
    with masks.held(model, optimizer):
        step(model, optimizer)
        model.load_state_dict({name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()})
        if error is not None:
            raise error


def test_the_hook_goes_with_an_exception_and_the_exception_comes_through() -> None:
    """Also when weights were overwritten: the first error is the one to see."""
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    with pytest.raises(RuntimeError, match="of my own"):
        overwrite(prune(model, 0.5), model, optimizer, RuntimeError("of my own"))
    assert not optimizer._optimizer_step_post_hooks


def test_masks_updated_inside_hold_from_the_next_step_on() -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    masks = prune(model, 0.2)
    with masks.held(model, optimizer):
        step(model, optimizer)
        for name, mask in prune(model, 0.6, masks=masks).items():
            masks[name].update(mask)
        step(model, optimizer)
        assert masks.removed_nonzeros(model) == 0
    assert masks.total - masks.kept == round(0.6 * masks.total)


LINE_SEARCHES: dict[str, Callable[[Any], Optimizer]] = {
    "LBFGS": lambda p: LBFGS(p, 0.5, max_iter=20),
    "LBFGS, strong_wolfe": lambda p: LBFGS(p, max_iter=20, line_search_fn="strong_wolfe"),
}


def lowest_loss(make: Callable[[Any], Optimizer], steps: int) -> float:
    """The loss that a pruned network reaches with an optimizer, its masks held."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    inputs = torch.randn(120, 6, dtype=torch.float64)
    targets = (inputs[:, :3] * inputs[:, 3:]).argmax(1)
    masks = prune(model, 0.6)
    optimizer = make(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = torch.stack([p.square().sum() for p in model.parameters()]).sum()
        loss = functional.cross_entropy(model(inputs), targets) + 1e-3 * penalty
        loss.backward()
        return loss

    with masks.held(model, optimizer):
        for _ in range(steps):
            optimizer.step(closure)
            assert masks.removed_nonzeros(model) == 0
        return float(closure().detach())


@pytest.mark.parametrize("kind", LINE_SEARCHES)
def test_optimizers_that_step_more_than_once_learn_as_well_as_others(kind: str) -> None:
    """Removed weights are 0 within a step, too, or a line search would follow a network that does not exist."""
    others = [
        lowest_loss(lambda p: SGD(p, 0.1, momentum=0.9), 200),
        lowest_loss(lambda p: AdamW(p, 1e-2, weight_decay=0), 200),
    ]
    assert lowest_loss(LINE_SEARCHES[kind], 10) < min(others) + 0.01


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_gradients_that_are_no_numbers_leave_removed_weights_0(kind: str, value: float) -> None:
    """As the root of a weight has at 0: what is removed has no gradient, and the others learn on."""
    model = net()
    masks = prune(model, 0.5)
    optimizer = OPTIMIZERS[kind](model.parameters())
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(8, 1, 5, 5, generator=generator), torch.randint(4, (8,), generator=generator)

    class Endless(torch.autograd.Function):
        """The weight as it is; its gradient is endless where it is removed."""

        @staticmethod
        def forward(context: Any, weight: Tensor, keep: Tensor) -> Tensor:
            context.save_for_backward(keep)
            return weight.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
            (keep,) = context.saved_tensors
            return gradient.masked_fill(~keep, value), None

    def closure() -> Tensor:
        optimizer.zero_grad()
        weights = {n: Endless.apply(p, masks[n].keep) for n, p in prunable_parameters(model).items()}
        loss = functional.cross_entropy(functional_call(model, weights, inputs), targets)
        loss.backward()
        return loss

    before = snapshot(model)
    with masks.held(model, optimizer):
        for _ in range(3):
            optimizer.step(closure)
            assert masks.removed_nonzeros(model) == 0
    for name, parameter in prunable_parameters(model).items():
        assert bool(parameter.isfinite().all())
        assert (parameter[masks[name].keep] != before[name][masks[name].keep]).any()


def test_masks_of_another_model_are_refused() -> None:
    other = Masks({"weight": Mask.full((2, 2))})
    model = net()
    with (
        pytest.raises(PruningError, match="do not belong to this model"),
        other.held(model, SGD(model.parameters(), 0.1)),
    ):
        pass


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, other = net(), net()
    stranger, own = SGD(other.parameters(), 0.1), SGD(model.parameters(), 0.1)
    for given in (stranger, [own, stranger]):
        with (
            pytest.raises(
                PruningError, match=r"the optimizer does not train this model: make it from model\.parameters"
            ),
            prune(model, 0.5).held(model, given),
        ):
            pass
        assert not stranger._optimizer_step_post_hooks
        assert not own._optimizer_step_post_hooks
    for odd in (None, [], [own, model]):
        with pytest.raises(PruningError, match="held needs a"), prune(model, 0.5).held(model, odd):  # type: ignore[arg-type]
            pass


def test_an_optimizer_of_a_part_of_the_model_will_do() -> None:
    model = net()
    masks = prune(model, 0.5)
    optimizer = SGD(model[4].parameters(), 0.1, momentum=0.9)
    with masks.held(model, optimizer):
        step(model, optimizer)
    assert masks.removed_nonzeros(model) == 0


def test_weights_overwritten_behind_its_back_are_an_error() -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    masks = prune(model, 0.5)
    removed = masks.total - masks.kept
    with pytest.raises(PruningError, match=rf"removed weights that are not 0: {removed} .*load_state_dict"):
        overwrite(masks, model, optimizer, None)
    assert not optimizer._optimizer_step_post_hooks


def test_two_models_two_optimizers_side_by_side() -> None:
    one, two = net(1), net(2)
    optimizers = Adam(one.parameters(), 1e-2), Adam(two.parameters(), 1e-2)
    masks = prune(one, 0.5), prune(two, 0.8)
    with masks[0].held(one, optimizers[0]), masks[1].held(two, optimizers[1]):
        step(one, optimizers[0])
        step(two, optimizers[1])
    assert (masks[0].removed_nonzeros(one), masks[1].removed_nonzeros(two)) == (0, 0)
