"""A sparse model computes what its model computes: whatever the layers, the batch, the kernels chosen, the threads."""

from __future__ import annotations

import copy
import itertools
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola import Mask, Masks, prune, sparsify
from tombola.compression.calls import Panels
from tombola.compression.chains import find_chains
from tombola.compression.plans import Choice, Form, Kernel, Plan
from tombola.compression.sparse_modules import SparseChain, SparseModel
from tombola.compression.tuning import expected_best
from tombola.errors import KernelError, ModelError, PruningError
from tombola.models import ModelSpec, build

BATCHES = (1, 2, 3, 16, 60, 64, 65, 100, 256)


def random_masks(model: nn.Module, density: float, seed: int = 0) -> Masks:
    """Rows may keep nothing or everything."""
    generator = torch.Generator().manual_seed(seed)
    full = Masks.full(model)
    return Masks({n: Mask(torch.rand(m.shape, generator=generator) < density) for n, m in full.items()})


def chain_of(widths: Sequence[int], norms: bool = False, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    modules: list[nn.Module] = [nn.Flatten()]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        modules.append(nn.Linear(inputs, outputs, bias=number % 3 != 1))
        if norms and number % 2:
            modules += [nn.BatchNorm1d(outputs), nn.ReLU()]
        elif norms:
            modules += [nn.ReLU(), nn.BatchNorm1d(outputs)]
        else:
            modules.append(nn.ReLU())
    with_statistics(model := nn.Sequential(*modules[:-1]))
    return model


def with_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for parameter in module.parameters():
                nn.init.normal_(parameter)
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)


def masked(model: nn.Module, masks: Masks) -> nn.Module:
    own = copy.deepcopy(model).eval()
    masks.apply_(own)
    return own


def close(sparse: nn.Module, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = model(x)
        given = sparse(x)
    assert given.shape == expected.shape
    assert (given - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


def planned(model: nn.Module, masks: Masks, example: Tensor, plans: Sequence[Plan]) -> SparseChain:
    """The one chain of a model on kernels of the test's choice."""
    keeps = {name: mask.keep for name, mask in masks.items()}
    (chain,) = find_chains(masked(model, masks), keeps, example).chains
    return SparseChain(chain, plans)


VECTORS = st.sampled_from([Kernel.ROWS, Kernel.COLUMNS, Kernel.DENSE_COLUMNS, Kernel.SIDE_BY_SIDE, Kernel.DENSE])
PANELS = st.sampled_from([Kernel.PANEL, Kernel.PANEL, Kernel.DENSE])


@settings(max_examples=60)
@given(st.data())
def test_any_chain_on_any_kernels_for_any_batch(data: st.DataObject) -> None:
    widths = data.draw(st.lists(st.integers(1, 70), min_size=2, max_size=5), label="widths")
    model = chain_of(widths, norms=data.draw(st.booleans(), label="norms"))
    masks = random_masks(model, data.draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]), label="density"))
    layers = len(widths) - 1
    vectors = [Choice(data.draw(VECTORS)) for _ in range(layers)]
    panels = [Choice(data.draw(PANELS), data.draw(st.integers(1, 80))) for _ in range(layers)]
    plans = [
        Plan(1, 1, Form.VECTORS, tuple(vectors)),
        Plan(3, 3, Form.VECTORS, tuple(vectors)),
        Plan(64, 64, Form.PANELS, tuple(panels)),
    ]
    chain = planned(model, masks, torch.randn(2, widths[0]), plans)
    n = data.draw(st.sampled_from(BATCHES), label="batch")
    close(chain, masked(model, masks), torch.randn(n, widths[0]).relu())


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.98])
def test_sparsify_tunes_and_agrees(sparsity: float) -> None:
    model = chain_of([50, 40, 30, 10], norms=True)
    masks = prune(model, sparsity)
    sparse = sparsify(model, masks, torch.randn(8, 2, 25), batch_sizes=(1, 5, 64, 130))
    assert [plan.batch for plan in sparse.chains[0].plans] == [1, 5, 64, 130]
    for n in BATCHES:
        close(sparse, masked(model, masks), torch.randn(n, 5, 10))


