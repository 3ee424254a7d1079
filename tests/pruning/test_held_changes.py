"""What happens to a held model inside the block: weights replaced, moved, unfrozen, several optimizers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim.swa_utils import AveragedModel

from tombola.errors import PruningError
from tombola.pruning import Masks, prunable_parameters, prune


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def backward(model: nn.Module) -> None:
    first = next(model.parameters())
    inputs = torch.rand(4, 8, generator=torch.Generator().manual_seed(1)).to(first.dtype)
    functional.cross_entropy(model(inputs), torch.tensor([0, 1, 2, 0])).backward()


def step(model: nn.Module, *optimizers: Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    backward(model)
    for optimizer in optimizers:
        optimizer.step()


@contextlib.contextmanager
def converting_to_new_parameters() -> Iterator[None]:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def assigned(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(16, 8))


def loaded(model: nn.Sequential) -> None:
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)


def new_layer(model: nn.Sequential) -> None:
    model[0] = nn.Linear(8, 16)


def converted(model: nn.Sequential) -> None:
    with converting_to_new_parameters():
        model[0].double()


def shadowed(model: nn.Sequential) -> None:
    """What the layer finds first is no longer its Parameter."""
    model[0].__dict__["weight"] = nn.Parameter(torch.ones(16, 8))


def shadowed_by_a_tensor(model: nn.Sequential) -> None:
    model[0].__dict__["weight"] = torch.ones(16, 8)


def tied(model: nn.Sequential) -> None:
    model[0].weight = model[2].weight


def frozen_copy(model: nn.Sequential) -> None:
    """Equal to the bit, and all its removed weights 0: the next step would not train it."""
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())


def deleted(model: nn.Sequential) -> None:
    del model[0]


def identity(model: nn.Sequential) -> None:
    model[0] = nn.Identity()


def bare(model: nn.Sequential) -> None:
    del model[0].weight
    model[0].weight = torch.ones(16, 8)


REPLACING: list[Callable[[Any], object]] = [
    *(assigned, loaded, new_layer, converted, tied, frozen_copy, deleted, identity, bare),
    lambda model: parametrizations.weight_norm(model[0]),
    lambda model: parametrizations.spectral_norm(model[0]),
    lambda model: nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Tanh()),
    lambda model: torch_prune.identity(model[0], "weight"),
    shadowed,
    shadowed_by_a_tensor,
    lambda model: model[0].to_empty(device="meta"),
]


@pytest.mark.parametrize("replace", REPLACING)
@pytest.mark.parametrize("then_step", [True, False])
def test_a_held_weight_that_is_replaced_is_named(replace: Callable[[Any], object], then_step: bool) -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    reached_the_end = False
    with pytest.raises(PruningError, match=r"0\.weight.*since") as caught, prune(model, 0.7).held(model, optimizer):  # noqa: PT012
        step(model, optimizer)
        replace(model)
        if then_step:
            optimizer.step()
        reached_the_end = True
    if "meta" not in str(caught.value):
        assert reached_the_end is not then_step
    assert "\n" not in str(caught.value)
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_a_layer_hidden_by_an_attribute_is_named() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(8, 3)})
    optimizer = SGD(model.parameters(), 0.1)
    with (
        pytest.raises(PruningError, match=r"layer\.weight is hidden by an attribute of the same name since"),
        prune(model, 0.5).held(model, optimizer),
    ):
        model.__dict__["layer"] = nn.Linear(8, 3)


def test_the_same_weight_may_also_be_an_attribute() -> None:
    model = net()
    masks, optimizer = prune(model, 0.7), SGD(model.parameters(), 0.1)
    with masks.held(model, optimizer):
        model[0].__dict__["weight"] = model[0]._parameters["weight"]
        step(model, optimizer)
    assert masks.removed_nonzeros(model) == 0


@pytest.mark.parametrize("checkpointed", [False, True])
def test_layers_under_activation_checkpointing_are_held(checkpointed: bool) -> None:
    """Its wrapper leaves itself out of the names of parameters."""
    model = net()
    if checkpointed:
        model[0] = checkpoint_wrapper(model[0])
    masks, optimizer = prune(model, 0.7), SGD(model.parameters(), 0.1)
    with masks.held(model, optimizer):
        if not checkpointed:
            model[0] = checkpoint_wrapper(model[0])
        step(model, optimizer)
    assert masks.removed_nonzeros(model) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_with_both_possible_causes(value: float) -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1)
    says = r"not finite numbers \(in 2\.weight\): training diverged, then lower .* or something else .* wrote NaN"
    with pytest.raises(PruningError, match=says), prune(model, 0.7).held(model, optimizer), torch.no_grad():
        model[2].weight.fill_(value)


def test_a_shared_weight_that_is_replaced_in_one_layer_is_named() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    model[2].weight = shared.weight
    optimizer = SGD(model.parameters(), 0.1)
    with pytest.raises(PruningError, match=r"2\.weight is another Parameter"), prune(model, 0.5).held(model, optimizer):  # noqa: PT012
        model[2].weight = nn.Parameter(torch.ones(8, 8))
        optimizer.step()


def in_double(model: nn.Module) -> None:
    model.double()


def swapped(model: nn.Module) -> None:
    """The Parameter stays, its content is another tensor; hooks on its gradient are lost."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def other_data(model: Any) -> None:
    model[0].weight.data = torch.ones(16, 8)


def compiled_layer(model: Any) -> None:
    model[0] = torch.compile(model[0], backend="eager")


