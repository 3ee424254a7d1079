"""The fourteen points that any front end for pruning and fine-tuning is accepted by, each on real models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import own_models
from small_models import FINE_TUNING, contents, make_child, make_parent, masks_of
from tombola.data import DataConfig, DataSet, Examples, load_data
from tombola.errors import ConfigError, ModelError, PruningError, TombolaError
from tombola.models import load_model
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prunable_parameters, prune
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.studies.single import metrics as metrics_module
from tombola.studies.single import prune as prune_module
from tombola.studies.single.child import Child
from tombola.studies.single.child import make_child as really_make_child
from tombola.studies.single.config import PruneConfig
from tombola.studies.single.one_model import Result
from tombola.studies.single.stages import LINES, stages_table
from tombola.training.engine import DenseEngine
from tombola.training.sparse.engine import SparseEngine

SPARSITIES = (0.1, 0.3, 0.9, 0.98, 0.999)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The (making, child) of every pruning of the test, as they are in memory."""
    made: list[Any] = []

    def remembering(making: Any, on_progress: Any) -> Child:
        made.append((making, really_make_child(making, on_progress)))
        return made[-1][1]

    monkeypatch.setattr(prune_module, "make_child", remembering)
    return made


def storages(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}


class TestPoint1TheParentStaysBitIdentical:
    @pytest.mark.parametrize("schedule", ["oneshot", "iterative:2", "cubic:3"])
    def test_files_and_memory(self, schedule: str, parent: Path, tmp_path: Path, children: list[Any]) -> None:
        files = contents(parent)
        before = content_sha256(load_model(parent)[0].state_dict())
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.8, "schedule": schedule})
        assert contents(parent) == files
        ((making, child),) = children
        assert content_sha256(making.parent.state_dict()) == before
        assert not storages(making.parent) & storages(child.model)
        assert content_sha256(child.model.state_dict()) != before
        assert json.loads((outcome.folder / "metrics.json").read_text())["checks"]["check_parent"] is True
        assert json.loads((outcome.folder / "spec.json").read_text())["history"]["parent"]["sha256"] == before


LOGITS = """
import json, sys, torch
from tombola.models import load_model
torch.set_num_threads(1)
for folder, factory in json.loads(sys.argv[1]):
    model, _, masks = load_model(folder, factory)
    logits = model.eval()(torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8))
    print(logits.detach().numpy().tobytes().hex(), masks.kept)
"""


class TestPoint2ARebuiltChildGivesTheSameLogits:
    def test_flatten_first_convolution_first_and_somebodys_own(
        self, parent: Path, convolutional: Path, tmp_path: Path, children: list[Any]
    ) -> None:
        factory = "own_models:normalised_first"
        digits = {"data": {"name": "digits"}}
        make_child(parent, tmp_path / "flat", {"sparsity": 0.8})
        make_child(convolutional, tmp_path / "conv", {"sparsity": 0.5, "structure": "filter"})
        make_child(factory, tmp_path / "own", {"sparsity": 0.8, "criterion": "taylor"}, **digits)
        make_child("own_models:lazy", tmp_path / "lazy", {"sparsity": 0.8}, **digits)
        folders = [("flat", None), ("conv", None), ("own", factory), ("lazy", "own_models:lazy")]
        asked = json.dumps([(str(tmp_path / name), code) for name, code in folders])
        there = subprocess.run(
            [sys.executable, "-c", LOGITS, asked],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            cwd=Path(own_models.__file__).parent,
        )
        inputs = torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8)
        here = []
        for _, child in children:
            logits = child.model.eval()(inputs).detach().numpy().tobytes().hex()
            here += [logits, str(child.masks.kept)]
        assert there.stdout.split() == here


