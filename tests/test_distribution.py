"""What is published: a source archive from which a wheel is built that works where this repository is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("benchmarks", "docs", "src", "tests")


def run(*command: object, cwd: Path, **variables: str) -> str:
    """What it prints; it sees nothing of this repository, neither its path nor how `make` installs it."""
    environment = {n: value for n, value in os.environ.items() if not n.startswith(("PYTHONPATH", "MYPYPATH", "PIP_"))}
    environment |= variables
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """A sdist or wheel, built with what is installed here."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", code, cwd=source).split()[-1]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive."""
    home = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        shutil.copytree(ROOT / part, home / "copy" / part, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy(file, home / "copy")
    return build("sdist", home / "copy", home)


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive alone."""
    home = tmp_path_factory.mktemp("wheel")
    with tarfile.open(archive) as packed:
        packed.extractall(home, filter="data")
    return build("wheel", home / archive.name.removesuffix(".tar.gz"), home)


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `env` that has the wheel; what it depends on is borrowed from here."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "env", with_pip=False)
    python = home / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    (site,) = (home / "env" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for extra in ("keras", "onnx", "transformers", "torch_geometric"):  # a plain install has none
        (site / f"{extra}.py").write_text("raise ImportError('not installed')\n")
    where = run(python, "-c", "import tombola; print(tombola.__file__)", cwd=home)
    assert where.startswith(str(site))
    return home


def test_the_source_archive_has_what_its_tests_and_pages_need(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    for part in PARTS:
        wanted = {
            p.relative_to(ROOT).as_posix() for p in (ROOT / part).rglob("*") if p.suffix in (".py", ".md", ".yaml")
        }
        assert wanted <= names
    assert {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", "mkdocs.yml"} <= names


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    ours = [p for p in (source / "tombola").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert names == {path.relative_to(source).as_posix() for path in ours}
    assert any(name.endswith(".yaml") for name in names)


def test_an_index_can_show_its_readme(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (metadata,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        about = message_from_bytes(packed.read(metadata))
    text = about.get_payload()
    assert isinstance(text, str)
    assert "# Tombola" in text
    assert "![" not in text
    assert "](docs" not in text
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["Author"] == "Tombola maintainers"
    assert about.get_all("Project-URL") is None
    assert about["Home-page"] is None


@pytest.mark.slow
def test_installed_elsewhere_it_works(elsewhere: Path) -> None:
    tombola = elsewhere / "env" / "bin" / "tombola"
    assert "imp" in run(tombola, "--help", cwd=elsewhere)
    assert "taylor" in run(tombola, "list", "criteria", cwd=elsewhere)
    assert "digits" in run(tombola, "configs", cwd=elsewhere)
    brief = ("training.length=10it", "training.evaluate_every=5it", "controls=[]", "pruning.target_density=0.6")
    settings = [part for setting in brief for part in ("--set", setting)]
    printed = run(tombola, "imp", "digits", *settings, "--replicates", 1, "--workers", 1, cwd=elsewhere)
    assert "report.html" in printed
    (study,) = (elsewhere / "runs").glob("lottery-*")
    assert (study / "report.html").exists()
    small = ("--data", "digits", "--sparsity", 0.5, "--finetune", "10it", "--out", "child")
    assert "50.0% sparse" in run(tombola, "prune", "lenet-300-100", *small, cwd=elsewhere)
    code = "import tombola; print(tombola.load_model('child')[2])"
    assert "Masks(3 layers" in run(elsewhere / "env" / "bin" / "python", "-c", code, cwd=elsewhere)


def test_a_shell_learns_its_commands_and_configs(elsewhere: Path) -> None:
    tombola, home = elsewhere / "env" / "bin" / "tombola", elsewhere / "home"
    home.mkdir()
    asked = {"HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run(tombola, "--install-completion", "bash", cwd=elsewhere, **asked)
    (script,) = (file for file in home.rglob("*.sh") if "_TOMBOLA_COMPLETE" in file.read_text())
    assert script.name in (home / ".bashrc").read_text()
    typed = {"_TOMBOLA_COMPLETE": "complete_bash", "COMP_WORDS": "tombola imp di", "COMP_CWORD": "2"}
    assert run(tombola, cwd=elsewhere, **typed).split() == ["digits"]
