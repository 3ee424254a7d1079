"""Nothing of ours opens a socket beyond this machine, or writes outside its folders; nor does what it loads.

What else a library keeps in a home, and that is let be, is `ORDINARY`;
docs/guide/files-and-network.md has the list for readers.
"""

from __future__ import annotations

import ast
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from small_hybrid import draw_images, hybrid_study
from watched import noted, watched_environment

ROOT = Path(__file__).parents[2]
LOADED_BY_IT = ("onnxruntime", "openvino")
LOADER = ROOT / "src" / "tombola" / "compression" / "onnx_packages.py"
ORDINARY = (".cache/matplotlib", ".config/matplotlib")
"""Below a home: matplotlib's list of fonts, which it makes once."""
OURS = ".cache/tombola"
NATIVELY = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

COMMANDS = """
import copy
import sys
from pathlib import Path
from typer.testing import CliRunner
from tombola.cli import app
from tombola.compression import measured
from tombola.studies.base import timing

measured.SECONDS, timing.QUICK_SECONDS = 0.001, 0.0
measured.sparsify = lambda model, *_: copy.deepcopy(model)  # its kernels are compiled for seconds
out = Path("runs")


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (arguments, result.output, result.exception)


run("imp", "imp.yaml", "--workers", 1)
run("hybrid", "hybrid.yaml", "--workers", 1)
run("train", "train.yaml", "--out", out)
(parent,) = out.glob("train-*")
run("prune", parent, "--sparsity", 0.5, "--out", out / "child")
run("export", out / "child", "--int8", "--max-drop", 1, "--out", "child.onnx")
for folder in sorted(path for path in out.iterdir() if path.is_dir()):
    run("show", folder)
    if folder.name.startswith(("lottery", "hybrid")):
        run("report", folder)
run("list")
(search,) = out.glob("lottery-imp-*")
assert list(search.rglob("*.keras")), "no Keras file was exported"
assert "onnxruntime" in sys.modules and "keras" in sys.modules, "the run was to load both"
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands were run, watched."""
    folder = tmp_path_factory.mktemp("watched")
    work = folder / "work"
    training = {"length": "4it", "evaluate_every": "2it", "learning_rate": "1e-2"}
    model = {"architecture": "lenet-300-100", "widths": [6, 4]}
    pruning = {"densities": [0.5]}
    search = {"name": "imp", "replicates": 1, "data": {"name": "digits"}, "model": model, "training": training}
    draw_images(work / "images")
    alone = {"replicates": 1, "head": None, "lenet": None, "exits": ["block3_conv2"], "features": ["gap"], "trees": 2}
    study = hybrid_study(work / "images", **alone)
    study["cnn"] |= {"training": training | {"batch_size": 16}, "pruning": pruning}
    configs = {"imp": search | {"pruning": pruning}, "hybrid": study}
    configs["train"] = {k: v for k, v in search.items() if k != "replicates"} | {"study": "train", "name": "parent"}
    for name, content in configs.items():
        (work / f"{name}.yaml").write_text(yaml.safe_dump(content))
    run_watched(folder, COMMANDS)
    return folder


def run_watched(folder: Path, program: str) -> None:
    done = attempt(folder, program)
    assert done.returncode == 0, done.stderr[-3000:]


def attempt(folder: Path, program: str, natively: bool = NATIVELY) -> subprocess.CompletedProcess[str]:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    environment = watched_environment(folder, natively)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)


def is_local(address: str) -> bool:
    return address in ("unix", "localhost", "::1") or address.startswith("127.")


class TestCommands:
    def test_nobody_beyond_this_machine_is_asked(self, watched: Path) -> None:
        """Native code would have ended by SIGSYS, on Linux; this reads what Python was asked for."""
        assert [address for address in noted(watched, "address") if not is_local(address)] == []

    def test_what_is_written_lies_in_our_folders(self, watched: Path) -> None:
        ours = [watched / "work", watched / "tmp", *(watched / "home" / name for name in (OURS, *ORDINARY))]
        roots = [Path("/dev/null"), Path("/dev/shm"), *ours, *(parent for path in ours for parent in path.parents)]
        inside = {path for path in map(Path, noted(watched, "write")) if any(path.is_relative_to(r) for r in ours)}
        outside = set(map(Path, noted(watched, "write"))) - inside - set(roots)
        assert sorted(outside) == []
        assert inside, "the log is empty: nothing was watched"

    def test_native_code_leaves_nothing_else_in_a_home(self, watched: Path) -> None:
        home = watched / "home"
        files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
        assert [name for name in files if not name.startswith((OURS, *ORDINARY))] == []

    def test_nothing_of_ours_stays_in_the_temporary_folder(self, watched: Path) -> None:
        left = [path for path in (watched / "tmp").rglob("*") if path.is_file()]
        assert left == []


