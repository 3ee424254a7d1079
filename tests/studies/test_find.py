"""`find_ticket`: one call from a network and data of one's own to a verdict, and the same call again continues it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import own_models
from small_models import invoke
from tombola import find_ticket
from tombola.data import DataConfig, load_data
from tombola.errors import ConfigError, DataError, RunFolderError, StorageError, TombolaError
from tombola.models import ModelConfig, load_model
from tombola.models.own import initial_network
from tombola.models.tensors import content_sha256
from tombola.runs.rows import rows_of
from tombola.studies.lottery import replicate as replicate_module
from tombola.studies.lottery.find import Ticket

SHORT: dict[str, Any] = {
    "density": 0.2,
    "rounds": 2,
    "replicates": 2,
    "length": "40it",
    "recipe": {"evaluate_every": "20it", "learning_rate": "1e-2"},
}


def digits() -> tuple[Any, Any, Any]:
    """In three parts of three kinds."""
    data = load_data(DataConfig(name="digits"), 0)
    train, validation, test = data.train, data.validation, data.test
    loader = DataLoader(TensorDataset(train.inputs, train.targets), batch_size=100)
    return loader, (validation.inputs.numpy(), validation.targets.numpy()), TensorDataset(test.inputs, test.targets)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Ticket:
    torch.set_num_threads(1)
    return find_ticket(own_models.dense, digits(), **SHORT, out=tmp_path_factory.mktemp("runs"))


def test_it_has_all_that_a_search_comes_to(ticket: Ticket) -> None:
    assert ticket.verdict.replicates == 2
    assert ticket.masks.total == 64 * 16 + 160
    assert ticket.masks.kept == round(0.2 * ticket.masks.total)
    assert ticket.masks.removed_nonzeros(ticket.model()) == 0
    assert ticket.report.exists()
    assert ticket.verdict.sentence in repr(ticket)
    trainings = rows_of(ticket.rows, kind="training")
    assert {row["branch"] for row in trainings} == {"dense", "ticket", "random", "reinit"}
    assert not any(row["check_rewound"] is False for row in trainings)


def test_the_ticket_restarts_from_what_its_function_makes(ticket: Ticket) -> None:
    """W_0 is the function's own, and another one in every replicate."""
    starts = [ticket.folder / "checkpoints" / f"replicate-0{index}" / "initial.safetensors" for index in (0, 1)]
    assert starts[0].read_bytes() != starts[1].read_bytes()
    model = ticket.model()
    assert isinstance(model, nn.Sequential)
    kept = ticket.masks["1.weight"].keep
    assert model[1].weight[kept].abs().min() > 0


@pytest.mark.parametrize(("shape", "seen"), [((5,), "numbers"), ((2, 3, 4), "pixels")])
def test_vectors_and_images_of_any_shape_come_to_a_report(shape: tuple[int, ...], seen: str, tmp_path: Path) -> None:
    inputs = torch.rand(90, *shape, generator=torch.Generator().manual_seed(0))
    data = [(part, (part.flatten(1)[:, 0] > 0.5).long()) for part in inputs.split(30)]
    asked = SHORT | {"rounds": 1, "replicates": 1, "length": "4it", "recipe": {"evaluate_every": "2it"}}
    ticket = find_ticket(own_models.lazy_dense, data, **asked, controls=(), out=tmp_path)
    assert f"Which {seen} are looked at" in ticket.report.read_text()
    assert rows_of(ticket.rows, kind="connections")[0]["shape"] == list(shape)