class TestPoint3ASpecIsRecordedAndNeverGuessed:
    def test_training_records_it(self, parent: Path) -> None:
        content = json.loads((parent / "spec.json").read_text())
        spec = content["model"]
        assert (spec["architecture"], spec["input_shape"], spec["classes"]) == ("lenet-300-100", [1, 8, 8], 10)
        assert {"widths", "seed", "dtype", "normalisation", "versions", "initialisation"} <= spec.keys()
        assert content["history"]["data"]["config"] == {"name": "digits"}
        assert content["history"]["training"]["length"] == "60it"

    def test_a_folder_without_one_is_refused(self, parent: Path, tmp_path: Path) -> None:
        (tmp_path / "bare").mkdir()
        for name in ("weights.safetensors", "metrics.json"):
            (tmp_path / "bare" / name).write_bytes((parent / name).read_bytes())
        with pytest.raises(ModelError, match=r"never guessed from weights; make one with tombola\.models\.save_model"):
            make_child(tmp_path / "bare", tmp_path / "child", {"sparsity": 0.5})
        assert not (tmp_path / "child").exists()


class TestPoint4ExactlyAsManyAsAsked:
    @pytest.mark.parametrize("sparsity", SPARSITIES)
    def test_by_the_study(self, sparsity: float, parent: Path, tmp_path: Path) -> None:
        asked = {"sparsity": sparsity}
        if round(sparsity * 1640) > 1637:  # .999 of 1,640 leaves two weights for three layers
            with pytest.raises(PruningError, match="while each layer keeps min_keep=1"):
                make_child(parent, tmp_path / "child", asked)
            assert not (tmp_path / "child").exists()
            return
        outcome = make_child(parent, tmp_path / "child", asked)
        masks = masks_of(outcome.folder)
        assert masks.total - masks.kept == round(sparsity * 1640)
        assert outcome.stages[-1]["kept"] == 1640 - round(sparsity * 1640)

    def test_by_the_study_at_99_9_percent(self, tmp_path: Path) -> None:
        wide = make_parent(tmp_path, name="wide", model={"widths": [60, 12]}, training=FINE_TUNING).folder
        total = masks_total(wide)
        outcome = make_child(wide, tmp_path / "child", {"sparsity": 0.999})
        assert total - masks_of(outcome.folder).kept == round(0.999 * total)

    @given(st.integers(2, 30), st.integers(2, 30), st.sampled_from((0, *SPARSITIES)), st.integers(0, 99))
    @settings(max_examples=40)
    def test_by_the_verb(self, inputs: int, outputs: int, sparsity: float, seed: int) -> None:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, 3))
        total = Masks.full(model).total
        masks = prune(model, sparsity, min_keep=0)
        assert masks.total - masks.kept == round(sparsity * total)

    def test_none_at_all_is_for_the_verb_only(self, parent: Path) -> None:
        """A child of which nothing is pruned is no child: the study asks for a share between 0 and 1."""
        model = load_model(parent)[0]
        assert prune(model, 0).kept == prune(model, 0.0).total
        for sparsity in (0, 1, -0.1, 1.5, float("nan"), float("inf")):
            with pytest.raises(ConfigError, match="sparsity"):
                validate({"model": "lenet5", "pruning": {"sparsity": sparsity}}, PruneConfig, "here")


def masks_total(folder: Path) -> int:
    return Masks.full(load_model(folder)[0]).total


