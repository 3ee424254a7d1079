"""Controls: each is another start of a ticket's training, with as many weights in every layer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from small_study import SMALL_STUDY, run_lottery
from tombola.data import load_data
from tombola.errors import ConfigError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Masks, prune
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.lottery import replicate as replicate_module
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.controls import HOST, Host, Situation, controls, deciding
from tombola.studies.lottery.controls.matching import Order, chain_of, match, moved
from tombola.studies.lottery.controls.random import shuffled
from tombola.studies.lottery.networks import replicate_seed
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind, Start
from tombola.studies.lottery.stored import ReplicateFiles
from tombola.studies.lottery.verdict import judge
from tombola.training import Recipe, fit

SPEC = ModelSpec(input_shape=(1, 8, 8), classes=10, seed=3, widths=(20, 10))
INITIAL = "kaiming-normal"
CHAINS = {
    "lenet": SPEC,
    "lenet5": ModelSpec(
        architecture="lenet5",
        initialisation="kaiming-normal",
        input_shape=(1, 28, 28),
        classes=10,
        seed=0,
        widths=(4, 6, 9, 8),
    ),
    "vgg11": ModelSpec(
        architecture="vgg11",
        initialisation="kaiming-normal",
        input_shape=(3, 32, 32),
        classes=4,
        seed=0,
        widths=(4,) * 5,
    ),
}


def config(**changes: object) -> LotteryConfig:
    return validate({**SMALL_STUDY, **changes}, LotteryConfig, "small")


def fresh(spec: ModelSpec, seed: int) -> dict[str, torch.Tensor]:
    return build(spec.model_copy(update={"seed": seed})).state_dict()


def situation(spec: ModelSpec, mode: str = "init") -> Situation:
    """A ticket with half of the weights of each layer."""
    model = build(spec)
    recipe = Recipe(length="10it", evaluate_every="10it")
    masks = prune(model, 0.5, distribution="uniform")
    ticket = Start(model.state_dict(), masks, recipe, 3 if mode.startswith("step") else 0, Masks.full(model))
    host = Host(fresh(spec, 7), fresh(spec, 8), fresh(spec, 9))
    parsed = Rewind.parse(mode)
    return Situation(ticket, parsed, recipe, model.state_dict(), 5, model, lambda s: fresh(spec, s), lambda: host)


def reordered(model: nn.Module, state: dict[str, torch.Tensor], orders: list[Order]) -> dict[str, torch.Tensor]:
    """The same function with its hidden units in other orders: unit i of it is what was unit `order[i]`."""
    state = dict(state)
    below: torch.Tensor | None = None
    for layer, order in zip(chain_of(model), [*orders, None], strict=True):
        weight = state[layer.weight]
        if below is not None:
            weight = weight.reshape(len(weight), len(below), -1)[:, below].reshape(weight.shape)
        if order is not None:
            rows = torch.from_numpy(order)
            norm = layer.weight.replace("conv", "norm").removesuffix(".weight")
            own = [
                *layer.per_unit,
                *(name for name in (f"{norm}.running_mean", f"{norm}.running_var") if name in state),
            ]
            state |= {name: state[name][rows] for name in own}
            weight, below = weight[rows], rows
        state[layer.weight] = weight
    return state


@pytest.mark.parametrize("name", controls)
@pytest.mark.parametrize("spec", CHAINS)
@pytest.mark.parametrize("mode", ["init", "step:3it", "lr", "finetune"])
def test_a_control_keeps_as_many_weights_in_every_layer_and_is_the_same_every_time(
    name: str, spec: str, mode: str
) -> None:
    given = situation(CHAINS[spec], mode)
    before = content_sha256(given.model.state_dict())
    first, again = (controls.get(name).start(given) for _ in range(2))
    assert {n: m.kept for n, m in first.masks.items()} == {n: m.kept for n, m in given.ticket.masks.items()}
    assert first.masks == again.masks
    assert content_sha256(first.state) == content_sha256(again.state)
    assert first.earlier is None
    differs = first.masks != given.ticket.masks or content_sha256(first.state) != content_sha256(given.ticket.state)
    assert differs, "it is the ticket"
    assert content_sha256(given.model.state_dict()) == before
    if Rewind.parse(mode).keeps_weights:
        assert first.first == 0


class TestRandom:
    def test_it_keeps_the_counts_of_every_layer_and_moves_the_weights(self) -> None:
        masks = prune(build(SPEC), 0.7)
        control = shuffled(masks, seed=1)
        assert [m.kept for m in control.values()] == [m.kept for m in masks.values()]
        assert control != masks
        assert control == shuffled(masks, 1) != shuffled(masks, 2)
        overlap = (control & masks).kept / masks.kept
        assert overlap == pytest.approx(0.3, abs=0.08)  # what chance gives at 30 % density


@pytest.mark.parametrize("name", ["reinit", "signs"])
def test_fresh_weights_are_of_the_same_spread(name: str) -> None:
    given = situation(SPEC)
    found = controls.get(name).start(given).state
    for parameter in given.ticket.masks:
        initial = given.initial[parameter]
        assert not (found[parameter] == initial).any()
        assert found[parameter].std() == pytest.approx(float(initial.std()), rel=0.25)


def test_signs_are_those_of_the_initial_weights_and_only_signs() -> None:
    given = situation(SPEC)
    found, other = controls.get("signs").start(given).state, fresh(SPEC, given.chance)
    for parameter in given.ticket.masks:
        assert torch.equal(found[parameter].sign(), given.initial[parameter].sign())
        assert torch.equal(found[parameter].abs(), other[parameter].abs())


class TestMatching:
    @pytest.mark.parametrize("spec", CHAINS)
    def test_reordering_changes_no_function_and_is_found(self, spec: str) -> None:
        model = build(CHAINS[spec]).eval()
        chance = np.random.default_rng(0)
        state = {n: torch.randn_like(t) if t.is_floating_point() else t for n, t in model.state_dict().items()}
        state |= {name: tensor.abs() for name, tensor in state.items() if name.endswith("running_var")}
        model.load_state_dict(state)
        layers = chain_of(model)
        sizes = [len(state[layer.weight]) for layer in layers[:-1]]
        orders: list[Order] = [chance.permutation(size) for size in sizes]
        inputs = torch.randn(5, *CHAINS[spec].input_shape)
        expected = model(inputs).detach()
        other = reordered(model, state, orders)
        model.load_state_dict(other)
        torch.testing.assert_close(model(inputs), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        found = match(state, other, layers)
        assert all((order[there] == np.arange(len(order))).all() for order, there in zip(orders, found, strict=True))

        masks = prune(model, 0.5)  # of the reordered network, back on the first: what its own prune says
        model.load_state_dict(state)
        back = moved(masks, layers, [np.argsort(there) for there in found])
        assert moved(back, layers, found) == masks
        assert back == prune(model, 0.5)

    @pytest.mark.parametrize("spec", CHAINS)
    def test_a_network_is_matched_to_itself(self, spec: str) -> None:
        model = build(CHAINS[spec])
        layers = chain_of(model)
        state = model.state_dict()
        assert all((order == np.arange(len(order))).all() for order in match(state, state, layers))

    @settings(max_examples=30)
    @given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(0, 2**31))
    def test_matching_never_makes_networks_less_alike(self, widths: list[int], seed: int) -> None:
        torch.manual_seed(seed)
        first, second = (nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths))) for _ in range(2))
        layers = chain_of(first)

        def alike(other: dict[str, Any]) -> float:
            return sum(float((tensor * other[name]).sum()) for name, tensor in first.state_dict().items())

        orders = match(first.state_dict(), second.state_dict(), layers)
        assert all(sorted(order.tolist()) == list(range(len(order))) for order in orders)
        better = alike(reordered(second, second.state_dict(), orders))
        assert better >= alike(dict(second.state_dict())) - 1e-5

    def test_networks_that_are_no_chain_are_refused_by_name(self) -> None:
        resnet = build(
            ModelSpec(architecture="resnet20", initialisation=INITIAL, input_shape=(3, 32, 32), classes=10, seed=0)
        )
        with pytest.raises(ConfigError, match=r"`transplant` matches the neurons of a chain .* leave that control out"):
            chain_of(resnet)
        twice = nn.Linear(4, 4)
        flat_norm = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 3))
        for odd in (nn.Sequential(twice, twice), nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), nn.LSTM(2, 2), flat_norm):
            with pytest.raises(ConfigError, match="no part of one"):
                chain_of(odd)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    asked = config(controls=list(controls), rewind=["init", "step:10it", "lr"], pruning={"densities": [0.5, 0.2]})
    return run_lottery(asked, tmp_path_factory.mktemp("runs"))


class TestARunWithAll:
    def test_every_control_is_trained_and_the_host_once(self, result: Result) -> None:
        trainings = rows_of(result.rows, kind="training", replicate=0)
        assert len(trainings) == 2 + 3 * 2 * 5
        (host,), (dense,) = rows_of(trainings, branch=HOST), rows_of(trainings, branch="dense")
        assert host["weights_sha256"] != dense["weights_sha256"]
        assert host["density"] == 1.0
        order = [summary.branch for summary in summarise(result.rows) if summary.rewind in (None, "init")]
        assert order == ["dense", HOST] + ["ticket", *controls] * 2

    def test_the_transplanted_mask_is_the_tickets_on_matched_neurons(self, result: Result) -> None:
        files = ReplicateFiles.of(result.folder.checkpoints, 0)
        dense, host, initial = (
            load_tensors(path)[0]
            for path in (files.trained(None, 0, "dense"), files.trained(None, 0, HOST), files.host_initial)
            if path is not None
        )
        folder = files.round(Rewind.parse("init"), 2)
        ticket = Masks.from_tensors(load_tensors(folder / "masks.safetensors")[0])
        model = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0, widths=(20, 10)))
        masks = moved(ticket, chain_of(model), match(dense, host, chain_of(model)))
        seed = replicate_seed(result.config, 0)
        model.load_state_dict(initial)
        masks.apply_(model)
        data = load_data(result.config.data, seed)
        fit(model, data, result.config.training, masks, derive_seed(seed, "order", 2))
        (row,) = rows_of(result.rows, kind="training", replicate=0, rewind="init", round=2, branch="transplant")
        assert row["weights_sha256"] == content_sha256(model.state_dict())
        assert row["masks_sha256"] != content_sha256(ticket.to_tensors())

    def test_only_those_that_decide_are_beaten_or_not(self, result: Result) -> None:
        """Turned on, the others change neither outcome nor power; their intervals are there."""
        rows = [row for row in result.rows if row.get("rewind") in (None, "init")]
        few = [row for row in rows if row.get("branch") not in ("signs", "transplant", HOST)]
        all_of_them, fewer = judge(rows, 90.0), judge(few, 90.0)
        assert all_of_them.sentence == fewer.sentence
        assert (all_of_them.power, all_of_them.detectable) == (fewer.power, fewer.detectable)
        assert list(all_of_them.versus) == ["dense", *controls]
        assert list(fewer.versus) == ["dense", *deciding()]
        assert all(bounds.lower is not None for bounds in all_of_them.versus.values())

    def test_the_page_and_the_files_show_them(self, result: Result) -> None:
        page = (result.folder.root / "report.html").read_text()
        assert all(controls.get(name).title in page for name in controls)

    def test_killed_anywhere_it_ends_the_same(
        self, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It dies after the host is trained, and in the middle of it."""
        asked = result.config.model_copy(update={"replicates": 1})
        real, deaths = replicate_module.write_unit, {"host.json", "transplant.json"}

        def dies(path: Path, content: Any) -> None:
            if path.name in deaths:
                deaths.remove(path.name)
                raise KeyboardInterrupt
            real(path, content)

        monkeypatch.setattr(replicate_module, "write_unit", dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_lottery(asked, tmp_path)
        again = run_lottery(asked, tmp_path)
        assert not deaths
        key = ("rewind", "round", "branch", "weights_sha256", "masks_sha256")
        one, other = (
            sorted(str([row[k] for k in key]) for row in rows_of(rows, kind="training", replicate=0))
            for rows in (result.rows, again.rows)
        )
        assert one == other


@pytest.mark.parametrize(
    ("names", "message"),
    [(["randm"], "unknown control 'randm' .did you mean 'random'"), (["signs", "signs"], "name each control once")],
)
def test_names_are_checked(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(controls=names)


def test_a_network_that_a_control_cannot_be_made_of_leaves_nothing(tmp_path: Path) -> None:
    asked = config(
        model={"architecture": "resnet20", "widths": [2, 2, 2], "initialisation": INITIAL},
        data={"name": "mnist"},
        controls=["transplant"],
    )
    with pytest.raises(ConfigError, match="leave that control out"):
        run_lottery(asked, tmp_path)
    assert not list(tmp_path.iterdir())
