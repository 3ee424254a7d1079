"""Sparse steps of convolutional networks: the dense engine's mathematics on kept weights alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sparse_steps import (
    OPTIMIZER_RECIPES,
    engine_gradients,
    engine_of,
    exact_gradients,
    kill_at,
    random_masks,
    recipe,
    sparse_engine,
    task_of,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.errors import StorageError, TrainingError
from tombola.kernels.target import avx2, host
from tombola.kernels.windows import Panel
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import fit
from tombola.training.batches import Batches
from tombola.training.engine import layers_on_kernels
from tombola.training.metrics import evaluate
from tombola.training.sparse.activations import empty_chunks
from tombola.training.sparse.chain import NoChainError, read_chain
from tombola.training.sparse.convolution import ConvLayer
from tombola.training.sparse.crossover import CROSSOVER_OF_CONVOLUTIONS, _multiply_adds
from tombola.training.sparse.engine import SparseEngine
from tombola.training.sparse.layers import DenseLayer, SparseLayer
from tombola.training.trained import Evaluation
from tombola.training.training import Training

Convolution = tuple[int, tuple[int, int], tuple[int, int], bool, bool]
"""Channels, kernel, padding, whether it has a bias, whether a pool follows."""


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits", validation=250), 0)


def narrow_conv2(data: DataSet) -> nn.Module:
    widths = (8, 8, 16, 16)
    return build(
        ModelSpec(
            architecture="conv2",
            widths=widths,
            input_shape=data.input_shape,
            classes=10,
            seed=7,
        )
    )


def convolutional(shape: tuple[int, int, int], convolutions: list[Convolution], hidden: list[int]) -> nn.Sequential:
    """With 4 classes."""
    channels, height, width = shape
    modules: list[nn.Module] = []
    for outputs, kernel, padding, bias, pooled in convolutions:
        modules += [nn.Conv2d(channels, outputs, kernel, padding=padding, bias=bias), nn.ReLU()]
        height, width = (n + 2 * p - k + 1 for n, p, k in zip((height, width), padding, kernel, strict=True))
        if pooled:
            modules.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = outputs
        if min(height, width) < 1:
            assume(False)
    modules.append(nn.Flatten())
    features = channels * height * width
    for units in hidden:
        modules += [nn.Linear(features, units), nn.ReLU()]
        features = units
    return nn.Sequential(*modules, nn.Linear(features, 4))


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.integers(0, kernel[0] - 1)), draw(st.integers(0, kernel[1] - 1))
    return draw(st.integers(1, 6)), kernel, padding, draw(st.booleans()), draw(st.booleans())


def images(count: int, shape: tuple[int, ...], classes: int = 4) -> Examples:
    """Of whole numbers, mostly 0."""
    inputs = torch.randint(-3, 4, (count, *shape)) * (torch.rand(count, *shape) < 0.5)
    return Examples(inputs.float(), torch.randint(0, classes, (count,)))


@torch.no_grad()
def make_exact(model: nn.Module) -> None:
    """Weights of a few bits: sums have no rounding, and are often equal or 0.

    A position that is the largest by less than a rounding would be another one in float64.
    """
    for parameter in model.parameters():
        parameter.copy_(torch.randint(-4, 5, parameter.shape) / 8)
    for layer in [module for module in model if isinstance(module, nn.Linear)]:  # type: ignore[attr-defined]
        layer.weight.div_(8)


def poisoned_chunks(panel: Panel, chunks: int) -> Tensor:
    """What nobody may read is not a number."""
    memory = empty_chunks(panel, chunks)
    memory[:, :, panel.rows * panel.columns :] = torch.nan
    return memory


def assert_gradients(engine: SparseEngine, model: nn.Module, exact: dict[str, Tensor], accuracy: float = 2e-5) -> None:
    found = engine_gradients(engine, model)
    assert found.keys() == exact.keys()
    for name, gradient in found.items():
        scale = max(1e-2, float(exact[name].abs().max()))
        torch.testing.assert_close(gradient.double(), exact[name], rtol=accuracy, atol=accuracy * scale, msg=name)


class TestGradients:
    @settings(max_examples=50)
    @given(
        batch=st.sampled_from([1, 3, 16, 20, 60]),
        size=st.tuples(st.integers(1, 3), st.integers(3, 13), st.integers(3, 13)),
        chain=st.lists(convolutions(), min_size=1, max_size=3),
        hidden=st.sampled_from([[], [7]]),
        density=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
        near=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_equal_float64(
        self,
        batch: int,
        size: tuple[int, int, int],
        chain: list[Convolution],
        hidden: list[int],
        density: float,
        near: bool,
        seed: int,
    ) -> None:
        """Any windows, borders and pools, channels and positions all at once or a few at a time, a smaller last batch,
        and again what was computed before: no batch leaves anything behind."""
        torch.manual_seed(seed)
        model = convolutional(size, chain, hidden)
        make_exact(model)
        masks = random_masks(model, [density] * (len(chain) + len(hidden) + 1))
        examples = images(batch + 5, size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tombola.training.sparse.convolution.empty_chunks", poisoned_chunks)
            if near:
                patch.setattr("tombola.training.sparse.convolution.NEAR_CHANNELS", 2)
                patch.setattr("tombola.training.sparse.activations.NEAR_FLOATS", 1)
                patch.setattr("tombola.training.sparse.activations.LEAST_TILES", 3)
            engine = sparse_engine(model, masks, examples, [True] * len(masks), batch_size=batch)
            engine.write_back()
            batches = Batches(examples, batch, 3)
            seen = []
            for iteration in (0, batches.per_epoch - 1, 0):
                engine.gradients(iteration)
                assert_gradients(engine, model, exact_gradients(model, masks, *batches.at(iteration)))
                seen.append(engine.kept.gradients.clone())
            assert torch.equal(seen[0], seen[2])
            scores = engine.evaluate("validation")
            assert scores.loss == pytest.approx(evaluate(model, examples).loss, rel=1e-5, abs=1e-6)

    def test_over_a_training(self, digits: DataSet) -> None:
        model = narrow_conv2(digits)
        masks = prune(model, 0.8)
        training = Training(model, digits, recipe(engine="sparse"), masks, seed=3)
        batches = Batches(digits.train, 60, 3)
        for iteration in range(24):  # 22 and a smaller one are an epoch
            training.engine.write_back()
            exact = exact_gradients(model, masks, *batches.at(iteration))
            training.advance()
            assert isinstance(training.engine, SparseEngine)
            assert_gradients(training.engine, model, exact, 1e-4)

    def test_of_augmented_batches(self) -> None:
        torch.manual_seed(0)
        model = convolutional((2, 8, 8), [(5, (3, 3), (1, 1), True, True)], [7])
        make_exact(model)
        examples = images(90, (2, 8, 8))
        masks = random_masks(model, [0.5, 0.3, 0.3])
        engine = sparse_engine(model, masks, examples, [True] * 3, batch_size=40, augmentation=("flip", "crop"))
        batches = Batches(examples, 40, 3, ("flip", "crop"))
        for iteration in range(3):
            engine.gradients(iteration)
            assert_gradients(engine, model, exact_gradients(model, masks, *batches.at(iteration)))

    def test_of_a_batch_of_many_vectors(self) -> None:
        """Wide enough that dense layers leave a gap behind it."""
        torch.manual_seed(0)
        model = convolutional((1, 6, 6), [(3, (3, 3), (1, 1), True, True)], [])
        make_exact(model)
        examples = images(300, (1, 6, 6))
        masks = random_masks(model, [0.5, 0.5])
        engine = sparse_engine(model, masks, examples, [True, True], batch_size=256)
        for iteration in range(2):
            engine.gradients(iteration)
            exact = exact_gradients(model, masks, *Batches(examples, 256, 3).at(iteration))
            assert_gradients(engine, model, exact)


def assert_equal_losses(data: DataSet, model_of: object, steps: int, every: int, **options: object) -> float:
    """Of both engines at one training; returns the last one.

    Their roundings differ, and may one day choose another position of a pool: then so do the losses, by a little more.
    """
    trainings = []
    for engine in ("dense", "sparse"):
        model = model_of(data)  # type: ignore[operator]
        chosen = recipe(engine=engine, **options)
        trainings.append(Training(model, data, chosen, prune(model, 0.8), seed=5))
        assert trainings[-1].engine.name == engine
    for step in range(1, steps + 1):
        for training in trainings:
            training.advance()
        if step % every == 0:
            dense, sparse = (training.engine.evaluate("validation").loss for training in trainings)
            assert dense == pytest.approx(sparse, abs=1e-5)
    return dense


@pytest.mark.parametrize("options", OPTIMIZER_RECIPES[1:])
def test_losses_are_those_of_the_dense_engine(options: dict, digits: DataSet) -> None:
    rate = max(5e-3, options.get("learning_rate", 0))
    assert assert_equal_losses(digits, narrow_conv2, 60, 5, **{**options, "learning_rate": rate}) < 2.2


def test_losses_of_lenet5_on_mnist(data_home_with_mnist: Path) -> None:
    data = load_data(DataConfig(name="mnist"), 0, data_home_with_mnist)
    few = data.validation.at(torch.arange(500))
    data = DataSet(data.name, data.train, few, few, 10, data.checksum)

    def lenet5(data: DataSet) -> nn.Module:
        return build(ModelSpec(architecture="lenet5", input_shape=data.input_shape, classes=10, seed=7))

    assert assert_equal_losses(data, lenet5, 60, 10, learning_rate=5e-3) < 2


@pytest.mark.parametrize("options", OPTIMIZER_RECIPES[1:3])
def test_a_killed_training_ends_bit_identically(options: dict, digits: DataSet, tmp_path: Path) -> None:
    chosen = recipe(engine="sparse", length="40it", **options)

    def train(**more: object) -> tuple[str, list[Evaluation]]:
        model = narrow_conv2(digits)
        masks = prune(model, 0.9)
        trained = fit(model, digits, chosen, masks, 5, **more)  # type: ignore[arg-type]
        assert trained.engine == "sparse"
        assert masks.removed_nonzeros(model) == 0
        return content_sha256(model.state_dict()), trained.evaluations

    whole = train()
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=path, checkpoint_seconds=0, on_evaluation=kill_at(20))
    seen: list[int] = []
    assert train(checkpoint=path, on_evaluation=lambda e, _: seen.append(e.iteration)) == whole
    assert seen == [20, 30, 40]


def test_evaluation_is_the_models_own(digits: DataSet) -> None:
    model = narrow_conv2(digits)
    training = Training(model, digits, recipe(engine="sparse"), prune(model, 0.9), seed=3)
    for _ in range(20):
        training.advance()
    mine = training.engine.evaluate("test")
    training.engine.write_back()
    theirs = evaluate(model, digits.test)
    assert (mine.accuracy, mine.values["f1"], mine.examples) == (theirs.accuracy, theirs.f1, theirs.examples)
    assert mine.loss == pytest.approx(theirs.loss, abs=1e-6)


def test_divergence_is_seen(digits: DataSet) -> None:
    """Neither a ReLU nor a pool may turn what is not a number into one."""
    model = narrow_conv2(digits)
    with pytest.raises(TrainingError, match="diverged, lower the learning rate"):
        fit(model, digits, recipe(engine="sparse", optimizer="sgd", learning_rate=1e20), prune(model, 0.9), 0)


class TestChoice:
    def masks(self, model: nn.Module, density: float) -> Masks:
        return prune(model, 1 - density, distribution="uniform")

    def test_auto_trains_sparse_networks_on_kernels_and_others_not(self, digits: DataSet) -> None:
        model = narrow_conv2(digits)
        engine = engine_of(model, digits, recipe(), self.masks(model, CROSSOVER_OF_CONVOLUTIONS - 0.02))
        assert isinstance(engine, SparseEngine)
        denser = self.masks(model, CROSSOVER_OF_CONVOLUTIONS + 0.02)
        assert engine_of(model, digits, recipe(), denser).name == "dense"
        assert engine_of(model, digits, recipe(), Masks.full(model)).name == "dense"

    def test_what_counts_is_work_and_not_weights(self, digits: DataSet) -> None:
        """Nearly all weights are in the first dense layer, nearly all multiply-adds in the convolutions."""
        model = narrow_conv2(digits)
        convolutions_kept = random_masks(model, [1, 1, 0.01, 1, 1])
        assert convolutions_kept.density < CROSSOVER_OF_CONVOLUTIONS
        assert engine_of(model, digits, recipe(), convolutions_kept).name == "dense"

    @pytest.mark.parametrize(
        ("architecture", "shape"), [("lenet5", (1, 28, 28)), ("lenet5-caffe", (1, 28, 28)), ("conv4", (3, 32, 32))]
    )
    def test_work_is_what_torch_counts(self, architecture: str, shape: tuple[int, int, int]) -> None:
        model = build(ModelSpec(architecture=architecture, input_shape=shape, classes=10, seed=0))
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.zeros(1, *shape))
        assert 2 * sum(_multiply_adds(read_chain(model))) == pytest.approx(counter.get_total_flops())

    def test_dense_layers_behind_convolutions_are_chosen_one_by_one(self, digits: DataSet) -> None:
        model, batches = narrow_conv2(digits), Batches(digits.train, 64, 0)
        masks = random_masks(model, [1, 0.1, 0.1, 1, 0.1])
        engine = engine_of(model, digits, recipe(), masks)
        assert isinstance(engine, SparseEngine)
        kinds = [ConvLayer, ConvLayer, SparseLayer, DenseLayer, SparseLayer]
        assert [type(layer) for layer in engine.layers] == kinds
        engine.write_back()
        engine.gradients(0)
        assert_gradients(engine, model, exact_gradients(model, masks, *batches.at(0)), 1e-4)

    def test_a_batch_of_one_fills_no_vectors(self, digits: DataSet) -> None:
        model = narrow_conv2(digits)
        masks = self.masks(model, 0.3)
        assert any(layers_on_kernels(model, recipe(), masks, 64))
        assert not any(layers_on_kernels(model, recipe(), masks, 1))
        assert all(layers_on_kernels(model, recipe(engine="sparse"), masks, 1))
        assert not any(layers_on_kernels(model, recipe(engine="dense"), masks, 64))

    def test_a_checkpoint_of_the_other_engine_is_refused(self, digits: DataSet, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint.safetensors"

        def train(crossover: float) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tombola.training.sparse.crossover.CROSSOVER_OF_CONVOLUTIONS", crossover)
                model = narrow_conv2(digits)
                chosen = recipe(length="20it")
                fit(model, digits, chosen, self.masks(model, 0.5), 5, checkpoint=path, checkpoint_seconds=0)

        train(0.6)
        assert path.exists()
        with pytest.raises(StorageError, match="checkpoint of another training"):
            train(0.4)


def test_one_relu_for_all_layers_is_no_obstacle() -> None:
    """It has no parameters; `named_children` shows it once."""
    relu = nn.ReLU()
    convolutions = [nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 3), relu]
    assert len(read_chain(nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 9), relu, nn.Linear(9, 2)))) == 4


def around(convolution: nn.Module, *behind: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, *behind, nn.Flatten(), nn.Linear(64, 10))


class TestObstacles:
    """Each is one line, and `auto` trains densely."""

    @pytest.mark.parametrize(
        ("model", "line"),
        [
            (around(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU()), r"cannot train 0: its stride is \(2, 2\)"),
            (around(nn.Conv2d(1, 4, 3, dilation=(1, 2)), nn.ReLU()), r"cannot train 0: its dilation is \(1, 2\)"),
            (around(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU()), "cannot train 0: it has 2 groups"),
            (around(nn.Conv2d(1, 4, 3, padding=3), nn.ReLU()), r"cannot train 0: it is padded with \(3, 3\)"),
            (around(nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU()), "cannot train 0: its padding is not a number"),
            (around(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU()), "its padding is not a number"),
            (around(nn.LazyConv2d(4, 3), nn.ReLU()), "cannot train 0: it is a LazyConv2d"),
            (around(nn.Conv2d(1, 4, 3)), "needs a ReLU right after 0, not Flatten"),
            (around(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), "needs a ReLU right after 0, not BatchNorm2d"),
            (nn.Sequential(nn.Conv2d(1, 4, 3)), "needs a ReLU right after 0"),
            (around(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(3)), "needs pools of 2 × 2 .* which 2 is not"),
            (around(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2, 1)), "needs pools of 2 × 2 .* which 2 is not"),
            (around(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)), "needs pools of 2 × 2"),
            (around(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2)), "Flatten after the convolutions, .* from 2 on"),
            (around(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout()), "Flatten after the convolutions, .* from 2 on"),
            (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), "needs Flatten after the convolutions"),
            (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 4)), "needs Flatten after the convolutions"),
            (
                nn.Sequential(
                    nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)
                ),
                "cannot train 2: it reads 5 channels and gets 4",
            ),
        ],
    )
    def test_of_networks(self, model: nn.Module, line: str) -> None:
        with pytest.raises(NoChainError, match=line):
            read_chain(model)
        with pytest.raises(TrainingError, match=rf"the engine sparse .*{line}.*; set the engine to auto or dense"):
            layers_on_kernels(model, recipe(engine="sparse"), Masks({}), 64)
        assert not any(layers_on_kernels(model, recipe(), Masks({}), 64))

    def test_of_what_kernels_would_pass_over(self) -> None:
        """Hooks would not be called, and what is not to be trained would be."""
        hooked, frozen = (around(nn.Conv2d(1, 4, 3), nn.ReLU()) for _ in range(2))
        hooked[0].register_forward_hook(lambda module, inputs, output: 2 * output)
        frozen[0].weight.requires_grad_(False)

        class Own(nn.MaxPool2d):
            """Whose forward could be anything."""

        own = around(nn.Conv2d(1, 4, 3), nn.ReLU(), Own(2))
        for model, line in ((hooked, "0: it has hooks"), (frozen, r"0\.weight: it has no gradient"), (own, "Flatten")):
            with pytest.raises(NoChainError, match=line):
                read_chain(model)
            assert not any(layers_on_kernels(model, recipe(), Masks({}), 64))

    def test_a_convolution_that_comes_twice(self) -> None:
        twice = nn.Conv2d(2, 2, 3, padding=1)
        with pytest.raises(NoChainError, match="no parameters in common"):
            read_chain(nn.Sequential(twice, nn.ReLU(), twice, nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)))

    @pytest.mark.parametrize("shape", [(1, 8, 10), (2, 8, 8), (64,), (1, 2, 2)])
    def test_of_images(self, shape: tuple[int, ...]) -> None:
        """Machine code would read what is not there."""
        model = convolutional((1, 8, 8), [(3, (3, 3), (0, 0), True, True)], [])
        with pytest.raises(TrainingError, match="do not fit the convolutions"):
            sparse_engine(model, Masks({}), images(20, shape), [True, True])

    def test_of_large_images(self) -> None:
        """Positions are counted in 16 bits."""
        model = convolutional((1, 260, 8), [(2, (3, 3), (1, 1), True, True)], [])
        long = task_of(images(8, (1, 260, 8)))
        assert engine_of(model, long, recipe(engine="sparse"), Masks({}), 8).name == "sparse"
        model = convolutional((1, 260, 250), [(2, (3, 3), (1, 1), True, True)], [])
        large, masks = task_of(images(8, (1, 260, 250))), random_masks(model, [0.1, 0.1])
        assert engine_of(model, large, recipe(), masks, 8).name == "dense"
        with pytest.raises(TrainingError, match="cannot train on images of 260 × 250: it counts to 65536; set the"):
            engine_of(model, large, recipe(engine="sparse"), masks, 8)

    def test_of_images_to_evaluate(self) -> None:
        """As many numbers are not enough."""
        model = convolutional((1, 8, 6), [(3, (3, 3), (0, 0), True, True)], [])
        task = task_of(images(20, (1, 8, 6)), evaluated=images(20, (1, 6, 8)))
        engine = sparse_engine(model, Masks({}), task, [True, True])
        with pytest.raises(TrainingError, match=r"shape \(1, 6, 8\) are not of that of the training, \(1, 8, 6\)"):
            engine.evaluate("validation")

    @pytest.mark.parametrize("target", [4, -1])
    def test_of_targets(self, target: int) -> None:
        model = convolutional((1, 8, 8), [(3, (3, 3), (0, 0), True, True)], [])
        examples = Examples(images(20, (1, 8, 8)).inputs, torch.full((20,), target))
        with pytest.raises(TrainingError, match="the network has 4 outputs"):
            sparse_engine(model, Masks({}), examples, [True, True])


def test_on_other_vectors(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As most x86 machines have them: the same trainings up to rounding."""
    if not host().triple.startswith("x86_64"):
        pytest.skip("AVX2 is an instruction set of x86 processors")
    losses = []
    for target in (host(), avx2()):
        for module in ("kernels.compiler", "training.engine", "training.sparse.layer", "training.sparse.build"):
            monkeypatch.setattr(f"tombola.{module}.host", lambda target=target: target)
        model = narrow_conv2(digits)
        trained = fit(model, digits, recipe(engine="sparse"), prune(model, 0.9), 0)
        losses.append(trained.evaluations[-1].loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
