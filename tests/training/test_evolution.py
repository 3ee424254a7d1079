"""Masks that change during a training: exact at every iteration, clean where weights return, resumed to the bit."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ConfigError, PruningError, StorageError, TrainingError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, criteria, prune, schedules
from tombola.pruning.dynamic import cosine_fraction
from tombola.training import Recipe, fit
from tombola.training import evolution as evolution_module
from tombola.training.evolution import Dynamic, Evolution, Gradual
from tombola.training.trained import Evaluation, Trained
from tombola.training.training import Training

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-2},
    {"optimizer": "adam", "weight_decay": 1e-2},
    {"optimizer": "adamw", "weight_decay": 1e-1},
]
Make = Callable[[], nn.Module]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), seed=0)


def network() -> nn.Module:
    return build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=1, widths=(30, 20)))


def conv_network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 10)
    )


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"length": "60it", "evaluate_every": "10it", "learning_rate": 1e-2, **changes})


def gradual(**changes: Any) -> Gradual:
    return Gradual(**{"sparsity": 0.9, "begin": "5it", "end": "50it", "every": "5it", **changes})


def dynamic(method: str = "rigl", **changes: Any) -> Dynamic:
    return Dynamic(**{"method": method, "sparsity": 0.8, "every": "7it", **changes})


def train(model: nn.Module, data: DataSet, evolution: Any, masks: Masks | None = None, **options: Any) -> Trained:
    return fit(model, data, recipe(**options), masks or Masks.full(model), 3, evolution=evolution)


def training_of(model: nn.Module, data: DataSet, evolution: Any, **options: Any) -> Training:
    return Training(model, data, recipe(**options), Masks.full(model), 3, evolution=evolution)


def per_layer(masks: Masks) -> dict[str, int]:
    return {name: mask.kept for name, mask in masks.items()}


def flat(model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
    """Boolean tensors of some parameters as one vector over all parameters."""
    parts = [tensors.get(name, torch.zeros(p.shape, dtype=torch.bool)) for name, p in model.named_parameters()]
    return torch.cat([part.flatten() for part in parts])


class TestDynamic:
    @pytest.mark.parametrize("method", ["set", "rigl"])
    @pytest.mark.parametrize("make", [network, conv_network])
    def test_every_layer_keeps_its_number_of_weights_after_every_step(
        self, method: str, make: Make, digits: DataSet
    ) -> None:
        model = make()
        training = training_of(model, digits, dynamic(method), optimizer="adamw", weight_decay=0.1)
        counts = per_layer(training.masks)
        assert training.masks.total - training.masks.kept == round(0.8 * training.masks.total)
        changed = []
        while training.iteration < training.total:
            before = training.masks
            training.advance()
            assert per_layer(training.masks) == counts
            assert training.masks.removed_nonzeros(model) == 0
            if training.masks is not before:
                changed.append(training.iteration - 1)
        assert changed == [7, 14, 21, 28, 35, 42]  # 45 is three quarters of the training

    @pytest.mark.parametrize("options", OPTIMIZERS)
    @pytest.mark.parametrize("method", ["set", "rigl"])
    def test_grown_weights_start_at_zero_with_clean_optimizer_state(
        self, method: str, options: dict, digits: DataSet
    ) -> None:
        model = network()
        training = training_of(model, digits, dynamic(method), **options)
        for _ in range(7):
            training.advance()
        old, values = training.masks, training.engine.flat.values.clone()
        before = {name: tensor.clone() for name, tensor in training.engine.state.items()}
        training.advance()
        grown = flat(model, {name: mask.keep & ~old[name].keep for name, mask in training.masks.items()})
        dropped = flat(model, {name: old[name].keep & ~mask.keep for name, mask in training.masks.items()})
        assert grown.sum() == dropped.sum() > 0
        assert not training.engine.flat.values[grown | dropped].any()
        # The update is instead of a step: what is neither grown nor dropped stays to the bit.
        assert torch.equal(training.engine.flat.values[~dropped], values[~dropped])
        for name, tensor in training.engine.state.items():
            if tensor.dim():
                assert before[name][grown].any()  # or this test shows nothing
                assert not tensor[grown].any()
                assert torch.equal(tensor[~grown], before[name][~grown])
            else:
                assert torch.equal(tensor, before[name])
        training.advance()
        assert training.engine.flat.values[grown].any()

    def test_a_rigl_update_is_that_of_the_paper(self, digits: DataSet) -> None:
        """Algorithm 1 with autograd and sorting: drop the smallest |w|, grow the largest dense gradients."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
        training = training_of(model, digits, dynamic(fraction=0.4))
        for _ in range(14):
            training.advance()
        reference, old = copy.deepcopy(model), training.masks
        inputs, targets = training.batches.at(14)
        reference.zero_grad()
        functional.cross_entropy(reference(inputs), targets).backward()
        training.advance()
        moved = 0
        for name, parameter in reference.named_parameters():
            if name not in old:
                continue
            keep, gradient = old[name].keep.flatten(), parameter.grad.abs().flatten()
            weight = parameter.detach().abs().flatten()
            count = round(cosine_fraction(0.4, 14, 45) * int(keep.sum()))
            active = keep.nonzero().flatten().tolist()
            left = set(sorted(active, key=lambda i: float(weight[i]))[count:])
            closed = [i for i in range(len(keep)) if i not in left]
            new = left | set(sorted(closed, key=lambda i: -float(gradient[i]))[:count])
            assert training.masks[name].keep.flatten().nonzero().flatten().tolist() == sorted(new)
            moved += len(new - set(active))
        assert moved > 0

    def test_set_and_rigl_start_alike_and_part_at_the_first_update(self, digits: DataSet) -> None:
        set_, rigl = (training_of(network(), digits, dynamic(method)) for method in ("set", "rigl"))
        for _ in range(7):
            set_.advance()
            rigl.advance()
        assert torch.equal(set_.engine.flat.values, rigl.engine.flat.values)
        for training in (set_, rigl):
            training.advance()
        assert any(set_.masks[name] != rigl.masks[name] for name in set_.masks)

    def test_chance_comes_from_the_seed_alone(self, digits: DataSet) -> None:
        def final(seed: int) -> str:
            torch.rand(17)
            model = network()
            trained = fit(model, digits, recipe(), Masks.full(model), seed, evolution=dynamic("set"))
            return content_sha256(trained.masks.to_tensors())

        assert final(1) == final(1) != final(2)

    def test_given_sparse_masks_are_the_start_and_protected_layers_stay_dense(self, digits: DataSet) -> None:
        model = network()
        masks = prune(model, 0.8, protect=("output",))
        training = Training(model, digits, recipe(), masks, 3, evolution=dynamic(protect=("output",)))
        assert training.masks is masks
        assert train(network(), digits, dynamic(protect=("output",))).masks["output.weight"].density == 1
        with pytest.raises(ConfigError, match="give full masks for a random start"):
            train(network(), digits, dynamic(), prune(model, 0.5))

    def test_until_0_is_a_static_random_topology_and_constant_is_constant(self, digits: DataSet) -> None:
        static = training_of(network(), digits, dynamic(until=0))
        assert static.updates == {}
        assert static.settled == 0
        assert set(training_of(network(), digits, dynamic(anneal="constant")).updates.values()) == {0.3}

    def test_learns_digits(self, digits: DataSet) -> None:
        trained = train(network(), digits, dynamic(every="25it"), length="400it", evaluate_every="50it")
        assert trained.early_stop.accuracy > 0.85


