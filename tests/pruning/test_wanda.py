"""Wanda against inputs laid out by hand, for every kind of layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from direct_scores import assert_one_line, assert_scores, score, weights_of
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import PruningError
from tombola.pruning import prune


def squares(inputs: Tensor) -> Tensor:
    return inputs.double().square()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (5, 4)),
    "linear over positions": (lambda: nn.Linear(4, 3), (5, 2, 4)),
    "conv": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 6, 7)),
    "strided and padded": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)), (2, 4, 6, 7)),
    "dilated": (lambda: nn.Conv2d(4, 6, 2, dilation=3), (2, 4, 6, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 6, 7)),
    "conv of one dimension": (lambda: nn.Conv1d(4, 6, 3, stride=2, groups=2), (2, 4, 9)),
    "circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 6, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), (2, 4, 5, 4)),
    "transposed and grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 4)),
}


def norms_by_unfolding(layer: Any, x: Tensor) -> Tensor:
    """Σ x² for every entry of the weight, by laying the inputs out as each entry meets them."""
    shape = layer.weight.shape
    if isinstance(layer, nn.Linear):
        return squares(x).reshape(-1, shape[1]).sum(0).expand(shape)
    if isinstance(layer, nn.Conv1d):
        as_2d = nn.Conv2d(4, 6, (1, 3), stride=(1, 2), groups=2)
        return norms_by_unfolding(as_2d, x.unsqueeze(2)).squeeze(2)
    if isinstance(layer, nn.ConvTranspose2d):
        return _transposed_norms(layer, x)
    if layer.padding_mode == "circular":
        x, padding = functional.pad(x, (1, 1, 1, 1), mode="circular"), (0, 0)
    else:
        padding = layer.padding
    columns = functional.unfold(squares(x), layer.kernel_size, layer.dilation, padding, layer.stride)
    by_channel = columns.sum((0, 2)).view(layer.in_channels, *shape[2:])
    groups = by_channel.view(layer.groups, 1, *shape[1:])
    return groups.expand(-1, shape[0] // layer.groups, *shape[1:]).reshape(shape)


def _transposed_norms(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A pixel meets every kernel position, but for those whose output is cut off by the padding."""
    norms = torch.zeros(layer.weight.shape, dtype=torch.float64)
    height, width = layer(x).shape[2:]
    (stride_down, stride), (pad_down, pad) = layer.stride, layer.padding
    for a, b, i, j in itertools.product(*(range(n) for n in (*x.shape[2:], *layer.kernel_size))):
        if 0 <= a * stride_down - pad_down + i < height and 0 <= b * stride - pad + j < width:
            norms[:, :, i, j] += squares(x[:, :, a, b]).sum(0).unsqueeze(1)
    return norms


class TestWanda:
    @pytest.mark.parametrize("kind", LAYERS)
    def test_norms_of_what_a_weight_multiplies(self, kind: str) -> None:
        torch.manual_seed(0)
        make, shape = LAYERS[kind]
        layer = make()
        data = [torch.randn(shape), torch.randn(shape)]
        norms = sum(norms_by_unfolding(layer, x) for x in data).sqrt()
        expected = layer.weight.detach().abs() * norms
        assert_scores(score("wanda", nn.Sequential(layer), data), {"0.weight": expected}, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("separate", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_attention(self, separate: bool, batch_first: bool) -> None:
        torch.manual_seed(0)
        attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, **({"kdim": 6, "vdim": 5} if separate else {}))
        nn.init.normal_(attention.out_proj.bias)
        model = CrossAttention(attention)
        query = torch.randn(3, 4, 8)
        key, value = torch.randn(3, 4, 6 if separate else 8), torch.randn(3, 4, 5 if separate else 8)
        found = score("wanda", model, [(torch.cat([query, key, value], 2), None)])
        read = [squares(part).sum((0, 1)).sqrt() for part in (query, key, value)]
        weights = weights_of(model)
        if separate:
            parts = [(f"attention.{role}_proj_weight", norm) for role, norm in zip("qkv", read, strict=True)]
            expected = {name: weights[name].abs() * norm for name, norm in parts}
        else:
            rows = torch.cat([norm.expand(8, 8) for norm in read])
            expected = {"attention.in_proj_weight": weights["attention.in_proj_weight"].abs() * rows}
        mixed = heads_by_hand(attention, query, key, value)
        name = "attention.out_proj.weight"
        expected[name] = weights[name].abs() * squares(mixed).flatten(0, 1).sum(0).sqrt()
        assert_scores(found, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", LAYERS)
    def test_one_example_without_a_batch_is_a_batch_of_one(self, kind: str) -> None:
        torch.manual_seed(0)
        make, shape = LAYERS[kind]
        model, example = nn.Sequential(make()), torch.randn(shape[1:])
        assert_scores(score("wanda", model, [example]), score("wanda", model, [example.unsqueeze(0)]))

    def test_inputs_flow_through_the_pruned_network(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        data = [torch.randn(5, 3)]
        masks = prune(model, 0.5, "magnitude")
        found = score("wanda", model, data, masks=masks)
        with torch.no_grad():
            hidden = functional.linear(data[0], masks["0.weight"].apply(model[0].weight), model[0].bias)
        expected = masks["1.weight"].apply(model[1].weight.detach()).abs() * hidden.square().sum(0).sqrt()
        torch.testing.assert_close(found["1.weight"], expected)

    def test_a_layer_that_nothing_reaches_is_named(self) -> None:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        nn.init.constant_(model[0].bias, -100.0)
        with pytest.raises(PruningError, match=r"2\.weight: no input other than 0 reached it"):
            score("wanda", model, [torch.rand(5, 3)])


def standardised(weight: Tensor) -> Tensor:
    axes = tuple(range(1, weight.dim()))
    return (weight - weight.mean(axes, keepdim=True)) / weight.std(axes, keepdim=True)


class StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, standardised(self.weight), self.bias, self.stride, groups=self.groups)


class StandardisedInside(nn.Conv2d):
    """As others write it: the forward is torch's own, what it calls is not."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, standardised(weight), bias)


class NormalisedLinear(nn.Linear):
    """A gain that counts its calls: they must not move what is scored."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return functional.linear(input=3 * x, weight=functional.normalize(self.weight, dim=1), bias=self.bias)


class Twofold(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight) + functional.linear(x.abs(), self.weight.abs())


class Bilinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) * self.weight.square()).sum(-1)


