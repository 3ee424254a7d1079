"""The three networks of the contract, narrow, with two batches each; and what tests of purity compare."""

from __future__ import annotations

import functools
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

from tombola.models import ModelSpec, build, resnet

Batches = list[tuple[Tensor, Tensor]]
CLASSES = 4


class Transformer(nn.Module):
    """Tokens of 6 numbers, one encoder layer of width 8, the mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.output = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.block(self.embed(tokens)).mean(1))


def _lenet5() -> nn.Module:
    return build(
        ModelSpec(architecture="lenet5", widths=(4, 8, 16, 16), input_shape=(1, 20, 20), classes=CLASSES, seed=1)
    )


def _resnet8() -> nn.Module:
    """ResNet-20 with one block per stage: a block of each kind, of which the other twelve layers are copies."""
    spec = ModelSpec(architecture="resnet20", widths=(4, 8, 8), input_shape=(3, 8, 8), classes=CLASSES, seed=1)
    with mock.patch.object(resnet, "BLOCKS", 1):
        return build(spec)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (_lenet5, (1, 20, 20)),
    "resnet8": (_resnet8, (3, 8, 8)),
    "transformer": (Transformer, (5, 6)),
}


@functools.cache
def network(name: str) -> nn.Module:
    """The network in training mode, with a gradient, normalisations that differ, and one batch seen."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = NETWORKS[name][0]().train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
        inputs, targets = batches(name)[0]
        nn.functional.cross_entropy(model(inputs), targets).backward()
    return model


def batches(name: str) -> Batches:
    """Two batches of three examples."""
    generator = torch.Generator().manual_seed(5)
    shape = (3, *NETWORKS[name][1])
    return [
        (torch.randn(shape, generator=generator), torch.randint(0, CLASSES, (3,), generator=generator))
        for _ in range(2)
    ]


def everything_of(model: nn.Module) -> dict[str, object]:
    """All that pruning must leave alone: parameters, buffers, gradients, modes, hooks, and the random state."""
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "asking": [p.requires_grad for p in model.parameters()],
        "identities": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "random": torch.get_rng_state(),
    }


def assert_same(before: object, after: object) -> None:
    """Equal to the bit, NaN included."""
    if isinstance(before, Tensor):
        assert isinstance(after, Tensor)
        alike = (after.dtype, after.device, after.layout) == (before.dtype, before.device, before.layout)
        if alike and torch.equal(before, after):
            return  # at once; what differs is told by the slower comparison
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    elif isinstance(before, dict):
        assert isinstance(after, dict)
        assert list(before) == list(after)
        for key, value in before.items():
            assert_same(value, after[key])
    else:
        assert before == after
