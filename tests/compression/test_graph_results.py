"""What graphs compute on every kernel, in either form, is what the masked dense model computes in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from fenced_arrays import Fences, address
from graph_runs import (
    BY_IMAGE,
    BY_PANEL,
    WAYS,
    Way,
    assert_close,
    call_in,
    exact,
    memory_of_nan,
    outputs_of,
    traced,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from image_models import (
    GEOMETRIES,
    NETWORKS,
    BasicBlock,
    Made,
    OptionA,
    PreActivation,
    Residual,
    Separable,
    masked,
    some_masks,
    with_statistics,
)
from torch import Tensor, nn

from tombola.compression import compiled
from tombola.compression.calls import call_of
from tombola.compression.graphs import arrays as graph_arrays
from tombola.compression.graphs import lowered
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.plans import Form
from tombola.kernels import compiler, window_steps
from tombola.kernels.target import Target, avx2, host
from tombola.models import ModelSpec, build

ROWS = {Form.VECTORS: (1, 3), Form.PANELS: (1, 16, 70)}
EVERYTHING = {**GEOMETRIES, **NETWORKS}


def made(own: Made, density: float = 0.5) -> tuple[nn.Module, GraphArrays, Tensor]:
    """A masked model, its graph, and inputs."""
    torch.manual_seed(0)
    make, shape = own
    model = with_statistics(make())
    masks = some_masks(model, density)
    model = masked(model, masks)
    return model, traced(model, masks, shape), torch.randn(70, *shape)


def check(arrays: GraphArrays, way: Way, x: Tensor, expected: Tensor) -> None:
    """Fresh memory, memory that an earlier call left, and memory on the stack give the same."""
    n = len(x)
    plan = way.plan(arrays, n)
    with memory_of_nan():
        call = call_in(arrays, plan, n)
        found = outputs_of(call, arrays, x)
    assert_close(found, expected)
    outputs_of(call, arrays, torch.full_like(x, torch.nan))
    assert torch.equal(outputs_of(call, arrays, x), found)
    if way.form == Form.VECTORS:
        assert torch.equal(outputs_of(call_of(arrays, plan, n), arrays, x), found)


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_kernel_on_any_number_of_examples(name: str) -> None:
    model, arrays, x = made(EVERYTHING[name])
    expected = exact(model, x)
    assert_close(arrays.on_torch(x), expected)
    for way in WAYS:
        for n in ROWS[way.form]:
            check(arrays, way, x[:n], expected[:n])


@pytest.mark.parametrize(
    ("architecture", "shape", "widths"),
    [
        ("lenet5", (1, 28, 28), None),
        ("conv4", (3, 20, 20), (4, 5, 6, 7, 20, 10)),
        ("vgg11", (3, 32, 32), (4, 5, 6, 7, 8)),
        ("resnet20", (3, 32, 32), (3, 5, 8)),
    ],
)
def test_networks_of_the_zoo(architecture: str, shape: tuple[int, ...], widths: tuple[int, ...] | None) -> None:
    spec = ModelSpec(architecture=architecture, widths=widths, input_shape=shape, classes=10, seed=1)
    model, arrays, x = made((lambda: build(spec), shape), density=0.2)
    expected = exact(model, x[:18])
    for way in (*BY_IMAGE[:3], *BY_PANEL[:3]):
        n = 2 if way.form == Form.VECTORS else 18
        check(arrays, way, x[:n], expected[:n])


class TestDensities:
    @pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
    @pytest.mark.parametrize("name", ["pooled", "basic blocks", "pre-activation"])
    def test_nothing_and_everything_kept(self, name: str, density: float) -> None:
        model, arrays, x = made(NETWORKS.get(name) or GEOMETRIES[name], density)
        expected = exact(model, x[:5])
        for way in (BY_IMAGE[0], BY_IMAGE[2], BY_PANEL[0], BY_PANEL[2]):
            check(arrays, way, x[:5], expected)


@pytest.mark.parametrize("tiles", [1, 3])
@pytest.mark.parametrize("name", ["stem", "pooled large", "depthwise", "bottlenecks", "diamond"])
def test_panels_part_by_part(name: str, tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large panels go."""
    monkeypatch.setattr(window_steps, "NEAR", 1)
    monkeypatch.setattr(window_steps, "LEAST_TILES", tiles)
    model, arrays, x = made(EVERYTHING[name])
    expected = exact(model, x)
    for way in BY_PANEL:
        check(arrays, way, x, expected)


