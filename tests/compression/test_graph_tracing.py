"""What of a model becomes a graph: which nodes, what they take in, and what is refused with a reason."""

from __future__ import annotations

import copy
import operator
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from graph_runs import assert_close, exact, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from image_models import (
    GEOMETRIES,
    NETWORKS,
    BasicBlock,
    Diamond,
    OptionA,
    Residual,
    ResNet,
    masked,
    sequence,
    some_masks,
    with_statistics,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from tombola import Masks
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.nodes import (
    Combine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    Mean,
    Node,
    Pool,
    Shortcut,
)
from tombola.compression.graphs.symbolic import UnsupportedError
from tombola.compression.graphs.tracing import trace
from tombola.kernels.pools import PoolKind
from tombola.models import ModelSpec, build


def graph_of(model: nn.Module, *shape: int) -> Graph:
    return trace([("", model.eval())], {}, (1, *shape))


def kinds(graph: Graph) -> str:
    """The first letters of its nodes: Convolution, Dense, Pool, Mean, cOmbine, Shortcut, Flatten."""
    letters = {Convolution: "C", Dense: "D", Pool: "P", Mean: "M", Combine: "O", Shortcut: "S", Flatten: "F"}
    return "".join(letters[type(node)] for node in graph.nodes)


def convolutions(graph: Graph) -> list[Convolution]:
    return [node for node in graph.nodes if isinstance(node, Convolution)]


class TestZoo:
    @pytest.mark.parametrize(
        ("architecture", "shape", "widths", "nodes", "pooled"),
        [
            ("lenet5", (1, 28, 28), None, "CCFDDD", 2),
            ("lenet5-caffe", (1, 28, 28), (4, 5, 20), "CCFDD", 2),
            ("conv2", (3, 8, 8), (4, 5, 20, 10), "CCFDDD", 1),
            ("conv4", (3, 8, 8), (4, 5, 6, 7, 20, 10), "CCCCFDDD", 2),
            ("conv6", (3, 8, 8), (4, 5, 6, 7, 8, 9, 20, 10), "CCCCCCFDDD", 3),
            ("vgg11", (3, 32, 32), (4, 5, 6, 7, 8), "C" * 8 + "MFD", 5),
            ("vgg16", (3, 32, 32), (4, 5, 6, 7, 8), "C" * 13 + "MFD", 5),
        ],
    )
    def test_chains_are_layers_and_nothing_else(
        self, architecture: str, shape: tuple[int, ...], widths: tuple[int, ...] | None, nodes: str, pooled: int
    ) -> None:
        model = build(ModelSpec(architecture=architecture, widths=widths, input_shape=shape, classes=10, seed=0))
        graph = graph_of(model, *shape)
        assert kinds(graph) == nodes
        assert [node.window.pool for node in convolutions(graph)].count(2) == pooled
        assert all(layer.relu for layer in graph.layers[:-1])
        assert not graph.layers[-1].relu
        assert [layer.name for layer in graph.layers] == [
            name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
        ]

    def test_resnet(self) -> None:
        spec = ModelSpec(architecture="resnet20", widths=(3, 5, 8), input_shape=(3, 32, 32), classes=10, seed=0)
        graph = graph_of(build(spec), 3, 32, 32)
        assert Counter(kinds(graph)) == {"C": 19, "S": 2, "M": 1, "F": 1, "D": 1}
        assert [len(node.inputs) for node in convolutions(graph)] == [1, *[1, 2] * 9]
        assert all(node.layer.relu for node in convolutions(graph))
        assert [(node.step, node.before, node.shape[0]) for node in graph.nodes if isinstance(node, Shortcut)] == [
            (2, 0, 5),
            (2, 0, 8),
        ]


class TestNodes:
    @pytest.mark.parametrize(
        ("name", "nodes"),
        [
            ("functional", "CCPFDD"),
            ("mean", "CMFD"),
            ("basic blocks", "CPCCCCCCCMFD"),
            ("pre-activation", "COCCOCCCOMFD"),
            ("option A", "SCSCSCSC"),
            ("separable", "CCCCC"),
            ("residual at once", "C"),
            ("residual in place", "CC"),
            ("sizes as numbers", "CSCPFD"),
            ("pools", "CPPOPP"),
            ("pooled twice", "CP"),
            ("means go on", "CMOCMCF"),
            ("pool first", "POC"),
            ("norm first", "OC"),
            ("nothing between", "CFDD"),
            ("nested", "CFD"),
            ("adaptive as it is", "CP"),
        ],
    )
    def test_of_networks(self, name: str, nodes: str) -> None:
        make, shape = NETWORKS[name]
        assert kinds(graph_of(make(), *shape)) == nodes

    @pytest.mark.parametrize("name", GEOMETRIES)
    def test_a_convolution_and_what_follows_it_are_one(self, name: str) -> None:
        make, shape = GEOMETRIES[name]
        model = make().eval()
        (node,) = graph_of(model, *shape).nodes
        assert isinstance(node, Convolution)
        with torch.no_grad():
            assert node.shape == model(torch.zeros(1, *shape)).shape[1:]
        assert node.window.pool == 1 + ("pooled" in name)
        assert node.layer.relu == any(isinstance(module, nn.ReLU) for module in model)

    def test_values_that_others_read_are_not_joined(self) -> None:
        graph = graph_of(Diamond(), 4, 9, 11)
        assert kinds(graph) == "CCOPOOOCO"
        assert [node.layer.relu for node in convolutions(graph)] == [False, True, False]

    def test_norms_go_into_weights_and_biases_in_float64(self) -> None:
        model = with_statistics(nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3), nn.BatchNorm2d(3)))
        (node,) = graph_of(model, 2, 3, 3).nodes
        assert isinstance(node, Convolution)
        double = copy.deepcopy(model).double()
        with torch.no_grad():
            constant = double(torch.zeros(1, 2, 3, 3, dtype=torch.float64))[0, :, 0, 0]
        assert np.allclose(node.layer.bias, constant, rtol=1e-6, atol=1e-7)
        weights = double[0].weight.detach()
        for norm in double[1:]:
            weights = weights * (norm.weight.detach() / (norm.running_var + norm.eps).sqrt())[:, None, None, None]
        assert np.allclose(node.layer.matrix(), weights, rtol=1e-6, atol=1e-7)

    def test_masks_are_kept_and_layers_without_one_keep_all(self) -> None:
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
        masks = some_masks(model, 0.4)
        of_the_first = Masks({"0.weight": masks["0.weight"]})
        graph = traced(masked(with_statistics(model), masks), of_the_first, (2, 3, 3)).graph
        assert np.array_equal(graph.layers[0].keep(), masks["0.weight"].keep.numpy())
        assert graph.layers[1].keep().all()

    def test_kept_weights_of_0_stay_and_masks_may_lie_in_any_order(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last).eval()
        with torch.no_grad():
            model[0].weight[0] = 0
        masks = some_masks(model, 0.5)
        masks["0.weight"].keep[0] = True
        keep = masks["0.weight"].keep.clone(memory_format=torch.preserve_format).to(memory_format=torch.channels_last)
        layer = traced(model, Masks({"0.weight": type(masks["0.weight"])(keep)}), (3, 5, 5)).graph.layers[0]
        assert layer.keep()[0].all()
        assert np.array_equal(layer.keep(), masks["0.weight"].keep.numpy())
        assert np.array_equal(layer.matrix(), (model[0].weight.detach() * keep).numpy())

    def test_a_mean_of_windows_and_one_of_all(self) -> None:
        graph = graph_of(sequence(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d((3, 2)), nn.AdaptiveAvgPool2d(1)), 1, 8, 8)
        pool = graph.nodes[1]
        assert isinstance(pool, Pool)
        assert (pool.kind, pool.window.kernel, pool.window.stride) == (PoolKind.MEAN, (2, 3), (2, 3))
        assert graph.nodes[2].shape == (2, 1, 1)

    def test_what_nobody_reads_is_left_out(self) -> None:
        class Unread(Residual):
            def forward(self, x: Tensor) -> Tensor:
                self.body(functional.relu(x))
                return self.body(x)

        assert kinds(graph_of(Unread(nn.Conv2d(2, 2, 3)), 2, 5, 5)) == "C"


