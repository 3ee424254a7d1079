"""Features at exits are those of the network as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small_exits import SHAPE, small
from tombola.data import DataConfig, load_data
from tombola.errors import ConfigError, ModelError
from tombola.models.exits import default_exits, exit_names, find_exit, prefix
from tombola.models.spec import Normalisation
from tombola.pruning import Masks
from tombola.studies.hybrid import pooled, replicate
from tombola.studies.hybrid.cuts import Cut
from tombola.studies.hybrid.exits import features_at, poolings
from tombola.training import frozen
from tombola.training.base import FrozenBase
from tombola.training.device import placed
from tombola.training.metrics import Scores


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(11, *SHAPE, generator=torch.Generator().manual_seed(1))


class TestFeatures:
    def by_hand(self, hidden: Tensor, kind: str) -> Tensor:
        means, most = hidden.flatten(2).mean(2), hidden.flatten(2).max(2).values
        if kind == "gap":
            return means
        if kind == "gap+max":
            return torch.cat([means, most], 1)
        high, wide = hidden.shape[2] // 2, hidden.shape[3] // 2
        corners = [hidden[:, :, r * high : (r + 1) * high, c * wide : (c + 1) * wide] for r in (0, 1) for c in (0, 1)]
        return torch.stack([corner.mean((2, 3)) for corner in corners], 2).flatten(1)

    @pytest.mark.parametrize("architecture", ["vgg16", "vgg16-keras", "conv4", "resnet20"])
    @pytest.mark.parametrize("batch_size", [1, 4, 64])
    def test_they_are_the_activations_pooled(self, architecture: str, batch_size: int, images: Tensor) -> None:
        """What hooks see in a pass through the whole network, at exits in any order."""
        model = small(architecture)
        exits = [find_exit(model, name) for name in reversed(default_exits(model))]
        seen: dict[str, Tensor] = {}
        ends = {list(model.children())[exit.length - 1]: exit.name for exit in exits}
        hooks = [
            module.register_forward_hook(lambda own, _, output: seen.update({ends[own]: output})) for module in ends
        ]
        with torch.no_grad():
            model(images)
        for hook in hooks:
            hook.remove()
        found = features_at(model, exits, list(poolings), images, batch_size)
        assert set(found) == {(exit.name, kind) for exit in exits for kind in poolings}
        for (name, kind), features in found.items():
            assert features.dtype == np.float32
            if seen[name].shape[2] % 2 == 0:  # else the quarters of a grid overlap
                np.testing.assert_allclose(features, self.by_hand(seen[name], kind), rtol=1e-5, atol=1e-6)
            assert np.ptp(features, axis=0).any()  # images reach it

    def test_a_layer_that_runs_twice_runs_twice(self, images: Tensor) -> None:
        relu = nn.ReLU()
        model = nn.Sequential(nn.Conv2d(1, 3, 3), relu, nn.Conv2d(3, 3, 3), relu, nn.Flatten())
        exit = find_exit(model, "2")
        with torch.no_grad():
            by_hand = model[:4](images).mean((2, 3))
            assert (by_hand > 0).any()
            np.testing.assert_allclose(prefix(model, exit)(images).mean((2, 3)), by_hand, atol=1e-6)
        np.testing.assert_allclose(features_at(model, [exit], ["gap"], images)["2", "gap"], by_hand, atol=1e-6)

    def test_a_kind_has_so_many_features_a_channel(self, images: Tensor) -> None:
        model = small("vgg11")
        exit = find_exit(model, "block5_conv2")  # images of 2×2
        found = features_at(model, [exit], list(poolings), images)
        assert {kind: features.shape for (_, kind), features in found.items()} == {
            "gap": (11, 8),
            "gap+max": (11, 16),
            "grid": (11, 32),
        }

    def test_the_network_and_chance_stay_as_they_are(self, images: Tensor) -> None:
        model = small("conv4", dropout=0.5).train()
        model.conv_1.eval()
        modes = [module.training for module in model.modules()]
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        random = torch.get_rng_state()
        given = images.clone()
        exits = [find_exit(model, name) for name in exit_names(model)]
        first = features_at(model, exits, ["gap"], images)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.equal(images, given)
        again = features_at(model.eval(), exits, ["gap"], images)
        assert all(np.array_equal(first[key], again[key]) for key in first)

    def test_one_pass_serves_all_and_ends_behind_the_last_exit(self, images: Tensor) -> None:
        model = small("vgg16-keras")
        calls: list[str] = []
        for name, module in model.named_children():
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
        exits = [find_exit(model, name) for name in ("block3_conv1", "block1_conv2", "block1_pool")]
        features_at(model, exits, list(poolings), images, batch_size=64)
        assert calls == [name for name, _ in prefix(model, exits[0]).named_children()]
        assert calls[-1] == "block3_conv1_relu"
        assert features_at(model, [], list(poolings), images) == {}

    def test_activations_in_place_do_no_harm(self, images: Tensor) -> None:
        """The activation behind a pool changes what the exit before it gave."""
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Identity(), nn.ReLU(inplace=True), nn.Flatten())
        exit = find_exit(model, "0")
        assert exit.length == 1
        found = features_at(model, [exit], ["gap"], images)["0", "gap"]
        with torch.no_grad():
            np.testing.assert_allclose(found, model[0](images).mean((2, 3)), atol=1e-6)


class Reshaping(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.sum((2, 3))


class TestErrors:
    def test_a_layer_that_reshapes_is_found_when_it_runs(self, images: Tensor) -> None:
        model = nn.Sequential(nn.Conv2d(1, 3, 3), Reshaping(), nn.ReLU())
        with pytest.raises(ModelError, match=r"no exit at '1': it gives a tensor of shape \(11, 3\)"):
            features_at(model, [find_exit(model, "1")], ["gap"], images)

    def test_unknown_features_are_refused(self, images: Tensor) -> None:
        model = small("lenet5")
        with pytest.raises(ConfigError, match=r"unknown kind of features 'max'.*known: gap, gap\+max, grid"):
            features_at(model, [find_exit(model, "conv_1")], ["max"], images)


class TestDevices:
    def test_what_is_scored_and_cut_is_where_its_config_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Networks were scored on the CPU whatever was asked for, and the base's features kept as an accelerator's."""
        inside: list[str] = []
        asked: list[str] = []

        @contextlib.contextmanager
        def placed(model: nn.Module, device: str) -> Iterator[None]:
            inside.append(device)
            yield
            inside.pop()

        def scored(*given: Any) -> Scores:
            asked.extend(inside)
            return Scores(0.0, 0.5, 0.5, 11)

        def features(*given: Any) -> dict[tuple[str, str], Any]:
            asked.extend(inside)
            return {("0", "gap"): np.zeros((11, 3), np.float32)}

        monkeypatch.setattr(replicate, "evaluate", scored)
        for module in (replicate, frozen):
            monkeypatch.setattr(module, "placed", placed, raising=False)
        for module in (replicate, pooled):
            monkeypatch.setattr(module, "features_at", features)
        data = load_data(DataConfig(name="digits"), 0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        cut = Cut("dense", network, Masks.full(network), data, whole=True, device="cuda")
        assert replicate.whole_row(cut)["test_accuracy"] == 0.5
        assert asked == ["cuda"] * 2  # validation and test
        base = FrozenBase(network, "0", (1, 8, 8), (3,), Normalisation(), "x", device=torch.device("cuda"))
        pooled._computed(base, [], ["gap"], data.test.inputs[:11])
        assert asked == ["cuda"] * 3

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that CUDA knows here")
    def test_features_are_computed_there_and_come_back(self, images: Tensor) -> None:
        model = small("vgg16")
        exits = [find_exit(model, name) for name in default_exits(model)]
        here = features_at(model, exits, list(poolings), images)
        with placed(model, "cuda"):
            there = features_at(model, exits, list(poolings), images)
        assert here.keys() == there.keys()
        for key, features in here.items():
            np.testing.assert_allclose(there[key], features, rtol=1e-3, atol=1e-4)
