"""One parent and its children: `tombola train`, `tombola prune` and again, by every way, killed and continued."""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import own_models
from sealing import unsealed
from small_models import (
    FINE_TUNING,
    SMALL_PARENT,
    contents,
    die_at_write,
    invoke,
    make_child,
    make_parent,
    make_smaller,
    masks_of,
    one_line,
    what_must_agree,
)
from tombola.cli.listing import LISTINGS, listing
from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ConfigError, ModelError, PruningError, RunFolderError, TrainingError
from tombola.models import load_model
from tombola.models.tensors import content_sha256, save_tensors
from tombola.pruning import Masks, prune, schedules
from tombola.runs.configs import identity_hash, validate
from tombola.runs.rows import read_rows, rows_of
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.single.config import CompareConfig, PruneConfig, Pruning, TrainConfig
from tombola.studies.single.metrics import check_child, failed, units_removed
from tombola.studies.single.parents import Parent, open_parent
from tombola.studies.single.schedule import PruneSchedule
from tombola.studies.single.train import Train
from tombola.training.statistics import reestimate_statistics

RIGL = {"method": "rigl", "sparsity": 0.8, "every": "5it"}
DIGITS = {"data": {"name": "digits"}}
FAST = ("--finetune", "12it", "--lr", "1e-3")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "parent.yaml"
    path.write_text(yaml.safe_dump({"study": "train", **SMALL_PARENT}))
    return path


def opened(model: Path | str, **changes: Any) -> Parent:
    content = {"model": str(model), "pruning": {"sparsity": 0.5}, **changes}
    return open_parent(validate(content, PruneConfig, "test"), None)