class Does(nn.Module):
    """A convolution, and `what` with its result; a second convolution to be used there."""

    def __init__(self, what: Callable[[Does, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.other, self.what = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1), what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self, self.conv(x))


def in_place(change: Callable[[Tensor], Tensor]) -> Callable[[Does, Tensor], Tensor]:
    """What is changed is read under its old name afterwards."""

    def what(self: Does, x: Tensor) -> Tensor:
        changed = change(x)
        return self.other(x)[:, :, :: 9 // x.shape[2], :: 9 // x.shape[3]] + changed.mean((2, 3), True)

    return what


def add_to(x: Tensor, more: Tensor) -> Tensor:
    return operator.iadd(x, more)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "reflect": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "padding reflect"),
    "float64": (lambda: nn.Conv2d(3, 4, 3).double(), "."),
    "half": (lambda: nn.Conv2d(3, 4, 3).half(), "."),
    "uneven same": (lambda: nn.Conv2d(3, 4, 2, padding="same"), "differs from side to side"),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), "ConvTranspose2d"),
    "ceil": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, ceil_mode=True)), "ceil_mode"),
    "indices": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, return_indices=True)), "return_indices"),
    "mean ceil": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode"),
    "divisor": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2, divisor_override=3)), "divisor_override"),
    "dilated pool": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, dilation=2)), "dilation"),
    "border that does not count": (
        lambda: sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        "does not count",
    ),
    "adaptive": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4)), "does not divide"),
    "flat in part": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.Flatten(2)), "gives"),
    "no statistics": (
        lambda: sequence(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        "no stored statistics",
    ),
    "gelu": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.GELU()), "1: GELU"),
    "softmax": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.Softmax(1)), "1: Softmax"),
    "linear on images": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.Linear(7, 2)), "more than features"),
    "times": (lambda: Does(lambda self, x: x * 2), "calls mul"),
    "plus one": (lambda: Does(lambda self, x: x + 1), "its input"),
    "twice itself": (lambda: Does(lambda self, x: x + x), "with itself"),
    "of other shapes": (lambda: Does(lambda self, x: x + x.mean((2, 3), keepdim=True)), "different shapes"),
    "scaled sum": (lambda: Does(lambda self, x: torch.add(x, self.other(x), alpha=2)), "other than two values"),
    "joined": (lambda: Does(lambda self, x: torch.cat([x, x], 1)), "calls cat"),
    "other means": (lambda: Does(lambda self, x: x.mean(3)), "other axes"),
    "other views": (lambda: Does(lambda self, x: x.view(x.size(0), 3, -1)), "gives"),
    "other parts": (lambda: Does(lambda self, x: x[:, :, 1::2, 1::2]), "index"),
    "padded images": (lambda: Does(lambda self, x: functional.pad(x, (1, 1, 1, 1))), "channels of zeros"),
    "padded by one": (lambda: Does(lambda self, x: functional.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)), "of zeros"),
    "by the number of examples": (
        lambda: Does(lambda self, x: functional.avg_pool2d(x, x.size(0))), "how many examples",
    ),
    "double inside": (lambda: Does(lambda self, x: x.double()), "calls double"),
    "active dropout": (lambda: Does(lambda self, x: functional.dropout(x, 0.1)), "dropout in evaluation"),
    "two outputs": (lambda: Does(lambda self, x: (x, self.other(x))), "no output, or several"),
    "nothing done": (lambda: nn.Identity(), "no output, or several"),
    "control flow": (lambda: Does(lambda self, x: self.other(x) if x.sum() > 0 else x), "."),
    "read by keyword": (lambda: Does(lambda self, x: self.other(input=x)), "does not take its input"),
    "input in place": (lambda: sequence(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 3)), "in place"),
    "relu in place": (lambda: Does(in_place(lambda x: functional.relu(x, inplace=True))), "in place"),
    "relu_ in place": (lambda: Does(in_place(torch.relu_)), "in place"),
    "method in place": (lambda: Does(in_place(lambda x: x.relu_())), "in place"),
    "sum in place": (lambda: Does(lambda self, x: add_to(x, self.other(x)) + self.other(x)), "in place"),
    "part in place": (lambda: Does(in_place(lambda x: functional.relu_(x[:, :, ::2, ::2]))), "in place"),
    "whole in place, part read": (
        lambda: Does(lambda self, x: (x[:, :, ::2, ::2], functional.relu_(x))[0]), "in place",
    ),
}  # fmt: skip


