"""Models whose own code looks at its layers, calls them twice or not at all: right, or left to torch by name."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tombola import Masks, load_sparse, prune, save_sparse, sparsify
from tombola.errors import ModelError


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)


class AsksParameters(Two):
    def forward(self, x: Tensor) -> Tensor:
        own = next(self.parameters())
        return self.second(torch.relu(self.first(x.to(own.device, own.dtype))))


class AsksWeight(Two):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.second.weight
        inside = torch.relu(self.first(x.to(weight.device)))
        return self.second(inside.to(weight.dtype).view(-1, weight.shape[1]))


class AsksSizes(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))[:, : self.second.out_features] / self.first.in_features


class Asserts(Two):
    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.first, nn.Linear):
            raise TypeError("not a Linear layer")
        return self.second(torch.relu(self.first(x)))


class ReadsValues(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) / self.second.weight.norm()


class ReadsBias(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) - self.second.bias


class ChangesItsInput(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu_(self.first(x.mul_(2))))


@dataclass
class Answer:
    logits: Tensor


class AnswersWithAClass(Two):
    def forward(self, x: Tensor) -> Answer:
        return Answer(self.second(torch.relu(self.first(x))))


class Experts(nn.Module):
    """Each takes the rows of its sign; with positive inputs the other one has none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plus, self.minus = (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        plus = x[:, 0] > 0
        result = x.new_empty(len(x), 3)
        result[plus], result[~plus] = self.plus(x[plus]), self.minus(x[~plus])
        return result


class Padded(nn.Module):
    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pooled = pooled
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, x: Tensor) -> Tensor:
        found = self.encoder(self.up(x), src_key_padding_mask=x[..., 0] < 0)
        return self.down(found.mean(1) if self.pooled else found[:, 0])


def sparsified(model: nn.Module, x: Tensor) -> tuple[nn.Module, nn.Module]:
    masks = prune(model, 0.5)
    dense = copy.deepcopy(model).eval().requires_grad_(False)
    masks.apply_(dense)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dense, sparsify(model, masks, x, (len(x),))


def close(sparse: nn.Module, dense: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        given, expected = sparse(x.clone()), dense(x.clone())
    if isinstance(given, Answer):
        given, expected = given.logits, expected.logits
    assert torch.allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "chains"),
    [
        (AsksParameters, 2),
        (AsksWeight, 2),
        (AsksSizes, 2),
        (Asserts, 1),
        (ReadsValues, 1),
        (ReadsBias, 1),
        (ChangesItsInput, 2),
        (AnswersWithAClass, 2),
    ],
)
def test_a_layer_that_the_models_code_looks_at(make: type[nn.Module], chains: int) -> None:
    x = torch.rand(4, 8)
    before = x.clone()
    dense, sparse = sparsified(make(), x)
    assert torch.equal(x, before)
    close(sparse, dense, torch.randn(7, 8))
    assert len(sparse.chains) == chains
    assert sum(parameter.numel() for parameter in sparse.parameters()) in (0, 16 * 9, 3 * 17)
    assert len(sparse.unsupported) == 2 - chains
    assert not any("SparseChain" in left for left in sparse.unsupported)
    if chains == 1:
        name = "first" if make is Asserts else "second"
        assert sparse.unsupported[0].startswith(f"{name}: Linear (")


def test_where_no_layer_can_be_exchanged_the_error_names_them() -> None:
    class All(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x))) + self.first.bias.sum() + self.second.bias.sum()

    with pytest.raises(ModelError, match=r"without its layers first, second: .* asks it for bias") as refused:
        sparsify(All(), prune(All(), 0.5), torch.rand(4, 8))
    assert "\n" not in str(refused.value)


def test_experts_without_rows_on_the_example() -> None:
    x = torch.rand(6, 8) + 0.1
    dense, sparse = sparsified(Experts(), x)
    assert len(sparse.chains) == 2
    close(sparse, dense, x)
    close(sparse, dense, torch.randn(9, 8))


def test_a_transformer_with_a_padding_mask() -> None:
    x = torch.rand(4, 5, 8)
    x[::2, 3:] = -1
    dense, sparse = sparsified(Padded(), x)
    assert len(sparse.chains) >= 2
    close(sparse, dense, x)
    with pytest.raises(ModelError, match="enable_nested_tensor=False"):
        sparsified(Padded(pooled=True), x)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrappers_come_off(wrap: type[nn.Module], tmp_path: object) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    masks = prune(model, 0.5)
    dense = copy.deepcopy(model).requires_grad_(False)
    masks.apply_(dense)
    for of in (masks, prune(wrap(model), 0.5)):
        sparse = sparsify(wrap(model), of, torch.rand(4, 8), (4,))
        close(sparse, dense, torch.randn(5, 8))
    path = f"{tmp_path}/model.safetensors"
    save_sparse(path, sparse)
    close(load_sparse(path, wrap(model)), dense, torch.randn(5, 8))


def test_requests() -> None:
    model = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 0), nn.Linear(0, 2))
    x = torch.rand(4, 8)
    sparse = sparsify(model, Masks.full(model), x.requires_grad_(), np.array([1, 4]))
    close(sparse, model.eval(), torch.rand(3, 8))
    for sizes in (np.array([0]), [np.int64(1), True], [np.float64(1.5)]):
        with pytest.raises(ModelError, match="batch_sizes"):
            sparsify(model, Masks.full(model), x, sizes)