class TestTheCommandLine:
    def test_movement_at_a_rate_of_ones_own(self, config: Path, tmp_path: Path) -> None:
        assert invoke("train", config, "--out", tmp_path / "runs").exit_code == 0
        (folder,) = (tmp_path / "runs").iterdir()
        kept = []
        for name in ("movement", "movement:0.01", "movement:20"):
            options = ("--criterion", name, "--score-batches", 4, "--finetune", "0it", "--out", tmp_path / name)
            pruned = invoke("prune", folder, "--sparsity", 0.6, *options)
            assert pruned.exit_code == 0, pruned.output
            kept.append(masks_of(tmp_path / name).to_tensors())
        plain, same, other = kept
        assert all(torch.equal(plain[layer], same[layer]) for layer in plain)
        assert any(not torch.equal(plain[layer], other[layer]) for layer in plain)

    def test_a_child_learns_from_its_parent(self, parent: Path, tmp_path: Path) -> None:
        asked = ("prune", parent, "--sparsity", 0.6, *FAST)
        one_line(invoke(*asked, "--temperature", 2, "--out", tmp_path / "no"), "belong to --distill")
        alone = ("prune", parent, "--sparsity", 0.6, "--finetune", "0it", "--distill", "--out", tmp_path / "no")
        one_line(invoke(*alone), "distillation belongs to the fine-tuning")
        assert not (tmp_path / "no").exists()
        taught = ("--distill", "--temperature", 2, "--distill-weight", 1)
        for name, more in (("alone", ()), ("taught", taught)):
            made = invoke(*asked, *more, "--out", tmp_path / name)
            assert made.exit_code == 0, made.output
        alone, child = (load_model(tmp_path / name)[0].state_dict() for name in ("alone", "taught"))
        assert any(not torch.equal(alone[name], child[name]) for name in alone)
        history = json.loads((tmp_path / "taught" / "spec.json").read_text())["history"]
        assert history["distillation"] == {"temperature": 2.0, "weight": 1.0}
        assert invoke(*asked, *taught, "--out", tmp_path / "taught").exit_code == 0
        one_line(invoke(*asked, "--out", tmp_path / "taught"), "begun with distillation")

    def test_batch_norms_take_new_statistics(self, parent: Path, tmp_path: Path) -> None:
        data = {"name": "digits"}
        asked = ("prune", "own_models:normalised_first", "--data", "digits", "--sparsity", 0.5, "--finetune", "0it")
        kept, taken = (tmp_path / name for name in ("kept", "taken"))
        assert invoke(*asked, "--out", kept).exit_code == 0
        said = invoke(*asked, "--reestimate", 100, "--out", taken)
        assert said.exit_code == 0, said.output
        assert "re-estimated" in said.stdout
        old, new = (load_model(folder, "own_models:normalised_first")[0] for folder in (kept, taken))
        reestimate_statistics(old, load_data(DataConfig.model_validate(data), 0), 100)
        assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
        one_line(
            invoke("prune", parent, "--sparsity", 0.5, *FAST, "--reestimate", 9, "--out", tmp_path / "no"),
            "batch norms",
        )

    def test_train_prune_and_prune_again(self, config: Path, tmp_path: Path) -> None:
        trained = invoke("train", config, "--out", tmp_path / "runs")
        assert trained.exit_code == 0, trained.output
        (folder,) = (tmp_path / "runs").iterdir()
        assert f"Model folder: {folder}" in trained.stdout
        assert "with 1,640 of 1,640 weights." in trained.stdout

        pruned = invoke("prune", folder, "--sparsity", 0.6, *FAST, "--out", tmp_path / "child")
        assert pruned.exit_code == 0, pruned.output
        for part in ("before", "pruned", "fine-tuned", "656 of 1,640", "points to its parent", "Sparsity", "20×64"):
            assert part in pruned.stdout
        assert "Checked: units removed as asked, to the unit; removed weights are 0;" in pruned.stdout
        assert "the parent is bit-identical" in pruned.stdout

        again = invoke(
            "prune", tmp_path / "child", "--sparsity", "9e-1", "--criterion", "taylor", *FAST, "--out", tmp_path / "two"
        )
        assert again.exit_code == 0, again.output
        assert masks_of(tmp_path / "two") <= masks_of(tmp_path / "child")
        assert masks_of(tmp_path / "two").kept == 164
        history = json.loads((tmp_path / "two" / "spec.json").read_text())["history"]
        assert (history["parent"]["model"], history["parent"]["kept"]) == ("child", 656)
        assert history["pruning"]["criterion"] == "taylor"

    def test_the_default_folder_is_below_runs(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert invoke("prune", parent, "--sparsity", 0.6, "--finetune", "0it").exit_code == 0
        (folder,) = (tmp_path / "runs").iterdir()
        assert folder.name.startswith(f"prune-{parent.name}"[:40])
        rows = rows_of(read_rows(folder / "rows.jsonl"), kind="stage")
        assert [row["stage"] for row in rows] == ["before", "pruned"]

    def test_lists(self) -> None:
        for what in LISTINGS:
            result = invoke("list", what)
            assert result.exit_code == 0, result.output
            for row in listing(what).rows:
                assert row[0] in result.stdout
                assert all(cell.strip() for cell in row)
        one_line(invoke("list", "criterions"), "did you mean 'criteria'")

    def test_every_listed_schedule_can_be_asked_for(self) -> None:
        for (name, _, asked), listed in zip(listing("schedules").rows, schedules, strict=True):
            assert name == listed
            assert str(PruneSchedule.parse(name)).split(":")[0] == asked.split(":")[0]

    def test_runs_are_listed_and_shown(self, parent: Path) -> None:
        listed = invoke("list", "runs", "--out", parent.parent)
        assert listed.exit_code == 0
        assert parent.name in listed.stdout
        shown = invoke("show", parent)
        assert shown.exit_code == 0
        assert "1,640 of 1,640" in shown.stdout


class TestSchedules:
    @pytest.mark.parametrize(
        ("schedule", "trainings", "kept"),
        [
            ("oneshot", 1, [164]),
            ("iterative:3", 3, [761, 353, 164]),  # 1640 · 0.1^(i/3)
            ("linear:3", 3, [1148, 656, 164]),
            ("cubic:4", 1, []),
        ],
    )
    def test_each_ends_where_it_should(
        self, schedule: str, trainings: int, kept: list[int], parent: Path, tmp_path: Path, monkeypatch: Any
    ) -> None:
        seen: list[int] = []
        child = __import__("tombola.studies.single.child", fromlist=["prune"])
        real = child.prune

        def watched(*arguments: Any, **keywords: Any) -> Masks:
            seen.append((masks := real(*arguments, **keywords)).kept)
            return masks

        monkeypatch.setattr(child, "prune", watched)
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.9, "schedule": schedule})
        assert seen == kept
        assert masks_of(outcome.folder).kept == 164
        looks = rows_of(outcome.rows, kind="evaluation")
        assert {row["training"] for row in looks} == set(range(1, trainings + 1))

    @pytest.mark.parametrize("text", ["oneshot", "iterative:3", "linear:12", "cubic:10"])
    def test_text_and_back(self, text: str) -> None:
        assert str(PruneSchedule.parse(text)) == text
        assert PruneSchedule.parse(text) == PruneSchedule.parse(str(PruneSchedule.parse(text)))

    def test_rounds_may_be_left_out_and_names_of_the_toolbox_go(self) -> None:
        assert [str(PruneSchedule.parse(t)) for t in ("iterative", "linear", "cubic", "one-shot", "geometric:4")] == [
            "iterative:3",
            "linear:3",
            "cubic:10",
            "oneshot",
            "iterative:4",
        ]

    @pytest.mark.parametrize(
        "text", ["", "oneshot:2", "cubic:0", "cubic:-1", "cubic:1.5", "steep", "cubic:99999", "a:b"]
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ValueError, match="a schedule is oneshot, iterative:N, linear:N or cubic:N"):
            PruneSchedule.parse(text)

    def test_cubic_follows_its_curve_and_heals(self, parent: Path, tmp_path: Path, monkeypatch: Any) -> None:
        """Its steps fill the first half, and an early stop is looked for after the last only."""
        from tombola.training import evolution

        seen: list[tuple[int, float]] = []
        real = evolution.Gradual.next_masks

        def watched(self: Any, moment: Any, sparsity: float) -> Masks:
            seen.append((moment.iteration, sparsity))
            return real(self, moment, sparsity)

        monkeypatch.setattr(evolution.Gradual, "next_masks", watched)
        make_child(
            parent,
            tmp_path / "child",
            {"sparsity": 0.9, "schedule": "cubic:4"},
            fine_tuning=FINE_TUNING | {"length": "40it", "evaluate_every": "5it"},
        )
        asked = [(4, 0.9 - 0.9 * 0.75**3), (9, 0.9 - 0.9 * 0.5**3), (14, 0.9 - 0.9 * 0.25**3), (19, 0.9)]
        found = seen[1:]  # the first looks whether the target can be met
        assert [iteration for iteration, _ in found] == [iteration for iteration, _ in asked]
        assert [sparsity for _, sparsity in found] == pytest.approx([sparsity for _, sparsity in asked])

    def test_cubic_keeps_min_keep(self, parent: Path, tmp_path: Path) -> None:
        asked = {"sparsity": 0.94, "schedule": "cubic:3", "min_keep": 30}
        outcome = make_child(parent, tmp_path / "child", asked)
        assert min(layer["kept"] for layer in outcome.layers) == 30

    def test_steps_that_do_not_fit(self, parent: Path, tmp_path: Path) -> None:
        result = invoke("prune", parent, "--sparsity", 0.9, "--schedule", "cubic:7", *FAST, "--out", tmp_path / "child")
        one_line(result, "7 steps do not fit into the first half of 12 iterations")
        assert not (tmp_path / "child").exists()

    def test_a_share_of_no_unit(self, parent: Path, tmp_path: Path) -> None:
        asked = {"sparsity": 0.01, "structure": "neuron"}
        one_line(
            invoke(*prune_command(parent, tmp_path / "child", asked | {"schedule": "cubic:2"})), "none of the neurons"
        )
        assert make_child(parent, tmp_path / "other", asked).stages[-1]["kept"] == 1640


