"""`tombola compress` at work: what is tried, what is shipped, killed and continued, and what it refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from said import json_of
from small_models import contents, die_at_write, invoke, make_child, make_parent, one_line, what_must_agree
from tombola.compression import measured
from tombola.compression.engines.engine import Network
from tombola.compression.engines.rivals import EAGER, ONNXRUNTIME
from tombola.compression.export.onnx_files import run_onnx
from tombola.compression.tickets.files import unpack
from tombola.data import DataConfig, load_data
from tombola.errors import ModelError, RunFailure
from tombola.models import load_model, read_spec, save_model
from tombola.models.removed import parameters
from tombola.runs.configs import validate
from tombola.runs.rows import read_rows, rows_of
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.compress import costs, forms, making
from tombola.studies.compress.config import CompressConfig
from tombola.studies.compress.outcome import Search
from tombola.studies.compress.paths import LADDERS, SearchPath
from tombola.studies.compress.shipping import shipped_file
from tombola.studies.compress.study import Compress
from tombola.studies.given_model import AskedModel, open_given, surroundings_of
from tombola.studies.single import of_parent
from tombola.studies.single.parents import open_parent
from tombola.training.distillation import Distilled
from tombola.training.metrics import evaluate
from tombola.training.task import Task

FINE_TUNING: dict[str, Any] = {"length": "20it", "evaluate_every": "20it", "learning_rate": "1e-3"}
SMALL: dict[str, Any] = {
    "target": "bytes=0.2",
    "max_drop": 0.03,
    "fine_tuning": FINE_TUNING,
    "refinements": 1,
    "structures": ["weight"],
    "distributions": ["global"],
}
OPTIONS = ("--structure", "weight", "--finetune", "5it", "--refinements", 0, "--workers", 1)


@pytest.fixture(scope="module", autouse=True)
def _short_ladders() -> Iterator[None]:
    """ONNX files take two seconds each: few sparsities."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LADDERS, "weight", (0.5, 0.95))
        patch.setitem(LADDERS, "unit", (0.5,))
        yield


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = {"length": "300it", "evaluate_every": "100it", "learning_rate": "3e-3"}
    return make_parent(tmp_path_factory.mktemp("parent"), training=training).folder


def search(parent: Path | str, out: Path, **changes: Any) -> Search:
    content = {"model": str(parent), **SMALL, **changes}
    return run_study(Compress, validate(content, CompressConfig, "test"), Call(out))