def test_a_pruned_network_of_the_zoo_on_digits() -> None:
    from sklearn.datasets import load_digits

    model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=3))
    masks = prune(model, 0.95)
    images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    sparse = sparsify(model, masks, images[:64])
    assert isinstance(sparse.network, SparseChain)
    assert not sparse.unsupported
    close(sparse, masked(model, masks), images)
    close(sparse, masked(model, masks), images[7:8])
    text = str(sparse)
    for part in ("fc1 64→300", "fc2 300→100", "output 100→10", "batch 1", "batch 64", "all on torch"):
        assert part in text


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(70000, 3)),
        nn.Sequential(nn.Linear(1, 1)),
        nn.Sequential(nn.Linear(1, 20, bias=False), nn.ReLU(), nn.Linear(20, 1)),
        nn.Linear(5, 4),
    ],
    ids=["wide", "one", "no bias", "lone"],
)
def test_odd_sizes(model: nn.Module) -> None:
    masks = random_masks(model, 0.3)
    features = next(model.parameters()).shape[1]
    sparse = sparsify(model, masks, torch.randn(2, features), (1, 17))
    for n in (1, 2, 17, 70):
        close(sparse, masked(model, masks), torch.randn(n, features))


def test_inputs_and_outputs_of_more_than_65536_go_in_blocks_whatever_the_kernel() -> None:
    for model in (
        nn.Sequential(nn.Linear(70000, 3)),
        nn.Sequential(nn.Linear(3, 70000), nn.ReLU(), nn.Linear(70000, 2)),
    ):
        masks = random_masks(model, 0.01)
        features = model[0].in_features
        for vectors in (Kernel.ROWS, Kernel.COLUMNS):
            plans = [
                Plan(1, 1, Form.VECTORS, (Choice(vectors),) * 2),
                Plan(9, 9, Form.PANELS, (Choice(Kernel.PANEL),) * 2),
            ]
            plans = [Plan(p.batch, p.rows, p.form, p.choices[: (len(model) + 1) // 2]) for p in plans]
            chain = planned(model, masks, torch.randn(1, features), plans)
            close(chain, masked(model, masks), torch.randn(1, features))
            close(chain, masked(model, masks), torch.randn(9, features))


class TestBatchNorm:
    def test_after_and_before_a_linear(self) -> None:
        model = nn.Sequential(
            nn.BatchNorm1d(12), nn.Linear(12, 9), nn.BatchNorm1d(9), nn.BatchNorm1d(9), nn.ReLU(), nn.BatchNorm1d(9),
            nn.Dropout(0.5), nn.Linear(9, 4), nn.BatchNorm1d(4, affine=False),
        )  # fmt: skip
        with_statistics(model)
        masks = random_masks(model, 0.4)
        sparse = sparsify(model, masks, torch.randn(6, 12))
        assert isinstance(sparse.network, SparseChain)
        close(sparse, masked(model, masks), torch.randn(33, 12))
        with pytest.raises(KernelError, match="two axes"):
            sparse(torch.randn(3, 12, 12))

    def test_after_the_last_relu_stays_with_torch_and_is_named(self) -> None:
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5))
        with_statistics(model)
        sparse = sparsify(model, Masks.full(model), torch.randn(4, 6))
        assert sparse.unsupported == ["2: BatchNorm1d"]
        close(sparse, masked(model, Masks.full(model)), torch.randn(9, 6))

    def test_over_channels_of_three_axes_is_none_of_ours(self) -> None:
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())
        with_statistics(model)
        masks = random_masks(model, 0.5)
        sparse = sparsify(model, masks, torch.randn(4, 5, 6))
        assert sparse.unsupported == ["1: BatchNorm1d"]
        close(sparse, masked(model, masks), torch.randn(7, 5, 6))

    def test_without_stored_statistics_is_none_of_ours(self) -> None:
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.ReLU())
        sparse = sparsify(model, Masks.full(model), torch.randn(4, 6), (8,))
        assert sparse.unsupported == ["1: BatchNorm1d"]


