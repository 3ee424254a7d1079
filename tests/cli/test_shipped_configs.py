"""The configs that Tombola brings: found by name, listed, printed to be edited, refused where they do not belong."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tombola.cli import app
from tombola.cli.configs import COMMANDS, read_config
from tombola.errors import ConfigError
from tombola.runs.configs import Config
from tombola.runs.folder import run_folder
from tombola.runs.shipped import FOLDER, Shipped, config_path, shipped
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.single.config import CompareConfig, TrainConfig
from tombola.studies.stress.config import StressConfig

KINDS: dict[str, type[Config]] = {
    "lottery": LotteryConfig,
    "train": TrainConfig,
    "compare": CompareConfig,
    "hybrid": HybridConfig,
    "stress": StressConfig,
}
RUNS = {
    "criteria": "compare-lenet5-fashion-c4616873",
    "criteria-vgg11": "compare-vgg11-cifar10-b6b0b91e",
    "leaves-lenet5": "train-demo-lenet-65889cfb",
    "vgg16-imagenet": "train-full-vgg16-eebcc6bf",
    "apple": "hybrid-apple-5b38d6df",
    "pneumonia": "hybrid-pneumonia-c219779f",
    "conv2": "lottery-conv2-e92093f2",
    "digits": "lottery-digits-23f75408",
    "leaves": "lottery-lenet-apple-b2bd85ea",
    "fashion": "lottery-lenet5-fashion-c6689824",
    "mnist-paper": "lottery-lenet-300-100-ecf27a11",
    "mnist": "lottery-lenet-300-100-short-0a80b674",
    "resnet20": "lottery-resnet20-dd226407",
    "leaves-head": "lottery-vgg16-head-46952f88",
    "leaves-vgg16": "lottery-vgg16-small-62022e54",
    "rewind-modes": "lottery-rewind-modes-f96cddbc",
    "speed-conv6": "lottery-speed-conv6-61fd0f14",
    "speed-ffn": "lottery-speed-ffn-b4e61414",
    "speed-head": "lottery-speed-head-1a61f0f5",
    "speed-lenet5": "lottery-speed-lenet5-55889160",
    "speed-300-100": "lottery-speed-lenet-300-100-67054b09",
    "speed-resnet20": "lottery-speed-resnet20-65670197",
    "speed-vgg16": "lottery-speed-vgg16-e0717539",
    "speed-vgg-head": "lottery-speed-vgg-head-4e38ab97",
    "digits-rigl": "train-digits-rigl-fdd04a8d",
    "lenet5": "train-lenet5-fashion-9f307d57",
    "vgg16-base": "train-vgg16-base-28c319b2",
    "stress-tiny": "stress-stress-tiny-7a20d55b",
}
"""The run folder of each: a change here gives a finished run of somebody's another name."""

each = pytest.mark.parametrize("config", shipped().values(), ids=lambda config: config.name)


def call(*arguments: object, columns: int = 80) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": str(columns)})
    return result.exit_code, result.stdout, result.stderr


def test_all_are_there_under_one_name_each() -> None:
    assert set(RUNS) == set(shipped())
    assert len(shipped()) == len(list(FOLDER.iterdir()))
    stems = {config.path.stem: config.name for config in shipped().values()}
    assert all(stems.get(name, name) == name for name in shipped()), "a name is the stem of another one's file"


@each
def test_by_name_and_by_stem_the_run_has_the_name_it_had(
    config: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for asked in (config.name, config.path.stem):
        wanted = read_config(asked, KINDS[config.study], [])
        folder = run_folder(Path("runs"), config.study, getattr(wanted, "name", config.name), wanted)
        assert folder.root.name == RUNS[config.name]


@each
def test_printed_and_read_from_elsewhere_it_is_the_same(
    config: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = call("configs", config.name)
    assert code == 0
    assert printed == config.path.read_text()
    Path("my.yaml").write_text(printed)
    assert read_config("my.yaml", KINDS[config.study], []) == read_config(config.name, KINDS[config.study], [])


def test_one_line_each_in_a_terminal_of_80_columns() -> None:
    code, listed, _ = call("configs")
    assert code == 0
    lines = listed.splitlines()
    assert max(map(len, lines)) <= 80
    for config in shipped().values():
        (line,) = [line for line in lines if line.split()[:2] == [COMMANDS[config.study], config.name]]
        assert config.does in line
        assert config.takes in line


def test_a_name_is_a_name_and_a_file_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()  # perhaps somebody's data
    assert config_path("digits") == shipped()["digits"].path
    for file in ("digits.yaml", "./digits", "some/digits", str(tmp_path / "digits"), "."):
        assert config_path(file) == Path(file)
    Path("beside").mkdir()
    Path("beside/part.yaml").touch()
    assert config_path("part.yaml", Path("beside")) == Path("beside/part.yaml")
    Path("part.yaml").touch()
    assert config_path("part.yaml", Path("beside")) == Path("part.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("imp", "digist"), "no config is called 'digist'; did you mean 'digits'? `tombola configs` lists"),
        (("imp", "imp_digitz"), "did you mean 'imp_digits'?"),
        (("imp", "zzzzzz"), "no config is called 'zzzzzz'; `tombola configs` lists"),
        (("imp", ""), "no config is called ''; name one that `tombola configs` lists, or a file, such as ./my.yaml"),
        (("configs", "digist"), "did you mean 'digits'?"),
        (("imp", "none.yaml"), "none.yaml: no such config file; `tombola configs` lists"),
        (("imp", "lenet5"), "lenet5: a config of another command; run it with: tombola train lenet5"),
        (("hybrid", "imp_digits"), "tombola imp imp_digits"),
        (("train", "criteria"), "tombola compare criteria"),
        (("compare", "apple"), "tombola hybrid apple"),
        (("stress", "digits"), "tombola imp digits"),
    ],
)
def test_what_is_no_config_of_the_command_is_refused(arguments: tuple[str, ...], said: str) -> None:
    code, printed, complained = call(*arguments)
    assert (code, printed) == (2, "")
    assert complained.startswith("error: ")
    assert complained.count("\n") == 1
    assert said in complained


def test_another_commands_own_file_names_the_right_one(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(shipped()["criteria"].path.read_text())
    with pytest.raises(ConfigError, match=f"run it with: tombola compare {file}"):
        read_config(str(file), LotteryConfig, [])
    file.write_text("study: [compare]\nname: a\n")
    with pytest.raises(ConfigError, match="study"):
        read_config(str(file), LotteryConfig, [])