class TestNaN:
    """The dense model multiplies removed weights, 0, with NaN; kernels do not look at what they multiply."""

    @pytest.mark.parametrize("way", WAYS, ids=str)
    def test_goes_where_kept_weights_lead(self, way: Way) -> None:
        model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3), nn.ReLU())
        with_statistics(model)
        masks = some_masks(model, 1.1)
        for mask in masks.values():
            mask.keep.fill_(True)
        arrays = traced(model, masks, (2, 21, 19))
        n = 2 if way.form == Form.VECTORS else 20
        x = torch.randn(n, 2, 21, 19)
        x[1, 0, 7, 12] = x[0, 1, 0, 0] = torch.nan
        expected = exact(model, x)
        assert 0 < expected[1].isnan().sum() < expected[1].numel()
        assert_close(outputs_of(call_in(arrays, way.plan(arrays, n), n), arrays, x), expected)

    @pytest.mark.parametrize("way", WAYS, ids=str)
    @pytest.mark.parametrize("name", ["basic blocks", "option A", "pools", "nothing between"])
    def test_never_leaves_its_example(self, name: str, way: Way) -> None:
        _, arrays, x = made(NETWORKS[name])
        n = 3 if way.form == Form.VECTORS else 18
        call = call_in(arrays, way.plan(arrays, n), n)
        clean = outputs_of(call, arrays, x[:n])
        for odd, number in ((1, torch.nan), (n - 1, torch.inf)):
            other = x[:n].clone()
            other[odd] = number
            found = outputs_of(call, arrays, other)
            rest = [row for row in range(n) if row != odd]
            assert torch.equal(found[rest], clean[rest])

    @pytest.mark.parametrize(
        "way", [way for way in WAYS if way.convolution != "dense" and way.linear != "dense"], ids=str
    )
    def test_of_removed_weights_has_no_effect(self, way: Way) -> None:
        model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).eval()
        masks = some_masks(model, 1.1)
        for mask in masks.values():
            mask.keep.fill_(True)
        masks["0.weight"].keep[:, 1] = False
        model = masked(model, masks)
        arrays = traced(model, masks, (2, 6, 6))
        x = torch.randn(5, 2, 6, 6)
        expected = exact(model, x)
        x[:, 1] = torch.nan
        assert exact(model, x).isnan().all()
        assert_close(outputs_of(call_in(arrays, way.plan(arrays, 5), 5), arrays, x), expected)


class TestMemory:
    @pytest.mark.parametrize("name", EVERYTHING)
    def test_nothing_is_read_or_written_beside_it(self, name: str) -> None:
        """Behind a fence and before one."""
        model, arrays, x = made(EVERYTHING[name])
        expected = exact(model, x[:17])
        for way in WAYS:
            n = 2 if way.form == Form.VECTORS else 5 if way.panel == 16 else 17
            compiled = arrays.compile(way.plan(arrays, n), n)
            for at_end in (False, True):
                fences = Fences(at_end)
                given, y = fences.given(x[:n].numpy()), fences.room((n, *arrays.graph.nodes[-1].shape))
                workspace = fences.room(max(1, compiled.workspace))
                for segment in compiled.segments:
                    segment(address(given), address(y), address(workspace))
                fences.check()
                assert_close(torch.from_numpy(np.array(y)), expected[:n])


