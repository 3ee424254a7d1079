"""What cannot be used is refused in one line, by exit code 2, and nothing that is there is touched."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import stat
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forked import Forked
from said import error_in
from sealing import rewrite
from tombola import prune
from tombola.errors import PruningError
from tombola.models.tensors import content_sha256, load_tensors, save_tensors
from tombola.training import training

BRIEF: dict[str, Any] = {
    "name": "brief",
    "replicates": 1,
    "checkpoint_seconds": 0,
    "controls": [],
    "training": {"length": "10it", "evaluate_every": "5it"},
    "pruning": {"target_density": 0.6},
}
"""One replicate of two trainings, in a tenth of a second."""


def one_line(result: Any, *parts: str, code: int = 2) -> None:
    """The promise of the command line: one line that names what is wrong, and no traceback."""
    assert result.exit_code == code, result.output
    said = error_in(result.stderr)
    assert "Traceback" not in result.output
    for part in parts:
        assert part in said, said


@pytest.fixture
def config(tmp_path: Path, write_config: Any) -> Path:
    return write_config(tmp_path, **BRIEF)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, write_config: Any, invoke: Any) -> Path:
    """A finished run of the brief study; tests work on copies."""
    home = tmp_path_factory.mktemp("finished")
    result = invoke("imp", write_config(home, **BRIEF), "--out", home / "out", "--workers", 1)
    assert result.exit_code == 0, result.stderr
    (run,) = (home / "out").iterdir()
    return run


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    copied = tmp_path / "out" / finished.name
    shutil.copytree(finished, copied)
    return copied


def repeat(run: Path, name: str) -> Path:
    """Makes a run as if it had been killed in the training `name`, and returns its file; later ones are gone."""
    path = run / "checkpoints" / "replicate-00" / name
    path.unlink()
    (run / "report.html").unlink()
    (run / "results" / "sparsity_vs_accuracy.json").unlink()
    (run / "rows.jsonl").unlink()
    return path


# Configs


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"- a\n- list\n", "found a list"),
        (bytes(range(256)), "not readable as YAML"),
        (b"\x00\x01\x02", "not readable as YAML"),
        (b"name: small\nreplicates: [1,", "not readable as YAML"),
        (b"name: small\nname: twice\n", "given twice"),
        (b"name: 2020-13-45\n", "not readable as YAML"),
        (b"seed: 0x_\n", "not readable as YAML"),
        (b"[" * 5000, "not readable as YAML"),
        (b"1: 2\n", "1"),
    ],
)
def test_a_damaged_config(content: bytes, said: str, tmp_path: Path, invoke: Any, snapshot: Any) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    before = snapshot(tmp_path)
    one_line(invoke("imp", path, "--out", tmp_path / "out"), str(path), said)
    assert snapshot(tmp_path) == before


def test_a_config_cut_anywhere(config: Path, invoke: Any, tmp_path: Path) -> None:
    content = config.read_bytes()
    for end in range(0, len(content) - 60, 17):
        config.write_bytes(content[:end])
        one_line(invoke("imp", config, "--out", tmp_path / "out"), str(config))


def test_no_config(tmp_path: Path, invoke: Any, snapshot: Any) -> None:
    one_line(invoke("imp", tmp_path / "none.yaml", "--out", tmp_path / "out"), "none.yaml", "no such config file")
    one_line(invoke("imp", tmp_path, "--out", tmp_path / "out"), str(tmp_path))
    one_line(invoke("imp", tmp_path / ("x" * 300), "--out", tmp_path / "out"), "xxx")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("replicate=3", "did you mean 'replicates'"),
        ("training.learning_rat=1", "did you mean 'learning_rate'"),
        ("replicates=two", "replicates"),
        ("replicates=2.5", "replicates"),
        ("seed=-1", "seed"),
        ("training=5", "training"),
        ("training.learning_rate=fast", "training.learning_rate"),
        ("training.learning_rate=.nan", "training.learning_rate"),
        ("training.learning_rate=0", "training.learning_rate"),
        ("training.length=soon", "training.length"),
        ("training.length=0it", "length must be at least 1it"),
        ("training.batch_size=0", "training.batch_size"),
        ("model.widths=[]", "model.widths"),
        ("model.widths=[20, -1]", "model.widths"),
        ("model.architecture=lenet", "lenet-300-100"),
        ("data.name=digit", "did you mean 'digits'"),
        ("name=../elsewhere", "name"),
        ("controls=[random, random]", "name each control once"),
        ("pruning.target_density=0", "pruning.target_density"),
        ("pruning.target_density=1", "nothing to prune"),
        ("pruning.target_density=1.5", "pruning.target_density"),
        ("pruning.rate=1", "pruning.rate"),
        ("pruning.rate=0", "pruning.rate"),
        ("pruning.layer_rates.output=1", "pruning.layer_rates.output"),
        ("pruning.layer_rates={other: 0.5}", "no layer is called 'other'"),
        ("pruning={distribution: global, densities: [0]}", "pruning.densities.0"),
        ("pruning={distribution: global, densities: [1.2]}", "pruning.densities.0"),
        ("pruning={distribution: global, densities: [0.2, 0.5]}", "must fall"),
        ("pruning.rate=0.999", "would die"),
        ("pruning.target_density=1e-9", "do not reach target_density"),
        ("pruning={distribution: global, densities: [0.001]}", "too few for 3 layers"),
        ("pruning={distribution: global, densities: [0.5, 0.4999999]}", "would remove nothing"),
        ("replicates", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("training..length=3", "write it as key=value"),
        ("data.name.deeper=3", "'name' holds a value"),
        ("model.widths=[1,", "--set"),
        ("seed=2020-13-45", "--set"),
    ],
)
def test_a_value_that_cannot_be(override: str, said: str, config: Path, tmp_path: Path, invoke: Any) -> None:
    one_line(invoke("imp", config, "--out", tmp_path / "out", "--set", override), said)
    assert not list(tmp_path.rglob("rows.jsonl"))
    assert not list(tmp_path.rglob("manifest.json"))


def test_replicates_and_workers_of_none(config: Path, tmp_path: Path, invoke: Any, snapshot: Any) -> None:
    before = snapshot(tmp_path)
    one_line(invoke("imp", config, "--out", tmp_path / "out", "--replicates", 0), "replicates")
    usage = invoke("imp", config, "--out", tmp_path / "out", "--workers", 0)
    assert usage.exit_code == 2
    assert "--workers" in usage.stderr
    assert "Traceback" not in usage.output
    assert snapshot(tmp_path) == before


# Data


def write_idx_data(folder: Path, labels: list[int]) -> None:
    folder.mkdir()
    images = np.arange(len(labels) * 16, dtype=np.uint8)
    for part in ("train", "t10k"):
        header = struct.pack(">HBBIII", 0, 8, 3, len(labels), 4, 4)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">HBBI", 0, 8, 1, len(labels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


@pytest.fixture
def idx_study(tmp_path: Path, write_config: Any) -> Path:
    return write_config(tmp_path, **BRIEF | {"data": {"name": "idx", "folder": str(tmp_path / "idx")}})


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("size", [0, 3, 9, -1])
def test_idx_cut_short(name: str, size: int, idx_study: Path, tmp_path: Path, invoke: Any) -> None:
    write_idx_data(tmp_path / "idx", [0, 1] * 20)
    path = tmp_path / "idx" / name
    path.write_bytes(path.read_bytes()[:size])
    one_line(invoke("imp", idx_study, "--out", tmp_path / "out"), name, "cut short")
    assert not list(tmp_path.rglob("manifest.json"))


def test_data_of_one_class(idx_study: Path, tmp_path: Path, invoke: Any) -> None:
    write_idx_data(tmp_path / "idx", [0] * 40)
    one_line(invoke("imp", idx_study, "--out", tmp_path / "out"), "same class")
    assert not list(tmp_path.rglob("manifest.json"))


def test_data_that_is_missing(idx_study: Path, tmp_path: Path, invoke: Any) -> None:
    one_line(invoke("imp", idx_study, "--out", tmp_path / "out"), "train-images-idx3-ubyte", "is missing")


# Numbers that are none


def test_nan_weights_are_not_pruned() -> None:
    model = torch.nn.Linear(4, 3)
    with torch.no_grad():
        model.weight[1, 2] = float("nan")
    with pytest.raises(PruningError, match="weight holds NaN"):
        prune(model, 0.5)


def test_stored_nan_weights_are_not_pruned(run: Path, config: Path, invoke: Any) -> None:
    repeat(run, "init/round-01/ticket.json")
    repeated = run / "checkpoints" / "replicate-00"
    (repeated / "init" / "round-01" / "masks.safetensors").unlink()
    trained = repeated / "dense" / "round-00" / "trained.safetensors"
    tensors, facts = load_tensors(trained)
    name = next(name for name in tensors if name.endswith(".weight"))
    save_tensors(trained, tensors | {name: torch.full_like(tensors[name], float("nan"))}, facts)
    one_line(invoke("imp", config, "--out", run.parent, "--workers", 1), "NaN")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_diverging_training(optimizer: str, config: Path, tmp_path: Path, invoke: Any) -> None:
    settings = ("--set", "training.learning_rate=1e30", "--set", f"training.optimizer={optimizer}")
    result = invoke("imp", config, "--out", tmp_path / "out", "--workers", 1, *settings)
    one_line(result, "replicate 0", "diverged", "lower the learning rate")
    assert not list(tmp_path.rglob("dense.json"))


# Disks and folders


def test_a_full_disk(
    config: Path, finished: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills at each write in turn; each time one line, and the run goes on to the end at last."""
    real, left = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        left[0] -= stat.S_ISREG(os.fstat(descriptor).st_mode)  # folders may refuse to be synced
        if left[0] == 0:
            left[0] = -1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    failures = 0
    for countdown in range(1, 200):
        left[0] = countdown
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            result = invoke("imp", config, "--out", tmp_path / "out", "--workers", 1)
        if result.exit_code == 0:
            break
        failures += 1
        one_line(result, "No space left on device", "nothing finished was lost")
        assert not list(tmp_path.rglob("*.tombola-tmp"))
    assert failures >= 5
    assert result.exit_code == 0
    (run,) = (tmp_path / "out").iterdir()
    mask = "results/winning_ticket_mask.npy"
    assert (run / mask).read_bytes() == (finished / mask).read_bytes()