class TestGradual:
    @pytest.mark.parametrize("make", [network, conv_network])
    @pytest.mark.parametrize("options", OPTIMIZERS)
    def test_the_sparsity_is_exact_at_every_iteration_and_never_falls(
        self, make: Make, options: dict, digits: DataSet
    ) -> None:
        model = make()
        training = training_of(model, digits, gradual(), **options)
        removed = {5 + 5 * i: round(s * training.masks.total) for i, s in enumerate(schedules.get("cubic")(0.9, 9), 1)}
        expected = 0
        while training.iteration < training.total:
            before = training.masks
            training.advance()
            expected = removed.get(training.iteration, expected)
            assert training.masks.total - training.masks.kept == expected
            assert training.masks <= before
            assert training.masks.removed_nonzeros(model) == 0
        assert expected == round(0.9 * training.masks.total)

    def test_an_update_prunes_the_weights_that_the_step_left(self, digits: DataSet) -> None:
        plain, evolving = network(), network()
        without = Training(plain, digits, recipe(), Masks.full(plain), 3)
        training = training_of(evolving, digits, gradual())
        for _ in range(10):
            without.advance()
            training.advance()
        masks = prune(plain, schedules.get("cubic")(0.9, 9)[0])
        assert all(masks[name] == training.masks[name] for name in masks)
        masks.apply_(plain)
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), evolving.parameters(), strict=True))

    def test_an_end_between_two_updates_is_reached_by_the_one_before(self, digits: DataSet) -> None:
        training = training_of(network(), digits, gradual(begin="0it", end="49it", every="10it", schedule="linear"))
        assert list(training.updates) == [9, 19, 29, 39]
        assert list(training.updates.values())[-1] == 0.9
        assert training.settled == 40

    def test_goes_on_from_sparse_masks(self, digits: DataSet) -> None:
        model = network()
        masks = prune(model, 0.5)
        evolution = gradual(schedule="geometric", distribution="uniform")
        training = Training(model, digits, recipe(), masks, 3, evolution=evolution)
        assert list(training.updates.values()) == schedules.get("geometric")(0.9, 9, start=masks.sparsity)
        trained = train(network(), digits, evolution, masks)
        assert trained.masks <= masks
        assert trained.masks.total - trained.masks.kept == round(0.9 * masks.total)

    def test_other_criteria_and_structures_get_data_of_the_training(self, digits: DataSet) -> None:
        evolution = gradual(sparsity=0.5, criterion="taylor", structure="neuron", protect=("output",), score_batches=2)
        masks = train(network(), digits, evolution).masks
        rows = [int(masks[f"fc{i}.weight"].keep.any(1).sum()) for i in (1, 2)]
        assert sum(rows) == 50 - round(0.5 * 60)  # the protected layer's 10 neurons count, too
        assert masks["output.weight"].density == 1

    @pytest.mark.usefixtures("few_rounds")
    @pytest.mark.parametrize("structure", ["weight", "filter"])
    @pytest.mark.parametrize("criterion", criteria)
    def test_every_criterion_prunes_while_the_network_learns(
        self, criterion: str, structure: str, digits: DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or is refused by name. Exact, nested and held all the way, and chosen twice the same."""
        seen: list[tuple[Masks, Masks]] = []

        def watched(model: nn.Module, sparsity: float, *pieces: Any, **options: Any) -> Masks:
            found = prune(model, sparsity, *pieces, **options)
            seen.append((found, prune(copy.deepcopy(model), sparsity, *pieces, **options)))
            return found

        monkeypatch.setattr(evolution_module, "prune", watched)
        options = {"criterion": criterion, "structure": structure, "score_batches": 2, "schedule": "linear"}
        evolution = gradual(sparsity=0.5, begin="0it", end="6it", every="3it", **options)
        model = conv_network()
        short = {"length": "8it", "evaluate_every": "8it", "batch_size": 20}
        if structure == "weight" and criteria.get(criterion).outputs_only:
            with pytest.raises(PruningError, match=f"the criterion '{criterion}' scores whole outputs"):
                training_of(model, digits, evolution, **short)
            return
        training = training_of(model, digits, evolution, **short)
        seen.clear()
        sparsities = []
        while training.iteration < training.total:
            before = training.masks
            training.advance()
            assert training.masks <= before
            assert training.masks.removed_nonzeros(model) == 0
            units = training.masks["0.weight"].keep.flatten(1).any(1)
            sparsities.append(1 - float(units.double().mean()) if structure == "filter" else training.masks.sparsity)
        expected = [0, 0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5]
        total = training.masks.total if structure == "weight" else 4
        assert [round(s * total) for s in sparsities] == [round(s * total) for s in expected]
        assert len(seen) == 2
        assert all(found[name] == alike[name] for found, alike in seen for name in found)
        assert all(bool(p.isfinite().all()) for p in model.parameters())

    def test_criteria_that_look_at_data_are_given_other_examples_at_every_update(
        self, digits: DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same ones for the same seed and iteration, so that a killed training continues to the bit."""

        def given() -> list[Tensor]:
            seen: list[Tensor] = []

            def listening(*pieces: Any, **options: Any) -> Masks:
                data = options.get("batches", pieces[-1])
                seen.append(torch.cat([inputs for inputs, _ in data]))
                return prune(*pieces, **options)

            with monkeypatch.context() as patch:
                patch.setattr(evolution_module, "prune", listening)
                training = training_of(network(), digits, gradual(criterion="snip", score_batches=2), length="50it")
                while training.iteration < training.total:
                    training.advance()
            return seen

        seen = given()
        assert len(seen) >= 9
        updates = seen[-9:]
        for one, other in itertools.combinations(updates, 2):
            assert not torch.equal(one, other)
            assert not torch.equal(one[0], other[0])
        assert all(torch.equal(a, b) for a, b in zip(seen, given(), strict=True))

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            (
                {"end": "61it", "every": "1it"},
                ConfigError,
                "due after iteration 61, but the training goes from 0 to 60",
            ),
            ({"begin": "50it"}, ConfigError, "no update fits between begin 50it and end 50it"),
            ({"protect": ("fc1", "fc2")}, PruningError, "can go while each layer keeps"),
            ({"protect": ("nothing",)}, PruningError, "no layer is called 'nothing'"),
        ],
    )
    def test_what_cannot_be_met_is_refused_before_the_first_step(
        self, changes: dict, error: type[Exception], message: str, digits: DataSet
    ) -> None:
        with pytest.raises(error, match=message):
            training_of(network(), digits, gradual(**changes))

    def test_a_target_below_the_first_masks_is_refused(self, digits: DataSet) -> None:
        with pytest.raises(ConfigError, match=r"sparsity 0\.9 is below the 0\.95"):
            train(network(), digits, gradual(), prune(network(), 0.95))