def test_the_same_call_shows_it_and_trains_nothing(ticket: Ticket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate_module, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = find_ticket(own_models.dense, digits(), **SHORT, out=ticket.folder.parent)
    assert again.folder == ticket.folder
    assert again.verdict == ticket.verdict


def test_more_replicates_extend_it(ticket: Ticket) -> None:
    more = find_ticket(own_models.dense, digits(), **SHORT | {"replicates": 3}, out=ticket.folder.parent)
    assert (more.folder, more.verdict.replicates) == (ticket.folder, 3)


def test_stopped_it_continues_to_the_same_end(ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = replicate_module.fit, []

    def dies(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(replicate_module, "fit", dies)
    asked = SHORT | {"replicates": 1}
    with pytest.raises(KeyboardInterrupt):
        find_ticket(own_models.dense, digits(), **asked, out=tmp_path)
    found = find_ticket(own_models.dense, digits(), **asked, out=tmp_path)
    ours, theirs = (
        [row["weights_sha256"] for row in rows_of(rows, kind="training", replicate=0)]
        for rows in (found.rows, ticket.rows)
    )
    assert ours == theirs


def test_an_edited_function_continues_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(replicate_module, "fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            find_ticket("own_models:dense", "digits", **SHORT, out=tmp_path)
    monkeypatch.setattr(own_models, "dense", own_models.normalised_first)
    with pytest.raises(TombolaError, match="network"):
        find_ticket("own_models:dense", "digits", **SHORT, out=tmp_path)


def test_an_extracted_ticket_needs_its_code_to_be_named(ticket: Ticket, tmp_path: Path) -> None:
    done = invoke("extract", ticket.folder, "--density", 0.2, "--out", tmp_path / "ticket")
    assert done.exit_code == 2
    assert "--factory own_models:dense" in done.stderr
    options = ("--density", 0.2, "--out", tmp_path / "ticket", "--factory", "own_models:dense")
    assert invoke("extract", ticket.folder, *options).exit_code == 0
    _, _, masks = load_model(tmp_path / "ticket", own_models.dense)
    assert masks == ticket.masks


def test_looking_calls_no_code(ticket: Ticket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_models, "dense", lambda: pytest.fail("called"))
    for arguments in (("show", ticket.folder), ("report", ticket.folder), ("list", "--out", ticket.folder.parent)):
        assert invoke(*arguments).exit_code == 0, arguments


@pytest.mark.parametrize(
    ("model", "odd"), [("nosuch", {}), ("own_models:dense", {"length": "nonsense"}), ("own_models:too_few", {})]
)
def test_a_refused_call_leaves_nothing_of_its_arrays(model: str, odd: dict[str, Any], tmp_path: Path) -> None:
    """The last is refused when the network is tried on the data, for which these have to be read."""
    with pytest.raises(TombolaError):
        find_ticket(model, digits(), **SHORT | odd, out=tmp_path / "new")
    assert not any(tmp_path.iterdir())


def test_moved_with_its_arrays_a_search_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SHORT | {"replicates": 1, "controls": ()}
    first = find_ticket(own_models.dense, digits(), **asked, out=tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "other")
    monkeypatch.setattr(replicate_module, "fit", lambda *given, **named: pytest.fail("trained again"))
    again = find_ticket(own_models.dense, digits(), **asked, out=tmp_path / "other")
    assert again.folder == tmp_path / "other" / first.folder.name
    assert again.rows == first.rows
    assert not (tmp_path / "one").exists()


def test_what_no_file_keeps_is_rewound_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a ticket would depend on what was trained before it, and a search that was stopped on when."""
    asked = SHORT | {"replicates": 1, "controls": ("reinit",)}
    whole = find_ticket("own_models:Tiring", "digits", **asked, out=tmp_path / "whole")
    real, calls = replicate_module.fit, []

    def dies(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(replicate_module, "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        find_ticket("own_models:Tiring", "digits", **asked, out=tmp_path / "stopped")
    found = find_ticket("own_models:Tiring", "digits", **asked, out=tmp_path / "stopped")
    one, other = ([row["weights_sha256"] for row in rows_of(t.rows, kind="training")] for t in (whole, found))
    assert one == other


def test_what_no_file_keeps_is_as_it_was_when_data_choose_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the masks of a round depended on what was trained before them in the same process."""
    asked = SHORT | {"replicates": 1, "controls": ("reinit",), "criterion": "taylor"}
    whole = find_ticket("own_models:Tiring", "digits", **asked, out=tmp_path / "whole")
    real, calls = replicate_module.prune, []

    def dies(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(replicate_module, "prune", dies)
    with pytest.raises(KeyboardInterrupt):
        find_ticket("own_models:Tiring", "digits", **asked, out=tmp_path / "stopped")
    found = find_ticket("own_models:Tiring", "digits", **asked, out=tmp_path / "stopped")
    one, other = ([row["masks_sha256"] for row in rows_of(t.rows, kind="training")] for t in (whole, found))
    assert one == other


def test_lazy_layers_are_drawn_from_the_seed() -> None:
    spec = ModelConfig(factory="own_models:lazy").spec((1, 8, 8), 10, seed=3)
    first, again = (initial_network(spec, torch.zeros(2, 1, 8, 8)).state_dict() for _ in range(2))
    assert content_sha256(first) == content_sha256(again)
    other = initial_network(spec.model_copy(update={"seed": 4}), torch.zeros(2, 1, 8, 8)).state_dict()
    assert content_sha256(other) != content_sha256(first)


@pytest.mark.parametrize("model", ["lenet-300-100", ModelConfig(widths=(20, 10))])
def test_a_network_of_the_zoo_on_named_data(model: Any, tmp_path: Path) -> None:
    found = find_ticket(model, "digits", **SHORT | {"replicates": 1, "controls": ()}, out=tmp_path)
    assert found.verdict.density is None or found.verdict.density < 1
    assert found.masks.density == pytest.approx(0.2, abs=1e-3)


class TestWhatIsRefused:
    def test_a_network_in_place_of_the_function_that_makes_it(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="give the function that makes the network"):
            find_ticket(own_models.dense(), "digits", out=tmp_path)

    def test_a_function_without_a_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be found by its name again"):
            find_ticket(lambda: own_models.dense(), "digits", out=tmp_path)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("constant", "the same weights whatever the seed, so that all replicates"),
            ("fixed_trunk", "the same weights whatever the seed .1.weight.*reinit would be no control"),
            ("by_numpy", "makes other weights each time"),
        ],
    )
    def test_a_function_whose_chance_no_seed_governs(self, name: str, said: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=said):
            find_ticket(f"own_models:{name}", "digits", **SHORT, out=tmp_path)
        assert not list(tmp_path.glob("lottery-*"))

    @pytest.mark.parametrize("controls", ["random", ()])
    def test_one_network_for_all_replicates(self, controls: Any, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="the same weights whatever the seed, so that all replicates would be"):
            find_ticket("own_models:constant", "digits", **SHORT | {"controls": controls}, out=tmp_path)

    @pytest.mark.parametrize(
        ("odd", "said"),
        [
            ({"recipe": 5}, "recipe: a Recipe or its keys and values, not 5"),
            ({"workers": 0}, "workers=0: processes are counted from 1"),
            ({"workers": "two"}, "workers='two'"),
            ({"controls": 3}, "controls: input should be a valid"),
            ({"controls": "rnadom"}, "did you mean 'random'"),
            ({"density": float("nan")}, "target_density: input should be a finite number"),
        ],
    )
    def test_odd_arguments(self, odd: dict[str, Any], said: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=said):
            find_ticket("own_models:dense", "digits", **SHORT | odd, out=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_odd_data(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="three parts"):
            find_ticket(own_models.dense, [1, 2], out=tmp_path)
        nan = (np.full((8, 1, 8, 8), np.nan, np.float32), np.arange(8) % 2)
        with pytest.raises(DataError, match="NaN"):
            find_ticket(own_models.dense, (nan, nan, nan), **SHORT, out=tmp_path)

    @pytest.mark.parametrize("empty", [0, 1, 2])
    def test_a_part_without_examples(self, empty: int, tmp_path: Path) -> None:
        data = [(torch.rand(8 * (part != empty), 64), torch.arange(8 * (part != empty)) % 2) for part in range(3)]
        with pytest.raises(DataError, match=r"(training|validation|test): is empty"):
            find_ticket(own_models.dense, data, **SHORT, out=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_other_data_under_the_name_of_a_file(self, ticket: Ticket, tmp_path: Path) -> None:
        (path,) = ticket.folder.parent.glob("data-*.npz")
        assert path.stat().st_size > 0
        missing = tmp_path / "runs"
        with pytest.raises((RunFolderError, StorageError, DataError)):
            find_ticket(own_models.dense, DataConfig(name="arrays", folder=missing / "no.npz"), **SHORT, out=missing)