class FeedForward(nn.Module):
    """A transformer's, with a forward of its own and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.unused = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(input=self.norm(x))))


class TestOtherModels:
    def test_linear_layers_of_a_module_with_its_own_forward(self) -> None:
        model = FeedForward()
        masks = random_masks(model, 0.1)
        with pytest.warns(UserWarning, match=r"left to torch.*unused\.weight"):
            sparse = sparsify(model, masks, torch.randn(2, 7, 16), (1, 8))
        assert sparse.unsupported == ["norm: LayerNorm", "unused: Linear (is not called on the example)"]
        assert [plan.rows for plan in sparse.chains[0].plans] == [7, 56]
        for shape in ((1, 7, 16), (8, 7, 16), (16,), (2, 3, 4, 16)):
            close(sparse, masked(model, masks), torch.randn(shape))

    def test_a_transformer(self) -> None:
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
        masks = random_masks(model, 0.2)
        with pytest.warns(UserWarning, match="in_proj_weight"):
            sparse = sparsify(model, masks, torch.randn(3, 5, 32), (3,))
        assert len(sparse.chains) == 4
        assert "layers.1.self_attn: MultiheadAttention" in sparse.unsupported
        close(sparse, masked(model, masks), torch.randn(2, 6, 32))

    def test_other_layers_stay_and_are_named_and_warned_of(self) -> None:
        model = nn.Sequential(
            nn.ConvTranspose2d(1, 3, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(300, 9), nn.ReLU()),
            nn.Linear(9, 2),
        )  # fmt: skip
        masks = random_masks(model, 0.3)
        with pytest.warns(UserWarning, match=r"where zeros bring no speed: 0\.weight"):
            sparse = sparsify(model, masks, torch.randn(4, 1, 8, 8))
        assert sparse.unsupported == ["0: ConvTranspose2d"]
        assert [chain.chain.sites for chain in sparse.chains] == [("2.0", "2.1", "2.2", "3")]
        assert "left to torch: 0: ConvTranspose2d" in str(sparse)
        close(sparse, masked(model, masks), torch.randn(70, 1, 8, 8))

    def test_words_as_inputs(self) -> None:
        model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
        masks = random_masks(model, 0.5)
        sparse = sparsify(model, masks, torch.randint(10, (4, 5)))
        close(sparse, masked(model, masks), torch.randint(10, (9, 5)))

    def test_a_layer_used_twice(self) -> None:
        layer, relu = nn.Linear(6, 6), nn.ReLU()
        for model in (nn.Sequential(layer, relu, layer, relu, nn.Linear(6, 2)), Twice(layer), Tapped(layer)):
            masks = random_masks(model, 0.5)
            sparse = sparsify(model, masks, torch.randn(4, 6))
            assert sparse.chains
            close(sparse, masked(model, masks), torch.randn(5, 6))

    def test_hooks_and_other_types_keep_a_layer_with_torch(self) -> None:
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3).double())
        model[0].register_forward_hook(lambda module, arguments, output: output * 2)
        model[3].register_forward_hook(lambda module, arguments, output: output.double())
        sparse = sparsify(model, Masks.full(model), torch.randn(4, 6))
        assert sparse.unsupported == ["0: Linear (has hooks)", "4: Linear (is torch.float64, not torch.float32)"]
        close(sparse, model, torch.randn(5, 6))

    def test_a_weight_read_past_its_layer_is_an_error_at_once(self) -> None:
        with pytest.raises(ModelError, match="without its layers"):
            sparsify(Reader(), Masks.full(Reader()), torch.randn(4, 6))


class Twice(nn.Module):
    """A layer alone and within a Sequential."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.first, self.rest = layer, nn.Sequential(layer, nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class Tapped(Twice):
    """What lies between the layers of a Sequential is used, too."""

    def forward(self, x: Tensor) -> Tensor:
        inside = self.rest[0](x)
        return self.rest(x) + self.rest[2](self.rest[1](inside)).sum()


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.layer.weight.sum()


