"""Somebody's own models: made when the person at the keyboard names them, described in one line when that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import own_models
from tombola.errors import ConfigError, ModelError
from tombola.models import FactorySpec, load_model, save_model
from tombola.models.factory import is_factory_name, make_with
from tombola.models.tensors import content_sha256
from tombola.pruning import prune
from tombola.runs.configs import validate

SPEC = FactorySpec(factory="own_models:dense", input_shape=(1, 8, 8), classes=10)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("models:make", True),
        ("my.package.models:make", True),
        ("_a._b:_c", True),
        ("models:Net", True),
        ("models", False),
        ("models:", False),
        (":make", False),
        ("models:make()", False),
        ("models:make.more", False),
        ("models:make:more", False),
        ("../models:make", False),
        ("models .x:make", False),
        ("models:make\n", False),
        ("2models:make", False),
        ("C:\\models", False),
    ],
)
def test_the_form_of_a_name(text: str, is_one: bool) -> None:
    assert is_factory_name(text) is is_one


@given(st.text(max_size=20))
@example("os:system\n")
@example("a:é")
def test_a_spec_takes_a_name_exactly_when_it_is_one(text: str) -> None:
    content = {"factory": text, "input_shape": [1, 8, 8], "classes": 10}
    if is_factory_name(text):
        assert validate(content, FactorySpec, "spec.json").factory == text
    else:
        with pytest.raises(ConfigError, match="factory"):
            validate(content, FactorySpec, "spec.json")


def test_a_function_a_class_and_a_name() -> None:
    assert isinstance(make_with("own_models:dense"), nn.Sequential)
    assert isinstance(make_with("own_models:Tied"), own_models.Tied)
    assert isinstance(make_with(own_models.dense), nn.Sequential)
    assert isinstance(make_with(lambda: nn.Linear(2, 2)), nn.Linear)


def test_what_it_draws_comes_from_the_seed() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, three = (content_sha256(make_with("own_models:dense", seed).state_dict()) for seed in (0, 0, 1))
    assert one == two != three
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("own_models:nothing", "own_models has no function 'nothing'; it has: "),
        ("own_models:__doc__", "has no function '__doc__'"),
        ("no_such_package:make", "cannot import 'no_such_package' from here or from what is installed"),
        ("own_models:no_module", r"own_models:no_module\(\) gave a int"),
        ("own_models:failing", "RuntimeError: no such model today"),
        ("own_models:leaving", "SystemExit"),
        ("own_models:with_argument", "missing 1 required positional argument"),
        ("not a name", "not of the form package.module:function"),
        (own_models.failing, r"failing\(\) failed"),
    ],
)
def test_one_line(factory: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        make_with(factory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("raise KeyError('x')\n", "KeyError"),
        ("def make(:\n", "SyntaxError"),
        ("import no_such_thing\n", "ModuleNotFoundError"),
        ("make = 3\n", "has no function 'make'; it has: none"),
    ],
)
def test_a_module_that_cannot_be_imported(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for in the current folder, as `python -m` does; one that ends the process must not end ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"made_here_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(ModelError, match=said) as caught:
        make_with(f"{name}:make")
    assert "\n" not in str(caught.value)
    sys.modules.pop(name, None)


def test_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "package_of_here").mkdir()
    (tmp_path / "package_of_here" / "nets.py").write_text("from torch import nn\ndef make(): return nn.Linear(3, 2)\n")
    model = make_with("package_of_here.nets:make")
    assert (model.in_features, model.out_features) == (3, 2)


class TestModelFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        model = make_with("own_models:dense")
        masks = prune(model, 0.5)
        masks.apply_(model)
        save_model(tmp_path / "model", SPEC, model, masks, {"round": 1})
        return tmp_path / "model"

    def test_comes_back_by_its_factory(self, folder: Path) -> None:
        for factory in ("own_models:dense", own_models.dense):
            model, spec, masks = load_model(folder, factory)
            assert spec == SPEC
            assert masks is not None
            assert masks.removed_nonzeros(model) == 0
            assert masks.kept == 592

    def test_is_refused_without(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"made by code of its owner, own_models:dense; if you trust") as caught:
            load_model(folder)
        assert "load_model(folder, factory='own_models:dense'), or --factory own_models:dense" in str(caught.value)

    @pytest.mark.parametrize("factory", ["own_models:tied", "own_models:without_weights", "own_models:of_two_classes"])
    def test_another_factory_does_not_fit(self, factory: str, folder: Path) -> None:
        with pytest.raises(ModelError, match="the files do not make the model of its spec") as caught:
            load_model(folder, factory)
        assert "\n" not in str(caught.value)

    def test_a_lazy_one(self, tmp_path: Path) -> None:
        model = make_with("own_models:lazy")
        inputs = torch.rand(2, 1, 8, 8)
        logits = model(inputs)
        save_model(tmp_path / "model", SPEC.model_copy(update={"factory": "own_models:lazy"}), model)
        assert torch.equal(load_model(tmp_path / "model", "own_models:lazy")[0](inputs), logits)
