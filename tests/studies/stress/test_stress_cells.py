"""Which networks a config asks for, and the units of their lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tombola.errors import ConfigError
from tombola.runs.configs import validate
from tombola.studies.stress.asked import stress_config
from tombola.studies.stress.cells import LEARN, LOOK, PRUNE, cells_of, life_of
from tombola.studies.stress.config import StressConfig, label_of


def test_the_default_is_that_of_the_users() -> None:
    config = StressConfig()
    assert (config.model, config.strategies, config.levels) == (("distilgpt2",), ("entropy", "random"), (0.1, 0.3, 0.5))
    assert (config.protocol, config.cycles, config.epochs, config.seed) == ("diverse", 3, 1, 42)


def test_cells_of_a_replicate() -> None:
    config = StressConfig(model=("tiny",), remedies=("none", "reset_dormant"), levels=(0.1, 0.3))
    cells = list(cells_of(config, 1))
    assert len(set(cells)) == len(cells) == 2 + 1 + 2 * 2 + 2 * 2 * 5
    assert {cell.seed for cell in cells} == {1}
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell.strategy for cell in cells[:3]] == ["dense", "dense", "gradual"]
    assert {cell.draw for cell in cells if cell.strategy == "random"} == set(range(5))


def test_units_of_a_life_are_in_order_of_time() -> None:
    config = StressConfig(cycles=2, prune_cycles=2)
    life = life_of(config, tasks=3)
    assert [moment.does for moment in life[:9]] == [PRUNE, *[LEARN] * 3, LOOK, *[LEARN] * 3, LOOK]
    assert len(life) == 2 * 9
    assert [moment.unit for moment in life] == list(range(18))
    assert [moment.cycle for moment in life if moment.does == LOOK] == [1, 2, 3, 4]
    assert [moment.cycle for moment in life if moment.does == PRUNE] == [0, 2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"levels": [0.0]}, "greater than 0"),
        ({"levels": [1]}, "less than 1"),
        ({"levels": []}, "name 1 to 64"),
        ({"strategies": ["entropy", "entropy"]}, "once"),
        ({"structure": "neuron"}, "the strategy entropy looks at heads"),
        ({"remedies": ["reset_dormant"]}, "begin with none"),
        ({"model": ["tiny", "tiny"]}, "once"),
        ({"model": [""]}, "a model is"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"cycles": 0}, "greater than or equal"),
        ({"protocol": "others"}, "diverse"),
    ],
)
def test_a_wrong_config_is_named_in_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        validate(wrong, StressConfig, "here")
    assert "\n" not in str(caught.value)


def test_options_come_before_the_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("study: stress\nmodel: [tiny]\nlevels: [0.2]\ncycles: 5\n")
    config = stress_config(str(file), {"levels": ["0.4"], "quick": True}, ["epochs=2"])
    assert (config.model, config.levels, config.cycles, config.epochs) == (("tiny",), (0.4,), 5, 2)
    assert stress_config(None, {"quick": True}, ()).cycles == 2


@pytest.mark.parametrize("name", ["facebook/opt-125m", "./opt-125m", "/srv/models/opt-125m/", "../opt-125m"])
def test_a_model_is_called_alike_wherever_its_run_is_looked_at(name: str) -> None:
    assert label_of(name) == "opt-125m"


@pytest.mark.parametrize("name", ["..", ".", "/", "*?", "x/../.."])
def test_a_model_of_any_name_has_a_folder_of_its_own(name: str) -> None:
    assert label_of(name) == "model"