def prune_command(model: Path | str, out: Path, pruning: dict[str, Any]) -> list[object]:
    options = [part for key, value in pruning.items() for part in (f"--{key.replace('_', '-')}", value)]
    return ["prune", model, *options, *FAST, "--out", out]


class TestStructures:
    @pytest.mark.parametrize("schedule", ["oneshot", "iterative:2", "cubic:3"])
    @pytest.mark.parametrize("distribution", ["global", "uniform"])
    def test_neurons_spare_the_classes(self, schedule: str, distribution: str, parent: Path, tmp_path: Path) -> None:
        asked = {"sparsity": 0.75, "structure": "neuron", "schedule": schedule, "distribution": distribution}
        outcome = make_child(parent, tmp_path / "child", asked)
        masks = masks_of(outcome.folder)
        alive = {name: int(mask.keep.any(1).sum()) for name, mask in masks.items()}
        assert alive["output.weight"] == 10
        assert masks["output.weight"].kept == 120
        assert alive["fc1.weight"] + alive["fc2.weight"] == 32 - 24  # of the 32 hidden neurons, not of 42
        assert min(alive.values()) >= 1
        assert json.loads((outcome.folder / "spec.json").read_text())["history"]["spared"] == ["output.weight"]
        assert (outcome.stages[-1]["units"], outcome.stages[-1]["units_kept"]) == (32, 8)

    @pytest.mark.parametrize("criterion", ["l1-norm", "taylor", "fpgm", "wanda"])
    def test_filters(self, criterion: str, convolutional: Path, tmp_path: Path) -> None:
        asked = {"sparsity": 0.5, "structure": "filter", "criterion": criterion}
        outcome = make_child(convolutional, tmp_path / "child", asked)
        model, _, masks = load_model(outcome.folder)
        assert masks is not None
        assert units_removed(model, masks, "filter") == (4, 8)
        assert [layer["kept"] for layer in outcome.layers[2:]] == [
            64 * 16,
            16 * 12,
            120,
        ]  # dense layers have no filters

    def test_a_pruned_neuron_goes_on_being_pruned(self, parent: Path, tmp_path: Path) -> None:
        first = make_child(parent, tmp_path / "first", {"sparsity": 0.5, "structure": "neuron"})
        second = make_child(first.folder, tmp_path / "second", {"sparsity": 0.75, "structure": "neuron"})
        assert masks_of(second.folder) <= masks_of(first.folder)
        assert second.stages[-1]["units_kept"] == 8

    @pytest.mark.parametrize("more", [{}, {"sparsity": 0.5}, {"protect": ["output"]}, {"distribution": "uniform"}])
    def test_two_of_four(self, more: dict[str, Any], parent: Path, tmp_path: Path) -> None:
        outcome = make_child(parent, tmp_path / "child", {"structure": "2:4", **more})
        masks = masks_of(outcome.folder)
        protected = ["output.weight"] if "protect" in more else []
        for name, mask in masks.items():
            groups = mask.keep.reshape(-1, 4).sum(1)
            assert set(groups.tolist()) == ({4} if name in protected else {2})
        checks = json.loads((outcome.folder / "metrics.json").read_text())["checks"]
        assert checks["check_exact"] is True

    @pytest.mark.parametrize("schedule", ["oneshot", "iterative:2", "cubic:3"])
    def test_blocks_where_the_output_does_not_divide(self, schedule: str, parent: Path, tmp_path: Path) -> None:
        asked = {"sparsity": 0.75, "structure": "block:4x4", "schedule": schedule}
        with pytest.raises(PruningError, match=r"output.weight: its 10×12 matrix does not divide into blocks of 4×4"):
            make_child(parent, tmp_path / "child", asked)
        outcome = make_child(parent, tmp_path / "child", asked | {"protect": ["output"]})
        assert outcome.layers[-1]["kept"] == 120
        assert (outcome.stages[-1]["units"], outcome.stages[-1]["units_kept"]) == (95, 95 - round(0.75 * 95))
        assert sum(layer["kept"] for layer in outcome.layers[:2]) == 16 * (95 - round(0.75 * 95))

    def test_rates(self, parent: Path, tmp_path: Path) -> None:
        asked = {"distribution": "rates:0.5,output=0.25", "schedule": "iterative:2"}
        outcome = make_child(parent, tmp_path / "child", asked)
        # half of the survivors twice; three quarters of the output's twice: 120 · 0.75 = 90, round(22.5) = 22 go
        assert [layer["kept"] for layer in outcome.layers] == [320, 60, 68]

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({}, "sparsity is missing"),
            ({"structure": "2:4", "sparsity": 0.9}, "2:4 removes 0.5 of every layer's weights"),
            ({"structure": "2:4", "schedule": "iterative:3"}, "goes in one step"),
            ({"distribution": "rates:0.2", "sparsity": 0.9}, "takes no sparsity"),
            ({"distribution": "rates:0.2", "schedule": "cubic:3"}, "needs a sparsity to lead to"),
            ({"distribution": "rates:0.2", "schedule": "linear:3"}, "needs a sparsity to lead to"),
            ({"distribution": "rates"}, "needs rates"),
            ({"distribution": "rates:2"}, r"must be in \[0, 1\)"),
        ],
    )
    def test_what_does_not_go_together(self, asked: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            validate({"model": "lenet5", "pruning": asked, "fine_tuning": FINE_TUNING}, PruneConfig, "here")

    def test_gradual_pruning_needs_a_training(self) -> None:
        asked = {"model": "lenet5", "pruning": {"sparsity": 0.5, "schedule": "cubic"}}
        with pytest.raises(ConfigError, match="prunes during the fine-tuning: give it a length"):
            validate(asked, PruneConfig, "here")


def inputs_of(part: Any) -> set[bytes]:
    return {example.numpy().tobytes() for example in part.inputs}


def same_split(one: DataSet, other: DataSet) -> bool:
    parts = [(data.train, data.validation, data.test) for data in (one, other)]
    return all(torch.equal(a.inputs, b.inputs) for a, b in zip(*parts, strict=True))


class TestData:
    def test_a_child_is_never_tested_on_what_its_parent_learned(self, tmp_path: Path) -> None:
        """Whatever its own seed, and however its data are named."""
        folder = make_parent(tmp_path, seed=7).folder
        learned = load_data(DataConfig(name="digits"), 7)
        for chosen in (None, {"name": "digits"}, {"name": "digits", "training": 500}):
            data = opened(folder, seed=3, data=chosen).data
            assert torch.equal(data.test.inputs, learned.test.inputs)
            assert torch.equal(data.validation.inputs, learned.validation.inputs)
            assert not inputs_of(data.test) & (inputs_of(learned.train) - inputs_of(learned.test))
        assert len(opened(folder, data={"name": "digits", "training": 500}).data.train) == 500

    @pytest.mark.parametrize("part", ["test", "validation"])
    def test_another_split_of_the_same_data_is_refused(self, part: str, parent: Path, tmp_path: Path) -> None:
        result = invoke(
            "prune", parent, "--sparsity", 0.5, "--data", f"{{name: digits, {part}: 77}}", "--out", tmp_path
        )
        one_line(result, f"leave '{part}' out", str(parent))
        assert not any(tmp_path.iterdir())

    def test_grandchildren_keep_the_split(self, tmp_path: Path) -> None:
        folder = make_parent(tmp_path, seed=7, data={"name": "digits", "validation": 100}).folder
        first = make_child(folder, tmp_path / "child", {"sparsity": 0.5}, seed=1)
        make_child(first.folder, tmp_path / "grandchild", {"sparsity": 0.8}, seed=2)
        assert same_split(opened(tmp_path / "grandchild", seed=9).data, opened(folder).data)
        assert len(opened(tmp_path / "grandchild").data.validation) == 100

    def test_data_that_moved_are_known_again(self, tmp_path: Path) -> None:
        write_images(tmp_path / "here")
        folder = make_parent(tmp_path, seed=7, data={"name": "npz", "folder": str(tmp_path / "here")}).folder
        there = {"name": "npz", "folder": str(tmp_path / "there")}
        before = opened(folder).data
        (tmp_path / "here").rename(tmp_path / "there")
        assert same_split(opened(folder, data=there, seed=5).data, before)

    def test_other_data_of_the_same_shape(self, parent: Path, tmp_path: Path) -> None:
        write_images(tmp_path / "other")
        other = {"name": "npz", "folder": str(tmp_path / "other")}
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.5}, data=other)
        assert outcome.stages[0]["test_examples"] == 60
        assert opened(outcome.folder).data.name == "npz"

    @pytest.mark.parametrize("shape", [{"side": 6}, {"classes": 7}])
    def test_other_data_of_another_shape(self, shape: dict[str, int], parent: Path, tmp_path: Path) -> None:
        write_images(tmp_path / "other", **shape)
        with pytest.raises(ModelError, match=r"made for inputs \(1, 8, 8\) and 10 classes, but npz has"):
            opened(parent, data={"name": "npz", "folder": str(tmp_path / "other")})

    def test_normalised_data(self, tmp_path: Path) -> None:
        folder = make_parent(tmp_path, data={"name": "digits", "training": 600, "normalise": True}).folder
        learned = load_data(DataConfig(name="digits", training=600, normalise=True), 0)
        assert same_split(opened(folder).data, learned)
        outcome = make_child(folder, tmp_path / "child", {"sparsity": 0.5}, fine_tuning=None)
        trained = rows_of(read_rows(folder / "rows.jsonl"), kind="stage")[0]
        assert outcome.stages[0]["test_loss"] == trained["test_loss"]
        assert load_model(outcome.folder)[1].normalisation == load_model(folder)[1].normalisation
        assert same_split(opened(outcome.folder).data, learned)

    def test_none_recorded_and_none_given(self, tmp_path: Path) -> None:
        one_line(invoke("prune", "lenet-300-100", "--sparsity", 0.5, "--out", tmp_path), "say which with --data")


