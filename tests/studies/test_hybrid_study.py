"""The hybrid study whole: what it runs, shows, continues and refuses, through the command and as a function."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result as Invoked
from threadpoolctl import threadpool_info
from typer.testing import CliRunner

from said import WIDTH, error_in, fits, json_of
from small_hybrid import EXITS, FEATURES, TRAINING, draw_images, hybrid_study, lottery
from tombola.cli import app
from tombola.data import load_data, normalised
from tombola.errors import RunFolderError
from tombola.runs.configs import identity_hash, load_config, validate
from tombola.runs.rows import Row, read_rows, rows_of
from tombola.studies.base.opened import open_study, read_result
from tombola.studies.hybrid import forests, pooled, replicate
from tombola.studies.hybrid.answers import answers_of
from tombola.studies.hybrid.artefacts import NAMES, OPTIONAL_NAMES
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import frozen_base, images_of, normalisation_of, sources_of
from tombola.studies.hybrid.exits import features_at
from tombola.studies.hybrid.pooled import base_features
from tombola.studies.hybrid.replicate import ReplicateSpec, run_replicate
from tombola.studies.hybrid.requirements import asked_exits, check_lotteries
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.hybrid.study import Hybrid
from tombola.studies.hybrid.units import UNIT, complete_replicates, unit_names
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import replicate_seed

Files = dict[str, tuple[int, bytes]]
CLOCK = ("seconds", "seconds_fit")


def call(*arguments: object) -> Invoked:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files_of(root: Path) -> Files:
    """Every file below `root`: time of change and content."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def run_in(out: Path) -> Path:
    (root,) = out.glob("hybrid-*")
    return root