@pytest.fixture(params=["8 lanes", "4 lanes"])
def other_machine(request: pytest.FixtureRequest) -> Iterator[Target]:
    """This machine as if its vectors were shorter."""
    if not host().triple.startswith("x86_64"):
        pytest.skip("short vectors of an x86 processor")
    target = avx2() if request.param == "8 lanes" else replace(avx2(), lanes=4)
    with pytest.MonkeyPatch.context() as patch:
        for module in (compiled, graph_arrays, lowered, compiler):
            patch.setattr(module, "host", lambda: target)
        yield target


@pytest.mark.parametrize("name", ["functional", "option A", "pools", "to an image"])
def test_vectors_of_other_machines(name: str, other_machine: Target) -> None:
    model, arrays, x = made(NETWORKS[name])
    expected = exact(model, x[:18])
    for way in (*BY_IMAGE[:3], *BY_PANEL[:3]):
        n = 2 if way.form == Form.VECTORS else 18
        check(arrays, replace(way, panel=max(way.panel, other_machine.lanes)), x[:n], expected[:n])


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A chain of parts that fit each other, and the shape of an input."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 18)), draw(st.integers(1, 20))
    channels, example = shape[0], torch.zeros(2, *shape)
    parts: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 5))):
        part = draw(st.sampled_from(PARTS))(draw, channels, *example.shape[2:])
        if part is None:
            continue
        parts.append(part.eval())
        with torch.no_grad():
            example = part(example)
        channels = example.shape[1]
    parts.append(nn.Conv2d(channels, draw(st.integers(1, 5)), 1))
    features = parts[-1].out_channels
    match draw(st.sampled_from(["image", "mean", "flat"])):
        case "mean":
            parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 3)]
        case "flat":
            parts += [nn.Flatten(), nn.Linear(features * example[0, 0].numel(), 3), nn.ReLU(), nn.Linear(3, 2)]
    return nn.Sequential(*parts), shape


def convolution(draw: st.DrawFn, channels: int, height: int, width: int) -> nn.Module | None:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride = draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    dilation = draw(st.sampled_from([(1, 1), (2, 1)]))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if any(size + 2 * p < r for size, p, r in zip((height, width), padding, reach, strict=True)):
        return None
    groups = draw(st.sampled_from([1, channels]))
    filters = groups * draw(st.integers(1, 3))
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return nn.Conv2d(channels, filters, kernel, **options)


def pool(draw: st.DrawFn, channels: int, height: int, width: int) -> nn.Module | None:
    kind, size = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d])), draw(st.integers(2, 3))
    stride, padding = draw(st.sampled_from([None, 1, 2])), draw(st.integers(0, 1))
    return kind(size, stride, padding) if min(height, width) + 2 * padding >= size else None


PARTS = [
    convolution,
    convolution,
    pool,
    lambda draw, channels, *_: nn.MaxPool2d(2) if min(_) > 1 else None,
    lambda draw, channels, *_: nn.BatchNorm2d(channels),
    lambda draw, channels, *_: nn.ReLU(),
    lambda draw, channels, *_: Residual(nn.Conv2d(channels, channels, 3, padding=1)),
    lambda draw, channels, *_: BasicBlock(channels, channels + draw(st.integers(0, 1)), draw(st.integers(1, 2))),
    lambda draw, channels, *_: PreActivation(channels, channels),
    lambda draw, channels, *_: OptionA(channels, draw(st.integers(0, 2)), draw(st.integers(0, 2))),
    lambda draw, channels, *_: Separable(channels),
]


@settings(max_examples=60)
@given(network=networks(), data=st.data())
def test_any_chain_of_nodes(network: tuple[nn.Module, tuple[int, ...]], data: st.DataObject) -> None:
    density = data.draw(st.sampled_from([0.1, 0.5, 1.0]), label="density")
    model, arrays, x = made((lambda: network[0], network[1]), density)
    images = data.draw(st.sampled_from(BY_IMAGE), label="images")
    panels = data.draw(st.sampled_from(BY_PANEL), label="panels")
    n = data.draw(st.sampled_from([1, 8, 16, 17, 70]), label="examples")
    expected = exact(model, x[:n])
    check(arrays, panels, x[:n], expected)
    check(arrays, images, x[:2][:n], expected[:2])