class TestRefused:
    @pytest.mark.filterwarnings("ignore:Using padding='same'")
    @pytest.mark.parametrize("name", REFUSED)
    def test_with_a_reason(self, name: str) -> None:
        make, reason = REFUSED[name]
        with pytest.raises(UnsupportedError, match=reason):
            graph_of(make(), 3, 9, 9)

    def test_inputs_without_height_and_width(self) -> None:
        with pytest.raises(UnsupportedError):
            graph_of(sequence(nn.Linear(4, 3)), 2, 4)

    @pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
    @pytest.mark.parametrize("where", ["", "stages", "stages.0", "stages.0.conv2", "relu", "avgpool"])
    def test_hooks_anywhere(self, where: str, hook: str) -> None:
        model = ResNet(BasicBlock(8, 8), features=8)
        getattr(model.get_submodule(where), hook)(lambda *_: None)
        with pytest.raises(UnsupportedError, match="hooks"):
            graph_of(model, 3, 32, 32)

    def test_modules_that_are_not_what_their_type_says(self) -> None:
        class Twofold(nn.Module):
            def forward(self, weight: Tensor) -> Tensor:
                return 2 * weight

        class Own(nn.Conv2d):
            def forward(self, input: Tensor) -> Tensor:
                return 2 * super().forward(input)

        parametrised, patched = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        parametrize.register_parametrization(parametrised, "weight", Twofold())
        patched.forward = lambda input: 2 * nn.Conv2d.forward(patched, input)  # type: ignore[method-assign]
        normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))
        for module in (parametrised, patched, normed, Own(3, 3, 3)):
            with pytest.raises(UnsupportedError):
                graph_of(sequence(module), 3, 9, 9)

    @pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.Dropout])
    def test_what_stays_in_training(self, kind: Callable[[int], nn.Module]) -> None:
        model = sequence(nn.Conv2d(3, 4, 3), kind(4) if kind is nn.BatchNorm2d else kind(0.5)).eval()
        model[1].train()
        with pytest.raises(UnsupportedError, match=r"training|evaluation"):
            trace([("", model)], {}, (1, 3, 9, 9))

    def test_what_is_changed_in_place_and_read_before_only_is_taken(self) -> None:
        model = Does(lambda self, x: add_to(self.other(x), x.relu_()))
        with pytest.raises(UnsupportedError, match="in place"):
            graph_of(Does(lambda self, x: add_to(x, self.other(x)) + x), 3, 9, 9)
        assert kinds(graph_of(model, 3, 9, 9)) == "COC"