def parallel_layer(model: Any) -> None:
    model[0] = nn.DataParallel(model[0])


def nothing_but_grown(model: Any) -> None:
    model.append(nn.Identity())


def loaded_in_place(model: Any) -> None:
    model.load_state_dict({name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize(
    "change", [in_double, swapped, other_data, compiled_layer, parallel_layer, nothing_but_grown, loaded_in_place]
)
def test_the_same_parameters_are_held_whatever_becomes_of_them(change: Callable[[Any], None]) -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    masks = prune(model, 0.7)
    with masks.held(model, optimizer):
        step(model, optimizer)
        change(model)
        for _ in range(2):
            step(model, optimizer)
            assert masks.removed_nonzeros(model) == 0
    assert masks.removed_nonzeros(model) == 0


@pytest.mark.parametrize("when", ["frozen before", "gradient of before"])
def test_an_optimizer_sees_no_gradient_at_removed_weights(when: str) -> None:
    """Muon looks at a whole matrix: one foreign gradient and every weight of it goes elsewhere."""
    model, plain = net(), net()
    masks = prune(model, 0.7)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    if when == "frozen before":
        for parameter in matrices:
            parameter.requires_grad_(False)
    else:
        backward(model)
    optimizer = Muon(matrices, lr=0.1)
    with masks.held(model, optimizer):
        if when == "frozen before":
            for parameter in matrices:
                parameter.requires_grad_()
            backward(model)
        optimizer.step()
        for name, parameter in prunable_parameters(model).items():
            assert parameter.grad is not None
            assert not parameter.grad[~masks[name].keep].any()
    if when == "frozen before":
        masks.apply_(plain)
        backward(plain)
        for name, parameter in prunable_parameters(plain).items():
            assert parameter.grad is not None
            masks[name].apply_(parameter.grad)
        Muon([p for p in plain.parameters() if p.dim() == 2], lr=0.1).step()
        masks.apply_(plain)
        for one, other in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("nested", [True, False])
def test_several_optimizers_share_a_model(nested: bool) -> None:
    """Matrices by Muon, the rest by AdamW, which on its own trains no weight that a mask is of."""
    model = net()
    masks = prune(model, 0.7)
    muon = Muon([p for p in model.parameters() if p.dim() == 2], lr=0.1, weight_decay=0.1)
    rest = AdamW([p for p in model.parameters() if p.dim() != 2], lr=0.1)
    before = copy.deepcopy(model.state_dict())
    with contextlib.ExitStack() as stack:
        for given in ([muon], [rest]) if nested else ([muon, rest],):
            stack.enter_context(masks.held(model, given))
        for _ in range(3):
            step(model, muon, rest)
            assert masks.removed_nonzeros(model) == 0
    assert all(bool((model.state_dict()[name] != tensor).any()) for name, tensor in before.items())


def test_nested_blocks_of_one_optimizer_hold_the_tighter_masks_while_they_last() -> None:
    model = net()
    loose = prune(model, 0.3)
    tight = prune(model, 0.8, masks=loose)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    with loose.held(model, optimizer):
        with tight.held(model, optimizer):
            step(model, optimizer)
            assert tight.removed_nonzeros(model) == 0
        step(model, optimizer)
        assert loose.removed_nonzeros(model) == 0
    assert tight.removed_nonzeros(model) > 0


def test_param_groups_may_change_inside() -> None:
    model = net()
    masks = prune(model, 0.7)
    optimizer = SGD(model[0].parameters(), 0.1, momentum=0.9)
    with masks.held(model, optimizer):
        step(model, optimizer)
        optimizer.add_param_group({"params": list(model[2].parameters()), "weight_decay": 0.1})
        for _ in range(2):
            step(model, optimizer)
            assert masks.removed_nonzeros(model) == 0


def test_an_optimizer_made_inside_the_block_is_noticed_where_it_moved_removed_weights() -> None:
    model = net()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    step(model, optimizer)
    other = SGD(model.parameters(), 0.1, momentum=0.9)
    other.load_state_dict(optimizer.state_dict())
    with pytest.raises(PruningError, match=r"removed weights that are not 0: \d+ \(of 0\.weight, 2\.weight\)"):  # noqa: SIM117
        with prune(model, 0.7).held(model, optimizer):
            step(model, other)


def test_averages_accumulation_and_scaled_gradients() -> None:
    model = net()
    masks = prune(model, 0.7)
    optimizer = AdamW(model.parameters(), 0.1, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with masks.held(model, optimizer):
        averaged = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(2):
                output: Tensor = model(torch.rand(4, 8))
                scaler.scale(functional.cross_entropy(output, torch.tensor([0, 1, 2, 0]))).backward()
            scaler.step(optimizer)
            scaler.update()
            averaged.update_parameters(model)
            assert masks.removed_nonzeros(model) == 0
            assert masks.removed_nonzeros(averaged) == 0


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_masks_of_the_plain_model_hold_in_the_wrapped_one_and_back(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = net()
    wrapped = wrap(model)
    for masks, of in ((prune(model, 0.7), wrapped), (prune(wrapped, 0.8), model)):
        optimizer = SGD(of.parameters(), 0.1, momentum=0.9)
        assert isinstance(masks, Masks)
        with masks.held(of, optimizer):
            step(of, optimizer)
            step(of, optimizer)
        assert masks.removed_nonzeros(model) == masks.removed_nonzeros(wrapped) == 0