def test_a_limit_on_file_sizes(config: Path, tmp_path: Path) -> None:
    """A real refusal by the system, in a worker process too."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096))
    arguments = ["imp", config, "--out", tmp_path / "out", "--workers", 2, "--replicates", 2]
    code, errors = Forked(arguments, tmp_path / "stderr", first=limit).end(patience=120)
    assert code == 2, errors
    said = error_in(errors)
    assert said.startswith("error: cannot ")
    assert "File too large" in said
    assert not list(tmp_path.rglob("*.tombola-tmp"))


def test_out_that_cannot_be_written(config: Path, tmp_path: Path, invoke: Any, snapshot: Any) -> None:
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/tombola")):
        one_line(invoke("imp", config, "--out", out, "--workers", 1), str(out))
        one_line(invoke("imp", config, "--out", tmp_path / "out", "--results", out), str(out))
    assert snapshot(tmp_path) == before


def test_results_of_another_run(run: Path, config: Path, tmp_path: Path, invoke: Any, snapshot: Any) -> None:
    theirs = tmp_path / "results"
    for content in ('{"run": "lottery-other-00000000"}', "[]", "{}", "", "{"):
        theirs.mkdir(exist_ok=True)
        (theirs / "sparsity_vs_accuracy.json").write_text(content)
        before = snapshot(tmp_path)
        one_line(invoke("imp", config, "--out", run.parent, "--results", theirs), str(theirs))
        assert snapshot(tmp_path) == before


# Run folders


def test_a_run_folder_in_use(run: Path, config: Path, invoke: Any, snapshot: Any) -> None:
    with (run / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = snapshot(run)
        result = invoke("imp", config, "--out", run.parent, "--replicates", 2, "--workers", 1)
        one_line(result, str(run), "another process")
        assert snapshot(run) == before


def _set(*keys: str, value: Any) -> Any:
    def change(manifest: Any) -> Any:
        target = manifest
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
        return manifest

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("format", value=99), "format 99"),
        (_set("must_match", "versions", "torch", value="1.0.0"), "versions"),
        (_set("must_match", "data", "checksum", value="md5:0"), "data"),
        (_set("must_match", "threads", value=2), "threads"),
        (_set("must_match", value={}), "data"),
        (_set("must_match", value=3), "manifest"),
        (_set("must_match", "data", value={}), "data"),
        (_set("must_match", "data", value={"input_shape": "x", "classes": None}), "data"),
        (lambda _: [], "damaged"),
    ],
)
def test_a_run_of_other_origins(change: Any, said: str, run: Path, config: Path, invoke: Any, snapshot: Any) -> None:
    manifest = run / "manifest.json"
    rewrite(manifest, change(json.loads(manifest.read_text())))
    before = snapshot(run)
    result = invoke("imp", config, "--out", run.parent, "--replicates", 2, "--workers", 1)
    one_line(result, str(run), said)
    assert snapshot(run) == before


def test_a_manifest_cut_short(run: Path, config: Path, invoke: Any, snapshot: Any) -> None:
    content = (run / "manifest.json").read_bytes()
    for size in (0, 1, len(content) // 2):
        (run / "manifest.json").write_bytes(content[:size])
        before = snapshot(run)
        one_line(invoke("imp", config, "--out", run.parent), "manifest.json", "damaged")
        assert snapshot(run) == before


@pytest.mark.parametrize("damage", [b"{", b"\x00" * 50, b"\xff\xfe", b"[]", b"3", b"[" * 100_000])
def test_a_damaged_row(damage: bytes, run: Path, config: Path, invoke: Any, snapshot: Any) -> None:
    lines = (run / "rows.jsonl").read_bytes().split(b"\n")
    lines[2] = damage
    (run / "rows.jsonl").write_bytes(b"\n".join(lines))
    before = snapshot(run)
    one_line(invoke("imp", config, "--out", run.parent), "rows.jsonl", "line 3 is damaged")
    assert snapshot(run) == before


def test_a_checkpoint_cut_short(
    config: Path, finished: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.save_checkpoint

    def save_and_stop(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    command = ("imp", config, "--out", tmp_path / "out", "--workers", 1)
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", save_and_stop)
        assert invoke(*command).exit_code == 130
    (checkpoint,) = tmp_path.rglob("dense.checkpoint.safetensors")
    content = checkpoint.read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    for damaged in (b"", content[:7], content[: len(content) // 2], content[:-1], bytes(flipped)):
        checkpoint.write_bytes(damaged)
        one_line(invoke(*command), checkpoint.name, "delete")
        assert checkpoint.read_bytes() == damaged
    checkpoint.unlink()  # as the line says
    assert invoke(*command).exit_code == 0
    name = f"{finished.name}/checkpoints/replicate-00/init/round-01/trained.safetensors"
    ends = [load_tensors(parent / name)[0] for parent in (tmp_path / "out", finished.parent)]
    assert content_sha256(ends[0]) == content_sha256(ends[1])


@pytest.mark.parametrize(
    "name",
    [
        "initial.safetensors",
        "dense/round-00/trained.safetensors",
        "init/round-01/masks.safetensors",
        "dense/round-00/dense.json",
    ],
)
@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_a_stored_file_is_damaged(name: str, damage: str, run: Path, config: Path, invoke: Any, snapshot: Any) -> None:
    repeat(run, "init/round-01/ticket.json")
    replicate = run / "checkpoints" / "replicate-00"
    if name == "dense/round-00/trained.safetensors":
        (replicate / "init" / "round-01" / "masks.safetensors").unlink()
    path = replicate / name
    content = path.read_bytes()
    if damage == "other" and path.suffix == ".json":
        path.write_text('{"rows": [3]}')
    elif damage == "other":  # a sound file of something else
        save_tensors(path, {"else": torch.zeros(3)})
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    before = snapshot(replicate)
    one_line(invoke("imp", config, "--out", run.parent, "--workers", 1), str(path))
    assert snapshot(replicate) == before


# Extracting


def test_extracting_from_a_manifest_without_data(run: Path, tmp_path: Path, invoke: Any) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    for data in (None, {}, {"input_shape": [1, 8, 8], "classes": "many"}):
        manifest["must_match"]["data"] = data
        rewrite(run / "manifest.json", manifest)
        one_line(invoke("extract", run, "--density", 1, "--out", tmp_path / "ticket"), "manifest.json", "damaged")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--density", "0.3"), "no round near it"),
        (("--density", "0"), "--density"),
        (("--density", "2"), "--density"),
        (("--density", "nan"), "--density"),
        (("--density", "inf"), "--density"),
        (("--density", "0.516", "--replicate", "7"), "replicate 7"),
    ],
)
def test_extracting_what_is_not_there(
    arguments: tuple[str, ...], said: str, run: Path, tmp_path: Path, invoke: Any, snapshot: Any
) -> None:
    before = snapshot(tmp_path)
    one_line(invoke("extract", run, "--out", tmp_path / "ticket", *arguments), said)
    assert snapshot(tmp_path) == before


def test_extracting_from_nowhere_and_onto_something(run: Path, tmp_path: Path, invoke: Any, snapshot: Any) -> None:
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    one_line(invoke("extract", tmp_path / "none", "--density", 1, "--out", tmp_path / "ticket"), "not a run folder")
    one_line(invoke("extract", run, "--density", 1, "--out", tmp_path / "file"), str(tmp_path / "file"))
    assert snapshot(tmp_path) == before
    command = ("extract", run, "--density", 1, "--out", tmp_path / "ticket")
    assert invoke(*command).exit_code == 0
    before = snapshot(tmp_path)
    assert invoke(*command).exit_code == 0  # it finds its ticket written
    one_line(invoke(*command, "--reinit", 1), "ticket", "choose another")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", ["half", "other"])
def test_extracting_damaged_masks(damage: str, run: Path, tmp_path: Path, invoke: Any) -> None:
    path = run / "checkpoints" / "replicate-00" / "init" / "round-01" / "masks.safetensors"
    if damage == "half":
        path.write_bytes(path.read_bytes()[:200])
    else:
        save_tensors(path, {"else": torch.zeros(3)})
    kept = json.loads((run / "results" / "spec.json").read_text())["history"]["density"]
    one_line(invoke("extract", run, "--density", kept, "--out", tmp_path / "ticket"), str(path))
    assert not (tmp_path / "ticket").exists()


# Lightness


@pytest.mark.parametrize("call", ["cli.app(['--help'])", "cli.app(['imp', '--help'])", "import tombola.reports"])
def test_help_and_reports_do_without_torch(call: str) -> None:
    code = f"""
import sys, tombola, tombola.cli as cli
try:
    {call}
except SystemExit as stop:
    assert not stop.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
