"""Studies behind a frozen base: every command takes `data.base`, says what it is, and holds a run to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from small_bases import WIDTHS, forget, own_cache, write_digits, write_folder, write_weights
from small_models import invoke, one_line
from tombola.errors import ConfigError
from tombola.models import load_model
from tombola.models.folder import read_spec
from tombola.pruning import Masks
from tombola.runs.configs import validate
from tombola.runs.rows import read_rows, rows_of
from tombola.studies.base import watching
from tombola.studies.base.opened import read_result
from tombola.studies.lottery.origins import base_line
from tombola.studies.lottery.study import open_lottery
from tombola.studies.single.config import PruneConfig
from tombola.studies.single.parents import open_parent
from tombola.training import frozen
from tombola.training.base import FrozenBase
from tombola.training.frozen import OnFeatures

HEAD = {"architecture": "head", "widths": [12, 8], "dropout": 0.2}
RECIPE = {"length": "12it", "evaluate_every": "6it", "learning_rate": "1e-2"}
SPLIT = {"size": 32, "validation": 20}
MESSAGE = "Frozen base: model folder parent, up to block5_pool; it stays as it is and all replicates share it."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, a parent that serves as the base, and a cache of features, which the tests of this module share."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("home")
    write_digits(folder / "digits.npz")
    write_folder(folder / "parent")
    with own_cache(folder / "cache"):
        yield folder


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are named as one would who works in their folder."""
    monkeypatch.chdir(home)


def data(**base: Any) -> dict[str, Any]:
    return {"name": "npz", "folder": "digits.npz", **SPLIT, "base": base or {"weights": "parent"}}


def written(home: Path, name: str, **content: Any) -> Path:
    path = home / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "data": data(), "model": HEAD, "training": RECIPE} | content))
    return path


def lottery(home: Path, name: str = "head", **content: Any) -> Path:
    plan = {"replicates": 2, "pruning": {"densities": [0.5, 0.2]}}
    return written(home, name, **(plan | content))


