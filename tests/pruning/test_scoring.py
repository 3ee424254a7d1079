"""What holds for every criterion that looks at data: which batches, and of which network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from direct_scores import assert_one_line, assert_scores, batches, mlp, score
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import PruningError
from tombola.pruning import Masks, criteria, prunable_parameters, prune
from tombola.pruning.criteria import Needs

GRADIENTS = [name for name in criteria if criteria.get(name).needs is Needs.GRADIENTS]
WITH_DATA = [name for name in criteria if criteria.get(name).needs is not Needs.WEIGHTS]


class TestBatches:
    """All are used, by every criterion that takes any; what is no batch is a clear error."""

    @pytest.mark.parametrize("name", [n for n in WITH_DATA if n not in ("synflow", "bn-scale")])
    def test_three_batches_are_not_the_first(self, name: str) -> None:
        data = batches(3)
        all_three, first = score(name, mlp(), data), score(name, mlp(), data[:1])
        assert any(not torch.allclose(all_three[n], first[n], rtol=1e-3) for n in all_three)

    @pytest.mark.parametrize("name", [n for n in WITH_DATA if n not in ("synflow", "bn-scale", "movement", "taylor")])
    def test_two_batches_of_a_data_set_count_as_one(self, name: str) -> None:
        """But for movement, which steps batch by batch, and Taylor, which squares batch by batch."""
        (x, y), (other_x, other_y) = batches(2)
        together = [(torch.cat([x, other_x]), torch.cat([y, other_y]))]
        assert_scores(score(name, mlp(), batches(2)), score(name, mlp(), together), rtol=1e-5, atol=1e-12)

    @pytest.mark.parametrize("name", [n for n in WITH_DATA if n not in ("bn-scale", "synflow")])
    def test_a_generator_serves_as_often_as_needed(self, name: str) -> None:
        listed = prune(mlp(), 0.5, name, batches=batches())
        assert prune(mlp(), 0.5, name, batches=(batch for batch in batches())) == listed
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*(torch.cat(part) for part in zip(*batches(), strict=True))), batch_size=4
        )
        assert prune(mlp(), 0.5, name, batches=loader) == listed

    def test_synflow_is_called_a_hundred_times_on_one_generator(self) -> None:
        model = mlp(4, 6, 3)
        model[1] = nn.ReLU()
        assert prune(model, 0.5, "synflow", batches=iter(batches())).kept == 21

    @pytest.mark.parametrize("name", WITH_DATA)
    def test_without_batches_says_what_is_needed(self, name: str) -> None:
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        with pytest.raises(
            PruningError, match=rf"the criterion '{name}' needs {criteria.get(name).needs}: pass batches="
        ):
            prune(mlp(), 0.5, name, structure)

    @pytest.mark.parametrize("name", WITH_DATA)
    @pytest.mark.parametrize(
        ("bad", "says"),
        [
            ([], "`batches` is empty"),
            (iter(()), "`batches` is empty"),
            (batches(1)[0], r"`batches` is one batch, .* write batches=\[\(inputs, targets\)\]"),
            (list(batches(1)[0]), "`batches` is one batch"),
            (torch.ones(2, 4), "`batches` is one batch"),
            ({"inputs": torch.ones(2, 4)}, "`batches` is one batch"),
            (3, "`batches` is an iterable of"),
        ],
        ids=["empty", "used up", "a pair", "a list of two", "a tensor", "a mapping", "a number"],
    )
    def test_what_is_no_list_of_batches(self, name: str, bad: Any, says: str) -> None:
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        with pytest.raises(PruningError, match=says):
            prune(mlp(), 0.5, name, structure, batches=bad)

    @pytest.mark.parametrize("name", GRADIENTS)
    @pytest.mark.parametrize("size", [2, 4])
    def test_a_batch_without_targets(self, name: str, size: int) -> None:
        for bad in (torch.ones(size, 4).double(), (torch.ones(size, 4).double(),)):
            with pytest.raises(PruningError, match="this one has no targets"):
                prune(mlp(), 0.5, name, batches=[bad])

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_a_loss_that_is_no_number(self, name: str) -> None:
        x, y = batches(1)[0]
        with pytest.raises(PruningError, match="the loss of a batch must be one finite number, not nan"):
            prune(mlp(), 0.5, name, batches=[(x * math.nan, y)])
        with pytest.raises(PruningError, match="must be one finite number, not a tensor of shape"):
            prune(mlp(), 0.5, name, batches=[(x, y)], loss=nn.CrossEntropyLoss(reduction="none"))

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_a_layer_that_the_loss_does_not_see_is_named(self, name: str) -> None:
        model = nn.Sequential(nn.Linear(4, 3).double())
        model.add_module("unused", Unused())
        with pytest.raises(PruningError, match=r"unused\.layer\.weight: no gradient reaches it.*protect the layer"):
            prune(model, 0.5, name, batches=batches())
        assert prune(model, 0.25, name, batches=batches(), protect=["unused.layer"]).kept == 15

    def test_a_batch_of_keywords_brings_its_loss(self) -> None:
        data = batches()
        keywords = [{"inputs": x, "labels": y} for x, y in data]
        for name in [*GRADIENTS, "wanda"]:
            found = score(name, WithLoss(mlp()), keywords)
            assert_scores({key.removeprefix("model."): s for key, s in found.items()}, score(name, mlp(), data))
        with pytest.raises(PruningError, match="add labels to the batch"):
            prune(WithLoss(mlp()), 0.5, "snip", batches=[{"inputs": data[0][0]}])

    @pytest.mark.parametrize("name", [*GRADIENTS, "wanda"])
    def test_a_batch_of_keywords_may_be_answered_with_a_plain_mapping(self, name: str) -> None:
        keywords = [{"inputs": x, "labels": y} for x, y in batches()]
        expected = score(name, WithLoss(mlp()), keywords)
        assert_scores(score(name, WithLoss(mlp(), plain=True), keywords), expected)
        if name != "wanda":
            with pytest.raises(PruningError, match="add labels to the batch"):
                prune(WithLoss(mlp(), plain=True), 0.5, name, batches=[{"inputs": batches()[0][0]}])

    @pytest.mark.parametrize("kind", ["keywords", "tuple", "list"])
    def test_fisher_takes_batches_of_several_inputs_apart(self, kind: str) -> None:
        """Each example alone, whatever holds its parts: the same as batches of one."""
        whole: list[Any] = []
        single: list[Any] = []
        for x, y in batches():
            z = x.flip(0) / 2
            whole.append(of_kind(kind, x, z, y))
            single += [of_kind(kind, x[i : i + 1], z[i : i + 1], y[i : i + 1]) for i in range(len(x))]
        assert len(single) == 12
        found = score("fisher", TwoInputs(), whole)
        assert_scores(found, score("fisher", TwoInputs(), single))
        assert_scores(found, {name: s / 2 for name, s in score("taylor", TwoInputs(), single).items()})

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_scores_that_are_all_0_are_no_scores(self, name: str) -> None:
        """The cross-entropy of a single output is 0, whatever it is: weights would go by position alone."""
        data = [(x, torch.zeros(4, dtype=torch.long)) for x, _ in batches()]
        with pytest.raises(PruningError, match="loss=") as caught:
            prune(mlp(4, 5, 1), 0.5, name, batches=data)
        assert name in str(caught.value)
        assert_one_line(caught.value)
        wanted = [(x, torch.linspace(0, 1, 4).double().unsqueeze(1)) for x, _ in batches()]
        assert prune(mlp(4, 5, 1), 0.52, name, batches=wanted, loss=functional.mse_loss).kept == 12

    @pytest.mark.parametrize("name", GRADIENTS)
    @pytest.mark.parametrize("bad", ["wrong width", "other dtype", "a label too high", "labels of another size"])
    def test_what_torch_would_say_is_one_line(self, name: str, bad: str) -> None:
        x, y = batches(1)[0]
        batch = {
            "wrong width": (torch.randn(4, 7, dtype=torch.float64), y),
            "other dtype": (x.float(), y),
            "a label too high": (x, y + 3),
            "labels of another size": (x, y[:2]),
        }[bad]
        with pytest.raises(PruningError) as caught:
            prune(mlp(), 0.5, name, batches=[batch])
        assert_one_line(caught.value)

    @pytest.mark.parametrize("name", [n for n in WITH_DATA if n not in GRADIENTS])
    def test_inputs_of_another_width_are_one_line(self, name: str) -> None:
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        with pytest.raises(PruningError, match="does not take this batch") as caught:
            prune(mlp().float(), 0.5, name, structure, batches=[torch.randn(4, 7)])
        assert_one_line(caught.value)

    @pytest.mark.parametrize("name", [*GRADIENTS, "wanda"])
    def test_float64_batches_of_a_float32_network_are_one_line(self, name: str) -> None:
        with pytest.raises(PruningError, match="does not take this batch") as caught:
            prune(mlp().float(), 0.5, name, batches=batches())
        assert_one_line(caught.value)

    @pytest.mark.usefixtures("few_rounds")
    @pytest.mark.parametrize("name", WITH_DATA)
    def test_a_shuffling_loader_leaves_the_callers_chance_alone(self, name: str) -> None:
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()).double()
        x, y = (torch.cat(part) for part in zip(*batches(), strict=True))
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4, shuffle=True)
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        for given in (loader, iter(loader)):
            before = torch.get_rng_state()
            prune(model, 1 / 3, name, structure, batches=given)
            assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("name", ["gradient", "taylor", "fisher", "snip"])
    @pytest.mark.parametrize("factor", [1e-20, 1e-25])
    def test_tiny_gradients_rank_as_others_do(self, name: str, factor: float) -> None:
        """In float32 their squares are 0, and weights would go by position."""
        model, data = mlp(4, 6, 3).float(), [(x.float(), y) for x, y in batches()]

        def tiny(outputs: Tensor, targets: Tensor) -> Tensor:
            return factor * functional.cross_entropy(outputs, targets)

        for structure in ("weight", "neuron"):
            expected = prune(model, 1 / 3, name, structure, batches=data)
            found = prune(model, 1 / 3, name, structure, batches=data, loss=tiny)
            assert all(found[key] == expected[key] for key in expected)


def of_kind(kind: str, x: Tensor, z: Tensor, y: Tensor) -> Any:
    """A batch of two inputs and targets."""
    if kind == "keywords":
        return {"x": x, "z": z, "labels": y}
    return ([x, z] if kind == "list" else (x, z)), y


class TwoInputs(nn.Module):
    """A model of two inputs; with labels it answers with its loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()

    def forward(self, x: Tensor, z: Tensor, labels: Tensor | None = None) -> Any:
        outputs = torch.tanh(self.one(x)) * self.two(z)
        return outputs if labels is None else {"loss": functional.cross_entropy(outputs, labels)}


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return x