class TestPoint5TiesAreExactAndTheSameEveryTime:
    @pytest.mark.parametrize(
        "values",
        [
            pytest.param(lambda shape: torch.full(shape, 0.25), id="all equal"),
            pytest.param(lambda shape: torch.randn(shape).mul(4).round().div(4), id="quantised"),
            pytest.param(lambda shape: torch.randint(0, 2, shape).mul(2.0).sub(1), id="plus and minus"),
            pytest.param(lambda shape: torch.zeros(shape), id="zeros"),
        ],
    )
    @pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.98])
    def test_ties(self, values: Any, sparsity: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        model = own_models.dense()
        with torch.no_grad():
            for parameter in prunable_parameters(model).values():
                parameter.copy_(values(parameter.shape))
        monkeypatch.setattr(own_models, "dense", lambda: model)
        made = [
            masks_of_own(
                make_child("own_models:dense", tmp_path / name, {"sparsity": sparsity}, data={"name": "digits"})
            )
            for name in ("one", "two")
        ]
        assert made[0] == made[1]
        assert made[0].total - made[0].kept == round(sparsity * (64 * 16 + 160))


def masks_of_own(outcome: Result) -> Masks:
    masks = load_model(outcome.folder, own_models.dense)[2]
    assert masks is not None
    return masks


class TestPoint6WhatCounts:
    def test_weights_of_linear_and_convolution_only(self, convolutional: Path, tmp_path: Path) -> None:
        outcome = make_child(convolutional, tmp_path / "child", {"sparsity": 0.5})
        weights = 4 * 9 + 4 * 4 * 9 + 64 * 16 + 16 * 12 + 12 * 10
        assert outcome.stages[0]["weights"] == weights
        assert outcome.stages[-1]["kept"] == weights - round(0.5 * weights)
        assert outcome.stages[0]["parameters"] == weights + 4 + 4 + 16 + 12 + 10

    def test_normalisation_is_not_counted(self, tmp_path: Path) -> None:
        outcome = make_child(
            "own_models:normalised_first", tmp_path / "child", {"sparsity": 0.5}, data={"name": "digits"}
        )
        assert outcome.stages[0]["weights"] == 6 * 9 + 540

    def test_a_tied_weight_counts_once_and_stays_tied(self, tmp_path: Path) -> None:
        outcome = make_child("own_models:tied", tmp_path / "child", {"sparsity": 0.9}, data={"name": "digits"})
        total = 64 * 64 + 640
        assert [layer["layer"] for layer in outcome.layers] == ["first.weight", "head.weight"]
        assert outcome.stages[-1]["weights"] == total
        assert outcome.stages[-1]["kept"] == total - round(0.9 * total)
        model, _, masks = load_model(tmp_path / "child", own_models.tied)
        assert model.first.weight is model.second.weight
        assert masks is not None
        assert masks.removed_nonzeros(model) == 0
        assert outcome.stages[-1]["flops_dense"] == 2 * (2 * 64 * 64 + 640)  # it is used twice, and costs twice


class TestPoint7GlobalAndPerLayer:
    def test_scopes(self, parent: Path, tmp_path: Path) -> None:
        everywhere = make_child(parent, tmp_path / "global", {"sparsity": 0.9})
        each = make_child(parent, tmp_path / "uniform", {"sparsity": 0.9, "distribution": "uniform"})
        assert [layer["kept"] for layer in each.layers] == [128, 24, 12]
        kept = [layer["kept"] for layer in everywhere.layers]
        assert sum(kept) == 164
        assert kept != [128, 24, 12]
        model = load_model(parent)[0]
        largest = torch.cat([p.detach().abs().reshape(-1) for p in prunable_parameters(model).values()]).topk(164)
        survivors = [
            p.detach().abs()[masks_of(everywhere.folder)[n].keep] for n, p in prunable_parameters(model).items()
        ]
        assert torch.equal(torch.cat(survivors).sort().values, largest.values.sort().values)


class TestPoint8AZeroHead:
    @pytest.mark.parametrize("min_keep", [1, 40])
    def test_keeps_what_every_layer_keeps(self, min_keep: int, tmp_path: Path) -> None:
        asked = {"sparsity": 0.9, "min_keep": min_keep}
        outcome = make_child("own_models:zero_head", tmp_path / "child", asked, data={"name": "digits"})
        first, head = outcome.layers
        assert head["kept"] == min_keep
        assert first["kept"] + head["kept"] == 1184 - round(0.9 * 1184)

    def test_can_be_protected(self, tmp_path: Path) -> None:
        asked = {"sparsity": 0.8, "protect": ["3"]}
        outcome = make_child("own_models:zero_head", tmp_path / "child", asked, data={"name": "digits"})
        assert outcome.layers[1]["kept"] == 160
        assert outcome.stages[-1]["kept"] == 1184 - round(0.8 * 1184)


class TestPoint9ErrorsOfAKind:
    @pytest.mark.parametrize(
        ("model", "pruning", "said"),
        [
            ("own_models:of_nan", {"sparsity": 0.5}, "1.weight holds NaN or infinite weights"),
            ("own_models:of_infinity", {"sparsity": 0.5}, "1.weight holds NaN or infinite weights"),
            ("own_models:without_weights", {"sparsity": 0.5}, "no Linear or convolution weight"),
            ("own_models:dense", {"sparsity": 0.5, "structure": "filter"}, "no layer of the model has units"),
            ("own_models:dense", {"sparsity": 0.999, "min_keep": 10}, "only 1164 can go"),
            ("own_models:dense", {"sparsity": 0.99, "structure": "neuron", "min_keep": 2}, "would remove"),
            ("own_models:dense", {"sparsity": 0.5, "protect": ["1", "3"]}, "is protected"),
            ("own_models:dense", {"structure": "2:7"}, "do not divide into groups of 7"),
            ("own_models:dense", {"distribution": "rates:0.999"}, "lower its rate"),
        ],
    )
    def test_one_line_and_nothing_left(self, model: str, pruning: dict[str, Any], said: str, tmp_path: Path) -> None:
        with pytest.raises(TombolaError, match=said.replace("(", r"\(")) as caught:
            make_child(model, tmp_path / "child", pruning, data={"name": "digits"})
        assert isinstance(caught.value, PruningError)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "child").exists()


