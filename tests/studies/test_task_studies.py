"""A lottery of a task of one's own: language and graphs, found, killed, continued, judged, shown; and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import own_tasks
import own_training
from small_models import invoke, one_line
from small_study import run_lottery
from tombola import find_ticket
from tombola.data import DataConfig, load_data
from tombola.errors import ConfigError, RunFolderError, TombolaError
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.studies.base.soundness import fault_of
from tombola.studies.base.watching import Progress, Watcher
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.find import Ticket
from tombola.studies.lottery.result import Result
from tombola.training import Classification, LanguageModelling
from tombola.training.task import Measure

SHORT: dict[str, Any] = {
    "density": 0.5,
    "rounds": 1,
    "replicates": 2,
    "length": "20it",
    "recipe": {"evaluate_every": "10it", "learning_rate": "1e-2"},
}
NATS = Measure("nats", higher_is_better=False, unit="nats a token", title="cross-entropy")
CONFIG = {
    "name": "own",
    "replicates": 1,
    "training": {"length": "20it", "evaluate_every": "10it", "learning_rate": "1e-2"},
    "pruning": {"densities": [0.5]},
    "checkpoint_seconds": 0,
    "tolerance": 0.1,
    "controls": ["reinit"],
}
LANGUAGE = {**CONFIG, "task": {"factory": "own_tasks:language"}, "model": {"factory": "own_tasks:Context"}}
GPT2 = {**LANGUAGE, "model": {"factory": "own_tasks:gpt2"}, "early_bird": {"window": 1, "distance": 0.9}}
GRAPHS = {
    **CONFIG,
    "task": {"factory": "own_tasks:graph_numbers"},
    "model": {"factory": "own_tasks:gine"},
    "pruning": {"densities": [0.5], "criterion": "taylor", "score_batches": 2},
}


class Killing(Watcher):
    """Ends the run at the `at`th look at a training."""

    def __init__(self, at: int) -> None:
        self.left = at

    def progress(self, now: Progress) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Ticket:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs")
    return find_ticket("own_tasks:Context", own_tasks.language, **SHORT, tolerance=0.5, out=out)


def timeless(result: Result) -> list[dict[str, Any]]:
    rows = [row for row in result.rows if row["kind"] != "latency"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_commands_for_classifiers_say_that_it_is_none(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(LANGUAGE))
    assert invoke("imp", tmp_path / "own.yaml", "--out", tmp_path, "-q").exit_code == 0
    (run,) = tmp_path.glob("lottery-*")
    own = ("--factory", "own_tasks:Context")
    assert invoke("extract", run, "--density", 0.5, "--out", tmp_path / "ticket", *own).exit_code == 0
    for network in (run, tmp_path / "ticket"):
        one_line(invoke("bench", network, *own), network.name, "learned a task of one's own", "classifiers")
        one_line(invoke("export", network, *own, "--out", tmp_path / "net.onnx"), "classifiers", "tombola.export")
    for command in ("bench", "sensitivity"):
        one_line(invoke(command, tmp_path / "ticket", *own, "--data", "digits"), "takes classifiers")


@pytest.mark.parametrize(("content", "needs"), [(GPT2, "transformers"), (GRAPHS, "torch_geometric")])
def test_killed_at_any_look_it_goes_on_to_the_same_bits(content: dict[str, Any], needs: str, tmp_path: Path) -> None:
    pytest.importorskip(needs)
    config = LotteryConfig(**content)
    whole = run_lottery(config, tmp_path / "whole")
    for at in (1, 2, 3):  # in the dense training, at its end, in the ticket's
        with pytest.raises(KeyboardInterrupt):
            run_lottery(config, tmp_path / "killed", watcher=Killing(at))
    result = run_lottery(config, tmp_path / "killed")
    assert timeless(result) == timeless(whole)
    assert result.verdict == whole.verdict
    (dense,) = rows_of(result.rows, kind="training", branch="dense")
    assert (dense["early_bird_iteration"] is not None) == (content is GPT2)
    reasons = [row.get("flops_reason") for row in rows_of(result.rows, kind="training")]
    assert all("no tensors of one shape" in reason for reason in reasons) if content is GRAPHS else not any(reasons)


def test_rows_have_the_measures_of_the_task(language: Ticket) -> None:
    trainings = rows_of(language.rows, kind="training")
    assert {row["branch"] for row in trainings} == {"dense", "ticket", "random", "reinit"}
    for row in trainings:
        assert row["test_loss"] == row["test_nats"]
        assert 0 < row["test_accuracy"] < 1
        assert row["early_stop_test_nats"] > 0
        # Of a sequence of 8 tokens: two Linear layers, of which the ticket keeps half the weights.
        assert row["flops_dense"] == 2 * 8 * (16 * 24 + 24 * 13)
        assert row["flops_effective"] == 2 * 8 * row["kept"]
        assert not [key for key in row if key.endswith(("_f1", "_majority_accuracy"))]
        # Every token is as frequent as the others: to know that much takes log(13) nats.
        assert row["test_naive_nats"] == pytest.approx(2.565, abs=0.02)
    looks = rows_of(language.rows, kind="evaluation")
    assert all(row["nats"] == row["loss"] for row in looks)
    assert not rows_of(language.rows, kind="connections")
    assert len(rows_of(language.rows, kind="histogram", round=1, replicate=0)) == 2  # the embedding is not pruned
    reasons = {row["reason"] for row in rows_of(language.rows, kind="latency")}
    assert reasons == {
        "sparse kernels take float32 tensors of one shape, and examples of the task language modelling are none"
    }


def test_the_verdict_is_in_nats_and_better_is_positive(language: Ticket) -> None:
    verdict = language.verdict
    assert verdict.measure == NATS
    assert "nats a token" in verdict.sentence
    rows = rows_of(language.rows, kind="training")
    part = "test" if len(verdict.versus) > 1 else "validation"
    dense, ticket = ([row[f"{part}_nats"] for row in rows if row["branch"] == name] for name in ("dense", "ticket"))
    assert verdict.versus["dense"].mean == pytest.approx((sum(dense) - sum(ticket)) / 2)
    assert language.masks.density == pytest.approx(0.5, abs=1e-3)


def test_pages_and_files_speak_of_nats(language: Ticket) -> None:
    page = language.report.read_text()
    for said in ("Test cross-entropy (nats a token)", "Cross-entropy against weights remaining", "Relative to dense"):
        assert said in page, said
    assert "accuracy (%)" not in page
    summary = json.loads((language.folder / "results" / "sparsity_vs_accuracy.json").read_text())
    assert summary["units"]["nats"] == "nats a token"
    assert summary["verdict"]["measure"]["name"] == "nats"
    entry = summary["densities"][0]
    assert (entry["test_nats"]["n"], entry["flops"], entry["f1"]) == (2, 2 * 8 * 696, None)
    assert entry["parameter_count"] == sum(p.numel() for p in own_tasks.Context().parameters())


def test_looking_calls_no_code(language: Ticket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("language", "Context"):
        monkeypatch.setattr(own_tasks, name, lambda: pytest.fail("called"))
    for arguments in (
        ("show", language.folder),
        ("report", language.folder),
        ("list", "--out", language.folder.parent),
    ):
        assert invoke(*arguments).exit_code == 0, arguments


def test_a_ticket_is_taken_out_with_its_code_and_its_network_runs(language: Ticket, tmp_path: Path) -> None:
    options = ("--density", 0.5, "--out", tmp_path / "ticket")
    one_line(invoke("extract", language.folder, *options), "--factory own_tasks:Context")
    assert invoke("extract", language.folder, *options, "--factory", "own_tasks:Context").exit_code == 0
    assert language.model()(own_tasks.counting(2, 0).ids).shape == (2, 9, 13)
    one_line(invoke("stability", language.folder, "--round", 1), "learned a task of its owner's")


def test_a_task_in_memory_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SHORT | {"replicates": 1, "controls": (), "tolerance": 0.5, "out": tmp_path}
    first = find_ticket(own_tasks.Context, own_tasks.language(), **asked)
    again = find_ticket(own_tasks.Context, own_tasks.language(), **asked | {"replicates": 2})
    assert (again.folder, again.verdict.replicates) == (first.folder, 2)
    for replicates in (1, 2, 3):  # nothing is left to do for one or two
        with pytest.raises(TombolaError, match="has other data than the run began with") as caught:
            find_ticket(own_tasks.Context, own_tasks.another_language(), **asked | {"replicates": replicates})
        assert "\n" not in str(caught.value)
    config = tmp_path / "own.yaml"
    config.write_text((first.folder / "config.yaml").read_text().replace("seed: 0", "seed: 1"))
    refused = invoke("imp", config, "--out", tmp_path)
    assert refused.exit_code == 2
    assert "was an object of a Python program" in refused.stderr.splitlines()[-1]
    with pytest.raises(ConfigError, match="other processes do not have your Task"):
        find_ticket(own_tasks.Context, own_tasks.language(), **asked, workers=2)


def test_a_task_in_memory_is_known_by_its_class_and_its_attributes(tmp_path: Path) -> None:
    """Equal data and an equal name do not make it the same experiment."""
    asked = SHORT | {"replicates": 1, "controls": (), "tolerance": 0.5, "out": tmp_path}
    first = find_ticket(own_tasks.Context, own_tasks.Scaled(1.0), **asked)
    assert find_ticket(own_tasks.Context, own_tasks.Scaled(1.0), **asked).folder == first.folder
    for other, replicates in ((own_tasks.Scaled(0.5), 1), (own_tasks.language(), 2)):
        with pytest.raises(RunFolderError, match="begun with task ") as caught:
            find_ticket(own_tasks.Context, other, **asked | {"replicates": replicates})
        assert "\n" not in str(caught.value)


def test_a_loss_of_another_scale_has_not_diverged(tmp_path: Path) -> None:
    asked = SHORT | {"replicates": 1, "controls": (), "out": tmp_path}
    task = Classification(load_data(DataConfig(name="digits"), 0), own_training.steep)
    row = find_ticket("own_models:dense", task, **asked).rows[0]
    assert row["train_loss"] > 50
    assert (row["train_frequency_loss"], fault_of(row)) == (None, None)
    assert row["test_majority_accuracy"] < row["test_accuracy"]


def test_another_split_of_the_same_data_is_another_task(tmp_path: Path) -> None:
    asked = SHORT | {"replicates": 1, "controls": (), "out": tmp_path}
    data = [load_data(DataConfig(name="digits"), seed) for seed in (0, 1)]
    find_ticket("own_models:dense", Classification(data[0]), **asked)
    with pytest.raises(RunFolderError, match="begun with task "):
        find_ticket("own_models:dense", Classification(data[1]), **asked | {"replicates": 2})


def test_the_command_says_whose_code_makes_the_task(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(LANGUAGE | {"controls": []}))
    result = invoke("imp", path, "--out", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert "own_tasks:language makes the task: your own code" in result.output
    assert invoke("imp", path, "--dry-run", "--set", "seed=5").exit_code == 0


def test_graph_classes_are_judged_as_classes_are(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    asked = SHORT | {"out": tmp_path, "controls": ()}
    found = find_ticket(own_tasks.gine_of_classes, own_tasks.graph_classes, **asked)
    row = found.rows[0]
    assert row["test_majority_accuracy"] == 0.575
    assert row["test_correct"]
    assert "points" in found.verdict.sentence


def test_digits_in_a_task_of_ones_own_are_those_of_the_data_set(tmp_path: Path) -> None:
    """FLOPs and maps included. Only the split differs: one for all replicates."""
    asked = SHORT | {"replicates": 1, "controls": ()}
    found = find_ticket("own_models:dense", "own_tasks:digits", **asked, out=tmp_path)
    plain = find_ticket("own_models:dense", "digits", **asked, out=tmp_path)
    mine, theirs = found.rows[0], plain.rows[0]
    assert (mine["flops_dense"], list(mine)) == (theirs["flops_dense"], list(theirs))
    assert rows_of(found.rows, kind="connections")
    assert all(row["seconds"] for row in rows_of(found.rows, kind="latency"))
    again = find_ticket("own_models:dense", "own_tasks:digits", **asked, out=tmp_path)
    assert again.rows == found.rows
    assert invoke("show", found.folder).exit_code == 0


def test_classes_compared_by_another_of_their_measures_are_read_again(tmp_path: Path) -> None:
    asked = SHORT | {"replicates": 1, "controls": (), "out": tmp_path}
    found = find_ticket("own_models:dense", "own_tasks:digits_by_f1", **asked)
    assert find_ticket("own_models:dense", "own_tasks:digits_by_f1", **asked).rows == found.rows
    assert found.verdict.measure.name == "f1"


def test_functions_of_ones_own_are_arguments(tmp_path: Path) -> None:
    asked = SHORT | {"replicates": 1, "controls": ()}
    own = {"optimizer": own_training.rmsprop, "loss": own_training.smoothed, "schedule": own_training.falling}
    found = find_ticket("own_models:dense", "digits", **asked, **own, out=tmp_path)
    recipe = asked["recipe"] | {name: f"own_training:{function.__name__}" for name, function in own.items()}
    assert find_ticket("own_models:dense", "digits", **asked | {"recipe": recipe}, out=tmp_path).folder == found.folder
    assert {row["engine"] for row in rows_of(found.rows, kind="training")} == {"dense"}


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("model", "task", "more", "said"),
        [
            ("own_tasks:Context", "own_tasks:language", {}, "tolerance: say how much worse .* nats a token"),
            (
                "own_tasks:few_words",
                "own_tasks:language",
                {"tolerance": 1},
                "knows 4 tokens, and the sequences have 13",
            ),
            ("own_tasks:Context", "own_tasks:no_task", {"tolerance": 1}, "gave a int, not a tombola.training.Task"),
            ("own_tasks:Context", "own_tasks:failing", {"tolerance": 1}, "failing.. failed: "),
            ("own_tasks:Context", "own_tasks:missing", {"tolerance": 1}, "has no function 'missing'"),
            ("lenet-300-100", "own_tasks:language", {"tolerance": 1}, "model.factory"),
            ("own_tasks:Context", "own_tasks:language", {"tolerance": 1, "loss": own_training.smoothed}, "has its own"),
            (
                "own_tasks:Context",
                "own_tasks:language",
                {"tolerance": 1, "recipe": SHORT["recipe"] | {"engine": "sparse"}},
                "knows classification only, and this task is language modelling",
            ),
            (
                "own_tasks:Context",
                "own_tasks:language",
                {"tolerance": 1, "recipe": SHORT["recipe"] | {"augmentation": ["flip"]}},
                "augmentation is for images, this task is language modelling",
            ),
        ],
    )
    def test_what_does_not_go_together(self, model: str, task: str, more: Any, said: str, tmp_path: Path) -> None:
        with pytest.raises(TombolaError, match=said) as caught:
            find_ticket(model, task, **SHORT | more, out=tmp_path)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"optimizer": own_training.gentle}, "optimizer: partial cannot be found by its name again"),
            ({"loss": lambda logits, targets: logits.sum()}, "loss: .*lambda.* cannot be found by its name again"),
            ({"schedule": 3}, "schedule: a function or its package.module:function, not 3"),
            ({"schedule": "sdg"}, "schedule: is constant, step, cosine, or package.module:function"),
            (
                {"optimizer": "sgd", "recipe": {"optimizer": "adam"}},
                "optimizer: is an argument and a key of the recipe",
            ),
        ],
    )
    def test_functions_that_no_name_leads_to(self, given: dict[str, Any], said: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=said):
            find_ticket("own_models:dense", "digits", **SHORT | given, out=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_task_that_no_name_leads_to(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"data: .* cannot be found by its name again"):
            find_ticket("own_tasks:Context", lambda: own_tasks.language(), **SHORT, out=tmp_path)

    def test_both_data_and_a_task_or_neither(self) -> None:
        for content in ({**LANGUAGE, "data": {"name": "digits"}}, {**CONFIG, "model": LANGUAGE["model"]}):
            with pytest.raises(ConfigError, match="give `data`, or a `task` of your own"):
                validate(content, LotteryConfig, "test")
        with pytest.raises(ConfigError, match="name the function that makes the task"):
            validate({**LANGUAGE, "task": {}}, LotteryConfig, "test")

    def test_a_hybrid_of_tasks(self) -> None:
        with pytest.raises(ConfigError, match="`cnn` has a task of your own"):
            validate({"name": "x", "cnn": LANGUAGE}, HybridConfig, "test")

    @pytest.mark.parametrize(
        ("compares", "said"),
        [
            (
                Measure("perplexity", higher_is_better=False),
                "compares networks by 'perplexity', and its scores have nats",
            ),
        ],
    )
    def test_a_task_whose_scores_lack_its_measure(
        self, compares: Measure, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LanguageModelling, "compares", compares)
        with pytest.raises(ConfigError, match=said):
            find_ticket("own_tasks:Context", "own_tasks:language", **SHORT, tolerance=1, out=tmp_path)

    def test_runs_of_different_measures_on_one_page(self, language: Ticket, tmp_path: Path) -> None:
        digits = run_lottery(
            LotteryConfig(**CONFIG | {"data": {"name": "digits"}, "model": {"widths": [8, 8]}, "controls": []}),
            tmp_path,
        )
        result = invoke("report", language.folder, digits.folder.root, "--out", tmp_path / "both.html")
        one_line(result, "compared by other measures")


def test_networks_of_lazy_layers_are_refused_for_tasks(tmp_path: Path) -> None:
    with pytest.raises(TombolaError, match="lazy layers, whose shapes this task cannot give"):
        find_ticket("own_models:lazy", "own_tasks:language", **SHORT, tolerance=1, out=tmp_path)
    assert isinstance(own_tasks.Context(), nn.Module)


def test_costs_of_a_task_whose_examples_are_plain_tensors(tmp_path: Path) -> None:
    asked = SHORT | {"replicates": 1, "controls": (), "tolerance": 0.5, "out": tmp_path}
    rows = find_ticket(own_tasks.for_lines, own_tasks.lines, **asked).rows
    assert {row["flops_dense"] for row in rows_of(rows, kind="training")} == {2 * (3 * 16 + 16)}
    assert not any("tensors of one shape" in str(row) for row in rows_of(rows, kind="latency"))
