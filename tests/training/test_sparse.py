"""Sparse steps: the dense engine's mathematics on kept weights alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
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
)
from torch import Tensor, nn

from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.errors import KernelError, StorageError, TrainingError
from tombola.kernels.target import avx2, host
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Masks, prune
from tombola.training import engine as engines
from tombola.training import fit
from tombola.training.batches import Batches
from tombola.training.evolution import Gradual
from tombola.training.gradients import linear_chain
from tombola.training.metrics import evaluate
from tombola.training.optimizers import OPTIMIZERS
from tombola.training.sparse.crossover import CROSSOVER
from tombola.training.sparse.engine import SparseEngine
from tombola.training.sparse.kept import KeptParameters
from tombola.training.sparse.updates import make_update
from tombola.training.trained import Evaluation
from tombola.training.training import Training


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits", validation=250), 0)


def lenet(data: DataSet) -> nn.Module:
    shape = data.input_shape
    return build(ModelSpec(input_shape=shape, classes=10, seed=7, initialisation="glorot-normal"))


def chain(widths: list[int], seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TestGradients:
    @settings(max_examples=40)
    @given(
        batch=st.sampled_from([1, 3, 16, 60, 64, 100, 128]),
        widths=st.lists(st.integers(1, 70), min_size=2, max_size=4),
        density=st.sampled_from([0.0, 0.03, 0.2, 0.7, 1.0]),
        choice=st.integers(0, 15),
        seed=st.integers(0, 99),
    )
    def test_equal_float64_at_every_step(
        self, batch: int, widths: list[int], density: float, choice: int, seed: int
    ) -> None:
        """Any shapes, batches that end in a smaller one, sparse and dense layers in any mixture."""
        model = chain([*widths, 4], seed)
        count = len(widths)
        masks = random_masks(model, [density] * count)
        inputs = torch.randn(150, widths[0]) * (torch.rand(150, widths[0]) < 0.5)
        examples = Examples(inputs, torch.randint(0, 4, (150,)))
        on_kernels = [bool(choice >> number & 1) for number in range(count)]
        engine = sparse_engine(model, masks, examples, on_kernels, batch_size=batch, learning_rate=0.05)
        batches = Batches(examples, batch, 3)
        for iteration in range(min(4, batches.per_epoch + 1)):
            engine.write_back()
            exact = exact_gradients(model, masks, *batches.at(iteration))
            engine.gradients(iteration)
            for name, found in engine_gradients(engine, model).items():
                torch.testing.assert_close(found.double(), exact[name], rtol=2e-5, atol=1e-6)
            engine.update(0.05)

    def test_of_lenet_on_digits_over_a_training(self, digits: DataSet) -> None:
        model = lenet(digits)
        masks = prune(model, 0.9)
        training = Training(model, digits, recipe(engine="sparse"), masks, seed=3)
        assert isinstance(training.engine, SparseEngine)
        batches = Batches(digits.train, 60, 3)
        for iteration in range(25):  # 22 and a smaller one are an epoch
            training.engine.write_back()
            exact = exact_gradients(model, masks, *batches.at(iteration))
            training.engine.gradients(iteration)
            for layer in training.engine.layers:
                name = next(n for n, p in model.named_parameters() if p is layer.module.weight)
                kept = exact[name].reshape(-1)[layer._places()]
                torch.testing.assert_close(layer.weight_gradients.double(), kept, rtol=1e-4, atol=1e-7)
            training.engine.update(1.2e-3)

    def test_of_augmented_batches(self) -> None:
        model = nn.Sequential(nn.Flatten(), *chain([64, 20, 10], 1))
        images = torch.rand(90, 1, 8, 8)
        examples = Examples(images, torch.randint(0, 10, (90,)))
        masks = random_masks(model, [0.3, 0.3])
        engine = sparse_engine(model, masks, examples, [True, True], batch_size=40, augmentation=("flip", "crop"))
        batches = Batches(examples, 40, 3, ("flip", "crop"))
        for iteration in range(3):
            engine.gradients(iteration)
            exact = exact_gradients(model, masks, *batches.at(iteration))
            torch.testing.assert_close(engine.layers[1].bias_gradients.double(), exact["3.bias"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("options", OPTIMIZER_RECIPES)
@pytest.mark.parametrize("density", [0.2, 0.05])
def test_losses_are_those_of_the_dense_engine(options: dict, density: float, digits: DataSet) -> None:
    """Within 1e-6 over a hundred steps."""
    trainings = []
    for engine in ("dense", "sparse"):
        model = lenet(digits)
        trainings.append(Training(model, digits, recipe(engine=engine, **options), prune(model, 1 - density), seed=5))
    for _ in range(100):
        losses = []
        for training in trainings:
            training.advance()
            losses.append(training.engine.evaluate("validation").loss)
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] < 2.28  # it learns


def test_losses_on_mnist(data_home_with_mnist: Path) -> None:
    data = load_data(DataConfig(name="mnist"), 0, data_home_with_mnist)
    trainings = []
    for engine in ("dense", "sparse"):
        model = lenet(data)
        trainings.append(Training(model, data, recipe(engine=engine), prune(model, 0.9), seed=5))
    for step in range(100):
        for training in trainings:
            training.advance()
        if step % 10 == 9:
            dense, sparse = (training.engine.evaluate("validation").loss for training in trainings)
            assert dense == pytest.approx(sparse, abs=1e-6)
    assert dense < 1


@pytest.mark.parametrize("options", OPTIMIZER_RECIPES)
def test_updates_are_those_of_the_dense_engine(options: dict) -> None:
    torch.manual_seed(0)
    kept, chosen = KeptParameters(500), recipe(**options)
    kept.values.copy_(torch.randn(kept.count))
    values, gradients = kept.values.clone(), torch.zeros(kept.count)
    peer, mine = OPTIMIZERS[chosen.optimizer](values, gradients, chosen), make_update(kept, chosen)
    for step in range(50):
        gradients.copy_(torch.randn(kept.count) * 10.0 ** (step % 5 - 4))
        kept.gradients.copy_(gradients)
        peer.step(1e-2)
        mine(1e-2)
        torch.testing.assert_close(kept.values, values, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("options", OPTIMIZER_RECIPES)
def test_a_killed_sparse_training_ends_bit_identically(options: dict, digits: DataSet, tmp_path: Path) -> None:
    chosen = recipe(engine="sparse", **options)

    def train(**more: object) -> tuple[str, list[Evaluation], str]:
        model = lenet(digits)
        masks = prune(model, 0.9)
        trained = fit(model, digits, chosen, masks, 5, **more)  # type: ignore[arg-type]
        assert masks.removed_nonzeros(model) == 0
        return content_sha256(model.state_dict()), trained.evaluations, content_sha256(trained.early_stop_state)

    whole = train()
    path = tmp_path / "checkpoint.safetensors"
    for iteration in (20, 50):
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint=path, checkpoint_seconds=0, on_evaluation=kill_at(iteration))
    seen: list[int] = []
    assert train(checkpoint=path, on_evaluation=lambda e, _: seen.append(e.iteration)) == whole
    assert seen == [50, 60]


def test_captured_states_are_those_reached(digits: DataSet, tmp_path: Path) -> None:
    def train(length: str, **more: object) -> nn.Module:
        model = lenet(digits)
        fit(model, digits, recipe(engine="sparse", length=length), prune(model, 0.9), 5, **more)  # type: ignore[arg-type]
        return model

    path = tmp_path / "state.safetensors"
    train("60it", capture={30: path})
    stored, _ = load_tensors(path)
    for name, tensor in train("30it").state_dict().items():
        assert torch.equal(stored[name], tensor)


class TestChoice:
    def test_auto_trains_sparse_layers_on_kernels_and_others_not(self, digits: DataSet) -> None:
        model = lenet(digits)
        masks = random_masks(model, [0.1, CROSSOVER + 0.2, 0.1])
        engine = engine_of(model, digits, recipe(), masks)
        assert isinstance(engine, SparseEngine)
        assert [type(layer).__name__ for layer in engine.layers] == ["SparseLayer", "DenseLayer", "SparseLayer"]

    def test_auto_leaves_dense_networks_and_other_shapes_alone(self, digits: DataSet) -> None:
        model = lenet(digits)
        assert engine_of(model, digits, recipe(), Masks.full(model)).name == "dense"
        other = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 10))
        assert engine_of(other, digits, recipe(), prune(other, 0.9)).name == "dense"

    def test_sparse_is_refused_where_it_cannot_be(self, digits: DataSet) -> None:
        other = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 10))
        with pytest.raises(TrainingError, match=r"a chain of Linear and ReLU layers; set the engine to auto"):
            fit(other, digits, recipe(engine="sparse"), prune(other, 0.9), 0)
        model = lenet(digits)
        gradual = Gradual(sparsity=0.9, end="20it", every="5it")
        with pytest.raises(TrainingError, match="masks that change"):
            fit(model, digits, recipe(engine="sparse"), Masks.full(model), 0, evolution=gradual)

    def test_without_kernels_auto_is_dense(self, digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere() -> None:
            raise KernelError("no vectors here")

        monkeypatch.setattr(engines, "host", nowhere)
        model = lenet(digits)
        assert fit(model, digits, recipe(), prune(model, 0.9), 0).engine == "dense"
        with pytest.raises(TrainingError, match="no vectors here"):
            fit(model, digits, recipe(engine="sparse"), prune(model, 0.9), 0)


def test_evaluation_is_the_models_own(digits: DataSet) -> None:
    model = lenet(digits)
    training = Training(model, digits, recipe(), prune(model, 0.9), seed=3)
    for _ in range(20):
        training.advance()
    mine = training.engine.evaluate("test")
    training.engine.write_back()
    theirs = evaluate(model, digits.test)
    assert (mine.accuracy, mine.values["f1"], mine.examples) == (theirs.accuracy, theirs.f1, theirs.examples)
    assert mine.loss == pytest.approx(theirs.loss, abs=1e-6)


def test_divergence_is_seen(digits: DataSet) -> None:
    """A ReLU must not turn what is not a number into 0."""
    model = lenet(digits)
    with pytest.raises(TrainingError, match="diverged, lower the learning rate"):
        fit(model, digits, recipe(engine="sparse", optimizer="sgd", learning_rate=1e20), prune(model, 0.9), 0)


class TestWhatDoesNotFit:
    """Machine code would read and write where it must not: all of it is one clear line before anything runs."""

    def fit_on(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        examples = Examples(inputs, targets)
        data = DataSet("odd", examples, examples, examples, 10, "odd")
        fit(model, data, recipe(), random_masks(model, [0.2, 0.2]), 0)

    def test_inputs_of_another_size(self) -> None:
        for features in (100_000, 8):
            with pytest.raises(TrainingError, match=f"do not fit a network of {features} inputs"):
                self.fit_on(chain([features, 16, 10], 0), torch.rand(70, 64), torch.zeros(70, dtype=torch.int64))

    @pytest.mark.parametrize("kind", [torch.float64, torch.uint8])
    def test_inputs_of_another_type(self, kind: torch.dtype) -> None:
        with pytest.raises(TrainingError, match="takes float32 inputs"):
            self.fit_on(chain([64, 16, 10], 0), torch.rand(70, 64).to(kind), torch.zeros(70, dtype=torch.int64))

    @pytest.mark.parametrize("target", [10, -1])
    def test_targets_that_the_network_has_not(self, target: int) -> None:
        with pytest.raises(TrainingError, match="the network has 10 outputs"):
            self.fit_on(chain([64, 16, 10], 0), torch.rand(70, 64), torch.full((70,), target))

    def test_layers_that_do_not_follow_one_another_are_no_chain(self) -> None:
        odd = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(40, 10))
        assert linear_chain(odd) is None

    def test_a_shared_bias_is_no_chain(self) -> None:
        model = chain([8, 8, 8], 0)
        model[2].bias = model[0].bias  # type: ignore[union-attr]
        assert linear_chain(model) is None


def test_a_checkpoint_of_the_other_engine_is_refused(digits: DataSet, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"

    def train(crossover: float) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tombola.training.sparse.crossover.CROSSOVER", crossover)
            model = lenet(digits)
            fit(model, digits, recipe(), prune(model, 0.5), 5, checkpoint=path, checkpoint_seconds=0)

    train(0.8)
    assert path.exists()
    with pytest.raises(StorageError, match="checkpoint of another training"):
        train(0.1)


@pytest.mark.parametrize("batch", [512, 1000, 1024])
def test_large_batches(batch: int) -> None:
    """Whose panels have rows that would share places of a cache, and are wider for it."""
    model = chain([30, 20, 4], 0)
    masks = random_masks(model, [0.3, 0.3])
    examples = Examples(torch.randn(1100, 30), torch.randint(0, 4, (1100,)))
    engine = sparse_engine(model, masks, examples, [True, True], batch_size=batch)
    batches = Batches(examples, batch, 3)
    for iteration in range(2):
        exact = exact_gradients(model, masks, *batches.at(iteration))
        engine.gradients(iteration)
        for name, found in engine_gradients(engine, model).items():
            torch.testing.assert_close(found.double(), exact[name], rtol=2e-5, atol=1e-6)


def test_on_other_vectors(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As most x86 machines have them: the same trainings up to rounding."""
    if not host().triple.startswith("x86_64"):
        pytest.skip("AVX2 is an instruction set of x86 processors")
    losses = []
    for target in (host(), avx2()):
        for module in ("kernels.compiler", "training.engine", "training.sparse.layer"):
            monkeypatch.setattr(f"tombola.{module}.host", lambda target=target: target)
        model = lenet(digits)
        losses.append(fit(model, digits, recipe(), prune(model, 0.9), 0).evaluations[-1].loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