def write_images(folder: Path, side: int = 8, classes: int = 10) -> None:
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 200), ("test", 60)):
        arrays[f"x_{part}"] = chance.integers(0, 256, (count, side, side), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % classes
    np.savez(folder / "images.npz", **arrays)


class TestModelsFromElsewhere:
    def test_a_model_of_the_zoo(self, tmp_path: Path) -> None:
        result = invoke("prune", "lenet-300-100", "--data", "digits", "--sparsity", 0.9, *FAST, "--out", tmp_path / "c")
        assert result.exit_code == 0, result.output
        _, spec, masks = load_model(tmp_path / "c")
        assert masks is not None
        assert spec.widths == (300, 100)
        assert masks.kept == masks.total - round(0.9 * masks.total)

    def test_a_zoo_model_too_large_for_the_data(self, tmp_path: Path) -> None:
        result = invoke("prune", "lenet5", "--data", "digits", "--sparsity", 0.9, "--out", tmp_path / "c")
        one_line(result, "lenet5 cannot take inputs of shape (1, 8, 8)")

    @pytest.mark.parametrize("form", [".safetensors", ".pt", "nested .pth", "parallel .pt", "model .bin"])
    def test_somebodys_own_with_weights(self, form: str, tmp_path: Path) -> None:
        torch.manual_seed(5)
        model = own_models.normalised_first()
        with torch.no_grad():
            model[0].running_mean.fill_(0.5)
        state = model.state_dict()
        path = tmp_path / f"weights{form.split()[-1]}"
        if form == ".safetensors":
            save_tensors(path, state)
        elif form == "nested .pth":
            torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, path)
        elif form == "parallel .pt":
            torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
        elif form == "model .bin":
            torch.save({"model": state, "args": {"lr": 0.1}}, path)
        else:
            torch.save(state, path)
        opened_parent = opened("own_models:normalised_first", weights=str(path), **DIGITS)
        assert content_sha256(opened_parent.model.state_dict()) == content_sha256(state)
        options = ("--data", "digits", "--sparsity", 0.8, *FAST, "--weights", path, "--out", tmp_path / "child")
        result = invoke("prune", "own_models:normalised_first", *options)
        assert result.exit_code == 0, result.output
        child, spec, _ = load_model(tmp_path / "child", own_models.normalised_first)
        assert spec.factory == "own_models:normalised_first"
        assert not torch.equal(child[0].running_mean, torch.zeros(1))

    def test_a_child_of_somebodys_own_is_pruned_again_by_its_factory(self, tmp_path: Path) -> None:
        first = make_child("own_models:dense", tmp_path / "first", {"sparsity": 0.5}, **DIGITS)
        one_line(
            invoke("prune", first.folder, "--sparsity", 0.9, *FAST, "--out", tmp_path / "second"),
            "if you trust that code",
            "--factory own_models:dense",
        )
        options = ("--factory", "own_models:dense", "--out", tmp_path / "second")
        result = invoke("prune", first.folder, "--sparsity", 0.9, *FAST, *options)
        assert result.exit_code == 0, result.output
        assert masks_of(tmp_path / "second", own_models.dense) <= masks_of(tmp_path / "first", own_models.dense)

    def test_a_factory_gives_the_same_model_every_time(self, tmp_path: Path) -> None:
        """What it draws comes from the seed, not from what happened before in the process."""
        torch.manual_seed(1)
        one = opened("own_models:dense", **DIGITS).sha256
        torch.manual_seed(2)
        state = torch.get_rng_state()
        assert opened("own_models:dense", **DIGITS).sha256 == one
        assert opened("own_models:dense", seed=4, **DIGITS).sha256 != one
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize(
        ("factory", "said"),
        [
            ("own_models:nothing", "has no function 'nothing'; it has: "),
            ("own_modles:dense", "cannot import 'own_modles'"),
            ("own_models:no_module", "gave a int, not a torch.nn.Module"),
            ("own_models:failing", "failed: RuntimeError: no such model today"),
            ("own_models:leaving", "failed: SystemExit"),
            ("own_models:with_argument", "failed: TypeError"),
            ("own_models:of_two_classes", "gives (2, 2) for two examples, not logits of 10 classes"),
            ("own_models:of_other_inputs", "does not take inputs of shape (1, 8, 8)"),
            ("own_models", "is no folder, no package.module:function and no model of the zoo"),
            ("own_models:dense:more", "is no folder"),
            ("lenet-300-10", "did you mean 'lenet-300-100'"),
            ("x" * 300, "is no folder"),
            ("a\0b", "is no folder"),
        ],
    )
    def test_what_cannot_be_had(self, factory: str, said: str, tmp_path: Path) -> None:
        result = invoke("prune", factory, "--data", "digits", "--sparsity", 0.5, "--out", tmp_path / "child")
        one_line(result, said)
        assert not (tmp_path / "child").exists()

    def test_options_of_the_other_kinds(self, parent: Path, tmp_path: Path) -> None:
        base = ("--sparsity", 0.5, "--out", tmp_path / "child")
        one_line(invoke("prune", parent, *base, "--weights", "w.pt"), "a model folder has its own")
        one_line(invoke("prune", parent, *base, "--factory", "own_models:dense"), "needs no factory")
        one_line(invoke("prune", "conv2", *base, "--factory", "own_models:dense"), "--factory goes with a model folder")
        assert not (tmp_path / "child").exists()

    def test_logits_that_overflow_are_no_number_and_no_crash(self, tmp_path: Path) -> None:
        outcome = make_child("own_models:of_huge", tmp_path / "c", {"sparsity": 0.5}, fine_tuning=None, **DIGITS)
        assert outcome.stages[0]["test_loss"] is None
        assert 0 <= outcome.stages[0]["test_accuracy"] <= 1


