"""Masks and models find each other whatever the order of the masks, whatever wraps the model, shared layers or not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from tombola.errors import PruningError
from tombola.pruning import Mask, Masks, PerLayerRates, prune
from tombola.pruning.wrapped import matched, unwrapped, without_wrappers


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(12)])


ORDERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "safetensors": lambda tensors: safetensors.torch.load(safetensors.torch.save(tensors)),
    "sorted": lambda tensors: dict(sorted(tensors.items())),
    "reversed": lambda tensors: dict(reversed(tensors.items())),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_masks_does_not_matter(order: str) -> None:
    model = net()
    masks = prune(model, 0.5)
    again = Masks.from_tensors(ORDERS[order](masks.to_tensors()))
    assert list(again) != list(masks)
    assert again == masks
    assert again <= masks <= again
    assert list(masks & again) == list(masks)
    assert (again & masks) == masks
    later = prune(model, 0.8, masks=again)
    assert list(later) == list(masks)
    assert later == prune(model, 0.8, masks=masks)
    assert later != again
    trained = copy.deepcopy(model)
    optimizer = SGD(trained.parameters(), 0.1, weight_decay=0.1)
    with again.held(trained, optimizer):
        trained(torch.rand(2, 4)).sum().backward()
        optimizer.step()
    assert masks.removed_nonzeros(trained) == 0
    again.apply_(model)
    assert masks.removed_nonzeros(model) == again.removed_nonzeros(model) == 0


def compiled_inside(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    model[3] = torch.compile(model[3], backend="eager")  # type: ignore[operator, index]
    return model


class Checkpointed(nn.Module):
    """As FSDP and activation checkpointing hold a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module

    def forward(self, inputs: Tensor) -> Any:
        return self._fsdp_wrapped_module(inputs)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),  # type: ignore[return-value]
    "parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),  # type: ignore[arg-type]
    "averaged": AveragedModel,
    "one layer": compiled_inside,
    "as FSDP": Checkpointed,
}
CRITERIA = {"magnitude": None, "taylor": [(torch.rand(4, 4), torch.tensor([0, 1, 2, 3]))], "wanda": [torch.rand(4, 4)]}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_change_names_and_nothing_else(wrapper: str) -> None:
    model = net()
    wrapped = WRAPPERS[wrapper](model)
    for criterion, batches in CRITERIA.items():
        masks = prune(model, 0.5, criterion, batches=batches)
        of_wrapped = prune(wrapped, 0.5, criterion, batches=batches)
        assert set(of_wrapped) <= {name for name, _ in wrapped.named_parameters()}
        assert of_wrapped == masks
        assert of_wrapped <= masks
        assert masks & of_wrapped == masks
        assert prune(model, 0.7, masks=of_wrapped) == prune(wrapped, 0.7, masks=masks)
    masks.apply_(wrapped)
    assert of_wrapped.removed_nonzeros(wrapped) == 0
    of_wrapped.apply_(model)
    assert masks.removed_nonzeros(model) == 0


@pytest.mark.parametrize("wrapper", ["compiled", "parallel"])
def test_layers_of_a_wrapped_model_are_protected_by_either_name(wrapper: str) -> None:
    model = net()
    wrapped = WRAPPERS[wrapper](model)
    prefix = next(iter(wrapped.named_parameters()))[0].removesuffix("0.weight")
    expected = prune(model, 0.5, protect=["11"])
    for name in ("11", f"{prefix}11", f"{prefix}11.weight"):
        assert prune(wrapped, 0.5, protect=[name]) == expected
        rates = PerLayerRates(0.2, {name: 0.0})
        assert prune(wrapped, distribution=rates) == prune(model, distribution=PerLayerRates(0.2, {"11": 0.0}))


def test_only_wrappers_are_taken_off() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(4, 4)

    own = Own()
    assert unwrapped(own) is own
    assert unwrapped(nn.DataParallel(own)) is own
    assert list(prune(own, 0.5)) == ["module.weight"]
    assert without_wrappers("module._orig_mod.0.module.weight") == "0.weight"
    # What comes to the same name is told apart by nothing but the name itself.
    assert matched(["module.a", "a"], ["a", "module.a", "_orig_mod.a"]) == {"module.a": "module.a", "a": "a"}
    assert matched(["a"], ["module.a", "_orig_mod.a"]) == {}
    assert matched(["b.a"], ["module.b.a"]) == {"b.a": "module.b.a"}


class TestSharedLayers:
    def model(self) -> nn.Sequential:
        torch.manual_seed(0)
        shared = nn.Linear(4, 4)
        return nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Linear(4, 3))

    def masks(self, *names: str) -> Masks:
        keep = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
        other = {"0.weight": Mask.full((4, 4)), "4.weight": Mask.full((3, 4))}
        return Masks(dict.fromkeys(names, Mask(keep)) | other)

    @pytest.mark.parametrize(
        "names", [("1.weight",), ("3.weight",), ("1.weight", "3.weight"), ("3.weight", "1.weight")]
    )
    def test_a_shared_weight_goes_by_any_of_its_names(self, names: tuple[str, ...]) -> None:
        """As masks made of a state dict, which has both, or of a file that keeps one of them."""
        model, masks = self.model(), self.masks(*names)
        assert list(masks.of(model)) == ["0.weight", "1.weight", "4.weight"]
        later = prune(model, 0.6, masks=masks)
        assert later == prune(model, 0.6, masks=self.masks("1.weight"))
        optimizer = SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        with masks.held(model, optimizer):
            for _ in range(2):
                model(torch.rand(3, 4)).sum().backward()
                optimizer.step()
        assert masks.removed_nonzeros(model) == 0

    def test_two_masks_of_one_weight_must_agree(self) -> None:
        masks = Masks({**self.masks("1.weight"), "3.weight": Mask.full((4, 4))})
        with pytest.raises(
            PruningError, match=r"1\.weight and 3\.weight are one weight of the model, their masks differ"
        ):
            masks.apply_(self.model())


def wrong() -> Iterator[Callable[[Masks], object]]:
    masks = Masks.full(nn.Sequential(nn.Linear(4, 4)))
    yield lambda full: full & masks
    yield lambda full: full <= masks
    yield lambda full: full.apply_(nn.Sequential(nn.Linear(4, 4)))


@pytest.mark.parametrize("use", list(wrong()))
def test_masks_of_a_larger_model_are_still_refused(use: Callable[[Masks], object]) -> None:
    with pytest.raises(PruningError, match=r"differ in 1\.weight, 10\.weight, 11\.weight, 2\.weight, 3\.weight and 6"):
        use(Masks.full(net()))
    assert Masks.full(net()) != Masks.full(nn.Sequential(nn.Linear(4, 4)))


def test_what_is_no_mask_is_refused_at_once() -> None:
    with pytest.raises(PruningError, match=r"0\.weight: not a Mask; .*Masks\.from_tensors"):
        Masks({"0.weight": torch.ones(4, 4, dtype=torch.bool)})  # type: ignore[dict-item]