class TestEarlyStop:
    @pytest.mark.parametrize("evolution", [gradual(end="55it"), dynamic(until=0.9)])
    def test_is_looked_for_after_the_last_change_and_its_state_has_the_final_masks(
        self, evolution: Any, digits: DataSet
    ) -> None:
        model = network()
        trained = train(model, digits, evolution, learning_rate=0.05)
        assert [e.iteration for e in trained.evaluations] == [10, 20, 30, 40, 50, 60]
        assert trained.early_stop.iteration == 60
        model.load_state_dict(trained.early_stop_state)
        assert trained.masks.removed_nonzeros(model) == 0
        assert trained.masks.kept < trained.masks.total

    def test_patience_waits_for_the_target(self, digits: DataSet) -> None:
        """At this rate the loss does not fall: without an evolution the training would end at once."""
        hopeless = {"optimizer": "sgd", "learning_rate": 1e-12, "patience": 1}
        assert train(network(), digits, None, **hopeless).iteration <= 30
        trained = train(network(), digits, gradual(end="35it"), **hopeless)
        assert trained.iteration >= 50
        assert trained.early_stop.iteration >= 40

    def test_without_evolution_the_masks_are_those_given(self, digits: DataSet) -> None:
        model = network()
        masks = prune(model, 0.5)
        assert train(model, digits, None, masks).masks is masks