class TestPoint10SparsityIsMeasuredAgainAfterFineTuning:
    @pytest.mark.parametrize(
        "recipe",
        [
            {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-3, "learning_rate": 0.1},
            {"optimizer": "adam", "weight_decay": 1e-3},
            {"optimizer": "adamw", "weight_decay": 1e-1},
        ],
        ids=lambda recipe: recipe["optimizer"],
    )
    @pytest.mark.parametrize("schedule", ["oneshot", "cubic:3"])
    def test_optimizers(self, recipe: dict[str, Any], schedule: str, parent: Path, tmp_path: Path) -> None:
        asked = {"sparsity": 0.9, "schedule": schedule}
        outcome = make_child(parent, tmp_path / "child", asked, fine_tuning=FINE_TUNING | recipe)
        model, _, masks = load_model(outcome.folder)
        assert masks is not None
        removed = {name: int((p == 0).sum()) for name, p in prunable_parameters(model).items()}
        assert removed == {name: mask.total - mask.kept for name, mask in masks.items()}
        assert sum(removed.values()) == round(0.9 * 1640)
        assert outcome.stages[-1]["sparsity"] == 0.9
        checks = json.loads((outcome.folder / "metrics.json").read_text())["checks"]
        assert checks["check_held"] is True

    def test_a_weight_that_comes_back_fails_the_run(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tombola.errors import RunFailure

        def reviving(making: Any, on_progress: Any) -> Child:
            child = really_make_child(making, on_progress)
            with torch.no_grad():
                prunable_parameters(child.model)["fc1.weight"][~child.masks["fc1.weight"].keep] += 1e-9
            return child

        monkeypatch.setattr(prune_module, "make_child", reviving)
        with pytest.raises(RunFailure, match="removed weights are 0"):
            make_child(parent, tmp_path / "child", {"sparsity": 0.9})
        assert not (tmp_path / "child" / "spec.json").exists()


class TestPoint11PrunedAgain:
    @pytest.mark.parametrize("schedule", ["oneshot", "iterative:2", "linear:2", "cubic:3"])
    @pytest.mark.parametrize("criterion", ["magnitude", "random"])
    def test_what_is_gone_stays_gone(self, schedule: str, criterion: str, parent: Path, tmp_path: Path) -> None:
        asked = {"criterion": criterion, "schedule": schedule}
        first = make_child(parent, tmp_path / "first", asked | {"sparsity": 0.6})
        second = make_child(first.folder, tmp_path / "second", asked | {"sparsity": 0.9})
        assert masks_of(second.folder) <= masks_of(first.folder)
        assert masks_of(second.folder).kept == 164
        assert second.stages[0]["kept"] == first.stages[-1]["kept"] == 656

    def test_less_than_before_is_refused(self, parent: Path, tmp_path: Path) -> None:
        first = make_child(parent, tmp_path / "first", {"sparsity": 0.6})
        for schedule in ("oneshot", "iterative:2", "cubic:3"):
            with pytest.raises(TombolaError, match=r"removed units never come back|is below the 0\.6"):
                make_child(first.folder, tmp_path / "second", {"sparsity": 0.5, "schedule": schedule})
            assert not (tmp_path / "second").exists()


class TestPoint12SparsityFromTheMask:
    def test_a_live_zero_is_alive(self, tmp_path: Path) -> None:
        asked = {"sparsity": 0.5, "protect": ["3"]}
        outcome = make_child(
            "own_models:zero_head", tmp_path / "child", asked, data={"name": "digits"}, fine_tuning=None
        )
        model, _, masks = load_model(tmp_path / "child", own_models.zero_head)
        assert masks is not None
        zeros = sum(int((p == 0).sum()) for p in prunable_parameters(model).values())
        assert zeros == round(0.5 * 1184) + 160
        assert outcome.stages[-1]["kept"] == masks.kept == 1184 - round(0.5 * 1184)
        assert outcome.stages[-1]["sparsity"] == masks.sparsity == 0.5


class TestPoint13SizesStateTheirFormat:
    def test_rows_and_table(self, parent: Path, tmp_path: Path) -> None:
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.9})
        before, after = outcome.stages[0], outcome.stages[-1]
        biases = 20 + 12 + 10
        assert before["bytes_dense"] == after["bytes_dense"] == 4 * (1640 + biases)  # zeros make nothing smaller
        packed = sum(
            min(4 * layer["weights"], -(-layer["weights"] // 8) + 4 * layer["kept"]) for layer in outcome.layers
        )
        assert after["bytes_packed"] == packed + 4 * biases
        titles = [title for title, _ in LINES]
        assert "bytes, dense float32" in titles
        assert "bytes, bit mask + values" in titles
        assert "FLOPs of kept weights" in titles
        shown = {row[0]: row[1:] for row in stages_table(outcome.stages).rows}
        assert shown["bytes, dense float32"] == ("6,728",) * 3
        assert "make nothing smaller or faster" in (outcome.folder / "report.html").read_text()


class TestPoint14SelectedOnValidationTestedOnce:
    def test_the_test_set_is_looked_at_once_a_stage(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[int] = []
        real = metrics_module.evaluate
        data = load_data(DataConfig(name="digits"), 0)

        def counting(model: nn.Module, examples: Examples) -> Any:
            looks.append(len(examples))
            return real(model, examples)

        monkeypatch.setattr(metrics_module, "evaluate", counting)
        for engine in (DenseEngine, SparseEngine):

            def looking(self: Any, part: Any, real: Any = engine.evaluate) -> Any:
                looks.append(self.task.count(part))
                return real(self, part)

            monkeypatch.setattr(engine, "evaluate", looking)
        make_child(parent, tmp_path / "child", {"sparsity": 0.9, "schedule": "iterative:2"})
        assert len(data.test) != len(data.validation)
        assert looks.count(len(data.test)) == 3  # before, pruned, fine-tuned
        assert looks.count(len(data.validation)) == 3 + 2 * 3

    def test_other_test_labels_change_no_weight(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tombola.studies.single import parents

        honest = make_child(parent, tmp_path / "honest", {"sparsity": 0.9, "criterion": "taylor"})
        real = parents.normalised

        def scrambled(data: DataSet, normalisation: Any) -> DataSet:
            data = real(data, normalisation)
            test = Examples(data.test.inputs.flip(0), data.test.targets.roll(1))
            return DataSet(data.name, data.train, data.validation, test, data.classes, data.checksum)

        monkeypatch.setattr(parents, "normalised", scrambled)
        other = make_child(parent, tmp_path / "other", {"sparsity": 0.9, "criterion": "taylor"})
        ends = [load_model(outcome.folder)[0].state_dict() for outcome in (honest, other)]
        assert content_sha256(ends[0]) == content_sha256(ends[1])
        assert honest.stages[-1]["test_accuracy"] != other.stages[-1]["test_accuracy"]

    def test_the_child_is_that_of_the_lowest_validation_loss(self, parent: Path, tmp_path: Path) -> None:
        rate = {"learning_rate": 0.05, "length": "80it", "evaluate_every": "8it"}
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.5}, fine_tuning=FINE_TUNING | rate)
        looks = rows_of(outcome.rows, kind="evaluation")
        assert len(looks) == 10
        best = min(looks, key=lambda row: row["validation_loss"])
        assert best is not looks[-1]
        # Looked at by the engine that trained, then once more by torch: equal up to rounding.
        assert outcome.stages[-1]["validation_loss"] == pytest.approx(best["validation_loss"], rel=1e-6)