class WithLoss(nn.Module):
    """As transformers' models: keywords in, an object with a loss out; or a plain mapping."""

    def __init__(self, model: nn.Module, plain: bool = False) -> None:
        super().__init__()
        self.model = model
        self.plain = plain

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Any:
        outputs = self.model(inputs)
        loss = None if labels is None else functional.cross_entropy(outputs, labels)
        if self.plain:
            return {"logits": outputs} if loss is None else {"logits": outputs, "loss": loss}
        return type("Answer", (), {"loss": loss})


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize("name", criteria)
class TestCircumstances:
    """Scores are of the network as it is used: whatever the mode, the frozen parts and the caller's context."""

    def net(self) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(6, 3), nn.BatchNorm1d(3)),
        )
        return model.double()

    def prune(self, model: nn.Module, name: str, **options: Any) -> Masks:
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        return prune(model, 1 / 3, name, structure, batches=batches(), **options)

    def test_training_mode_frozen_weights_and_no_grad_make_no_difference(self, name: str) -> None:
        expected = self.prune(self.net().eval(), name)
        training = self.net().train()
        assert self.prune(training, name) == expected
        assert all(module.training for module in training.modules())
        assert self.prune(self.net().requires_grad_(False), name) == expected
        with torch.no_grad():
            assert self.prune(self.net(), name) == expected

    def test_modes_come_back_one_by_one(self, name: str) -> None:
        model = self.net().train()
        model[1].eval()
        self.prune(model, name)
        assert [module.training for module in model] == [True, False, True, True, True, True]

    def test_removed_weights_contribute_nothing(self, name: str) -> None:
        """Whatever they hold: 1000 in their place changes no choice."""
        earlier = prune(self.net(), 0.25, "random", seed=1)
        clean, dirty = self.net(), self.net()
        earlier.apply_(clean)
        with torch.no_grad():
            for key, parameter in prunable_parameters(dirty).items():
                parameter[~earlier[key].keep] = 1000.0
        structure = "neuron" if criteria.get(name).outputs_only else "weight"
        for unit in {structure, "neuron"}:
            options: dict[str, Any] = {"structure": unit, "masks": earlier, "batches": batches()}
            target = 1 / 3 if unit == "neuron" else 0.5
            assert prune(dirty, target, name, **options) == prune(clean, target, name, **options)

    def test_protected_layers_are_not_scored_and_change_no_other_score(self, name: str) -> None:
        if name in ("snip", "grasp"):
            return  # the first divides by the sum, the second takes the gradient's norm, of what is scored
        model = self.net()
        whole = score(name, model, batches())
        part = score(name, model, batches(), names=frozenset({"4.weight"}))
        assert list(part) == ["4.weight"]
        if name not in ("random", "movement"):  # the stream of numbers is shorter, the first layer does not move
            assert_scores(part, {"4.weight": whole["4.weight"]})