def kill_at(iteration: int) -> Callable[[Evaluation, int], None]:
    def stop(evaluation: Evaluation, total: int) -> None:
        if evaluation.iteration == iteration:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("options", OPTIMIZERS[:2])
@pytest.mark.parametrize("make", [network, conv_network])
@pytest.mark.parametrize("evolution", [gradual(), gradual(criterion="taylor"), dynamic("set"), dynamic("rigl")])
def test_a_killed_training_ends_bit_identically(
    options: dict, make: Make, evolution: Any, digits: DataSet, tmp_path: Path
) -> None:
    def run(**keywords: Any) -> tuple[str, Trained]:
        model = make()
        trained = fit(model, digits, recipe(**options), Masks.full(model), 5, evolution=evolution, **keywords)
        return content_sha256(model.state_dict()), trained

    expected, whole = run()
    checkpoint = tmp_path / "checkpoint.safetensors"
    for iteration in (20, 40):  # killed with the state of 10 and of 30 iterations on disk
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=checkpoint, checkpoint_seconds=0, on_evaluation=kill_at(iteration))
    seen: list[int] = []
    found, resumed = run(checkpoint=checkpoint, on_evaluation=lambda e, _: seen.append(e.iteration))
    assert seen == [40, 50, 60]
    assert found == expected
    assert content_sha256(resumed.masks.to_tensors()) == content_sha256(whole.masks.to_tensors())
    assert resumed.evaluations == whole.evaluations
    assert resumed.early_stop == whole.early_stop
    assert content_sha256(resumed.early_stop_state) == content_sha256(whole.early_stop_state)