class TestMasks:
    def test_removed_weights_count_as_0_even_where_they_are_not(self) -> None:
        model = chain_of([20, 10, 5])
        masks = random_masks(model, 0.2)
        model[1].weight.data[~masks["1.weight"].keep] = float("nan")
        close(sparsify(model, masks, torch.randn(4, 20)), masked(model, masks), torch.randn(30, 20))

    def test_layers_without_a_mask_are_whole(self) -> None:
        model = chain_of([20, 10, 5])
        some = Masks({"3.weight": random_masks(model, 0.2)["3.weight"]})
        sparse = sparsify(model, some, torch.randn(4, 20))
        assert sparse.chains[0].chain.layers[0].density == 1
        close(
            sparse, masked(model, Masks.full(model) & Masks(dict(Masks.full(model)) | dict(some))), torch.randn(3, 20)
        )

    @pytest.mark.parametrize(
        ("name", "shape", "said"), [("other.weight", (10, 20), "no weight other"), ("1.weight", (20, 10), "1.weight")]
    )
    def test_of_another_model_are_refused(self, name: str, shape: tuple[int, int], said: str) -> None:
        with pytest.raises(PruningError, match=said):
            sparsify(chain_of([20, 10, 5]), Masks({name: Mask.full(shape)}), torch.randn(4, 20))


def small() -> tuple[nn.Module, SparseModel]:
    model = chain_of([20, 12, 5])
    masks = random_masks(model, 0.3)
    return masked(model, masks), sparsify(model, masks, torch.randn(4, 20))