@pytest.fixture(scope="module")
def weights(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Single weights along both distributions."""
    return search(parent, tmp_path_factory.mktemp("weights"), distributions=["global", "uniform"])


@pytest.fixture(scope="module")
def units(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Neurons along one path; the model is timed on ONNX Runtime, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "DENSE", (EAGER, ONNXRUNTIME))
        return search(
            parent,
            tmp_path_factory.mktemp("units"),
            structures=["dense", "unit"],
            distributions=["uniform"],
            max_drop=0.5,
        )


class TestWeights:
    def test_every_candidate_has_lost_exactly_what_was_asked(self, weights: Search) -> None:
        found = rows_of(weights.rows, kind="candidate")
        assert len(found) >= 8
        total = 1640
        for row in found:
            assert row["check_exact"] is row["check_held"] is True
            assert row["params"] == total - round(row["sparsity"] * total) + 42  # and the biases

    def test_a_path_goes_on_from_the_last_that_lost_little(self, weights: Search) -> None:
        rows = rows_of(weights.rows, kind="candidate", distribution="global", precision="float32")
        for row in rows[1:]:
            start = next(one for one in rows if one["level"] == row["start"])
            assert start["within"]
            assert start["sparsity"] < row["sparsity"]
        assert sum(not row["within"] for row in rows) >= 1  # it went as far as it could

    def test_the_files_hold_what_the_rows_say(self, weights: Search) -> None:
        assert weights.kept
        data = load_data(DataConfig(name="digits"), seed=0)
        for one in weights.kept:
            file = weights.folder / shipped_file(one)
            assert file.stat().st_size == one.costs.bytes
            model, _, masks = unpack(file)
            assert masks.removed_nonzeros(model) == 0
            assert evaluate(model, data.validation).accuracy == one.accuracy
            folder, _, same = load_model(file.parent)
            assert same == masks
            if one.precision == "float32":
                assert all(torch.equal(a, b) for a, b in zip(folder.parameters(), model.parameters(), strict=True))

    def test_the_test_examples_are_looked_at_once(self, weights: Search, parent: Path) -> None:
        assert weights.chosen is not None
        assert weights.tested is not None
        data = load_data(DataConfig(name="digits"), seed=0)
        model, _, _ = unpack(weights.folder / shipped_file(weights.chosen))
        assert weights.tested.accuracy == evaluate(model, data.test).accuracy
        assert weights.tested.parent == evaluate(load_model(parent)[0], data.test).accuracy
        assert len(rows_of(weights.rows, kind="test")) == 1
        assert not [row for row in rows_of(weights.rows, kind="candidate") if any("test" in key for key in row)]

    def test_the_folder_has_what_is_shipped_and_no_more(self, weights: Search) -> None:
        names = {name.split("/")[0] for name in contents(weights.folder)}
        assert {"models", "report.html", "summary.md", "candidates.csv", "pareto.png"} <= names
        assert "checkpoints" not in names
        shipped = {shipped_file(one).as_posix() for one in weights.kept}
        files = {name for name in contents(weights.folder) if name.endswith(".ticket")}
        assert files == shipped
        page = (weights.folder / "report.html").read_text()
        assert all(name in page for name in shipped)

    def test_other_commands_take_the_chosen_one(self, weights: Search) -> None:
        assert weights.chosen is not None
        given = open_given(AskedModel(str(weights.folder)))
        assert given.masks.kept == round(weights.chosen.costs.params or 0) - 42
        assert "models" in one_line_of("prune", weights.folder, "--sparsity", 0.99)


class TestUnits:
    def test_units_are_gone_and_files_compute_what_was_scored(self, units: Search) -> None:
        assert units.kept
        data = load_data(DataConfig(name="digits"), seed=0).validation
        for one in units.kept:
            file = units.folder / shipped_file(one)
            model, spec, masks = load_model(file.parent)
            assert masks is None
            assert (spec.removed is None) == (one.structure == "dense")
            assert parameters(model) == one.costs.params
            assert (one.costs.params < 1682) == (one.structure == "unit")
            assert file.stat().st_size == one.costs.bytes
            right = int((run_onnx(file)(data.inputs).argmax(1) == data.targets).sum())
            assert right / len(data.targets) == one.accuracy

    def test_int8_of_the_model_as_it_is_comes_first(self, units: Search, parent: Path) -> None:
        dense = [one for one in units.candidates if one.structure == "dense"]
        assert [(one.name, one.costs.params) for one in dense] == [("dense, float32", 1682), ("dense, int8", 1682)]
        data = load_data(DataConfig(name="digits"), seed=0).validation
        assert dense[0].accuracy == evaluate(load_model(parent)[0], data).accuracy
        assert dense[0].drop == 0
        assert dense[1].costs.bytes < dense[0].costs.bytes

    def test_both_precisions_of_every_level(self, units: Search) -> None:
        for row in rows_of(units.rows, kind="candidate"):
            assert row["refused"] is None
            assert row["check_exact"] is None
        assert len({one.key for one in units.candidates}) == len(units.candidates)
        assert len(units.candidates) == 2 * len({one.key[:3] for one in units.candidates})

    def test_a_network_that_cannot_be_traced_has_its_other_paths(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise ModelError("torch cannot follow it")

        monkeypatch.setattr(making, "plan_removal", fails)
        found = search(parent, tmp_path, structures=["unit", "weight"], distributions=["global"], max_drop=0.5)
        (refused,) = [one for one in found.candidates if one.refused]
        assert (refused.structure, refused.refused) == ("unit", "torch cannot follow it")
        assert found.chosen is not None

    def test_int8_is_calibrated_on_training_examples_and_other_outputs_are_refused(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = validate({"model": str(parent), **SMALL}, CompressConfig, "test")
        opened = open_parent(config, None)
        workshop = forms.Workshop(config, opened, surroundings_of(opened))
        shape = making.Shape.of(opened)
        given = workshop.given(shape)
        assert torch.equal(workshop.network(given, tmp_path).examples, given.data.train.inputs[:512])
        monkeypatch.setattr(forms, "run_onnx", lambda file: lambda batch: given.network(batch) + 0.1)
        with pytest.raises(ModelError, match=r"float32.onnx differ from torch's"):
            workshop.ship(forms.form_of("dense", "float32"), shape, tmp_path, {})


class TestCosts:
    def test_latency_of_all_that_lose_little_enough(self, parent: Path, tmp_path: Path) -> None:
        found = search(parent, tmp_path, target="latency=0.001", max_drop=0.5, fine_tuning=None, refinements=0)
        within = [one for one in found.candidates if one.within]
        assert within
        assert all(one.costs.latency and one.parent_engine for one in within)
        assert all(one.costs.latency is None for one in found.candidates if not one.within)
        assert found.reached is False

    def test_memory_is_measured_where_it_is_the_target(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = {"torch eager": 900, "sparse kernels": 300}
        monkeypatch.setattr(costs, "peak_memory", lambda engine, *_: taken[engine.name])
        found = search(parent, tmp_path, target="memory=0.5", max_drop=0.5, fine_tuning=None, refinements=0)
        assert found.chosen is not None
        assert (found.chosen.costs.memory, found.chosen.parent.memory, found.reached) == (300, 900, True)

    def test_an_engine_that_fails_costs_no_candidate(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any) -> int:
            raise MemoryError("no room")

        monkeypatch.setattr(costs, "peak_memory", fails)
        found = search(parent, tmp_path, target="memory=0.5", max_drop=0.5, fine_tuning=None, refinements=0)
        assert found.chosen is None
        assert found.reached is None
        assert all("no room" in (one.reason or "") for one in found.candidates if one.within)

    def test_what_is_timed_is_the_candidate_in_the_batches_that_were_asked_for(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, int]] = []
        real = costs.Job

        def job(network: Network, batches: Sequence[torch.Tensor]) -> Any:
            seen.append((network.masks.kept, len(batches[0])))
            return real(network, batches)

        monkeypatch.setattr(costs, "Job", job)
        found = search(parent, tmp_path, target="latency=0.9", max_drop=0.9, batch=3, fine_tuning=None, refinements=0)
        kept = {round(one.costs.params or 0) - 42 for one in found.candidates}
        assert {size for _, size in seen} == {3}
        assert {weights for weights, _ in seen} == kept | {1640}

    def test_a_busy_machine_ends_it_and_a_quiet_one_goes_on(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as busy:
            busy.setattr(measured, "warmly_timed", lambda *_: ({}, "the machine was busy"))
            with pytest.raises(RunFailure, match="too busy to measure the latency of"):
                search(parent, tmp_path, target="latency=0.9", max_drop=0.9, fine_tuning=None, refinements=0)
        (folder,) = tmp_path.iterdir()
        before = len(read_rows(folder / "rows.jsonl"))
        found = search(parent, tmp_path, target="latency=0.9", max_drop=0.9, fine_tuning=None, refinements=0)
        assert len(found.rows) > before
        assert all(one.costs.latency for one in found.candidates if one.within)

    def test_tickets_of_one_level_share_their_time(self, parent: Path, tmp_path: Path) -> None:
        found = search(parent, tmp_path, target="latency=0.9", max_drop=0.9, fine_tuning=None, refinements=0)
        times: dict[Any, set[Any]] = {}
        for one in found.candidates:
            times.setdefault(one.key[:3], set()).add(one.costs.latency)
        assert all(len(of_level) == 1 for of_level in times.values())


class TestWhatIsAsked:
    def test_a_parent_that_has_lost_weights_is_its_own_first_candidate(self, parent: Path, tmp_path: Path) -> None:
        sparse = make_child(parent, tmp_path / "sparse", {"sparsity": 0.93}).folder
        found = search(sparse, tmp_path / "runs", max_drop=0.0, fine_tuning=None)
        first = found.candidates[0]
        assert (first.sparsity, first.drop) == (pytest.approx(0.93, abs=1e-3), 0.0)
        assert all(one.sparsity >= first.sparsity for one in found.candidates)
        assert found.chosen is not None

    def test_a_teacher_and_protected_layers_reach_the_candidates(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks: list[Task] = []
        real = making.fit

        def fit(model: nn.Module, task: Task, *arguments: Any, **keywords: Any) -> Any:
            tasks.append(task)
            return real(model, task, *arguments, **keywords)

        monkeypatch.setattr(making, "fit", fit)
        found = search(
            parent, tmp_path, distillation={"temperature": 3.0}, protect=["output"], max_drop=0.9, refinements=0
        )
        assert tasks
        assert all(isinstance(task, Distilled) and task.temperature == 3.0 for task in tasks)
        for one in found.kept:
            if one.structure == "weight":
                assert unpack(found.folder / shipped_file(one))[2]["output.weight"].kept == 120

    @pytest.mark.parametrize("distribution", ["global", "uniform"])
    def test_units_compose_over_levels(self, parent: Path, tmp_path: Path, distribution: str) -> None:
        """Half and then three quarters of the units are what three quarters at once leave."""
        config = validate({"model": str(parent), **SMALL, "fine_tuning": None}, CompressConfig, "test")
        opened = open_parent(config, None)
        path = SearchPath("unit", distribution)  # type: ignore[arg-type]
        shape = making.Shape.of(opened)
        for sparsity in (0.5, 0.75):
            shape = making.make(config, opened, path, shape, sparsity, tmp_path / "checkpoint", lambda *_: None).shape
        widths = [module.out_features for module in shape.model.modules() if isinstance(module, nn.Linear)][:-1]
        assert sum(widths) == 8
        assert (widths == [5, 3]) == (distribution == "uniform")

    def test_weights_behind_a_frozen_base_are_refused(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def behind_a_base(*arguments: Any) -> Any:
            opened = open_parent(*arguments)
            config = {**opened.data_record["config"], "base": {"layer": "flatten"}}
            return replace(opened, data_record={**opened.data_record, "config": config})

        monkeypatch.setattr(of_parent, "open_parent", behind_a_base)
        result = invoke("compress", parent, "--target", "bytes=0.5", "--out", tmp_path / "runs")
        one_line(result, "frozen base", "--structure")


class TestItsLife:
    def test_killed_at_writes_it_comes_to_the_same(self, weights: Search, parent: Path, tmp_path: Path) -> None:
        lives = 0
        for at in (3, 9, 2, 14, 5, 20, 8, 11, 17, 30, 60, 200):
            process = os.fork()
            if not process:
                try:
                    die_at_write(at, before=at % 2 == 0)
                    search(parent, tmp_path, distributions=["global", "uniform"])
                finally:
                    os._exit(0)
            lives += 1
            if os.WIFEXITED(os.waitpid(process, 0)[1]):
                break
        assert lives > 5
        (folder,) = tmp_path.iterdir()
        assert what_must_agree(folder) == what_must_agree(weights.folder)

    def test_a_finished_one_is_shown(self, weights: Search, parent: Path) -> None:
        before = contents(weights.folder)
        again = search(parent, weights.folder.parent, distributions=["global", "uniform"])
        assert again.rows == weights.rows
        assert contents(weights.folder) == before

    def test_what_is_made_of_rows_is_made_again_and_files_to_ship_are_refused(
        self, weights: Search, parent: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(weights.folder, tmp_path / weights.folder.name))
        (folder / "summary.md").unlink()
        with pytest.warns(UserWarning, match="summary"):
            search(parent, tmp_path, distributions=["global", "uniform"])
        assert (folder / "summary.md").read_bytes() == (weights.folder / "summary.md").read_bytes()
        ticket = next(folder.rglob("*.ticket"))
        ticket.write_bytes(ticket.read_bytes()[:-1] + b"x")
        result = invoke("show", folder)
        one_line(result, ticket.name)

    def test_another_parent_is_another_run(self, parent: Path, tmp_path: Path) -> None:
        copied = Path(shutil.copytree(parent, tmp_path / "parent"))
        arguments = ("compress", copied, "--target", "bytes=0.5", "--out", tmp_path / "runs", *OPTIONS)
        assert invoke(*arguments).exit_code == 0
        other = make_parent(tmp_path / "other", seed=1).folder
        shutil.rmtree(copied)
        shutil.copytree(other, copied)
        (run,) = (tmp_path / "runs").iterdir()
        assert invoke("show", run).exit_code == 0  # what it found stays
        (run / "report.html").unlink()
        (run / "finished.json").unlink()
        one_line(invoke(*arguments), "parent")


def one_line_of(*arguments: object) -> str:
    result = invoke(*arguments)
    one_line(result)
    return result.stderr


class TestDamage:
    @pytest.mark.parametrize("damage", ["cut", "gone"])
    def test_a_file_to_ship_that_was_lost_is_made_anew(
        self, weights: Search, parent: Path, tmp_path: Path, damage: str
    ) -> None:
        folder = Path(shutil.copytree(weights.folder, tmp_path / weights.folder.name))
        ticket = folder / shipped_file(weights.kept[-1])
        before = contents(folder)
        (folder / "finished.json").unlink()
        if damage == "gone":
            shutil.rmtree(ticket.parent)
        else:
            ticket.write_bytes(ticket.read_bytes()[:100])
        search(parent, tmp_path, distributions=["global", "uniform"])
        after = contents(folder)
        assert {name: after[name] for name in before if name.startswith("models/")} == {
            name: content for name, content in before.items() if name.startswith("models/")
        }

    @pytest.mark.parametrize("name", ["int8.ticket", "float32.ticket", "weights.safetensors", "spec.json"])
    def test_a_damaged_candidate_of_a_killed_search_is_made_anew(
        self, weights: Search, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Compress, "_measure", killed)
            with pytest.raises(KeyboardInterrupt):
                search(parent, tmp_path, distributions=["global", "uniform"])
        (folder,) = tmp_path.iterdir()
        file = folder / "checkpoints" / "weight-global" / "level-00" / name
        file.write_bytes(file.read_bytes()[:100])
        search(parent, tmp_path, distributions=["global", "uniform"])
        assert what_must_agree(folder) == what_must_agree(weights.folder)
        for one in weights.kept:
            assert (folder / shipped_file(one)).read_bytes() == (weights.folder / shipped_file(one)).read_bytes()

    def test_weights_that_are_no_numbers_are_refused(self, parent: Path, tmp_path: Path) -> None:
        model, spec, masks = load_model(parent)
        with torch.no_grad():
            next(iter(model.parameters()))[0, 0] = torch.nan
        save_model(tmp_path / "nan", spec, model, masks, read_spec(parent)[1])
        one_line(invoke("compress", tmp_path / "nan", "--target", "bytes=0.5", "--out", tmp_path / "runs"), "NaN")


class TestTheCommand:
    def test_a_whole_one(self, parent: Path, tmp_path: Path) -> None:
        arguments = ("compress", parent, "--target", "bytes=0.5", "--max-drop", "50%", "--out", tmp_path, *OPTIONS)
        planned = invoke(*arguments, "--dry-run")
        assert planned.exit_code == 0
        assert "weight, uniform: 0.5, 0.95" in planned.stdout
        assert "at most 4 candidates" in planned.stdout
        assert not list(tmp_path.iterdir())
        made = invoke(*arguments)
        assert made.exit_code == 0, made.output
        (folder,) = tmp_path.iterdir()
        said = json_of(invoke(*arguments, "--json"))
        assert said["kind"] == "compress"
        assert said["verdict"]["reached"] is True
        chosen = [row for row in said["table"] if row["chosen"]]
        assert len(chosen) == 1
        assert (folder / said["verdict"]["file"]).stat().st_size == chosen[0]["bytes"]
        for row in said["table"]:
            assert row["latency"] is not None or row["reason"]
        assert "(chosen)" in made.stdout
        listed = invoke("list", "--out", tmp_path)
        assert "compress" in listed.stdout

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (("--target", "size=1"), ("unknown measure", "params")),
            (("--target", "bytes=0"), ("above 0",)),
            (("--target", "bytes=0.5", "--max-drop", "-1%"), ("--max-drop",)),
            (("--target", "bytes=0.5", "--max-drop", "100%"), ("max_drop",)),
            (("--target", "bytes=0.5", "--structure", "filter"), ("structures", "unit")),
            (("--target", "bytes=0.5", "--structure", "weight"), ("structure once",)),
            (("--target", "bytes=0.5", "--distribution", "erk"), ("distributions",)),
            (("--target", "bytes=0.5", "--criterion", "nonsense"), ("nonsense",)),
            (("--target", "bytes=0.5", "--finetune", "0it", "--distill"), ("distillation",)),
            (("--target", "bytes=0.5", "--finetune", "two"), ("length",)),
            (("--target", "bytes=0.5", "--protect", "nosuch*"), ("nosuch",)),
        ],
    )
    def test_refuses(self, parent: Path, tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
        one_line(invoke("compress", parent, *arguments, "--structure", "weight", "--out", tmp_path), *parts)
        assert not [path for path in tmp_path.rglob("*") if path.name == "finished.json"]

    def test_refuses_what_is_no_model(self, tmp_path: Path) -> None:
        one_line(invoke("compress", tmp_path, "--target", "bytes=0.5"), "spec.json")
        one_line(invoke("compress", "nosuchnet", "--target", "bytes=0.5"), "no model of the zoo")
        one_line(invoke("compress", "lenet5", "--target", "bytes=0.5"), "--data")

    def test_units_need_onnx_before_anything_is_trained(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(name: str) -> None:
            raise ModelError(f"{name} is not installed: pip install 'tombola[onnx]'")

        monkeypatch.setattr(forms, "required", missing)
        one_line(invoke("compress", parent, "--target", "bytes=0.5", "--out", tmp_path), "tombola[onnx]", "--structure")
        assert not list(tmp_path.iterdir())

    def test_a_network_that_learned_nothing(self, tmp_path: Path) -> None:
        result = invoke(
            *("compress", "lenet-300-100", "--data", "digits", "--target", "params=0.5", "--out", tmp_path, *OPTIONS)
        )
        assert result.exit_code == 0, result.output
        assert "train it first" in result.stdout