def test_a_checkpoint_of_another_evolution_is_refused(digits: DataSet, tmp_path: Path) -> None:
    def run(evolution: Any) -> None:
        model = network()
        masks = Masks.full(model)
        fit(
            *(model, digits, recipe(), masks, 1),
            checkpoint=tmp_path / "checkpoint.safetensors",
            checkpoint_seconds=0,
            evolution=evolution,
        )

    run(dynamic(fraction=0.3))
    for other in (dynamic(fraction=0.2), dynamic("set"), None):
        with pytest.raises(StorageError, match="checkpoint of another training"):
            run(other)


def test_divergence_between_evaluations_is_one_clear_line(digits: DataSet) -> None:
    with pytest.raises(TrainingError, match=r"not finite after \d+ iterations: training diverged, lower the"):
        train(network(), digits, dynamic(every="40it"), optimizer="sgd", learning_rate=1e9, evaluate_every="60it")


class TestConfig:
    def test_the_method_chooses(self) -> None:
        read = TypeAdapter(Evolution).validate_python
        found = read({"method": "gradual", "sparsity": "9e-1", "end": "2ep", "every": "10it"})
        assert found == Gradual(sparsity=0.9, end="2ep", every="10it")
        assert read({"method": "set", "sparsity": 0.9}) == Dynamic(method="set", sparsity=0.9)
        assert read({"method": "rigl", "sparsity": 0.9}).distribution == "erk"
        with pytest.raises(ValidationError, match="'gradual', 'set', 'rigl'"):
            read({"method": "rigel", "sparsity": 0.9})

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: gradual(schedule="cubik"), "unknown schedule 'cubik' .did you mean 'cubic'"),
            (lambda: gradual(criterion="size"), "unknown criterion 'size'"),
            (lambda: gradual(structure="brick"), "unknown structure 'brick'"),
            (lambda: gradual(structure="2:4"), "2:4 fixes its own sparsity"),
            (lambda: gradual(distribution="rates"), "takes no sparsity"),
            (lambda: gradual(every="0it"), "must be at least 1it"),
            (lambda: dynamic(distribution="erg"), "unknown distribution 'erg'"),
            (lambda: dynamic(sparsity=1), "less than 1"),
            (lambda: dynamic(fraction=0), "greater than 0"),
        ],
    )
    def test_mistakes_are_named(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make()

    def test_a_training_too_short_for_an_update_says_so(self, digits: DataSet) -> None:
        with pytest.raises(ConfigError, match="no update fits into the first 45 iterations, one every 100it"):
            train(network(), digits, dynamic(every="100it"))