class TestCalls:
    def test_empty_batches_other_strides_and_single_rows(self) -> None:
        model, sparse = small()
        assert sparse(torch.empty(0, 20)).shape == (0, 5)
        close(sparse, model, torch.randn(20, 9).T)
        close(sparse, model, torch.randn(9, 40)[:, ::2])
        close(sparse, model, torch.randn(181)[1:].view(9, 20))
        close(sparse, model, torch.randn(1, 20).expand(70, 20))

    @pytest.mark.parametrize(
        ("x", "said"),
        [
            (torch.randn(3, 19), "20"),
            (torch.randn(20), "20"),
            (torch.randn(3, 20).double(), "torch.float64"),
            (torch.ones(3, 20, dtype=torch.int64), "torch.int64"),
            (torch.empty(3, 20, device="meta"), "meta"),
            (torch.randn(3, 20, requires_grad=True), "no gradients"),
        ],
    )
    def test_wrong_inputs_are_one_line(self, x: Tensor, said: str) -> None:
        _, sparse = small()
        sparse(torch.randn(3, 20))  # the shape is known by now
        with pytest.raises(KernelError, match=said) as caught:
            sparse(x)
        assert "\n" not in str(caught.value)

    def test_nan_goes_where_kept_weights_lead(self) -> None:
        masks = Masks({"0.weight": Mask(torch.tensor([[True, False, True], [False, True, True]]))})
        for kernel, batch in ((Kernel.ROWS, 1), (Kernel.COLUMNS, 1), (Kernel.PANEL, 20), (Kernel.DENSE, 20)):
            form = Form.VECTORS if batch == 1 else Form.PANELS
            model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
            chain = planned(model, masks, torch.randn(2, 3), [Plan(batch, batch, form, (Choice(kernel),))])
            x = torch.randn(batch, 3)
            x[-1, 0] = float("nan")
            assert chain(x)[-1].isnan().tolist() == [True, kernel == Kernel.DENSE]

    def test_nan_stays_out_of_rows_beside_it(self) -> None:
        model = nn.Sequential(nn.Linear(40, 50))
        masks = random_masks(model, 0.1)
        for kernel in (Kernel.ROWS, Kernel.COLUMNS, Kernel.SIDE_BY_SIDE):
            chain = planned(model, masks, torch.randn(2, 40), [Plan(1, 1, Form.VECTORS, (Choice(kernel),))])
            for odd in range(40):
                x = torch.randn(1, 40)
                x[0, odd] = torch.nan
                assert torch.equal(chain(x)[0].isnan(), masks["0.weight"].keep[:, odd])

    def test_no_gradient_and_no_learning(self) -> None:
        _, sparse = small()
        assert not sparse(torch.randn(3, 20)).requires_grad
        assert not list(sparse.parameters())
        assert not sparse.training
        with pytest.raises(ModelError, match="does not learn"):
            sparse.train()
        with pytest.raises(ModelError, match="does not learn"):
            nn.Sequential(sparse).train()

    def test_hooks_work_and_copies_too(self) -> None:
        _, sparse = small()
        seen: list[Any] = []
        sparse.register_forward_hook(lambda module, arguments, output: seen.append(output))
        output = sparse(torch.randn(3, 20))
        assert seen[0] is output
        other, x = copy.deepcopy(sparse), torch.randn(9, 20)
        assert torch.equal(other(x), sparse(x))

    def test_many_shapes_and_other_default_types(self) -> None:
        model, sparse = small()
        for n in range(1, 150):
            close(sparse, model, torch.randn(n, 20))
        x = torch.randn(150, 20)
        torch.set_default_dtype(torch.float64)
        try:
            assert sparse(x).dtype == torch.float32
            assert sparsify(model, Masks.full(model), x)(x).dtype == torch.float32
        finally:
            torch.set_default_dtype(torch.float32)

    def test_threads_may_call_at_once(self) -> None:
        model, sparse = small()
        inputs = [torch.randn(1 + number % 70, 20) for number in range(400)]
        with ThreadPoolExecutor(8) as pool, torch.no_grad():
            for given, x in zip(pool.map(sparse, inputs), inputs, strict=True):
                assert torch.allclose(given, model(x), atol=1e-5)

    def test_what_another_thread_forgets_in_the_midst_of_a_call_changes_nothing(self) -> None:
        """A thread that makes a new shape ready drops what no plan needs, here before every line of a call on torch."""
        model = chain_of([20, 12, 5])
        masks = random_masks(model, 0.9)
        chain = planned(model, masks, torch.randn(2, 20), [Plan(8, 8, Form.TORCH, (Choice(Kernel.DENSE),) * 2)])
        arrays, x = chain._engine.arrays, torch.randn(3, 20)

        def other_thread(frame: FrameType, event: str, argument: object) -> Any:
            if frame.f_code is not type(arrays).on_torch.__code__:
                return None
            arrays.keep_only([])
            return other_thread

        before = sys.gettrace()
        sys.settrace(other_thread)
        try:
            output = chain(x)
        finally:
            sys.settrace(before)
        with torch.no_grad():
            torch.testing.assert_close(output, masked(model, masks)(x))

    def test_panels_spread_over_threads_give_the_same(self) -> None:
        model = chain_of([200, 150, 10])
        masks = random_masks(model, 0.3)
        plan = Plan(64, 64, Form.PANELS, (Choice(Kernel.PANEL, 64),) * 2, seconds=1.0)
        chain = planned(model, masks, torch.randn(2, 200), [plan])
        x, threads = torch.randn(1000, 200), torch.get_num_threads()
        alone = chain(x)
        torch.set_num_threads(3)
        try:
            run, _ = chain._engine.ready[x.shape]
            assert isinstance(run, Panels)
            assert run._spread
            assert torch.equal(chain(x), alone)
        finally:
            torch.set_num_threads(threads)
        close(chain, masked(model, masks), x)

    def test_torch_itself_may_be_the_choice(self) -> None:
        model = chain_of([20, 12, 5])
        masks = random_masks(model, 0.9)
        chain = planned(model, masks, torch.randn(2, 20), [Plan(8, 8, Form.TORCH, (Choice(Kernel.DENSE),) * 2)])
        for n in (0, 1, 8, 100):
            if n:
                close(chain, masked(model, masks), torch.randn(n, 20))
            assert chain(torch.randn(n, 20)).shape == (n, 5)