class TestTheWatch:
    """It sees what it is there to see."""

    @pytest.mark.parametrize(
        "program",
        [
            "import socket; socket.getaddrinfo('tombola.invalid', 80)",
            "import urllib.request; urllib.request.urlopen('http://tombola.invalid')",
        ],
    )
    def test_of_a_look_up(self, program: str, tmp_path: Path) -> None:
        assert attempt(tmp_path, program, natively=False).returncode != 0
        assert any("tombola.invalid" in address for address in noted(tmp_path, "address"))

    def test_of_a_file_elsewhere(self, tmp_path: Path) -> None:
        other = tmp_path / "other.txt"
        assert attempt(tmp_path, f"open({str(other)!r}, 'w').close()").returncode == 0
        assert str(other) in noted(tmp_path, "write")

    @pytest.mark.skipif(not NATIVELY, reason="seccomp filters are Linux's, on x86-64 and ARM; the log is read anywhere")
    @pytest.mark.parametrize("family", [2, 10])
    def test_of_an_internet_socket_in_native_code(self, family: int, tmp_path: Path) -> None:
        program = f"import ctypes; ctypes.CDLL(None).socket({family}, 2, 0)"
        assert attempt(tmp_path, program).returncode == -signal.SIGSYS
        assert attempt(tmp_path, program.replace(f"({family}", "(1")).returncode == 0


def loaded_by(tree: ast.AST) -> set[str]:
    """The packages that code imports, by statement or by name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__", "importorskip"):
                found.add(str(node.args[0].value).split(".")[0])
    return found


@pytest.mark.parametrize("package", LOADED_BY_IT)
def test_packages_with_telemetry_are_loaded_in_one_place(package: str) -> None:
    """Which turns its telemetry off before; an import elsewhere would come first."""
    files = [path for part in ("src", "benchmarks", "tests") for path in (ROOT / part).rglob("*.py")]
    assert LOADER in files
    texts = {path: text for path in files if path != LOADER and package in (text := path.read_text())}
    assert [path for path, text in texts.items() if package in loaded_by(ast.parse(text))] == []


@pytest.mark.parametrize(
    "code", ["import onnxruntime as o", "from onnxruntime.x import y", "importlib.import_module('onnxruntime')"]
)
def test_an_import_elsewhere_would_be_found(code: str) -> None:
    assert "onnxruntime" in loaded_by(ast.parse(code))


def test_the_loader_sets_the_variable_before_the_import(tmp_path: Path) -> None:
    """Of any onnxruntime: a stand-in that says what it saw when it was loaded."""
    (tmp_path / "onnxruntime.py").write_text("import os\nseen = os.environ.get('ORT_DISABLE_TELEMETRY')\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from tombola.compression.onnx_packages import required\n"
        "assert required('onnxruntime').seen == '1'"
    )
    run_watched(tmp_path, program)


def test_openvino_does_not_find_what_it_sends_with(tmp_path: Path) -> None:
    """Of any OpenVINO: a stand-in that imports it as the real one does, which goes on without."""
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('it was loaded')\n")
    (tmp_path / "openvino.py").write_text(
        "try:\n    import openvino_telemetry\nexcept ImportError:\n    alone = True\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from tombola.compression.onnx_packages import required\n"
        "assert required('openvino').alone"
    )
    run_watched(tmp_path, program)


def test_openvino_asks_nobody_and_writes_nothing(tmp_path: Path) -> None:
    program = (
        "from tombola.compression.onnx_packages import required\n"
        "assert 'CPU' in required('openvino').Core().available_devices"
    )
    run_watched(tmp_path, program)
    assert [address for address in noted(tmp_path, "address") if not is_local(address)] == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