def succeeded(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A finished lottery of a head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        succeeded("imp", lottery(home), "--workers", 1, "--out", "runs")
    (folder,) = (home / "runs").glob("lottery-head-*")
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """A head as `tombola train` leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        succeeded("train", written(home, "one"), "--out", "runs")
    (folder,) = (home / "runs").glob("train-one-*")
    return folder


class TestTheLottery:
    def test_the_manifest_says_which_base(self, run: Path, home: Path) -> None:
        base = json.loads((run / "manifest.json").read_text())["must_match"]["data"]["base"]
        network = load_model(home / "parent")[0]
        convolutions = {name: p for name, p in network.named_parameters() if name.startswith("block")}
        parameters = sum(p.numel() for p in convolutions.values())
        assert (base["source"], base["layer"]) == ("model folder parent", "block5_pool")
        assert (base["parameters"], base["bytes"]) == (parameters, 4 * parameters)
        assert base["normalisation"] == {"mean": [0.3], "std": [0.4]}
        positions = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3
        weights = [p.numel() for name, p in convolutions.items() if name.endswith("weight")]
        assert base["flops"] == sum(2 * w * side**2 for w, side in zip(weights, positions, strict=True))

    def test_the_sentence_is_of_its_rows(self, run: Path) -> None:
        """The head's FLOPs, dense and at the target, against those of base and head."""
        base = json.loads((run / "manifest.json").read_text())["must_match"]["data"]["base"]
        rows = read_rows(run / "rows.jsonl")
        dense = rows_of(rows, kind="training", branch="dense")[0]["flops_dense"]
        last = rows_of(rows, kind="training", branch="ticket", round=2)
        ticket = sum(row["flops_effective"] for row in last) / len(last)
        assert dense == 2 * (8 * 12 + 12 * 8 + 8 * 10)
        expected = [
            f"{MESSAGE} Weights, FLOPs and times are the head's alone.",
            f"A head cannot move FLOPs: dense it needs {dense / 1e6:.3g} of the {(base['flops'] + dense) / 1e6:,.4g} "
            f"MFLOPs of base and head ({dense / (base['flops'] + dense):.2%}), with 19.9% of its weights "
            f"{ticket / 1e6:.3g} of {(base['flops'] + ticket) / 1e6:,.4g}; what it saves are weights and bytes.",
        ]
        shown = succeeded("imp", run.parent.parent / "head.yaml", "--workers", 1, "--out", "runs")
        summary = (run / "results" / "summary.md").read_text()
        report = (run / "report.html").read_text().replace("&#x27;", "'")
        for said in expected:
            assert said in shown
            assert said in summary
            assert said in report

    def test_a_head_that_costs_something_is_not_said_to_cost_nothing(self, run: Path) -> None:
        """The sentence follows the numbers, as in a run whose base is as cheap as its head."""
        result = read_result(open_lottery(run))
        assert result is not None
        cheap = result.data | {"base": result.data["base"] | {"flops": 1000}}
        assert "Here the head moves FLOPs" in str(base_line(replace(result, data=cheap)))
        nothing = {key: value for key, value in result.data.items() if key != "base"}
        assert base_line(replace(result, data=nothing)) is None

    def test_changed_weights_refuse_to_go_on(self, home: Path) -> None:
        """Also where the base is named by a relative path, and the path is the same."""
        write_weights(home / "changing.safetensors", seed=1)
        base = {"weights": "changing.safetensors", "preprocessing": "none"}
        config = lottery(home, "changed", data=data(**base), replicates=1)
        command = ("imp", config, "--workers", 1, "--out", "runs")
        succeeded(*command)
        write_weights(home / "changing.safetensors", seed=2)
        os.utime(home / "changing.safetensors", ns=(1, 1))
        succeeded(*command)  # which only shows what is there
        one_line(invoke(*command, "--replicates", 2), "lottery-changed", "begun with data", "start afresh")
        write_weights(home / "changing.safetensors", seed=1)
        succeeded(*command, "--replicates", 2)

    def test_it_is_extracted_measured_reported_and_compared(self, run: Path, home: Path) -> None:
        succeeded("extract", run, "--density", 0.2, "--out", "ticket")
        spec, history = read_spec(home / "ticket")
        assert spec.input_shape == (8, 1, 1)
        assert history["data"]["config"]["base"] == {"weights": "parent"}
        assert "instability" in succeeded("stability", run, "--round", 1, "--workers", 1)
        succeeded("report", run)
        assert MESSAGE in (run / "report.html").read_text()
        succeeded("report", run, run, "--out", "both.html")
        pruned = succeeded("prune", "ticket", "--sparsity", 0.9, "--finetune", "2it", "--out", "pruned-ticket")
        assert "Model folder: pruned-ticket" in pruned

    def test_an_exported_ticket_takes_images(self, run: Path, trained: Path, home: Path) -> None:
        """The base, with its normalisation, stands before the head in the file; a trained head's as well."""
        for folder, name in ((run, "ticket.pt2"), (trained, "head.pt2")):
            result = invoke("export", folder, "--to", "pt2", "--out", name, "--json", "-q")
            assert result.exit_code == 0, result.output
            said = json.loads(result.stdout)
            assert said["verdict"]["drop"] == 0
            module = torch.export.load(home / name).module()
            assert module(torch.rand(3, 1, 32, 32)).shape == (3, 10)
        (stage,) = json.loads((trained / "metrics.json").read_text())["stages"]
        assert said["table"][1]["accuracy"] == pytest.approx(stage["test_accuracy"], abs=0.04)  # one example of 30
        head = sum(mask.total for mask in Masks.full(load_model(trained)[0]).values())
        assert said["verdict"]["weights"] > head

    def test_a_dry_run_computes_and_writes_nothing(self, home: Path) -> None:
        with own_cache(home / "dry"):
            config = lottery(home, "dry", data=data(widths=list(WIDTHS)))
            result = invoke("imp", config, "--dry-run", "--workers", 1, "--out", "nowhere")
            assert result.exit_code == 0, result.output
            assert "before any training, for features of the frozen base" in result.stdout
            assert result.stderr.count("warning: the base has NO pretrained weights") == 1
            assert not (home / "dry").exists()
            assert not (home / "nowhere").exists()


class TestOneParent:
    def test_a_child_passes_its_parents_base(self, trained: Path, home: Path) -> None:
        _, history = read_spec(trained)
        assert history["data"]["config"]["base"] == {"weights": "parent"}
        command = ("prune", trained, "--sparsity", 0.5, "--finetune", "6it", "--seed", 9)
        said = succeeded(*command, "--out", "child")
        assert "136 of 272" in said
        assert read_spec(home / "child")[1]["data"] == history["data"]
        with_data = "{name: npz, folder: digits.npz, size: 32}"  # its base goes without saying
        succeeded(*command, "--data", with_data, "--out", "child-of-data")
        again = read_spec(home / "child-of-data")[1]["data"]
        assert (again["config"]["base"], again["checksum"]) == ({"weights": "parent"}, history["data"]["checksum"])

    def test_a_zoo_head_is_pruned_behind_a_base(self) -> None:
        keys = "{name: npz, folder: digits.npz, size: 32, base: {weights: parent}}"
        succeeded("prune", "head", "--data", keys, "--sparsity", 0.5, "--finetune", "2it", "--out", "zoo-child")

    def test_changed_weights_refuse_to_go_on(self, home: Path) -> None:
        write_folder(home / "other", seed=1)
        config = written(home, "held", data=data(weights="other"))
        succeeded("train", config, "--out", "runs")
        (folder,) = (home / "runs").glob("train-held-*")
        for name in ("spec.json", "finished.json"):  # as if it had been killed before its last writes
            (folder / name).unlink()
        shutil.rmtree(home / "other")
        write_folder(home / "other", seed=2)
        os.utime(home / "other" / "weights.safetensors", ns=(1, 1))
        one_line(invoke("train", config, "--out", "runs"), "train-held", "begun with data")

    def test_a_child_is_not_tested_on_the_features_of_another_base(self, home: Path) -> None:
        write_folder(home / "first", seed=1)
        succeeded("train", written(home, "moved", data=data(weights="first")), "--out", "runs")
        (folder,) = (home / "runs").glob("train-moved-*")
        shutil.rmtree(home / "first")
        write_folder(home / "first", seed=2)
        os.utime(home / "first" / "weights.safetensors", ns=(1, 1))
        one_line(invoke("prune", folder, "--sparsity", 0.5, "--out", "never"), "have changed since", "base before them")
        assert not (home / "never").exists()

    def test_ways_are_compared(self, home: Path) -> None:
        content = {"replicates": 2, "criteria": ["magnitude", "random"], "sparsities": [0.5], "fine_tuning": RECIPE}
        said = succeeded("compare", written(home, "ways", **content), "--workers", 1, "--out", "runs")
        assert "magnitude" in said
        (folder,) = (home / "runs").glob("compare-ways-*")
        assert (folder / "report.html").exists()

    def test_augmentation_of_a_folders_features_is_refused(self, trained: Path) -> None:
        content = {
            "model": str(trained),
            "pruning": {"sparsity": 0.5},
            "fine_tuning": RECIPE | {"augmentation": ["flip"]},
        }
        with pytest.raises(ConfigError, match="computed once: leave `augmentation` out"):
            open_parent(validate(content, PruneConfig, "test"), None)


class TestWhatIsSaid:
    @pytest.mark.parametrize("command", ["imp", "train", "compare", "prune"])
    def test_how_far_features_are_and_that_weights_are_random(
        self, command: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "LINE_SECONDS", 0.0)
        random = data(widths=list(WIDTHS))
        way = {"replicates": 1, "criteria": ["magnitude"], "sparsities": [0.5]}
        with own_cache(home / f"cache-{command}"):
            match command:
                case "imp":
                    asked = ["imp", lottery(home, "loud", data=random, replicates=1), "--workers", 1]
                case "train":
                    asked = ["train", written(home, "loud-parent", data=random)]
                case "compare":
                    asked = ["compare", written(home, "loud-ways", data=random, **way), "--workers", 1]
                case _:
                    asked = ["prune", "head", "--data", yaml.safe_dump(random, default_flow_style=True, width=1000)]
                    asked += ["--sparsity", 0.5, "--finetune", "0it"]
            result = invoke(*asked, "--out", f"loud-{command}")
        assert result.exit_code == 0, result.output
        assert result.stderr.count("warning: the base has NO pretrained weights") == 1
        assert "features of the frozen base: 96 of 150" in result.stderr

    def test_replicates_and_runs_share_one_computation(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        computed: list[slice] = []
        real = frozen._of_part

        def counting(base: FrozenBase, inputs: Any, part: slice, on_features: OnFeatures) -> Tensor:
            computed.append(part)
            return real(base, inputs, part, on_features)

        monkeypatch.setattr(frozen, "_of_part", counting)
        with own_cache(home / "shared") as features:
            succeeded("imp", lottery(home, "first", replicates=3), "--workers", 1, "--out", "shared-runs")
            forget()
            succeeded("imp", lottery(home, "second", seed=5, replicates=1), "--workers", 1, "--out", "shared-runs")
            assert len(list(features.iterdir())) == 1
        assert computed == [slice(0, 150)]


class TestRefusals:
    @pytest.mark.parametrize("command", ["imp", "train"])
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"base": {"weights": "gone"}}, "data.base.weights: there is no gone"),
            ({"base": {"weights": "parent"}, "channels": 3}, "takes images of 1 channel, these have 3"),
            ({"base": {"weights": "parent", "layer": "conv9"}}, "known: block1_conv1"),
            ({"base": {"weights": "parent"}, "size": 8}, "does not take images of shape (1, 8, 8)"),
            ({"base": {"widths": list(WIDTHS)}, "size": 8}, "at least 32×32"),
            ({"base": {"weights": "damaged.pth"}}, "damaged.pth"),
            ({"base": {"weights": "parent"}, "normalise": True}, "leave `normalise` out"),
            ({"base": {"weight": "parent"}}, "unknown key 'data.base.weight' (did you mean 'weights'?)"),
        ],
    )
    def test_one_line(self, command: str, changes: dict[str, Any], says: str, home: Path) -> None:
        (home / "damaged.pth").write_bytes(b"no weights")
        content = {"data": data() | changes}
        config = lottery(home, "refused", **content) if command == "imp" else written(home, "refused", **content)
        one_line(invoke(command, config, "--out", "refused-runs"), says)

    @pytest.mark.parametrize("command", ["imp", "train"])
    def test_augmentation(self, command: str, home: Path) -> None:
        content = {"training": RECIPE | {"augmentation": ["flip"]}}
        config = lottery(home, "refused", **content) if command == "imp" else written(home, "refused", **content)
        one_line(invoke(command, config), "computed once: leave `augmentation` out")

    def test_a_cache_of_no_size(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOMBOLA_FEATURE_CACHE_GIB", "plenty")
        one_line(invoke("train", written(home, "refused"), "--out", "refused-runs"), "'plenty'", "GiB")


def test_a_base_that_has_seen_the_images_is_said_to_have(home: Path) -> None:
    plain = {"name": "npz", "folder": "digits.npz", **SPLIT}
    small = {"architecture": "vgg16-keras", "widths": [4, 4, 4, 4, 4, 6, 5]}
    succeeded("train", written(home, "seen", data=plain, model=small, training=RECIPE | {"length": "2it"}))
    (base,) = (home / "runs").glob("train-seen-*")
    said = succeeded("imp", lottery(home, "leak", data=data(weights=str(base))), "--workers", 1, "--replicates", 1)
    assert said.count("test images among them: test accuracies are flattered") == 2  # a warning, and the result
    write_digits(home / "others.npz", seed=3)
    other = data(weights=str(base)) | {"folder": "others.npz"}
    said = succeeded("imp", lottery(home, "clean", data=other), "--workers", 1, "--replicates", 1)
    assert "flattered" not in said