class Changing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * x.abs().mean())


class OwnAttention(nn.MultiheadAttention):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Any:
        return super().forward(query + 1, key, value)


class TestClassesOfOnesOwn:
    @pytest.mark.parametrize("kind", [StandardisedConv, StandardisedInside])
    @pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}])
    def test_the_standardised_weight_counts(self, kind: type[nn.Conv2d], options: dict[str, int]) -> None:
        torch.manual_seed(0)
        layer, data = kind(4, 6, 3, **options), [torch.randn(2, 4, 6, 7), torch.randn(3, 4, 6, 7)]
        nn.init.normal_(layer.weight, 2.0)
        norms = sum(norms_by_unfolding(layer, x) for x in data).sqrt()
        expected = standardised(layer.weight.detach()).abs() * norms
        assert_scores(score("wanda", nn.Sequential(layer), data), {"0.weight": expected}, rtol=1e-5, atol=1e-6)

    def test_what_the_layer_does_with_its_inputs_counts(self) -> None:
        torch.manual_seed(0)
        model, data = nn.Sequential(NormalisedLinear(4, 3)), [torch.randn(5, 4)]
        expected = functional.normalize(model[0].weight.detach(), dim=1).abs() * (3 * data[0]).square().sum(0).sqrt()
        masks = prune(model, 0.5, "magnitude")
        assert_scores(score("wanda", model, data), {"0.weight": expected})
        assert model[0].calls == 0
        removed = score("wanda", model, data, masks=masks)["0.weight"][~masks["0.weight"].keep]
        assert not removed.any()

    def test_a_forward_of_the_instance_alone(self) -> None:
        layer, data = nn.Linear(4, 3), [torch.rand(5, 4)]
        layer.forward = lambda x: functional.linear(x, 2 * layer.weight)  # type: ignore[method-assign]
        expected = 2 * layer.weight.detach().abs() * data[0].square().sum(0).sqrt()
        assert_scores(score("wanda", nn.Sequential(layer), data), {"0.weight": expected})

    @pytest.mark.parametrize("kind", [Twofold, Bilinear, Changing])
    def test_what_is_no_product_with_one_weight_is_refused_by_name(self, kind: type[nn.Linear]) -> None:
        model = nn.Sequential(nn.Linear(4, 4), kind(4, 3))
        with pytest.raises(PruningError, match=rf"1\.weight: wanda cannot score it: .* {kind.__name__}") as caught:
            prune(model, 0.5, "wanda", batches=[torch.rand(5, 4), torch.rand(5, 4)])
        assert_one_line(caught.value)

    def test_attention_of_ones_own_is_refused_by_name(self) -> None:
        model = CrossAttention(OwnAttention(8, 2))
        with pytest.raises(PruningError, match=r"attention\.in_proj_weight: wanda cannot score it: .* OwnAttention"):
            score("wanda", model, [torch.randn(3, 4, 24)])

    @pytest.mark.parametrize("first", [0, 1])
    def test_one_weight_in_two_layers_that_read_it_differently_is_refused(self, first: int) -> None:
        layers = [nn.Linear(4, 4), NormalisedLinear(4, 4)]
        layers[0].weight = layers[1].weight
        model = nn.Sequential(layers[first], layers[1 - first])
        with pytest.raises(PruningError, match=r"0\.weight: wanda cannot score it"):
            score("wanda", model, [torch.rand(5, 4)])


class CrossAttention(nn.Module):
    """Attention whose query, key and value come side by side, as one tensor."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, inputs: Tensor) -> Tensor:
        kdim = self.attention.kdim
        return self.attention(inputs[..., :8], key=inputs[..., 8 : 8 + kdim], value=inputs[..., 8 + kdim :])[0]


def heads_by_hand(attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What the output projection reads, (first axis, second axis, features)."""
    if attention.in_proj_weight is not None:
        projections = attention.in_proj_weight.chunk(3)
    else:
        projections = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    biases = attention.in_proj_bias.chunk(3)
    read = [query, key, value] if attention.batch_first else [x.transpose(0, 1) for x in (query, key, value)]
    with torch.no_grad():
        q, k, v = (functional.linear(x, w, b) for x, w, b in zip(read, projections, biases, strict=True))
        heads = []
        for part in range(attention.num_heads):
            own = slice(part * attention.head_dim, (part + 1) * attention.head_dim)
            shares = (q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(attention.head_dim)).softmax(-1)
            heads.append(shares @ v[..., own])
    mixed = torch.cat(heads, -1)
    return mixed if attention.batch_first else mixed.transpose(0, 1)
