"""Criteria, each against a direct computation on a small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from direct_scores import Batches, assert_scores, batches, gradient_of_all, gradients_of, mlp, score, weights_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tombola.errors import ConfigError, PruningError
from tombola.pruning import Mask, Masks, prunable_parameters, prune
from tombola.pruning.criteria import ScoringContext, make_criterion, movement_at
from tombola.pruning.criteria.gradients import MOVEMENT_RATE
from tombola.pruning.prunable import weight_layouts
from tombola.pruning.structures import make_structure


class TestGradientCriteria:
    def test_snip_is_the_normalised_sensitivity(self) -> None:
        model, data = mlp(), batches()
        sensitivity = {n: (p * g).abs().detach() for (n, p), g in _with_gradients(model, data)}
        total = sum(float(s.sum()) for s in sensitivity.values())
        found = score("snip", model, data)
        assert_scores(found, {name: s / total for name, s in sensitivity.items()})
        assert sum(float(s.sum()) for s in found.values()) == pytest.approx(1)

    def test_snip_is_the_derivative_for_a_factor_of_each_weight(self) -> None:
        """Lee et al. 2019, equation 4: c, 1 in the dense network, multiplies the weights."""
        model, data = mlp(), batches(1)
        factors = {name: torch.ones_like(p, requires_grad=True) for name, p in prunable_parameters(model).items()}
        weights = {name: factors[name] * p.detach() for name, p in prunable_parameters(model).items()}
        functional.cross_entropy(functional_call(model, weights, data[0][0]), data[0][1]).backward()
        total = sum(c.grad.abs().sum() for c in factors.values() if c.grad is not None)
        assert_scores(score("snip", model, data), {n: c.grad.abs() / total for n, c in factors.items()})

    def test_grasp_against_the_explicit_hessian(self) -> None:
        model, data = mlp(4, 3, 3), batches()
        inputs, targets = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
        names = [name for name, _ in model.named_parameters()]  # biases too: the norm is of the whole gradient
        weights = [p.detach() for p in model.parameters()]
        sizes = [w.numel() for w in weights]

        def loss(flat: Tensor) -> Tensor:
            parts = [part.view_as(w) for part, w in zip(flat.split(sizes), weights, strict=True)]
            return functional.cross_entropy(
                functional_call(model, dict(zip(names, parts, strict=True)), inputs), targets
            )

        flat = torch.cat([w.flatten() for w in weights])
        hessian = torch.autograd.functional.hessian(loss, flat)
        gradient = torch.autograd.functional.jacobian(loss, flat)
        expected = (flat * (hessian @ gradient)).split(sizes)
        found = score("grasp", model, data)
        scores = {n: e.view_as(w) for n, e, w in zip(names, expected, weights, strict=True)}
        assert_scores(found, {name: scores[name] for name in prunable_parameters(model)})

    def test_grasp_of_a_part_of_the_layers_goes_by_the_gradient_of_all(self) -> None:
        model, data = mlp(), batches(1)
        whole = score("grasp", model, data)
        assert_scores(score("grasp", model, data, names={"0.weight"}), {"0.weight": whole["0.weight"]})

    def test_grasp_keeps_what_the_gradients_norm_lives_on(self) -> None:
        """To first order, scaling a weight by 1 - ε changes ‖g‖² by -2ε times its score."""
        model, data = mlp(), batches(1)
        found = score("grasp", model, data)["0.weight"]
        weight, small = model[0].weight, 1e-6

        def squared_norm() -> float:
            loss = functional.cross_entropy(model(data[0][0]), data[0][1])
            return sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(model.parameters())))

        before = squared_norm()
        for index in [(0, 0), (2, 3), (4, 1)]:
            kept = float(weight[index].detach())
            weight.data[index] = kept * (1 - small)
            change = squared_norm() - before
            weight.data[index] = kept
            assert change == pytest.approx(-2 * small * float(found[index]), rel=1e-3, abs=1e-12)

    def test_gradient_taylor_and_fisher_over_single_weights(self) -> None:
        model, data = mlp(), batches()
        mean = gradient_of_all(model, data)
        weights = weights_of(model)
        assert_scores(score("gradient", model, data), {n: (w * mean[n]).abs() for n, w in weights.items()})
        by_batch = [gradients_of(model, *batch) for batch in data]
        taylor = {n: sum((w * g[n]).square() for g in by_batch) / len(by_batch) for n, w in weights.items()}
        assert_scores(score("taylor", model, data), taylor)
        examples = [(x[i : i + 1], y[i : i + 1]) for x, y in data for i in range(len(x))]
        by_example = [gradients_of(model, *example) for example in examples]
        fisher = {n: sum((w * g[n]).square() for g in by_example) / 2 / len(examples) for n, w in weights.items()}
        assert_scores(score("fisher", model, data), fisher)

    @pytest.mark.parametrize("name", ["gradient", "taylor", "fisher"])
    def test_a_unit_is_judged_by_the_joint_effect_of_its_weights(self, name: str) -> None:
        """(Σ w·g) and not Σ |w·g|: effects that cancel are none."""
        model, data = mlp(), batches(1, size=1)
        changes = {n: (w * gradients_of(model, *data[0])[n]).sum(1, keepdim=True) for n, w in weights_of(model).items()}
        value = {"gradient": Tensor.abs, "taylor": Tensor.square, "fisher": lambda change: change.square() / 2}[name]
        expected = {n: value(change).expand_as(weights_of(model)[n]) for n, change in changes.items()}
        structure, layouts = make_structure("neuron"), weight_layouts(model)
        sums = {"sum_over_units": lambda n, tensor: structure.sum_over_units(tensor, layouts[n])}
        assert_scores(score(name, model, data, **sums), expected)

    def test_movement_along_sgd_steps(self) -> None:
        model, data = mlp(), batches()
        expected = {name: torch.zeros_like(w) for name, w in weights_of(model).items()}
        walking = mlp()
        for batch in data:
            step = gradients_of(walking, *batch)
            for name, parameter in prunable_parameters(walking).items():
                expected[name] -= parameter.detach() * step[name]
                with torch.no_grad():
                    parameter -= MOVEMENT_RATE * step[name]
        assert_scores(score("movement", model, data), expected)

    def test_movement_at_another_rate(self) -> None:
        data = batches(2)
        criterion = movement_at(0.5)
        found = criterion(mlp(), ScoringContext(batches=data))
        walking = mlp()
        expected = {name: torch.zeros_like(w) for name, w in weights_of(walking).items()}
        for batch in data:
            step = gradients_of(walking, *batch)
            for name, parameter in prunable_parameters(walking).items():
                expected[name] -= parameter.detach() * step[name]
                with torch.no_grad():
                    parameter -= 0.5 * step[name]
        assert_scores(found, expected)
        assert prune(mlp(), 0.5, criterion, batches=data).sparsity == pytest.approx(0.5, abs=0.05)
        for rate in (0, -1.0, True, "fast", float("nan")):
            with pytest.raises(PruningError, match="the rate of movement's steps is a number above 0"):
                movement_at(rate)  # type: ignore[arg-type]

    def test_the_rate_of_movement_may_be_part_of_its_name(self) -> None:
        data = batches(2)
        by_name = make_criterion("movement:0.5")(mlp(), ScoringContext(batches=data))
        assert_scores(by_name, movement_at(0.5)(mlp(), ScoringContext(batches=data)))
        assert list(prune(mlp(), 0.5, "movement:1e-1", batches=data)) == list(Masks.full(mlp()))
        for name, said in {
            "movement:": "write it as movement:0.1",
            "movement:fast": "write it as movement:0.1",
            "movement:0": "a number above 0",
            "movement:nan": "a number above 0",
            "magnitude:0.5": "magnitude has no number to set",
        }.items():
            with pytest.raises(PruningError, match=said):
                make_criterion(name)
        with pytest.raises(ConfigError, match="unknown criterion 'movment'"):
            make_criterion("movment:0.5")

    def test_movement_stays_within_the_pruned_network(self) -> None:
        """Its steps move kept weights alone; a removed one that moved would change the next gradients."""
        model, data, walking = mlp(), batches(), mlp()
        masks = prune(mlp(), 0.5, "random", seed=3)
        masks.apply_(walking)
        expected = {name: torch.zeros_like(w) for name, w in weights_of(model).items()}
        for batch in data:
            step = gradients_of(walking, *batch)
            for name, parameter in prunable_parameters(walking).items():
                expected[name] -= parameter.detach() * step[name]
                with torch.no_grad():
                    parameter -= MOVEMENT_RATE * step[name]
            masks.apply_(walking)
        found = score("movement", model, data, masks=masks)
        assert_scores({n: masks[n].apply(s) for n, s in found.items()}, expected)

    def test_equal_weights_go_by_their_gradients(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2, bias=False))
        nn.init.ones_(model[0].weight)
        wanted = torch.tensor([[0.01, 1.0], [0.02, 0.9]])

        def loss(outputs: Tensor, rows: Tensor) -> Tensor:
            return (outputs * rows).sum()

        rows = wanted.T  # inputs are the identity, so output[i, j] is the weight [j, i]
        masks = prune(model, 0.5, "gradient", batches=[(torch.eye(2), rows)], loss=loss)
        assert masks["0.weight"].keep.tolist() == [[False, True], [False, True]]


class TestUntrained:
    """SNIP and GraSP are of networks at their start, whose stored statistics say nothing: they go by the batch."""

    def net(self) -> nn.Sequential:
        torch.manual_seed(0)
        layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3), nn.BatchNorm1d(3)]
        return nn.Sequential(*layers).double()

    def gradients(self, data: Batches, everything: bool = False) -> tuple[dict[str, nn.Parameter], tuple[Tensor, ...]]:
        """The weights and the gradients of the mean loss, for them or everything, in training mode, no dropout."""
        model = self.net().train()
        model[3].eval()
        weights = prunable_parameters(model)
        losses = [functional.cross_entropy(model(inputs), targets) for inputs, targets in data]
        of = list(model.parameters() if everything else weights.values())
        return weights, torch.autograd.grad(torch.stack(losses).mean(), of, create_graph=True)

    def test_snip(self) -> None:
        data = batches(size=8)
        weights, found = self.gradients(data)
        sensitivity = {n: (w * g).abs().detach() for (n, w), g in zip(weights.items(), found, strict=True)}
        total = torch.stack([s.sum() for s in sensitivity.values()]).sum()
        assert_scores(score("snip", self.net(), data), {name: s / total for name, s in sensitivity.items()})

    def test_grasp(self) -> None:
        data = batches(size=8)
        weights, found = self.gradients(data, everything=True)
        inner = torch.stack([(g * g.detach()).sum() for g in found]).sum()
        products = torch.autograd.grad(inner, list(weights.values()))
        expected = {n: w.detach() * hg for (n, w), hg in zip(weights.items(), products, strict=True)}
        assert_scores(score("grasp", self.net(), data), expected)

    @pytest.mark.parametrize("name", ["snip", "grasp"])
    @pytest.mark.parametrize("training", [True, False])
    def test_the_stored_statistics_are_neither_asked_nor_changed(self, name: str, training: bool) -> None:
        data = batches(size=8)
        model, odd = self.net().train(training), self.net().train(training)
        odd[1].running_mean.fill_(3.0)
        odd[1].running_var.fill_(50.0)
        expected = {key: tensor.clone() for key, tensor in odd.state_dict().items()}
        assert_scores(score(name, odd, data), score(name, model, data))
        assert all(torch.equal(tensor, expected[key]) for key, tensor in odd.state_dict().items())
        assert [module.training for module in odd] == [training] * 6
        # A criterion of trained networks does ask them.
        assert not torch.allclose(*(score("taylor", m, data)["0.weight"] for m in (odd, model)), rtol=1e-2)


def _with_gradients(model: nn.Module, data: Batches) -> Iterator[tuple[tuple[str, Tensor], Tensor]]:
    return zip(prunable_parameters(model).items(), gradient_of_all(model, data).values(), strict=True)


class TestWeightsAlone:
    def test_lamp_is_its_definition(self) -> None:
        """Lee et al. 2021, equation 3: the square over the sum of squares of all that come not before it."""
        torch.manual_seed(0)
        weight = torch.randn(5, 4)
        weight[1, 2] = weight[0, 0]
        model = nn.Sequential(nn.Linear(4, 5))
        model[0].weight.data.copy_(weight)
        flat = weight.flatten().double().square().tolist()
        order = sorted(range(20), key=flat.__getitem__)
        expected = torch.zeros(20, dtype=torch.float64)
        for place, index in enumerate(order):
            expected[index] = flat[index] / sum(flat[other] for other in order[place:])
        assert_scores(score("lamp", model), {"0.weight": expected.view(5, 4)})
        assert float(score("lamp", model)["0.weight"].max()) == 1  # a layer's largest: no layer dies

    def test_lamp_of_a_layer_of_zeros_is_zero(self) -> None:
        model = nn.Sequential(nn.Linear(3, 2))
        nn.init.zeros_(model[0].weight)
        assert not score("lamp", model)["0.weight"].any()

    @pytest.mark.parametrize(("criterion", "power"), [("l1-norm", 1), ("l2-norm", 2)])
    def test_norms_of_units(self, criterion: str, power: int) -> None:
        convolution = nn.Conv2d(3, 5, 2)
        norms = convolution.weight.detach().flatten(1).norm(power, dim=1)
        masks = prune(nn.Sequential(convolution), 0.4, criterion, "filter")
        gone = (~masks["0.weight"].keep.flatten(1).any(1)).nonzero().flatten()
        assert set(gone.tolist()) == set(norms.topk(2, largest=False).indices.tolist())

    def test_norms_favour_large_units_and_the_mean_does_not(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(8, 2))
        nn.init.constant_(model[0].weight, 0.5)
        nn.init.constant_(model[1].weight, 0.4)
        assert prune(model, 0.25, "l1-norm", "neuron")["0.weight"].kept == 2
        assert prune(model, 0.25, "magnitude", "neuron")["0.weight"].kept == 4

    @pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 6, 3), lambda: nn.ConvTranspose2d(4, 6, 2, groups=2)])
    def test_fpgm_is_the_summed_distance_to_the_other_outputs(self, make: Callable[[], Any]) -> None:
        torch.manual_seed(0)
        convolution = make()
        weight = convolution.weight.detach()
        if isinstance(convolution, nn.ConvTranspose2d):
            outputs = [weight[2 * g : 2 * g + 2, o].flatten() for g in range(2) for o in range(3)]
        else:
            outputs = [row.flatten() for row in weight]
        size = len(outputs) // convolution.groups  # outputs of another group read other inputs
        groups = [outputs[start : start + size] for start in range(0, len(outputs), size)]
        distances = torch.stack([sum((one - other).norm() for other in group) for group in groups for one in group])
        masks = prune(nn.Sequential(convolution), 1 / 3, "fpgm", "filter")
        alive = make_structure("filter").alive(masks["0.weight"].keep, weight_layouts(convolution)["weight"])
        assert set((~alive).nonzero().flatten().tolist()) == set(distances.topk(2, largest=False).indices.tolist())

    def test_fpgm_of_grouped_convolutions_measures_within_a_group(self) -> None:
        """The first group's outputs lie among those of the second, which read other inputs: no stand-ins."""
        convolution = nn.Conv2d(2, 6, 1, groups=2, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(torch.tensor([1.0, 1.1, 5.0, 1.0, 20.0, 60.0]).view(6, 1, 1, 1))
        found = score("fpgm", nn.Sequential(convolution))["0.weight"].flatten()
        assert found.tolist() == pytest.approx([4.1, 4.0, 7.9, 78, 59, 99], rel=1e-5)

    def test_fpgm_takes_no_account_of_outputs_that_are_gone(self) -> None:
        """Two alike outputs far from 0 can stand in for each other; one near 0 cannot, once 0 is no output."""
        model = nn.Sequential(nn.Linear(1, 6, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[9.0], [8.0], [7.0], [1.0], [5.0], [5.1]]))
        earlier = Masks({"0.weight": Mask(torch.tensor([[False]] * 3 + [[True]] * 3))})
        masks = prune(model, 4 / 6, "fpgm", "neuron", masks=earlier)
        assert masks["0.weight"].keep.flatten().tolist() == [False, False, False, True, False, True]

    def test_random_follows_its_seed_alone(self) -> None:
        first = prune(mlp(), 0.5, "random", seed=4)
        torch.manual_seed(99)
        assert prune(mlp(seed=9), 0.5, "random", seed=4) == first
        assert prune(mlp(), 0.5, "random", seed=5) != first

    def test_random_gives_small_and_large_units_the_same_chance(self) -> None:
        model = nn.Sequential(nn.Linear(2, 100), nn.Linear(100, 100), nn.Linear(100, 2))
        for sparsity in (0.2, 0.8):
            gone = torch.zeros(2)
            for seed in range(10):
                masks = prune(model, sparsity, "random", "neuron", seed=seed)
                gone += torch.tensor([100 - int(masks[f"{i}.weight"].keep.any(1).sum()) for i in (0, 1)])
            assert gone / 1000 == pytest.approx([sparsity, sparsity], abs=0.05)


