"""From a `.keras` file to a search, and from a search to a `.keras` file: real Keras on both ends."""

from __future__ import annotations

import copy
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from keras_networks import keras
from small_study import SMALL_STUDY, run_lottery
from tombola.errors import ConfigError, ModelError
from tombola.models import ModelSpec, build
from tombola.models.keras_export import write_keras
from tombola.models.keras_models import read_keras
from tombola.models.spec import Normalisation
from tombola.models.tensors import load_tensors
from tombola.runs.configs import load_config, validate
from tombola.studies.lottery import artefacts
from tombola.studies.lottery.artefacts import SUMMARY, keras_line
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.keras_ticket import MASKS, MODEL, write_keras_ticket
from tombola.studies.lottery.networks import trained_network
from tombola.studies.lottery.origins import origin_lines
from tombola.studies.lottery.result import Result

LENET = (2, 3, 9, 7)


@pytest.fixture(scope="module", autouse=True)
def _exports() -> Iterator[None]:
    """This module writes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "write_keras_ticket", write_keras_ticket)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that brightness tells apart, 60 colour images of 18 × 20 pixels each."""
    root = tmp_path_factory.mktemp("images")
    chance = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 150)):
        (root / label).mkdir()
        for number in range(60):
            pixels = chance.integers(level, level + 90, (18, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number:02d}.png")
    return root


def config_of(images: Path, **keys: Any) -> LotteryConfig:
    content = {
        "name": "keras",
        "replicates": 1,
        "data": {"name": "folder", "folder": str(images)},
        "training": {"length": "10it", "evaluate_every": "5it", "learning_rate": "1e-2"},
        "pruning": {"densities": [0.5]},
        "controls": ["reinit"],
        **keys,
    }
    return validate(content, LotteryConfig, "test")


@pytest.fixture(scope="module")
def normalised_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A LeNet on normalised images whose sides differ, so that a permutation forgotten would be seen."""
    torch.set_num_threads(1)
    data = {"name": "folder", "folder": str(images), "normalise": True}
    model = {"architecture": "lenet5", "widths": LENET}
    return run_lottery(config_of(images, data=data, model=model), tmp_path_factory.mktemp("runs"))


class TestExport:
    def test_it_gives_the_tickets_probabilities(self, normalised_run: Result, images: Path) -> None:
        network, spec, _ = trained_network(normalised_run.folder, normalised_run.config.rewinds[0], 0, 1)
        pixels = torch.rand(5, 3, 18, 20)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (spec.normalisation.mean, spec.normalisation.std))
        with torch.no_grad():
            expected = network.eval()((pixels - mean) / std).softmax(1)
        export = keras.saving.load_model(normalised_run.folder.results / MODEL)
        found = np.array(keras.ops.convert_to_numpy(export(pixels.permute(0, 2, 3, 1).numpy(), training=False)))
        assert np.abs(found - expected.numpy()).max() < 1e-5

    def test_its_masks_lie_as_its_kernels_do(self, normalised_run: Result) -> None:
        export = keras.saving.load_model(normalised_run.folder.results / MODEL)
        with np.load(normalised_run.folder.results / MASKS, allow_pickle=False) as masks:
            _, _, ours = trained_network(normalised_run.folder, normalised_run.config.rewinds[0], 0, 1)
            assert sum(int(keep.sum()) for keep in masks.values()) == ours.kept
            for name, keep in masks.items():
                kernel = export.get_layer(name.removesuffix("/kernel")).get_weights()[0]
                assert kernel.shape == keep.shape
                assert not kernel[~keep].any()
                assert (kernel[keep] != 0).mean() > 0.99  # trained weights are hardly ever exactly 0

    def test_the_summary_says_how_far_it_is_off(self, normalised_run: Result) -> None:
        export = json.loads((normalised_run.folder.results / SUMMARY).read_text())["keras"]
        assert export["model"] == MODEL
        assert 0 <= export["difference"] <= 1e-5
        assert MODEL in (keras_line(normalised_run) or "")

    def test_a_network_without_export_says_why_and_leaves_no_old_file(
        self, normalised_run: Result, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results = normalised_run.folder.results
        kept = {name: (results / name).read_bytes() for name in (MODEL, MASKS)}
        monkeypatch.setattr("tombola.studies.lottery.keras_ticket.write_keras", _refusing)
        export = write_keras_ticket(normalised_run, None)
        assert export["model"] is None
        assert export["reason"] == "no export of this one"
        assert not any((results / name).exists() for name in kept)
        for name, content in kept.items():
            (results / name).write_bytes(content)

    def test_a_finished_run_gets_its_export_once_the_extra_is_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = validate(SMALL_STUDY | {"replicates": 1}, LotteryConfig, "test")
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "keras", None)
            first = run_lottery(config, tmp_path)
        assert "pip install 'tombola[keras]'" in (keras_line(first) or "")
        assert not (first.folder.results / MODEL).exists()
        rows = first.folder.rows.read_bytes()
        again = run_lottery(config, tmp_path)
        assert (again.folder.results / MODEL).exists()
        assert "Keras export: " in (keras_line(again) or "")
        assert again.folder.rows.read_bytes() == rows
        run_lottery(config, tmp_path, results=tmp_path / "copy")
        assert (tmp_path / "copy" / MODEL).exists()


def _refusing(*_: Any) -> float:
    raise ModelError("no export of this one")


@pytest.fixture(scope="module")
def lenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeNet of two classes for images of 18 × 20, with a normalisation of its own."""
    spec = ModelSpec(architecture="lenet5", widths=LENET, input_shape=(3, 18, 20), classes=2, seed=7)
    path = tmp_path_factory.mktemp("keras") / "lenet.keras"
    normalisation = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    write_keras(path, copy.deepcopy(build(spec)), spec.input_shape, normalisation)
    return path


class TestStart:
    def test_every_replicate_begins_with_the_files_weights(
        self, images: Path, lenet_file: Path, tmp_path: Path
    ) -> None:
        result = run_lottery(config_of(images, start=str(lenet_file), replicates=2), tmp_path)
        held = read_keras(lenet_file)
        assert (result.config.model.architecture, result.config.model.widths) == ("lenet5", LENET)
        for index in range(2):
            root = result.folder.checkpoints / f"replicate-{index:02d}"
            initial, _ = load_tensors(root / "initial.safetensors")
            assert all(torch.equal(initial[name], weight) for name, weight in held.weights.items())
            spec = json.loads((root / "spec.json").read_text())
            assert spec["normalisation"] == held.normalisation.model_dump(mode="json")

    def test_reinit_is_a_fresh_network(self, images: Path, lenet_file: Path, tmp_path: Path) -> None:
        result = run_lottery(config_of(images, start=str(lenet_file)), tmp_path)
        trainings = {row["branch"]: row for row in result.rows if row["kind"] == "training"}
        assert trainings["reinit"]["test_loss"] != trainings["ticket"]["test_loss"]
        assert all(row["check_rewound"] for row in trainings.values())

    def test_changed_weights_do_not_continue_a_run(self, images: Path, lenet_file: Path, tmp_path: Path) -> None:
        moving = tmp_path / "moving.keras"
        moving.write_bytes(lenet_file.read_bytes())
        config = config_of(images, start=str(moving))
        result = run_lottery(config, tmp_path)
        other = build(ModelSpec(architecture="lenet5", widths=LENET, input_shape=(3, 18, 20), classes=2, seed=8))
        write_keras(moving, other, (3, 18, 20), Normalisation())
        with pytest.raises(Exception, match="begun with start"):
            run_lottery(config.model_copy(update={"replicates": 2}), result.folder.root.parent)

    def test_its_config_starts_it_again(self, images: Path, lenet_file: Path, tmp_path: Path) -> None:
        result = run_lottery(config_of(images, start=str(lenet_file)), tmp_path)
        assert "has seen these images" in "".join(origin_lines(result))
        again = run_lottery(load_config(result.folder.config, LotteryConfig), tmp_path)
        assert again.folder.root == result.folder.root
        assert len(list(tmp_path.glob("lottery-*"))) == 1

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"model": {"architecture": "conv2"}}, "leave architecture out"),
            ({"model": {"architecture": "lenet5", "widths": [2, 3, 9, 8]}}, "leave widths out"),
            ({"data": {"size": 24}}, "made for inputs"),
            ({"data": {"channels": 1}}, "set data.channels to 3"),
            ({"data": {"normalise": True}}, "leave data.base and normalise out"),
        ],
    )
    def test_what_does_not_fit_is_refused_before_a_folder_is_made(
        self, images: Path, lenet_file: Path, tmp_path: Path, keys: dict[str, Any], said: str
    ) -> None:
        data = {"name": "folder", "folder": str(images), **keys.pop("data", {})}
        with pytest.raises((ConfigError, ModelError), match=said):
            run_lottery(config_of(images, start=str(lenet_file), data=data, **keys), tmp_path / "runs")
        assert not list((tmp_path / "runs").glob("*/manifest.json"))

    def test_a_file_of_another_architecture_is_named(self, images: Path, tmp_path: Path) -> None:
        inputs = keras.Input((18, 20, 3))
        other = keras.layers.Conv2DTranspose(4, 3, name="up")(inputs)
        keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(other))).save(tmp_path / "other.keras")
        with pytest.raises(ModelError, match=r"up is a Conv2DTranspose"):
            run_lottery(config_of(images, start=str(tmp_path / "other.keras")), tmp_path / "runs")
        assert not (tmp_path / "runs").exists()


def test_masks_are_plain_arrays(normalised_run: Result) -> None:
    content = (normalised_run.folder.results / MASKS).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as masks:
        assert {array.dtype for array in masks.values()} == {np.dtype(bool)}
