"""Re-estimated batch-norm statistics are those of the network as it is now, and nothing else of it changes."""

from __future__ import annotations

import pytest
import torch
from sparse_steps import task_of
from torch import Tensor, nn

from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.errors import TrainingError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import Recipe, fit
from tombola.training.classification import Classification
from tombola.training.metrics import evaluate
from tombola.training.statistics import reestimate_statistics


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), seed=0)


def small_network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.5), nn.Linear(144, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)),
    )


def few(count: int, *shape: int) -> Classification:
    return task_of(Examples(torch.rand(count, *shape), torch.zeros(count)))


def by_definition(model: nn.Sequential, parts: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance per batch norm of `small_network`, in float64, averaged over `parts`."""
    wide = small_network().double()
    wide.load_state_dict(model.state_dict())
    found: list[list[tuple[Tensor, Tensor]]] = []
    for part in parts:
        hidden, of_part = part.double(), []
        for module in wide:
            if isinstance(module, nn.Dropout):
                continue
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                columns = hidden.transpose(0, 1).flatten(1)
                of_part.append((columns.mean(1), columns.var(1)))
            hidden = module.train()(hidden)
        found.append(of_part)
    return [
        (torch.stack([of[i][0] for of in found]).mean(0), torch.stack([of[i][1] for of in found]).mean(0))
        for i in range(len(found[0]))
    ]


@pytest.mark.parametrize(("batch", "sizes"), [(100, [100, 100, 100]), (64, [75] * 4), (299, [300]), (9_999, [300])])
def test_statistics_are_the_average_over_passes(batch: int, sizes: list[int], digits: DataSet) -> None:
    examples = digits.train.at(torch.arange(300))
    model = small_network()
    masks = prune(model, 0.6)
    masks.apply_(model)
    expected = by_definition(model, list(examples.inputs.split(sizes)))
    reestimate_statistics(model, digits, 300, batch=batch)
    norms = [m for m in model if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(norms) == len(expected) == 2
    for norm, (mean, variance) in zip(norms, expected, strict=True):
        torch.testing.assert_close(norm.running_mean.double(), mean.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance.detach(), rtol=1e-4, atol=1e-6)
        assert int(norm.num_batches_tracked) == len(sizes)


def test_what_was_stored_before_does_not_matter_and_the_outcome_is_one(digits: DataSet) -> None:
    one, other = small_network(), small_network()
    other.train()(digits.train.inputs * 3)
    torch.rand(5)
    for model in (one, other):
        reestimate_statistics(model, digits, len(digits.train))
    assert content_sha256(one.state_dict()) == content_sha256(other.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_parameters_modes_momenta_and_the_random_stream_stay(training: bool, digits: DataSet) -> None:
    model = small_network().train(training)
    model[1].train(not training)  # a frozen part keeps its own mode
    modes = [module.training for module in model.modules()]
    parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stream = torch.get_rng_state()
    reestimate_statistics(model, digits, len(digits.train))
    assert [module.training for module in model.modules()] == modes
    assert [model[1].momentum, model[6].momentum] == [0.3, 0.1]
    assert all(torch.equal(parameters[name], p) and p.grad is None for name, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_failing_pass_restores_modes_and_momenta(digits: DataSet) -> None:
    model = small_network()
    with pytest.raises(RuntimeError):
        reestimate_statistics(model, few(4, 1, 9, 9), 4)
    assert model.training
    assert all(module.training for module in model.modules())
    assert model[1].momentum == 0.3


def test_a_model_without_batch_norm_is_not_even_run() -> None:
    class Untouchable(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            raise AssertionError("it was run")

    reestimate_statistics(Untouchable(3, 2), few(4, 3), 4)
    reestimate_statistics(nn.BatchNorm1d(3, track_running_stats=False), few(1, 3), 1)


def test_one_example_has_no_variance() -> None:
    model = nn.BatchNorm1d(3)
    with pytest.raises(TrainingError, match="two examples a pass, not 1"):
        reestimate_statistics(model, few(1, 3), 1)
    with pytest.raises(TrainingError, match="two examples a pass, not 0"):
        reestimate_statistics(model, few(9, 3), 9, batch=0)
    reestimate_statistics(model, few(3, 3), 3, batch=2)
    assert int(model.num_batches_tracked) == 1


def test_stale_statistics_cost_a_pruned_resnet_its_accuracy(digits: DataSet) -> None:
    """Fails when re-estimation does nothing: the masked network is another one than the trained."""
    chosen = {"architecture": "resnet20", "widths": (4, 6, 8)}
    model = build(ModelSpec(**chosen, input_shape=digits.input_shape, classes=10, seed=1))
    recipe = Recipe.model_validate({"length": "80it", "evaluate_every": "80it", "learning_rate": "1e-2"})
    fit(model, digits, recipe, Masks.full(model), 0)
    assert evaluate(model, digits.validation).accuracy > 0.8
    prune(model, 0.6).apply_(model)
    stale = evaluate(model, digits.validation)
    reestimate_statistics(model, digits, len(digits.train))
    fresh = evaluate(model, digits.validation)
    assert fresh.loss < stale.loss
    assert fresh.accuracy > stale.accuracy + 0.1