class TestAFileNeverDecidesWhichCodeRuns:
    @pytest.mark.parametrize("named", ["os:system", "own_models:leaving", "no_such_package_of_mine:attack"])
    def test_a_hostile_spec(self, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = make_child("own_models:dense", tmp_path / "first", {"sparsity": 0.5}, **DIGITS)
        spec = unsealed(first.folder / "spec.json")
        spec["model"]["factory"] = named
        (first.folder / "spec.json").write_text(json.dumps(spec))

        real, imported = importlib.import_module, []

        def watched(name: str, package: str | None = None) -> Any:
            imported.append(name)
            return real(name, package)

        monkeypatch.setattr(importlib, "import_module", watched)
        monkeypatch.setattr(os, "system", lambda *_: pytest.fail("something was run"))
        with pytest.raises(ModelError, match=f"if you trust that code name it: .*{named}"):
            load_model(first.folder)
        one_line(invoke("prune", first.folder, "--sparsity", 0.9, "--out", tmp_path / "second"), named)
        model, _, _ = load_model(first.folder, own_models.dense)  # the caller's word counts, not the file's
        assert isinstance(model, nn.Sequential)
        assert named.partition(":")[0] not in imported

    @pytest.mark.parametrize(
        "named", ["os.system", "os:system:x", "os:sys tem", "__import__('os'):x", "os:system\n", ""]
    )
    def test_a_name_that_is_none(self, named: str, tmp_path: Path) -> None:
        first = make_child("own_models:dense", tmp_path / "first", {"sparsity": 0.5}, **DIGITS)
        spec = unsealed(first.folder / "spec.json")
        spec["model"]["factory"] = named
        (first.folder / "spec.json").write_text(json.dumps(spec))
        with pytest.raises(ConfigError, match="factory"):
            load_model(first.folder)


class TestShownAgain:
    def test_a_finished_child_is_shown_without_training(
        self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = ("prune", parent, "--sparsity", 0.6, *FAST, "--out", tmp_path / "child")
        first = invoke(*command)
        assert first.exit_code == 0
        before = contents(tmp_path / "child")
        monkeypatch.setattr("tombola.studies.single.prune.make_child", lambda *_: pytest.fail("pruned again"))
        again = invoke(*command)
        assert again.exit_code == 0, again.output
        assert again.stdout == first.stdout
        assert contents(tmp_path / "child") == before

    def test_a_finished_parent_is_shown_without_training(
        self, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = invoke("train", config, "--out", tmp_path / "runs")
        before = contents(tmp_path / "runs")
        monkeypatch.setattr("tombola.studies.single.train.fit", lambda *_, **__: pytest.fail("trained again"))
        again = invoke("train", config, "--out", tmp_path / "runs")
        assert again.exit_code == 0, again.output
        assert again.stdout == first.stdout
        assert contents(tmp_path / "runs") == before

    @pytest.mark.parametrize("change", ["other sparsity", "other parent"])
    def test_another_question_in_the_same_folder_is_refused(
        self, change: str, parent: Path, convolutional: Path, tmp_path: Path
    ) -> None:
        command = ["prune", parent, "--sparsity", 0.6, *FAST, "--out", tmp_path / "child"]
        assert invoke(*command).exit_code == 0
        before = contents(tmp_path / "child")
        command[1 if change == "other parent" else 3] = convolutional if change == "other parent" else 0.7
        one_line(invoke(*command), str(tmp_path / "child"), "begun with", "choose another folder")
        assert contents(tmp_path / "child") == before

    def test_a_parent_that_changed_is_noticed(self, parent: Path, tmp_path: Path) -> None:
        copied = tmp_path / "parent"
        shutil.copytree(parent, copied)
        make_child(copied, tmp_path / "child", {"sparsity": 0.5})
        other = make_parent(tmp_path, name="other", seed=1).folder
        for name in ("spec.json", "weights.safetensors"):
            shutil.copy(other / name, copied / name)
        with pytest.raises(RunFolderError, match="begun with parent"):
            make_child(copied, tmp_path / "child", {"sparsity": 0.5})

    def test_how_often_it_is_saved_names_no_run(self) -> None:
        grid = {**SMALL_PARENT, "criteria": ["magnitude"], "sparsities": [0.5]}
        child = {"model": "lenet5", "pruning": {"sparsity": 0.5}}
        for kind, content in ((TrainConfig, SMALL_PARENT), (PruneConfig, child), (CompareConfig, grid)):
            names = {
                identity_hash("study", validate(content | saved, kind, "test"))
                for saved in ({}, {"checkpoint_seconds": 0}, {"checkpoint_seconds": 99})
            }
            assert len(names) == 1


class TestWhatAPruningPromises:
    def test_a_weight_that_comes_back_is_seen(self) -> None:
        """Also where the counts agree: another weight went in its place."""
        model = nn.Sequential(nn.Linear(4, 4))
        parent = prune(model, 0.5, "random", seed=1)
        child = prune(model, 0.75, "random", masks=parent, seed=2)
        stranger = prune(model, 0.75, "random", seed=3)
        pruning = Pruning(sparsity=0.75, criterion="random")
        for masks, nested in ((child, True), (stranger, False)):
            pruned = copy.deepcopy(model)
            masks.apply_(pruned)
            checks = check_child(pruned, masks, parent, pruning, (), True)
            assert checks == {"check_exact": True, "check_held": True, "check_nested": nested, "check_parent": True}
            assert failed(checks) == ([] if nested else ["nothing that the parent lacked came back"])


class TestForPrograms:
    def test_metrics_and_rows(self, parent: Path, tmp_path: Path) -> None:
        make_child(parent, tmp_path / "child", {"sparsity": 0.6, "structure": "neuron", "schedule": "iterative:2"})
        metrics = json.loads((tmp_path / "child" / "metrics.json").read_text(), parse_constant=pytest.fail)
        assert [stage["stage"] for stage in metrics["stages"]] == ["before", "pruned", "fine-tuned"]
        assert metrics["checks"] == dict.fromkeys(("check_exact", "check_held", "check_nested", "check_parent"), True)
        lines = (tmp_path / "child" / "rows.jsonl").read_text().splitlines()
        rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        assert {row["kind"] for row in rows} == {"stage", "layer", "evaluation", "latency"}
        assert rows_of(rows, kind="stage") == metrics["stages"]
        for stage in metrics["stages"]:
            assert 0 <= stage["test_accuracy"] <= 1
            assert 0 <= stage["test_f1"] <= 1
            assert stage["weights"] == 1640
        kept = sum(row["kept"] for row in rows_of(rows, kind="layer"))
        assert kept == metrics["stages"][-1]["kept"]

    @pytest.mark.parametrize("kind", ["parent", "child"])
    def test_pages_open_offline(self, kind: str, parent: Path, tmp_path: Path) -> None:
        folder = parent if kind == "parent" else make_child(parent, tmp_path / "child", {"sparsity": 0.6}).folder
        page = (folder / "report.html").read_text()
        markup = re.sub(r"<script.*?</script>", "", page, flags=re.S)
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", markup)
        assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)\s*=""", page)
        assert "@import" not in markup
        assert "test accuracy with" in markup
        for part in ("Layers", "How it was made", "20×64", "bytes, bit mask + values"):
            assert part in markup

    def test_a_hostile_name_is_text_on_the_page(self, parent: Path, tmp_path: Path) -> None:
        copied = tmp_path / "<img src=x onerror=alert(1)>"
        shutil.copytree(parent, copied)
        outcome = make_child(copied, tmp_path / "child", {"sparsity": 0.6})
        assert "<img" not in re.sub(
            r"<script.*?</script>", "", (outcome.folder / "report.html").read_text(), flags=re.S
        )


Command = Callable[[Path], Any]


def dies(command: Command, out: Path, at: int, before: bool) -> bool:
    """Runs a command in a forked process that kills itself at its `at`-th write to disk; whether it came to that."""
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):
            die_at_write(at, before)
            command(out)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


LONG = FINE_TUNING | {"length": "24it"}
SAVED = {"checkpoint_seconds": 0}


class TestKilledAndContinued:
    """SIGKILL at a write, in life after life, each of which gets a little further."""

    def check(self, command: Command, tmp_path: Path) -> None:
        command(tmp_path / "whole")
        deaths, left = 0, set()
        while dies(command, tmp_path / "killed", 4 + 2 * deaths, before=deaths % 2 == 0):
            deaths += 1
            left |= {path.name for path in (tmp_path / "killed").rglob("*.checkpoint.safetensors")}
        assert deaths >= 4
        assert left  # a training in progress is gone on with
        command(tmp_path / "killed")
        assert what_must_agree(tmp_path / "killed") == what_must_agree(tmp_path / "whole")

    @pytest.mark.parametrize(
        "pruning",
        [
            {"sparsity": 0.9, "schedule": "iterative:3"},
            {"sparsity": 0.9, "schedule": "cubic:4", "criterion": "taylor"},
            {"sparsity": 0.5, "structure": "neuron"},
        ],
        ids=lambda pruning: pruning.get("schedule", "oneshot"),
    )
    def test_prune(self, pruning: dict[str, Any], parent: Path, tmp_path: Path) -> None:
        def command(out: Path) -> None:
            make_child(parent, out, pruning, fine_tuning=LONG, **SAVED)

        self.check(command, tmp_path)

    def test_remove(self, parent: Path, tmp_path: Path) -> None:
        taught = {"fine_tuning": LONG, "distillation": {"weight": 0.5}}

        def command(out: Path) -> None:
            make_smaller(parent, out, {"sparsity": 0.5, "criterion": "taylor"}, **taught, **SAVED)

        self.check(command, tmp_path)

    @pytest.mark.parametrize("evolution", [RIGL, None], ids=["rigl", "dense"])
    def test_train(self, evolution: dict[str, Any] | None, tmp_path: Path) -> None:
        def command(out: Path) -> None:
            make_parent(out, evolution=evolution, **SAVED)

        self.check(command, tmp_path)

    def test_what_was_only_for_continuing_is_gone_at_the_end(self, parent: Path, tmp_path: Path) -> None:
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.9, "schedule": "iterative:2"}, **SAVED)
        trained = make_parent(tmp_path / "parents", **SAVED)
        names = {"config.yaml", "manifest.json", "lock", "metrics.json", "report.html", "rows.jsonl", "spec.json"}
        names |= {"rows.checks", "finished.json"}
        weights = {"weights.safetensors"}
        assert set(contents(trained.folder)) == names | weights
        assert set(contents(outcome.folder)) == names | weights | {"masks.safetensors"}

    @pytest.mark.parametrize(
        "evolution",
        [
            RIGL,
            RIGL | {"method": "set"},
            {"method": "gradual", "sparsity": 0.5, "structure": "block:4x4", "protect": ["output"]}
            | {"every": "5it", "end": "30it"},
        ],
        ids=["rigl", "set", "gradual"],
    )
    def test_a_parent_that_becomes_sparse_checks_itself(self, evolution: dict[str, Any], tmp_path: Path) -> None:
        trained = make_parent(tmp_path, evolution=evolution)
        checks = json.loads((trained.folder / "metrics.json").read_text())["checks"]
        assert checks == {"check_exact": True, "check_held": True}
        assert trained.stages[0]["kept"] == masks_of(trained.folder).kept < 1640

    def test_a_sparse_parent_stays_sparse(self, tmp_path: Path) -> None:
        folder = make_parent(tmp_path, evolution=RIGL).folder
        masks = masks_of(folder)
        assert masks.total - masks.kept == round(0.8 * 1640)
        outcome = make_child(folder, tmp_path / "child", {"sparsity": 0.9})
        assert masks_of(outcome.folder) <= masks
        assert outcome.stages[0]["kept"] == masks.kept


@pytest.mark.parametrize(
    "evolution", [RIGL | {"every": "50it"}, {"method": "gradual", "sparsity": 0.5, "every": "5it", "end": "90it"}]
)
def test_an_evolution_that_does_not_fit_leaves_no_folder(evolution: dict[str, Any], tmp_path: Path) -> None:
    """As early in a plan: the command would end with the same."""
    with pytest.raises(ConfigError, match="evolution: "):
        make_parent(tmp_path, evolution=evolution)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_cannot_train_the_network_leaves_no_folder(tmp_path: Path) -> None:
    """Before anything is written: nothing could go on from it."""
    config = TrainConfig(
        name="residual",
        data={"name": "digits", "validation": 250},
        model={"architecture": "resnet20", "widths": [2, 2, 2]},
        training={"length": "5it", "evaluate_every": "5it", "engine": "sparse"},
    )
    with pytest.raises(TrainingError, match="needs a ReLU right after conv_1, not BatchNorm2d"):
        run_study(Train, config, Call(tmp_path))
    assert not list(tmp_path.iterdir())
