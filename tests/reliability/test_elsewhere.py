"""Runs where something is otherwise: a read-only disk, an ASCII terminal, odd names, another processor, new data."""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

import no_time
from finished_runs import KINDS, STUDIES, Runs, files_of, invoke, one_line
from listening import Heard
from tombola.data import sources
from tombola.errors import DataError
from tombola.runs.configs import validate
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.lottery.study import Lottery
from tombola.studies.single.compare import Compare

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ODD = b"ev\x1b[2Jil \xe2\x80\xae \xc3\xa9 \xff"
"""The name of a folder: clears the screen, turns the direction of writing, is é in UTF-8, and ends in no UTF-8."""


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """`read_only(root)` lets nothing below `root` be written, as a disk does that is mounted so; root may, too."""

    def refuse(root: Path) -> None:
        inside = os.path.realpath(root)

        def guarded(original: Any, writes: Callable[..., bool]) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                paths = [p for p in arguments[:2] if isinstance(p, (str, bytes, os.PathLike))]
                below = any(os.path.realpath(os.fsdecode(path)).startswith(inside) for path in paths)
                if below and writes(*arguments[1:], **options):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(paths[0]))
                return original(*arguments, **options)

            return call

        def by_mode(mode: str = "r", *_: Any, **__: Any) -> bool:
            return bool(set(mode) & set("wax+"))

        for name in ("mkdir", "unlink", "remove", "rename", "replace", "rmdir", "truncate", "link", "symlink", "utime"):
            monkeypatch.setattr(os, name, guarded(getattr(os, name), lambda *_, **__: True))
        monkeypatch.setattr(os, "open", guarded(os.open, lambda flags, *_, **__: bool(flags & WRITES)))
        for module in (io, builtins):
            monkeypatch.setattr(module, "open", guarded(open, by_mode))

    return refuse


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_on_a_read_only_disk(
    kind: str, finished: Runs, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    for each in KINDS:
        finished.restore(each)
    folder = finished.folders[kind]
    before, shown = files_of(finished.root), invoke("show", folder).stdout
    read_only(finished.root)
    with pytest.raises(OSError, match="Read-only"):
        (folder / "new").write_bytes(b"")
    assert invoke("show", folder).stdout == shown
    assert one_line(invoke("list", "--out", finished.out)) is None
    assert one_line(finished.go_on(kind)) is None
    if kind == "imp":
        assert one_line(invoke("extract", folder, "--density", 0.5, "--out", tmp_path / "ticket")) is None
        assert "Read-only file system" in str(one_line(invoke("report", folder)))
        more = invoke("imp", finished.root / "imp.yaml", "--out", finished.out, "--replicates", 3)
        assert "Read-only file system" in str(one_line(more))
    assert files_of(finished.root) == before


ALL_COMMANDS = """
import sys
from pathlib import Path

import no_time
from tombola.cli import main

no_time.stand_in(setattr)
root = Path(sys.argv[1])
out = root / "runs"


def call(*arguments):
    sys.argv = ["tombola", *map(str, arguments)]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    print(f"{arguments[0]} ended with {code}", flush=True)


lottery, parent = next(out.glob("lottery-*")), next(out.glob("train-*"))
for run in out.iterdir():
    call("show", run)
call("list", "--out", out)
for what in ("criteria", "structures", "distributions", "schedules", "models", "data"):
    call("list", what)
for kind in ("train", "imp", "compare"):
    call(kind, root / f"{kind}.yaml", "--out", out)
call("extract", lottery, "--density", 0.5, "--out", root / "ticket")
call("stability", lottery, "--round", 1, "--workers", 1)
call("report", lottery)
call("report", lottery, lottery, "--out", root / "page.html")
call("prune", parent, "--sparsity", 2, "--out", parent)
call("show", root / "nothing")
call("hybrid", root / "imp.yaml")
call("imp", root / "imp.yaml", "--out", out, "--dry-run", "--set", f"name={chr(0xE9)}")
call("imp", "--help")
(parent / "weights.safetensors").write_bytes(b"")
call("show", parent)
call("list", "--out", out)
"""


@pytest.mark.slow
def test_every_command_on_an_ascii_terminal_with_a_name_that_it_would_obey(finished: Runs, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(ODD)
    shutil.copytree(finished.root / "kept", root / "runs")
    for kind in STUDIES:
        shutil.copy(finished.root / f"{kind}.yaml", root)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    found = {"PYTHONPATH": os.pathsep.join([str(Path(no_time.__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", ALL_COMMANDS, str(root)], env={**os.environ, **ascii_only, **found}, capture_output=True
    )
    output, said = done.stdout + done.stderr, done.stdout.decode("ascii")
    assert done.returncode == 0, output
    assert re.search(rb"[^\n\x20-\x7e]", output) is None  # no escape code either
    assert b"Traceback" not in output
    assert b"internal error" not in output
    ends = re.findall(r"^(\w+) ended with (\d)$", said, re.MULTILINE)
    assert len(ends) == 26
    assert [name for name, code in ends if code == "2"] == ["prune", "show", "hybrid", "imp", "show"]
    assert rb"ev\x1b[2Jil" in done.stderr


def test_a_run_is_not_continued_with_other_instructions(finished: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished one is shown anywhere; whatever has to be computed again is refused by name."""
    for each in KINDS:
        finished.restore(each)
    for kind in reversed(KINDS):
        folder = finished.folders[kind]
        with monkeypatch.context() as patch:
            patch.setenv("MKL_CBWR", "COMPATIBLE")
            assert one_line(finished.go_on(kind)) is None
            assert one_line(invoke("show", folder)) is None
            (folder / "finished.json").unlink()
            before = files_of(folder)
            said = str(one_line(finished.go_on(kind)))
            assert re.search(r"begun with processor .*now .*COMPATIBLE.*go on where it was begun", said)
            assert files_of(folder) == before
    assert one_line(finished.go_on("train")) is None


def write_digits(path: Path, shift: int) -> None:
    images, labels = load_digits(return_X_y=True)
    images = np.roll((images[:200] * 15).astype(np.uint8).reshape(-1, 8, 8), shift, 2)
    np.savez(path, x_train=images[:150], y_train=labels[:150], x_test=images[150:], y_test=labels[150:200])
    sources._read.cache_clear()  # a worker is a process of its own and has nothing in memory


@pytest.mark.parametrize("kind", ["imp", "compare"])
def test_data_that_are_replaced_before_a_worker_reads_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    write_digits(path, 0)
    study = {**STUDIES[kind], "data": {"name": "npz", "folder": str(path)}, "replicates": 1}
    replaced: list[int] = []

    def replace() -> None:
        if not replaced:
            write_digits(path, 1)
        replaced.append(1)

    def run() -> None:
        asked = Lottery if kind == "imp" else Compare
        config = validate(study, asked.config_type, "study")
        run_study(asked, config, Call(tmp_path / "runs", watcher=Heard(on_begin=replace)))

    with pytest.raises(DataError, match="were replaced while the run was at work") as caught:
        run()
    assert "\n" not in str(caught.value)
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "rows.jsonl").exists()
    content = yaml.safe_dump(study)
    (tmp_path / "study.yaml").write_text(content)
    said = str(one_line(invoke(kind, tmp_path / "study.yaml", "--out", tmp_path / "runs", "--workers", 1)))
    assert "begun with data" in said
    write_digits(path, 0)
    if kind == "compare":  # a lottery takes longer to its end
        run()
        assert (folder / "finished.json").exists()