def without_clock(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module", autouse=True)
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    return write(tmp_path_factory.mktemp("config") / "hybrid.yaml", hybrid_study(images))


@pytest.fixture(scope="module")
def first_call(tmp_path_factory: pytest.TempPathFactory, study: Path) -> tuple[Path, Invoked]:
    """The folder of the runs, and what the command said."""
    out = tmp_path_factory.mktemp("runs")
    said = call("hybrid", study, "--out", out, "--workers", 1)
    assert said.exit_code == 0, said.output
    return out, said


@pytest.fixture(scope="module")
def finished(first_call: tuple[Path, Invoked]) -> Path:
    """The folder of finished runs, which no test changes."""
    return first_call[0]


@pytest.fixture(scope="module")
def result(finished: Path) -> HybridResult:
    return read_result(open_study(Hybrid, run_in(finished)))


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished runs, to change."""
    return Path(shutil.copytree(finished, tmp_path / "runs"))


class TestARun:
    def test_every_replicate_has_every_network_exit_and_kind_of_features(self, result: HybridResult) -> None:
        grown = [
            (row["replicate"], row["network"], row["exit"], row["features"])
            for row in rows_of(result.rows, kind="forest")
        ]
        cut = [(network, exit, kind) for network in ("base", "dense", "ticket") for exit in EXITS for kind in FEATURES]
        wanted = [("pixels", None, "pixels"), ("pca", None, "pca"), *cut]
        assert sorted(grown, key=str) == sorted(((index, *place) for index in range(2) for place in wanted), key=str)
        assert {row["network"] for row in rows_of(result.rows, kind="network")} == {
            *("base", "head", "head ticket", "dense", "ticket")
        }
        assert {row["network"] for row in rows_of(result.rows, kind="gate")} == {"dense", "ticket"}

    def test_every_way_is_timed_on_every_engine_with_every_kind_of_features(self, result: HybridResult) -> None:
        """So that no time depends on how many replicates choose the features."""
        rows = rows_of(result.rows, kind="latency", part="whole")
        assert {row["network"] for row in rows} == set(unit_names(result.config))
        found = sorted(
            (row["network"], row["exit"], row["features"], row["engine"].split(" + ")[0])
            for row in rows_of(rows, batch=64)
            if row["exit"]
        )
        engines = ("torch eager", "sparse kernels")
        cut = [(network, exit, kind) for network in ("base", "dense", "ticket") for exit in EXITS for kind in FEATURES]
        assert found == sorted((*place, engine) for place in cut for engine in engines)
        for network in ("base", "head", "head ticket", "dense", "ticket"):
            whole = rows_of(rows, network=network, exit=None, batch=1)
            assert sorted(row["engine"] for row in whole) == sorted(engines)
        assert all(row["reason"] is None and row["seconds"] for row in rows)
        parts = rows_of(result.rows, kind="latency", batch=1)
        assert {row["exit"] for row in parts if row["part"] != "whole"} == {"block3_conv2"}

    def test_rows_of_a_kind_have_the_same_columns(self, result: HybridResult) -> None:
        for kind in ("forest", "network", "gate", "latency"):
            rows = rows_of(result.rows, kind=kind)
            assert all(row.keys() == rows[0].keys() for row in rows), kind
            assert all(set(UNIT) <= row.keys() for row in rows)

    def test_an_exit_costs_less_than_the_whole_and_a_ticket_less_than_its_dense_network(
        self, result: HybridResult
    ) -> None:
        whole = {row["network"]: row for row in rows_of(result.rows, kind="network", replicate=0)}
        for row in rows_of(result.rows, kind="forest", replicate=0):
            if row["exit"]:
                assert 0 < row["flops_effective"] < whole[row["network"]]["flops_effective"]
                assert 0 < row["cnn_bytes"] < whole[row["network"]]["bytes"]
        assert whole["ticket"]["flops_effective"] < whole["dense"]["flops_effective"]
        assert whole["ticket"]["density"] == pytest.approx(0.3, abs=0.01)
        assert whole["base"]["test_accuracy"] is None

    def test_networks_are_those_of_the_lottery_with_the_same_split(self, result: HybridResult) -> None:
        """To the last example: the splits, weights and masks must be the replicate's own."""
        trainings = rows_of(result.lotteries["cnn"].rows, kind="training")
        for network, index in (("dense", 0), ("ticket", 2)):
            for number in range(2):
                (row,) = rows_of(result.rows, kind="network", network=network, replicate=number)
                (training,) = rows_of(trainings, branch=network, round=index, replicate=number)
                for column in ("validation_accuracy", "validation_f1", "test_accuracy", "test_f1", "flops_effective"):
                    assert row[column] == training[column], (network, number, column)

    def test_base_and_head_are_the_lotterys_network_behind_its_base(self, result: HybridResult) -> None:
        trainings = rows_of(result.lotteries["head"].rows, kind="training")
        base = rows_of(result.rows, kind="network", network="base", replicate=0)[0]
        for network, branch, index in (("head", "dense", 0), ("head ticket", "ticket", 2)):
            for number in range(2):
                (row,) = rows_of(result.rows, kind="network", network=network, replicate=number)
                (training,) = rows_of(trainings, branch=branch, round=index, replicate=number)
                for column in ("validation_accuracy", "validation_f1", "test_accuracy", "test_f1", "density"):
                    assert row[column] == training[column], (network, number, column)
                for column in ("flops_dense", "flops_effective"):
                    assert row[column] == base[column] + training[column]
                assert row["bytes"] > base["bytes"]
                assert row["reason"] is None

    def test_the_base_runs_once_and_gives_what_it_gives_on_a_replicates_split(
        self, result: HybridResult, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To the bit, as without the cache; nothing runs again but one image, which says how many features."""
        sources = sources_of(result.config, result.lotteries, None)
        base = frozen_base(result.config, None)
        exits = asked_exits(result.config, base.network)
        passed: list[int] = []

        def watch(model: Any, exits: Any, kinds: Any, inputs: Any) -> Any:
            passed.append(len(inputs))
            return features_at(model, exits, kinds, inputs)

        monkeypatch.setattr(pooled, "features_at", watch)
        for number in range(2):
            images = normalised(images_of(sources, number), normalisation_of(base.normalisation))
            found = base_features(result.config, number, None)
            for part, features in found.items():
                expected = features_at(base.network, exits, FEATURES, getattr(images, part).inputs)
                assert features.keys() == expected.keys()
                assert all(np.array_equal(features[key], expected[key]) for key in expected)
        assert passed == [1, 1]

    def test_all_lotteries_are_of_the_studys_images_and_replicates(self, result: HybridResult) -> None:
        shapes = {role: lottery.data["input_shape"] for role, lottery in result.lotteries.items()}
        assert shapes == {"cnn": [1, 32, 32], "head": [3, 1, 1], "lenet": [1, 32, 32]}
        assert {lottery.config.replicates for lottery in result.lotteries.values()} == {2}

    def test_the_manifest_says_what_it_stands_on(self, finished: Path, result: HybridResult) -> None:
        facts = json.loads((run_in(finished) / "manifest.json").read_text())["must_match"]
        assert facts["lotteries"] == {role: run.folder.root.name for role, run in result.lotteries.items()}
        assert facts["data"] == result.lotteries["cnn"].data
        assert facts["base"] == result.lotteries["head"].data["base"]
        assert facts["onnx"].keys() == {"onnx", "onnxruntime"}

    def test_the_page_stands_alone_and_every_file_is_there(self, finished: Path) -> None:
        run = run_in(finished)
        assert {path.name for path in (run / "results").iterdir()} == {*NAMES, *OPTIONAL_NAMES}
        page = (run / "report.html").read_text()
        assert "four questions" in page
        assert not any(remote in page for remote in ('src="http', "src='http", '<link rel="stylesheet" href="http'))
        summary = (run / "results" / "summary.md").read_text()
        assert "gate_exit: block3_conv2" in summary
        assert "gate_tolerance" not in summary, "a default, which the config did not name"

    def test_a_new_run_is_preceded_by_what_it_will_cost(self, first_call: tuple[Path, Invoked]) -> None:
        """Three lotteries of a dense network and two rounds of ticket and control; twelve forests, two baselines."""
        first = first_call[1].stderr.splitlines()[0]
        assert first.startswith(f"{3 * 2 * 5} trainings, about ")
        assert first.endswith(f"; then {2 * 14} forests")


class TestTheCommand:
    def test_gives_programs_one_object_again_and_again(self, finished: Path, study: Path, result: HybridResult) -> None:
        shown = json_of(call("show", run_in(finished), "--json"))
        assert (shown["kind"], shown["finished"], shown["folder"]) == ("hybrid", True, str(run_in(finished)))
        assert [answer["answer"] for answer in shown["verdict"]["answers"]] == [a.text for a in answers_of(result)]
        assert {"report", "rows", "config"} <= shown["paths"].keys()
        again = call("hybrid", study, "--out", finished, "--workers", 1, "--json", "--quiet")
        assert (json_of(again), again.stderr) == (shown, "")

    def test_plans_and_writes_nothing(self, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(WIDTH))
        planned = json_of(call("hybrid", study, "--out", tmp_path, "--dry-run", "--json", "-q"))
        assert (planned["kind"], bool(planned["table"])) == ("plan", True)
        said = call("hybrid", study, "--out", tmp_path, "--dry-run")
        assert fits(said.stdout), said.stdout
        assert not list(tmp_path.iterdir())

    def test_fits_80_columns(self, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(WIDTH))
        shown = call("show", run_in(finished))
        assert fits(shown.stdout), shown.stdout
        assert str(run_in(finished)) in shown.stdout, "the path is whole"


class TestAForestLearnsFromTrainingImagesAlone:
    def test_to_the_example(self, result: HybridResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        threads: list[int] = []

        def fit(features: Any, targets: Any, *rest: Any) -> forests.Forest:
            seen.append((np.asarray(features), np.asarray(targets)))
            return forests.fit_forest(features, targets, *rest)

        def pca(*arguments: Any) -> Any:
            threads.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
            return forests.fit_pca(*arguments)

        monkeypatch.setattr(replicate, "fit_forest", fit)
        monkeypatch.setattr(replicate, "fit_pca", pca)
        sources = sources_of(result.config, result.lotteries, None)
        run_replicate(ReplicateSpec(sources, 1, tmp_path), lambda event: None)

        cnn = result.lotteries["cnn"].config
        data = load_data(cnn.data, replicate_seed(cnn, 1))
        assert len(seen) == 14
        for _, targets in seen:
            assert np.array_equal(targets, data.train.targets.numpy())
        pixels, test = seen[0][0], data.test.inputs.flatten(1).numpy()
        assert np.array_equal(pixels, data.train.inputs.flatten(1).numpy())
        assert not set(map(bytes, pixels)) & set(map(bytes, test))
        assert threads
        assert set(threads) == {1}

        again = [row for path in sorted(tmp_path.rglob("*.json")) for row in json.loads(path.read_text())["rows"]]
        first = [row for row in result.rows if row["replicate"] == 1]
        assert sorted(map(str, without_clock(again))) == sorted(map(str, without_clock(first)))


class TestTheSameCommandAgain:
    def test_shows_a_finished_run_and_writes_nothing(self, copied: Path, study: Path) -> None:
        before = files_of(copied)
        said = call("hybrid", study, "--out", copied, "--workers", 1)
        assert said.exit_code == 0, said.output
        assert not said.stderr
        assert "Report:" in said.stdout
        fewer = call("hybrid", study, "--out", copied, "--replicates", 1)
        assert "Asked for 1 replicates; the run has 2, all are shown." in fewer.stderr
        assert files_of(copied) == before

    def test_extends_it_with_more_replicates(self, copied: Path, study: Path) -> None:
        old = (run_in(copied) / "rows.jsonl").read_bytes()
        said = call("hybrid", study, "--out", copied, "--workers", 1, "--replicates", 3)
        assert said.exit_code == 0, said.output
        new = (run_in(copied) / "rows.jsonl").read_bytes()
        assert new.startswith(old)
        assert {json.loads(line)["replicate"] for line in new[len(old) :].splitlines()} == {2}
        summary = json.loads((run_in(copied) / "results" / "hybrid.json").read_text())
        assert summary["replicates"] == 3
        assert len(read_result(open_study(Hybrid, run_in(copied))).lotteries["lenet"].rows) > 0

    @pytest.mark.parametrize("where", ["forests", "latency", "line"])
    def test_completes_what_was_torn(self, where: str, copied: Path, study: Path) -> None:
        """A table that ends in the middle of a unit is no finished one, whatever names are in it."""
        run = run_in(copied)
        rows, lines = read_rows(run / "rows.jsonl"), (run / "rows.jsonl").read_bytes().splitlines(keepends=True)
        unit = "latency" if where == "latency" else "ticket"
        last = max(number for number, row in enumerate(rows) if row["unit"] == unit)
        kept = b"".join(lines[: last - 1]) + (lines[last - 1][:20] if where == "line" else b"")
        (run / "rows.jsonl").write_bytes(kept)
        (run / "results" / "hybrid.json").unlink()
        said = call("hybrid", study, "--out", copied, "--workers", 1)
        assert said.exit_code == 0, said.output
        assert sorted(map(str, without_clock(read_rows(run / "rows.jsonl")))) == sorted(map(str, without_clock(rows)))

    def test_copies_the_results_and_never_over_those_of_another_run(
        self, copied: Path, study: Path, tmp_path: Path
    ) -> None:
        mine, foreign = tmp_path / "mine", tmp_path / "foreign"
        for _ in range(2):
            assert call("hybrid", study, "--out", copied, "--results", mine).exit_code == 0
        assert {path.name for path in mine.iterdir()} == {*NAMES, *OPTIONAL_NAMES}
        write(foreign / "hybrid.json", {"run": "hybrid-other-00000000"})
        before = files_of(foreign)
        refused = call("hybrid", study, "--out", copied, "--results", foreign)
        assert refused.exit_code == 2
        assert "holds files of another run" in refused.stderr
        assert files_of(foreign) == before

    def test_trains_a_lottery_that_is_gone_anew(self, copied: Path, study: Path) -> None:
        (lenet,) = copied.glob("lottery-small-lenet-*")
        shutil.rmtree(lenet)
        said = call("hybrid", study, "--out", copied, "--workers", 1)
        assert said.exit_code == 0, said.output
        assert lenet.is_dir()


class TestLookingAtRuns:
    def test_show_list_and_report_after_all_runs_have_moved(self, copied: Path, tmp_path: Path) -> None:
        moved = copied.rename(tmp_path / "elsewhere")
        run = run_in(moved)
        shown = call("show", run)
        assert shown.exit_code == 0, shown.output
        assert "block3_conv2" in shown.stdout
        assert "2 of 2 replicates" in call("list", "--out", moved).stdout
        (run / "report.html").unlink()
        assert call("report", run).exit_code == 0
        assert "four questions" in (run / "report.html").read_text()

    def test_a_missing_lottery_is_one_line(self, copied: Path) -> None:
        (head,) = copied.glob("lottery-small-head-*")
        shutil.rmtree(head)
        said = call("show", run_in(copied))
        assert said.exit_code == 2
        assert said.stderr.count("\n") == 1
        assert f"{head.name}: this run of the study's head is missing" in said.stderr
        assert "missing" in call("list", "--out", copied).stdout  # a table folds where it likes

    def test_a_manifest_that_leads_elsewhere_is_damaged(self, copied: Path) -> None:
        path = run_in(copied) / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["must_match"]["lotteries"]["cnn"] = "../../somewhere"
        path.write_text(json.dumps(manifest))
        assert "it is damaged" in call("show", run_in(copied)).stderr

    def test_a_replicate_counts_when_all_its_units_are_whole(self, result: HybridResult) -> None:
        rows = [row for row in result.rows if row["unit"] != "latency"]
        ends = {id(row) for row in rows if row["kind"] == "network" or row["network"] in ("pixels", "pca")}
        assert complete_replicates(rows, result.config) == {0, 1}
        for row in rows:
            left = [other for other in rows if other is not row]
            assert complete_replicates(left, result.config) == (
                {0, 1} - {row["replicate"]} if id(row) in ends else {0, 1}
            )

    def test_commands_of_lotteries_say_that_it_is_none(self, finished: Path) -> None:
        said = call("extract", run_in(finished), "--density", 0.5, "--out", finished / "never")
        assert said.exit_code == 2
        assert said.stderr.count("\n") == 1
        assert "tombola hybrid" in said.stderr


class TestWhatIsRefused:
    """In one line, before anything is trained, and with nothing left behind."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"exits": ["block9_conv1"]}, "cnn: exits: no exit 'block9_conv1' in this network"),
            ({"gate_exit": "block3_conv3"}, "cnn: gate_exit: no exit 'block3_conv3' in this network (did you mean"),
            ({"gate_exit": "block3_conv3"}, "known: block1_conv1, block1_pool"),
            ({"exits": ["output"]}, "cnn: exits: no exit at 'output', whose output is no image"),
            ({"exits": ["block1_conv1", "block1_conv1"]}, "name each exit once"),
            ({"features": ["median"]}, "unknown kind of features 'median'"),
            ({"cnn": lottery("dense", {"architecture": "lenet-300-100"})}, "no convolution before its dense layers"),
            (
                {"cnn": lottery("residual", {"architecture": "resnet20"})},
                "cnn: exits: no exit 'block1_conv1' in this network; known: conv_1, stage_1",
            ),
            ({"head": lottery("no-base", {"architecture": "head"})}, "its config needs data.base"),
            (
                {"lenet": lottery("late", {"architecture": "lenet5"}, rewind="step:9it")},
                "lenet: rewind: step:9it is not before the end of training",
            ),
            ({"cnn": "nowhere.yaml"}, "cnn: nowhere.yaml: no such config file"),
            ({"cnn": "."}, "hybrid.yaml: cnn: "),
            ({"cnn": "zero\0byte"}, "hybrid.yaml: cnn: "),
            ({"cnn": 3}, "cnn: "),
            ({"trees": 0}, "trees: "),
            ({"data.test": 80}, "too few"),
            ({"data.size": 8}, "head: vgg16-keras cannot take inputs of shape (1, 8, 8)"),
            ({"data.size": 8, "head": None}, "cnn: vgg11 cannot take inputs of shape (1, 8, 8)"),
        ],
    )
    def test_by_name(self, changes: dict[str, Any], said: str, images: Path, tmp_path: Path) -> None:
        content = hybrid_study(images)
        for key, value in copy.deepcopy(changes).items():
            outer, _, inner = key.partition(".")
            content[outer] = {**content[outer], inner: value} if inner else value
        content = {key: value for key, value in content.items() if value is not None}
        self.refused(write(tmp_path / "hybrid.yaml", content), tmp_path / "runs", said)

    def refused(self, study: Path, out: Path, said: str) -> None:
        invoked = call("hybrid", study, "--out", out, "--workers", 1)
        assert invoked.exit_code == 2, invoked.output
        assert said in error_in(invoked.stderr)
        assert not out.exists()

    def test_a_cnn_behind_a_base(self, images: Path, tmp_path: Path) -> None:
        content = hybrid_study(images)
        content["cnn"] = {**content["cnn"], "data": content["head"]["data"]}
        said = "`cnn` learns from images: its config must not have data.base"
        self.refused(write(tmp_path / "hybrid.yaml", content), tmp_path / "runs", said)

    def test_a_base_for_other_channels(self, images: Path, tmp_path: Path) -> None:
        parent = tmp_path / "base"
        vgg = {"architecture": "vgg11", "widths": [2, 2, 2, 2, 2]}
        training = {**TRAINING, "length": "2it", "evaluate_every": "2it"}
        coloured = {"name": "folder", "folder": str(images), "channels": 3}
        train = write(tmp_path / "train.yaml", {"name": "base", "data": coloured, "model": vgg, "training": training})
        trained = call("train", train, "--out", parent)
        assert trained.exit_code == 0, trained.output
        content = hybrid_study(images)
        (folder,) = parent.iterdir()
        content["head"]["data"] = {"name": "digits", "base": {"weights": str(folder), "layer": "pool_5"}}
        said = "takes images of 3 channels, these have 1; set data.channels to 3"
        self.refused(write(tmp_path / "hybrid.yaml", content), tmp_path / "runs", said)

    @pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
    def test_without_the_extra(self, name: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        self.refused(study, tmp_path / "runs", f"{name} is not installed: pip install 'tombola[onnx]'")

    def test_a_image_that_cannot_be_read_unless_it_may_be_skipped(self, images: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(images, tmp_path / "images"))
        (folder / "plain" / "bad.png").write_bytes(b"no image")
        alone = hybrid_study(folder, head=None, lenet=None, replicates=1, exits=["block3_conv2"], features=["gap"])
        study = write(tmp_path / "hybrid.yaml", alone)
        self.refused(study, tmp_path / "runs", "bad.png")
        said = call("hybrid", study, "--out", tmp_path / "runs", "--workers", 1, "--skip-bad")
        assert said.exit_code == 0, said.output
        assert "bad.png" in said.stderr
        assert unit_names(open_study(Hybrid, run_in(tmp_path / "runs")).config) == [
            "pixels",
            "pca",
            "dense",
            "ticket",
        ]

    def test_lotteries_of_other_data_or_another_base(self, result: HybridResult) -> None:
        facts = {"data": result.lotteries["cnn"].data, "base": result.lotteries["head"].data["base"]}
        check_lotteries(facts, result.lotteries)
        for key, roles in (("data", "cnn"), ("base", "head")):
            with pytest.raises(RunFolderError, match=f"the {roles} was trained with another {key}"):
                check_lotteries({**facts, key: {"checksum": "other"}}, result.lotteries)


def test_a_dry_run_shows_all_lotteries_and_runs_nothing(
    study: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.studies.base.timing.training_seconds", lambda *_: 60.0)
    said = call("hybrid", study, "--out", tmp_path / "runs", "--workers", 1, "--dry-run")
    assert said.exit_code == 0, said.output
    assert [said.stdout.count(f"{role}: the lottery small-{role}") for role in ("cnn", "head", "lenet")] == [1, 1, 1]
    assert said.stdout.count("10 trainings: 2 replicates of 5") == 3
    assert "28 forests" in said.stdout
    assert not (tmp_path / "runs").exists()
    before = files_of(finished)
    left = call("hybrid", study, "--out", finished, "--dry-run")
    assert "trainings" not in left.stdout, "its lotteries have run"
    assert files_of(finished) == before


class TestConfigs:
    def test_lotteries_by_path_here_or_beside_the_config(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = hybrid_study(images)
        here, beside = tmp_path / "here", tmp_path / "configs"
        write(beside / "lotteries" / "cnn.yaml", content["cnn"])
        write(beside / "lenet.yaml", content["lenet"])
        write(here / "lenet.yaml", content["lenet"] | {"name": "of-this-folder"})
        study = write(beside / "hybrid.yaml", content | {"cnn": "lotteries/cnn.yaml", "lenet": "lenet.yaml"})
        monkeypatch.chdir(here)
        config = load_config(study, HybridConfig)
        assert config.cnn == validate(content["cnn"], LotteryConfig, "cnn")
        assert config.lenet is not None
        assert config.lenet.name == "of-this-folder"

    def test_overrides_reach_lotteries_by_path(self, images: Path, tmp_path: Path) -> None:
        content = hybrid_study(images)
        write(tmp_path / "cnn.yaml", content["cnn"])
        study = write(tmp_path / "hybrid.yaml", content | {"cnn": "cnn.yaml"})
        config = load_config(study, HybridConfig, ["cnn.training.length=1ep", "head.model.widths=[5,3]"])
        assert str(config.cnn.training.length) == "1ep"
        assert config.lotteries()["head"].model.widths == (5, 3)
        other = write(tmp_path / "other.yaml", content["lenet"])
        config = load_config(study, HybridConfig, [f"cnn={other}", "cnn.name=chosen"])
        assert (config.cnn.name, config.cnn.model.architecture) == ("chosen", "lenet5")

    def test_a_run_is_named_by_what_changes_its_results(self, images: Path) -> None:
        content = hybrid_study(images)

        def named(**changes: Any) -> str:
            return identity_hash("hybrid", validate({**content, **changes}, HybridConfig, "test"))

        same = [
            named(),
            named(replicates=7),
            named(gate_tolerance=0.5, seed=0),
            named(cnn={**content["cnn"], "replicates": 4, "checkpoint_seconds": 1, "data": {"name": "mnist"}}),
        ]
        assert len(set(same)) == 1
        others = [
            named(cnn={**content["cnn"], "tolerance": 2}),
            named(head={**content["head"], "model": {"architecture": "head", "widths": [6, 5]}}),
            named(lenet=lottery("other", {"architecture": "lenet5"})),
            named(seed=1),
            named(trees=6),
            named(data={**content["data"], "test": 24}),
        ]
        assert len({same[0], *others}) == 7
        bare = {key: value for key, value in content.items() if key != "lenet"}
        assert identity_hash("hybrid", validate(bare, HybridConfig, "test")) not in {same[0], *others}
