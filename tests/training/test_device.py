"""Devices and precisions: what a config asks for, what a training on another device may mix, and what is refused."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_accelerator
import pytest
import torch
from sparse_steps import kill_at, recipe
from torch import nn

from tombola.data import DataConfig, DataSet, load_data
from tombola.errors import ConfigError, StorageError, TrainingError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.runs.configs import identity_hash
from tombola.studies.single.config import CompareConfig, TrainConfig
from tombola.training import Classification, Dynamic, Gradual, fit
from tombola.training import device as device_module
from tombola.training import engine as engine_module
from tombola.training import training as training_module
from tombola.training.device import deterministic, device_facts, on_device, placed, resolve
from tombola.training.trained import Trained

HERE = Path(__file__).parent
CUDA = torch.device("cuda", 0)

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that CUDA knows here"),
]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data(DataConfig(name="digits"), 0)


def network() -> nn.Module:
    return build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=1, widths=(30, 20)))


def images() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 10)
    )


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Torch refuses what has no deterministic algorithm, as it does within a training on an accelerator."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def steps() -> dict[str, str | None]:
    """What went wrong on a device without numbers, by case. In a process of its own: it registers a device."""
    pytest.importorskip("torch_geometric")
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot register a device of tests")
    done = subprocess.run([sys.executable, "fake_accelerator.py"], cwd=HERE, capture_output=True, text=True, check=True)
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", fake_accelerator.CASES)
def test_a_step_on_another_device_mixes_no_devices(case: str, steps: dict[str, str | None]) -> None:
    assert steps[case] is None


class TestAsked:
    def test_a_device_that_is_not_here_is_refused_with_what_there_is(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(device_module, "available", lambda: ["mps", "cpu"])
        with pytest.raises(ConfigError, match=r"there is no cuda here, only mps and cpu.*set it to auto or cpu"):
            resolve("cuda")
        assert resolve("auto").type == "mps"

    def test_the_device_names_no_run_and_the_precision_does(self) -> None:
        def named(**training: str) -> str:
            data = {"name": "digits", "base": {"widths": [2] * 5, "device": training.get("device", "cpu")}}
            whole = {"length": "1ep", "evaluate_every": "1ep", **training}
            return identity_hash("train", TrainConfig.model_validate({"name": "a", "data": data, "training": whole}))

        assert named() == named(device="cuda") == named(device="auto", precision="float32")
        assert named() != named(precision="bfloat16")

    def test_a_device_reaches_every_part_of_a_config(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(device_module, "resolve", lambda name: torch.device(name))
        monkeypatch.setattr(device_module, "facts", lambda device: {"type": device.type})
        short = {"length": "1ep", "evaluate_every": "1ep"}
        data = DataConfig.model_validate({"name": "digits", "base": {"widths": [2] * 5}})
        pruning = {"criteria": ["magnitude"], "sparsities": [0.5], "structures": ["weight"]}
        content = {"name": "a", "data": data, "training": short, "fine_tuning": short, "replicates": 2, **pruning}
        config = CompareConfig.model_validate(content)
        there = on_device(config, "cuda")
        assert there.fine_tuning is not None
        assert there.data.base is not None
        assert [there.training.device, there.fine_tuning.device, there.data.base.device] == ["cuda"] * 3
        assert (device_facts(config), device_facts(there)) == (
            {"device": None},
            {"device": [{"type": "cuda"}]},
        )

    def test_a_model_on_another_accelerator_is_not_taken_from_it(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(device_module, "device_of", lambda model: CUDA)
        with (
            pytest.raises(TrainingError, match="the model is on cuda, and the device asked for is cpu"),
            placed(network(), "cpu"),
        ):
            pass


def test_nothing_is_chosen_by_its_speed_and_the_switches_come_back(monkeypatch: Any) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    monkeypatch.setattr(cudnn, "benchmark", True)
    with deterministic(network(), CUDA):
        assert torch.are_deterministic_algorithms_enabled()
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (False, False, False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert cudnn.benchmark


def test_scoring_on_a_device_is_to_the_bit_too(monkeypatch: Any) -> None:
    """Rows are scored there outside of a training."""
    monkeypatch.setattr(device_module, "resolve", lambda name: CUDA)
    monkeypatch.setattr(device_module, "device_of", lambda model: CUDA)
    with placed(network(), "cuda"):
        assert torch.are_deterministic_algorithms_enabled()


def test_a_checkpoint_knows_the_libraries_of_its_device(monkeypatch: Any) -> None:
    here = {"type": "cuda", "name": "A100", "capability": "8.0", "cuda": "12.8", "cudnn": "91002"}
    monkeypatch.setattr(device_module, "facts", lambda device: here)
    assert device_module.said(CUDA) == "cuda (A100, CUDA 12.8, cuDNN 91002)"


class TestRefused:
    def test_a_checkpoint_of_another_device(self, digits: DataSet, tmp_path: Path, monkeypatch: Any) -> None:
        def run(**more: Any) -> Trained:
            model = network()
            where = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0.0}
            return fit(model, digits, recipe(), Masks.full(model), 0, **where, **more)

        with pytest.raises(KeyboardInterrupt):
            run(on_evaluation=kill_at(30))
        monkeypatch.setattr(training_module, "said", lambda device: "cuda (A100)")
        with pytest.raises(StorageError, match=r"a checkpoint of a training on cpu, and this one is on cuda \(A100\)"):
            run()
        monkeypatch.undo()
        assert run().iteration == 60

    def test_kernels_on_another_device_or_in_other_numbers(self, digits: DataSet, monkeypatch: Any) -> None:
        model = network()
        masks = prune(model, 0.9)
        with pytest.raises(TrainingError, match="computes in float32, and the precision asked for is bfloat16"):
            fit(model, digits, recipe(engine="sparse", precision="bfloat16"), masks, 0)
        monkeypatch.setattr(engine_module, "device_of", lambda model: CUDA)
        with pytest.raises(TrainingError, match="the engine sparse is for the CPU, and this training is on cuda"):
            engine_module.layers_on_kernels(model, recipe(engine="sparse"), masks, 60)
        assert not any(engine_module.layers_on_kernels(model, recipe(), masks, 60))

    def test_a_task_that_does_not_know_the_way(self, digits: DataSet) -> None:
        class Own(Classification):
            on = fake_accelerator.Task.on

        with pytest.raises(TrainingError, match=r"the task classification is for the CPU.*on\(device\)"):
            Own(digits).on(CUDA)

    def test_layers_without_a_deterministic_algorithm_by_name(self) -> None:
        class Unpooled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.pool, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = self.back(*self.pool(x))
                return found

        model = Unpooled()
        with (
            strictly(),
            pytest.raises(TrainingError, match=r"back \(MaxUnpool2d\): torch has no deterministic algorithm for"),
            device_module.naming_what_is_not_deterministic(model, CUDA),
        ):
            model(torch.rand(1, 1, 4, 4))


class TestPrecision:
    def test_bfloat16_learns_with_weights_in_float32_and_goes_on_after_a_kill(
        self, digits: DataSet, tmp_path: Path
    ) -> None:
        def run(make: Any = images, **more: Any) -> tuple[nn.Module, Trained]:
            model = make()
            chosen = recipe(precision=more.pop("precision", "bfloat16"), learning_rate=1e-2, ema=0.5)
            return model, fit(model, digits, chosen, prune(model, 0.5), 0, **more)

        model, whole = run()
        assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
        assert whole.early_stop.accuracy > 0.5
        assert whole.masks.removed_nonzeros(model) == 0
        again = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0.0}
        with pytest.raises(KeyboardInterrupt):
            run(on_evaluation=kill_at(30), **again)
        continued, _ = run(**again)
        assert content_sha256(continued.state_dict()) == content_sha256(model.state_dict())
        assert content_sha256(run(precision="float32")[0].state_dict()) != content_sha256(model.state_dict())

    def test_written_out_steps_are_not_taken_for_another_precision(self, digits: DataSet) -> None:
        dense = {"engine": "dense"}
        ends = set()
        for precision in ("float32", "bfloat16"):
            model = network()
            fit(model, digits, recipe(precision=precision, **dense), Masks.full(model), 0)
            ends.add(content_sha256(model.state_dict()))
        assert len(ends) == 2


class TestOnARealGpu:
    pytestmark = gpu

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_it_learns_and_goes_on_to_the_bit(self, digits: DataSet, tmp_path: Path, precision: str) -> None:
        def run(**more: Any) -> tuple[nn.Module, Trained]:
            model = images()
            chosen = recipe(
                device="cuda", precision=precision, learning_rate=1e-2, ema=0.5, augmentation=("flip", "crop")
            )
            return model, fit(model, digits, chosen, prune(model, 0.5), 0, **more)

        model, whole = run()
        assert {tensor.device.type for tensor in (*model.state_dict().values(), *whole.early_stop_state.values())} == {
            "cpu"
        }
        assert whole.engine == "dense"
        assert whole.early_stop.accuracy > 0.4
        assert whole.masks.removed_nonzeros(model) == 0
        again = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0.0}
        with pytest.raises(KeyboardInterrupt):
            run(on_evaluation=kill_at(30), **again)
        assert content_sha256(run(**again)[0].state_dict()) == content_sha256(model.state_dict())

    @pytest.mark.parametrize(
        "evolution",
        [
            Gradual(criterion="taylor", sparsity=0.8, every="20it", end="40it"),
            Dynamic(method="set", sparsity=0.5, every="10it"),
            Dynamic(method="rigl", sparsity=0.5, every="10it"),
        ],
    )
    def test_masks_may_change_there(self, digits: DataSet, evolution: Any) -> None:
        model = images()
        trained = fit(model, digits, recipe(device="cuda"), Masks.full(model), 0, evolution=evolution)
        assert trained.masks.removed_nonzeros(model) == 0
        assert trained.masks.sparsity == pytest.approx(evolution.sparsity, abs=0.01)
        assert all(mask.keep.is_cpu for mask in trained.masks.values())