class TestPurity:
    def test_the_model_stays_as_it_is_and_shares_nothing(self) -> None:
        model = chain_of([20, 12, 5], norms=True)
        model.add_module("last", nn.LayerNorm(5))
        model.train()
        before = copy.deepcopy(model.state_dict())
        masks = random_masks(model, 0.3)
        threads = torch.get_num_threads()
        sparse = sparsify(model, masks, torch.randn(4, 20))
        assert torch.get_num_threads() == threads
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(module._forward_pre_hooks for module in model.modules())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])
        x = torch.randn(30, 20)
        outputs = sparse(x)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.fill_(7)
            for mask in masks.values():
                mask.keep.fill_(True)
        assert torch.equal(sparse(x), outputs)

    def test_the_callers_random_numbers_are_left_alone(self) -> None:
        model, example = chain_of([20, 12, 5]), torch.randn(4, 20)
        state = torch.random.get_rng_state()
        sparsify(model, Masks.full(model), example)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_nothing_is_warned_of_where_all_is_taken(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small()


@pytest.mark.parametrize(
    ("example", "batches", "said"),
    [
        (torch.empty(0, 20), (1,), "at least one input"),
        (torch.randn(4, 20), (), "batch_sizes"),
        (torch.randn(4, 20), (0,), "batch_sizes"),
        (torch.randn(4, 19), (1,), "does not run on example_input"),
        (torch.randn(4, 20).double(), (1,), "does not run on example_input"),
    ],
)
def test_requests_that_make_no_sense(example: Tensor, batches: tuple[int, ...], said: str) -> None:
    model = chain_of([20, 12, 5])
    with pytest.raises(ModelError, match=said):
        sparsify(model, Masks.full(model), example, batches)


class TestPlansForOtherSizes:
    """A vector costs 4 µs and a panel of 64 takes 50 µs; torch takes 40 µs for one row and 400 µs for 64."""

    ONE = Plan(1, 1, Form.VECTORS, (Choice(Kernel.ROWS),) * 2, seconds=4e-6, dense=40e-6)
    MANY = Plan(64, 64, Form.PANELS, (Choice(Kernel.PANEL),) * 2, seconds=50e-6, dense=400e-6)

    @pytest.mark.parametrize(
        ("rows", "form"), [(2, Form.VECTORS), (5, Form.VECTORS), (16, Form.PANELS), (100, Form.PANELS)]
    )
    def test_the_cheaper_one_by_what_was_measured(self, rows: int, form: Form) -> None:
        assert expected_best((), (self.ONE, self.MANY), rows).form == form

    def test_torch_where_sparse_is_hardly_faster(self) -> None:
        slow = replace(self.MANY, seconds=390e-6)
        assert expected_best((), (slow,), 16).form == Form.TORCH
        assert expected_best((), (replace(slow, form=Form.TORCH),), 16).form == Form.TORCH
        assert expected_best((), (self.ONE, slow), 3).form == Form.VECTORS

    def test_panels_where_nothing_was_measured(self) -> None:
        unmeasured = replace(self.MANY, seconds=None, dense=None)
        assert expected_best((), (unmeasured,), 1000) is unmeasured


class TestWrongRequests:
    @pytest.mark.parametrize("sizes", [64, (), (0,), (True,), (1.5,), "64"])
    def test_batch_sizes(self, sizes: Any) -> None:
        with pytest.raises(ModelError, match="batch_sizes are whole numbers"):
            sparsify(nn.Linear(4, 3), Masks.full(nn.Linear(4, 3)), torch.randn(2, 4), sizes)

    def test_masks_and_examples(self) -> None:
        model = nn.Sequential(nn.Linear(4, 3))
        with pytest.raises(ModelError, match=r"takes a torch\.nn\.Module, not a str"):
            sparsify("model", Masks.full(model), torch.randn(2, 4))
        with pytest.raises(PruningError, match="masks are what prune returns, not a NoneType"):
            sparsify(model, None, torch.randn(2, 4))  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="not finite"):
            sparsify(model, Masks.full(model), torch.full((2, 4), torch.nan))

    def test_conversions(self) -> None:
        _, sparse = small()
        for convert in (sparse.double, sparse.half, lambda: sparse.to(torch.bfloat16), lambda: sparse.to("meta")):
            with pytest.raises(KernelError, match="float32 on the CPU"):
                convert()
        sparse.to("cpu").float()
