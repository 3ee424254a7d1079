"""`sparsify` on convolutional networks: what is taken, what is left and named, and that the model stays what it was."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from graph_runs import WAYS, assert_close, exact, traced
from image_models import (
    NETWORKS,
    BasicBlock,
    ResNet,
    Viewed,
    masked,
    sequence,
    some_masks,
    with_statistics,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from tombola import Mask, Masks, prune, sparsify
from tombola.compression.graphs.finding import find_graphs
from tombola.compression.graphs.nodes import Graph
from tombola.compression.plans import Form, Plan
from tombola.compression.sparse_modules import SparseChain, SparseModel
from tombola.errors import KernelError, ModelError
from tombola.models import ModelSpec, build

SIZES = (1, 2, 3, 7, 8, 16, 17, 64, 70)


def close(sparse: nn.Module, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        assert_close(sparse(x), model(x).double())


def sites(sparse: SparseModel) -> list[tuple[str, ...]]:
    """Of graphs, in the order of the model's modules; not of chains of Linear layers."""
    return [chain.chain.sites for chain in sparse.chains if isinstance(chain.chain, Graph)]


def taken(model: nn.Module, *shape: int) -> tuple[list[tuple[str, ...]], list[str]]:
    """What sparsify replaces and what it leaves, once outputs are seen to be the same."""
    torch.manual_seed(0)
    with_statistics(model)
    masks = some_masks(model, 0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse = sparsify(model, masks, torch.randn(3, *shape), (1,))
    for n in (1, 5):
        x = torch.randn(n, *shape)
        with torch.no_grad():
            given, expected = (_tensors(own(x.clone())) for own in (sparse, masked(model, masks)))
        for one, other in zip(given, expected, strict=True):
            assert_close(one, other.double())
    return sites(sparse), left_of(sparse, model)


def left_of(sparse: SparseModel, model: nn.Module) -> list[str]:
    """What is left to torch, without the reasons and without modules that are nothing but their parts."""
    entries = [entry.partition(" (")[0] for entry in sparse.unsupported]
    return [entry for entry in entries if not _only_parts(model, entry.partition(": ")[0])]


def _only_parts(model: nn.Module, name: str) -> bool:
    module = model.get_submodule("" if name == "the model" else name)
    return any(True for _ in module.children()) and not any(True for _ in module.parameters(recurse=False))


def _tensors(outputs: Any) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


@pytest.mark.parametrize("name", ["functional", "basic blocks", "pre-activation", "diamond", "pools", "to an image"])
def test_sparsify_tunes_and_agrees_for_any_batch(name: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = with_statistics(make())
    masks = prune(model, 0.8)
    sparse = sparsify(model, masks, torch.randn(4, *shape), (1, 16))
    assert isinstance(sparse.network, SparseChain)
    assert not left_of(sparse, model)
    assert [plan.batch for plan in sparse.chains[0].plans] == [1, 16]
    x = torch.randn(70, *shape)
    expected = exact(masked(model, masks), x)
    for n in SIZES:
        assert_close(sparse(x[:n]), expected[:n])


def test_a_network_of_the_zoo_and_its_table() -> None:
    model = build(ModelSpec(architecture="lenet5", input_shape=(1, 28, 28), classes=10, seed=3))
    masks = prune(model, 0.95)
    sparse = sparsify(model, masks, torch.rand(20, 1, 28, 28), (1, 20))
    for n in (1, 9, 64):
        close(sparse, masked(model, masks), torch.rand(n, 1, 28, 28))
    for part in ("conv_1 1→6 5×5", "conv_2 6→16 5×5", "output 84→10", "batch 20", "all on torch"):
        assert part in str(sparse)


class Two(nn.Module):
    """Two parts, and what torch does with them."""

    def __init__(self, what: Callable[[Two, Tensor], Any], first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.what = first, second, what

    def forward(self, x: Tensor) -> Any:
        return self.what(self, x)


def block(channels: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())


class TestParts:
    """Where a whole model is no graph, the largest parts of it are."""

    @pytest.mark.parametrize(
        ("module", "named"),
        [
            (nn.GELU(), ["3: GELU"]),
            (nn.Softmax(1), ["3: Softmax"]),
            (nn.ConvTranspose2d(3, 3, 3), ["3: ConvTranspose2d"]),
            (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), ["3: Conv2d"]),
            (nn.MaxPool2d(3, 2, ceil_mode=True), ["3: MaxPool2d"]),
            (nn.LocalResponseNorm(2), ["3: LocalResponseNorm"]),
            (nn.GroupNorm(1, 3), ["3: GroupNorm"]),
            (nn.Sequential(nn.GELU(), block(), nn.GELU()), ["3.0: GELU", "3.2: GELU"]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_cannot_be_taken_parts_a_sequence_in_two(self, module: nn.Module, named: list[str]) -> None:
        found, left = taken(sequence(*block(), module, *block()), 3, 8, 8)
        nested = [("3.1",)] if isinstance(module, nn.Sequential) else []
        assert found == [("0", "1", "2"), *nested, ("4", "5", "6")]
        assert left == named

    def test_runs_end_in_linear_layers(self) -> None:
        model = sequence(nn.GELU(), *block(), nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2))
        assert taken(model, 3, 4, 4) == ([("1", "2", "3", "4", "5", "6", "7")], ["0: GELU"])

    def test_what_does_nothing_in_evaluation_parts_no_run(self) -> None:
        before, after = [nn.Dropout(), nn.Tanh(), nn.Identity()], [nn.Dropout(), nn.Tanh()]
        found, left = taken(sequence(*before, *block(), nn.Dropout2d(), *block(), *after), 3, 8, 8)
        assert found == [("3", "4", "5", "6", "7", "8", "9", "10")]
        assert left[0] == "1: Tanh"

    def test_runs_are_as_long_as_they_can_be(self) -> None:
        tail = [nn.Flatten(), nn.ReLU(), nn.Linear(48, 2)]  # a ReLU of what is flat
        for parts in range(1, 5):
            model = sequence(*(module for _ in range(parts) for module in block()), *tail)
            assert taken(model, 3, 4, 4)[0] == [tuple(map(str, range(3 * parts + 1)))]

    def test_parts_of_a_forward_of_its_own(self) -> None:
        model = Two(lambda self, x: self.second(functional.gelu(self.first(x))), block(), BasicBlock(3, 4))
        assert taken(model, 3, 8, 8) == ([("first",), ("second",)], [])

    def test_a_module_list_and_outputs_of_every_layer(self) -> None:
        layers = nn.ModuleList([block(), block()])
        model = Two(lambda self, x: (a := self.first[0](x), self.first[1](a)), layers, nn.Identity())
        assert taken(model, 3, 8, 8) == ([("first.0",), ("first.1",)], [])

    def test_two_inputs(self) -> None:
        class Sum(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.other = block(), block()

            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return self.one(x) + self.other(y)

        model = Two(lambda self, x: self.first(x, self.second(x)), Sum(), nn.Tanh())
        assert taken(model, 3, 8, 8) == ([("first.one",), ("first.other",)], ["second: Tanh"])

    def test_control_flow_that_depends_on_numbers(self) -> None:
        model = Two(lambda self, x: self.first(x) if x.sum() > 1e9 else self.second(x), block(), block())
        found, left = taken(model, 3, 8, 8)
        assert found == [("second",)]
        assert left == ["first.0: Conv2d", "first.1: BatchNorm2d"]

    def test_types_of_numbers_inside(self) -> None:
        model = Two(lambda self, x: self.second(self.first(x).double()).float(), block(), nn.Conv2d(3, 2, 3).double())
        assert taken(model, 3, 8, 8) == ([("first",)], ["second: Conv2d"])

    def test_inputs_of_several_sizes(self) -> None:
        model = Two(lambda self, x: self.first(x).sum() + self.first(self.second(x)), block(), nn.MaxPool2d(2))
        found, left = taken(model, 3, 8, 8)
        assert not found
        assert left == ["first.0: Conv2d", "first.1: BatchNorm2d", "second: MaxPool2d"]

    def test_what_is_changed_in_place_and_read_elsewhere(self) -> None:
        model = Two(lambda self, x: self.second(a := self.first(x)) + a.relu_(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        assert taken(model, 3, 8, 8) == ([("",)], [])
        model = Two(lambda self, x: (a := self.first(x)).relu_() + a + self.second(a), nn.Conv2d(3, 3, 1), block())
        assert taken(model, 3, 8, 8) == ([("first",), ("second",)], [])

    def test_an_input_changed_in_place_is_changed_still(self) -> None:
        model = sequence(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 3), nn.ReLU()).eval()
        sparse = sparsify(model, some_masks(model, 0.5), torch.randn(3, 3, 8, 8), (1,))
        assert sites(sparse) == [("1", "2")]
        sparse(x := torch.randn(2, 3, 8, 8))
        assert x.min() == 0


class TestSharing:
    """A module may be in several places, or be looked into from outside."""

    def test_one_convolution_in_several_places_of_a_graph(self) -> None:
        make, shape = NETWORKS["shared"]
        assert taken(make(), *shape) == ([("",)], [])

    def test_a_layer_within_a_part_and_without(self) -> None:
        shared = nn.Conv2d(3, 3, 3, padding=1)
        model = Two(lambda self, x: self.second(torch.tanh(self.first(x))), shared, sequence(shared, *block()))
        found, left = taken(model, 3, 8, 8)
        assert {site for graph in found for site in graph} >= {"second.1", "second.2", "second.3"}
        assert not left

    def test_what_others_look_into_is_not_taken_whole(self) -> None:
        inner = sequence(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1))
        model = Two(lambda self, x: self.first(x) + torch.tanh(self.first[2](self.first[0](x))), inner, nn.Identity())
        found, left = taken(model, 3, 8, 8)
        assert ("first",) not in found
        assert not left

    def test_one_relu_in_many_places(self) -> None:
        relu = nn.ReLU()
        inside = sequence(nn.Conv2d(3, 3, 3), relu, nn.Conv2d(3, 3, 3), relu)
        assert taken(copy.deepcopy(inside), 3, 8, 8) == ([("",)], [])
        assert taken(sequence(inside, nn.Tanh(), relu), 3, 8, 8)[1] == ["1: Tanh"]

    def test_a_weight_read_past_its_layer_is_an_error_at_once(self) -> None:
        model = Two(
            lambda self, x: self.first(x) + functional.gelu(self.first[0].weight).sum(), block(), nn.Identity()
        ).eval()
        with pytest.raises(ModelError, match="without its layers"):
            sparsify(model, Masks.full(model), torch.randn(2, 3, 8, 8), (1,))


class TestHooks:
    @pytest.mark.parametrize("where", ["", "first", "first.0", "first.2", "second.bn1"])
    def test_are_called_and_what_they_change_is_changed(self, where: str) -> None:
        model = Two(lambda self, x: self.second(self.first(x)), block(), BasicBlock(3, 4))
        model.get_submodule(where).register_forward_hook(lambda module, arguments, output: 2 * output)
        found, _ = taken(model, 3, 8, 8)
        assert found
        assert not any(site == "" or where.startswith(site) for graph in found for site in graph if where)

    def test_parametrised_layers_and_subclasses_stay(self) -> None:
        class Twofold(nn.Module):
            def forward(self, weight: Tensor) -> Tensor:
                return 2 * weight

        class Own(nn.Conv2d):
            def forward(self, input: Tensor) -> Tensor:
                return 2 * super().forward(input)

        model = sequence(nn.Conv2d(3, 3, 3), nn.ReLU(), Own(3, 3, 3), *block())
        parametrize.register_parametrization(model[0], "weight", Twofold())
        found, left = taken(model, 3, 8, 8)
        assert found == [("3", "4", "5")]
        assert left[0] == "0: ParametrizedConv2d"
        assert left[-1] == "2: Own"

    def test_a_norm_that_stays_in_training(self) -> None:
        class Always(nn.Sequential):
            def train(self, mode: bool = True) -> Always:
                super().train(mode)
                self[1].training = True
                return self

        model = Always(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3))
        assert taken(model, 3, 8, 8) == ([("0",), ("2",)], ["1: BatchNorm2d"])


class TestWarnings:
    def test_nothing_is_printed(self, capfd: pytest.CaptureFixture[str]) -> None:
        model = Two(lambda self, x: self.second(self.first(x).double()), block(), sequence(nn.Conv2d(3, 2, 3)).double())
        taken(sequence(model, nn.GELU()), 3, 8, 8)
        assert capfd.readouterr() == ("", "")

    def test_pruned_layers_that_stay_are_warned_of(self) -> None:
        model = sequence(*block(), nn.ConvTranspose2d(3, 3, 2), nn.Conv2d(3, 3, 2, padding_mode="circular", padding=1))
        masks = some_masks(model.eval(), 0.5)
        with pytest.warns(UserWarning, match=r"where zeros bring no speed: 3\.weight, 4\.weight; see `unsupported`"):
            sparse = sparsify(model, masks, torch.randn(2, 3, 8, 8), (1,))
        assert sparse.unsupported == ["3: ConvTranspose2d", "4: Conv2d (torch.float32, padding circular)"]
        assert "left to torch: 3: ConvTranspose2d" in str(sparse)

    def test_convolutions_that_nobody_calls_are_warned_of(self) -> None:
        model = Two(lambda self, x: self.first(x), block(), block()).eval()
        with pytest.warns(UserWarning, match=r"second\.0\.weight"):
            sparsify(model, some_masks(model, 0.5), torch.randn(2, 3, 8, 8), (1,))

    def test_nothing_is_warned_of_where_all_is_taken(self) -> None:
        make, shape = NETWORKS["basic blocks"]
        model = with_statistics(make())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sparsify(model, some_masks(model, 0.5), torch.randn(2, *shape), (1,))


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, SparseModel]:
    torch.manual_seed(0)
    model = with_statistics(nn.Sequential(*block(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 3, padding=1)))
    masks = some_masks(model, 0.4)
    return masked(model, masks), sparsify(model, masks, torch.randn(4, 3, 9, 10), (1, 16))


class TestCalls:
    def test_memory_of_any_kind(self, small: tuple[nn.Module, SparseModel]) -> None:
        model, sparse = small
        assert sparse(torch.empty(0, 3, 9, 10)).shape == (0, 5, 4, 5)
        for n in (1, 3, 17):
            close(sparse, model, torch.randn(n, 3, 9, 10).contiguous(memory_format=torch.channels_last))
            close(sparse, model, torch.randn(n, 9, 10, 3).permute(0, 3, 1, 2))
            close(sparse, model, torch.randn(n, 3, 18, 20)[:, :, ::2, 1::2])
            close(sparse, model, torch.randn(n * 270 + 1)[1:].view(n, 3, 9, 10))
            close(sparse, model, torch.randn(1, 3, 9, 10).expand(n, 3, 9, 10))
            close(sparse, model, torch.randn(n, 3, 9, 10).cfloat().conj().imag)

    @pytest.mark.parametrize(
        ("x", "said"),
        [
            (torch.randn(2, 3, 10, 9), r"0: takes inputs \(n, 3, 9, 10\), not \(2, 3, 10, 9\)"),
            (torch.randn(2, 3, 18, 20), r"\(n, 3, 9, 10\)"),
            (torch.randn(3, 9, 10), r"\(n, 3, 9, 10\)"),
            (torch.randn(2, 270), r"\(n, 3, 9, 10\)"),
            (torch.randn(()), r"\(n, 3, 9, 10\)"),
            (torch.randn(2, 3, 9, 10).double(), "torch.float64"),
            (torch.randn(2, 3, 9, 10).half(), "torch.float16"),
            (torch.ones(2, 3, 9, 10, dtype=torch.uint8), "torch.uint8"),
            (torch.empty(2, 3, 9, 10, device="meta"), "meta"),
            (torch.randn(2, 3, 9, 10, requires_grad=True), "no gradients"),
        ],
        ids=lambda value: "" if isinstance(value, str) else f"{value.dtype} {tuple(value.shape)}",
    )
    def test_wrong_inputs_are_one_line(self, small: tuple[nn.Module, SparseModel], x: Tensor, said: str) -> None:
        _, sparse = small
        sparse(torch.randn(2, 3, 9, 10))  # the shape is known by now
        with pytest.raises(KernelError, match=said) as caught:
            sparse(x)
        assert "\n" not in str(caught.value)

    def test_gradients_are_not_wanted_within_no_grad(self, small: tuple[nn.Module, SparseModel]) -> None:
        model, sparse = small
        x = torch.randn(2, 3, 9, 10, requires_grad=True)
        close(sparse, model, x)
        with torch.no_grad():
            assert not sparse(x).requires_grad
        assert not list(sparse.parameters())

    def test_outputs_are_memory_of_their_own(self, small: tuple[nn.Module, SparseModel]) -> None:
        _, sparse = small
        x = torch.randn(3, 3, 9, 10)
        first, before = sparse(x), x.clone()
        kept = first.clone()
        sparse(torch.randn(3, 3, 9, 10))
        assert torch.equal(first, kept)
        assert torch.equal(x, before)
        assert first.is_contiguous()

    def test_threads_may_call_at_once(self, small: tuple[nn.Module, SparseModel]) -> None:
        _, sparse = small
        inputs = [torch.randn(1 + number % 37, 3, 9, 10) for number in range(200)]
        alone = [sparse(x) for x in inputs]
        with ThreadPoolExecutor(8) as pool:
            for given, expected in zip(pool.map(sparse, inputs), alone, strict=True):
                assert torch.equal(given, expected)

    @pytest.mark.usefixtures("same_plans")
    def test_copies_work_and_pickle_and_learning_are_refused(self, small: tuple[nn.Module, SparseModel]) -> None:
        _, sparse = small
        x = torch.randn(41, 3, 9, 10)  # as many as no other test gave
        assert torch.equal(copy.deepcopy(sparse)(x), sparse(x))
        with pytest.raises(ModelError, match="write it with save_sparse"):
            pickle.dumps(sparse)
        with pytest.raises(ModelError, match="does not learn"):
            sparse.train()
        with pytest.raises(KernelError, match="float32 on the CPU"):
            sparse.double()

    def test_hooks_on_the_sparse_model(self, small: tuple[nn.Module, SparseModel]) -> None:
        sparse = copy.deepcopy(small[1])
        seen: list[Tensor] = []
        sparse.register_forward_hook(lambda module, arguments, output: seen.append(output))
        output = sparse(torch.randn(2, 3, 9, 10))
        assert seen[0] is output

    def test_other_default_types(self) -> None:
        model = with_statistics(nn.Sequential(*block()))
        torch.set_default_dtype(torch.float64)
        try:
            sparse = sparsify(model, Masks.full(model), torch.randn(2, 3, 5, 5, dtype=torch.float32), (1,))
            assert sites(sparse) == [("",)]
            assert sparse(torch.randn(3, 3, 5, 5, dtype=torch.float32)).dtype == torch.float32
        finally:
            torch.set_default_dtype(torch.float32)


class TestWays:
    """A chain whose plans say how it runs."""

    @pytest.mark.parametrize("way", WAYS, ids=str)
    def test_every_batch_size_by_the_plans_of_few(self, way: Any) -> None:
        make, shape = NETWORKS["basic blocks"]
        torch.manual_seed(0)
        model = with_statistics(make())
        masks = some_masks(model, 0.4)
        model = masked(model, masks)
        arrays = traced(model, masks, shape)
        rows = 1 if way.form == Form.VECTORS else way.panel
        plan = replace(way.plan(arrays, rows), seconds=1e-6 * rows, dense=1e-3 * rows)
        chain = SparseChain(arrays.graph, [plan])
        x = torch.randn(70, *shape)
        expected = exact(model, x)
        for n in SIZES:
            assert_close(chain(x[:n]), expected[:n])

    def test_panels_spread_over_threads_give_the_same(self) -> None:
        make, shape = NETWORKS["diamond"]
        model = with_statistics(make())
        masks = some_masks(model, 0.4)
        arrays = traced(masked(model, masks), masks, shape)
        (way,) = [way for way in WAYS if way.form == Form.PANELS and way.channels == 1 and way.panel == 16][:1]
        chain = SparseChain(arrays.graph, [replace(way.plan(arrays, 16), seconds=1.0)])
        x, threads = torch.randn(150, *shape), torch.get_num_threads()
        alone = chain(x)
        torch.set_num_threads(3)
        try:
            assert torch.equal(chain(x), alone)
        finally:
            torch.set_num_threads(threads)

    def test_torch_itself_may_be_the_choice(self) -> None:
        make, shape = NETWORKS["functional"]
        model = with_statistics(make())
        masks = some_masks(model, 0.9)
        arrays = traced(masked(model, masks), masks, shape)
        plan = Plan(4, 4, Form.TORCH, WAYS[0].plan(arrays, 4).choices)
        chain = SparseChain(arrays.graph, [plan])
        close(chain, masked(model, masks), torch.randn(4, *shape))
        assert chain(torch.randn(0, *shape)).shape == (0, 4)


class TestReasons:
    def test_a_function_that_stands_in_the_way_is_named(self) -> None:
        """As at the end of torch's own example for MNIST: without it the model would be one graph."""

        class Ends(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.output = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)

            def forward(self, x: Tensor) -> Tensor:
                return torch.log_softmax(self.output(torch.relu(self.conv(x)).flatten(1)), 1)

        model = Ends().eval()
        sparse = sparsify(model, some_masks(model, 0.5), torch.randn(2, 1, 8, 8), (1,))
        assert sparse.unsupported == ["the model: Ends (it calls log_softmax)"]
        assert len(sparse.chains) == 2

    def test_a_convolution_says_why(self) -> None:
        unusual = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
        model = nn.Sequential(unusual, nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GELU()).eval()
        model.add_module("spare", nn.Identity())
        sparse = sparsify(model, prune(model, 0.5, protect=["0.weight"]), torch.randn(2, 1, 8, 8), (1,))
        assert sparse.unsupported == ["0: Conv2d (torch.float32, padding reflect)", "3: GELU"]


class TestPurity:
    def test_the_model_stays_as_it_is_and_shares_nothing(self) -> None:
        torch.manual_seed(0)
        model = ResNet(BasicBlock(8, 8), nn.GELU(), BasicBlock(8, 8), features=8)
        with_statistics(model).train()
        model.stages[1].train(False)
        before = copy.deepcopy(model.state_dict())
        modes = [module.training for module in model.modules()]
        attributes = [set(vars(module)) for module in model.modules()]
        masks = some_masks(model, 0.3)
        x = torch.randn(2, 3, 32, 32)
        random, threads = torch.random.get_rng_state(), torch.get_num_threads()
        sparse = sparsify(model, masks, x, (1,))
        assert torch.equal(torch.random.get_rng_state(), random)
        assert torch.get_num_threads() == threads
        assert [module.training for module in model.modules()] == modes
        assert [set(vars(module)) for module in model.modules()] == attributes
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in sparse.modules())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])
        x = torch.randn(9, 3, 32, 32)
        outputs = sparse(x)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.fill_(7)
            for mask in masks.values():
                mask.keep.fill_(True)
        assert torch.equal(sparse(x), outputs)

    def test_what_a_forward_leaves_behind_is_no_trace_of_ours(self) -> None:
        class Remembering(Viewed):
            def forward(self, x: Tensor) -> Tensor:
                self.last = self.body(x)
                self.calls = getattr(self, "calls", 0) + 1
                return torch.tanh(self.head(self.last.flatten(1)))

        model = with_statistics(Remembering(torch.tanh))
        sparse = sparsify(model, some_masks(model, 0.5), torch.randn(2, 2, 6, 7), (1,))
        assert not hasattr(model, "calls")
        x = torch.randn(5, 2, 6, 7)
        output = sparse(x)
        assert torch.allclose(output, torch.tanh(sparse.network.head(sparse.network.last.flatten(1))))

    def test_masks_may_leave_layers_out_and_whole_layers_empty(self) -> None:
        torch.manual_seed(0)
        model = with_statistics(ResNet(BasicBlock(8, 8), BasicBlock(8, 12, 2), features=12))
        masks = some_masks(model, 0.3)
        chosen = Masks({name: mask for name, mask in masks.items() if "conv2" not in name})
        chosen["conv1.weight"].keep[:5] = False
        empty = chosen["stages.1.conv1.weight"]
        chosen = Masks({**chosen, "stages.1.conv1.weight": Mask(torch.zeros_like(empty.keep))})
        sparse = sparsify(model, chosen, torch.randn(2, 3, 32, 32), (1, 16))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in chosen:
                    parameter *= chosen[name].keep
        for n in (1, 7, 16):
            close(sparse, model.eval(), torch.randn(n, 3, 32, 32))

    def test_a_model_in_training_mode(self) -> None:
        model = with_statistics(nn.Sequential(*block(), nn.Dropout(0.5), nn.Conv2d(3, 2, 3)))
        sparse = sparsify(model.train(), Masks.full(model), torch.randn(2, 3, 8, 8), (1,))
        assert model.training
        close(sparse, copy.deepcopy(model).eval(), torch.randn(3, 3, 8, 8))