class TestBatchNormScale:
    def net(self) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)),
            *(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3)),
        )
        scales = [[0.1, -0.9, 0.8, 0.7], [2.0, -0.2, 3.0, -4.0], [5.0, 6.0, 7.0]]
        for index, scale in zip((1, 4, 7), scales, strict=True):
            model[index].weight.data = torch.tensor(scale)
        return model

    def test_the_filters_of_least_scale_go(self) -> None:
        masks = prune(self.net(), 0.25, "bn-scale", "filter", batches=[torch.randn(2, 1, 6, 6)])
        assert masks["0.weight"].keep.flatten(1).any(1).tolist() == [False, True, True, True]
        assert masks["3.weight"].keep.flatten(1).any(1).tolist() == [True, False, True, True]

    def test_neurons_too(self) -> None:
        masks = prune(self.net(), 1 / 3, "bn-scale", "neuron", batches=[torch.randn(2, 1, 6, 6)])
        assert masks["6.weight"].keep.any(1).tolist() == [False, True, True]

    @pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4)])
    def test_a_layer_that_no_batch_norm_with_a_scale_reads_is_named(self, norm: nn.Module) -> None:
        model = self.net()
        model[4] = norm
        with pytest.raises(PruningError, match=r"3\.weight: no batch norm reads its output"):
            prune(model, 0.25, "bn-scale", "filter", batches=[torch.randn(2, 1, 6, 6)])
        masks = prune(model, 0.25, "bn-scale", "filter", batches=[torch.randn(2, 1, 6, 6)], protect=["3"])
        assert masks["0.weight"].keep.flatten(1).any(1).tolist() == [False, True, True, False]

    def test_a_norm_over_another_axis_is_none(self) -> None:
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(5))
        with pytest.raises(PruningError, match=r"0\.weight: no batch norm reads its output"):
            prune(model, 0.25, "bn-scale", "neuron", batches=[torch.randn(2, 5, 6)])