def test_nodes_are_numbered_in_the_order_in_which_they_run() -> None:
    for make, shape in NETWORKS.values():
        nodes: tuple[Node, ...] = graph_of(make(), *shape).nodes
        for number, node in enumerate(nodes):
            assert all(0 <= value <= number for value in node.inputs)
        assert {value for node in nodes for value in node.inputs} == set(range(len(nodes)))


class Program(nn.Module):
    """Steps in any order, each with what two steps before it gave; the sum of the last and some others."""

    OPERATIONS = ("conv", "norm", "relu", "relu_", "inplace", "module", "add", "iadd", "add_", "part", "view", "same")

    def __init__(self, steps: Sequence[tuple[str, int, int]], read: Sequence[int]) -> None:
        super().__init__()
        self.steps, self.read = steps, read
        self.convs, self.norm = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(2)), nn.BatchNorm2d(2)
        self.relu, self.nothing = nn.ReLU(inplace=True), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        values = [x, self.convs[0](x)]
        for operation, first, second in self.steps:
            values.append(self._step(operation, values[first % len(values)], values[second % len(values)]))
        return sum((values[number % len(values)] for number in self.read), start=values[-1])

    def _step(self, operation: str, x: Tensor, other: Tensor) -> Tensor:
        match operation:
            case "conv":
                return self.convs[1](x)
            case "norm":
                return self.norm(x)
            case "relu":
                return functional.relu(x)
            case "relu_":
                return x.relu_()
            case "inplace":
                return functional.relu(x, inplace=True)
            case "module":
                return self.relu(x)
            case "add":
                return x + other
            case "iadd":
                x += other
                return x
            case "add_":
                return x.add_(other)
            case "part":
                return x[:, :, ::1, ::1]
            case "view":
                return x.view(x.shape)
        return self.nothing(x)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(Program.OPERATIONS), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=7
    ),
    st.lists(st.integers(0, 6), max_size=2),
)
def test_any_program_of_steps_is_refused_or_right(steps: list[tuple[str, int, int]], read: list[int]) -> None:
    """Among them values that are changed in place and read under other names."""
    model = with_statistics(Program(steps, read))
    try:
        graph = graph_of(model, 2, 3, 3)
    except UnsupportedError:
        return
    x = torch.randn(2, 2, 3, 3)
    found = GraphArrays(graph).on_torch(x)
    assert_close(found, exact(model, x))
    with torch.no_grad():
        model(after := x.clone())
    assert torch.equal(after, x)


class TestThreads:
    """`fx` exchanges what a module's call is, for the whole process."""

    def test_modules_of_other_threads_go_on(self) -> None:
        other, done = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5))), threading.Event()

        def calls() -> int:
            count = 0
            while not done.is_set():
                assert other(torch.ones(2, 4)).shape == (2, 4)
                count += 1
            return count

        make, shape = NETWORKS["nested"]
        with ThreadPoolExecutor(1) as pool:
            counted = pool.submit(calls)
            for _ in range(100):
                graph_of(make(), *shape)
            done.set()
            assert counted.result() > 0

    def test_several_may_trace_at_once(self) -> None:
        names = [name for name in NETWORKS for _ in range(3)]
        call = nn.Module.__call__
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda name: kinds(graph_of(NETWORKS[name][0](), *NETWORKS[name][1])), names))
        assert nn.Module.__call__ is call
        assert found[::3] == found[1::3] == found[2::3]
        assert found[::3] == [kinds(graph_of(make(), *shape)) for make, shape in NETWORKS.values()]


def test_shortcuts_keep_what_they_put_before_and_behind() -> None:
    graph = graph_of(OptionA(3, 1, 2), 3, 8, 8)
    shortcut = graph.nodes[0]
    assert isinstance(shortcut, Shortcut)
    assert (shortcut.before, shortcut.shape, shortcut.step) == (1, (6, 4, 4), 2)