class TestFound:
    def test_the_inputs_that_reach_each_graph(self) -> None:
        model = sequence(nn.Tanh(), *block(), nn.Sigmoid(), *block()).eval()
        x = torch.randn(4, 3, 6, 6)
        found = find_graphs(model, {}, x)
        assert [graph.sites for graph in found.graphs] == [("1", "2", "3"), ("5", "6", "7")]
        assert torch.equal(found.examples[0], x.tanh())
        with torch.no_grad():
            assert torch.equal(found.examples[1], model[:5](x))
        assert {id(module) for module in found.modules} == {id(model[n]) for n in (1, 2, 3, 5, 6, 7)}

    def test_without_convolutions_nothing_is_run(self) -> None:
        class Never(nn.Linear):
            def forward(self, input: Tensor) -> Tensor:
                raise AssertionError

        assert not find_graphs(nn.Sequential(Never(2, 2)), {}, torch.randn(1, 2)).graphs

    def test_a_module_of_two_names_is_found_once(self) -> None:
        model = Two(lambda self, x: torch.tanh(self.first(self.second(x))), shared := block(), shared).eval()
        assert [graph.sites for graph in find_graphs(model, {}, torch.randn(1, 3, 6, 6)).graphs] == [("first",)]
        assert taken(model, 3, 6, 6)[1] == []
