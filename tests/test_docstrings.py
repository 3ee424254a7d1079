"""Public functions say what goes in, what comes out and what fails, and their examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import sys

import pytest

PUBLIC = ("tombola", "tombola.pruning", "tombola.training", "tombola.models", "tombola.data")
FURTHER = {"tombola.compression.cost": ("count_flops",), "tombola.errors": ("one_line", "harmless")}


def public_functions() -> list[object]:
    named = [
        getattr(importlib.import_module(module), name)
        for module in PUBLIC
        for name in importlib.import_module(module).__all__
    ]
    named += [getattr(importlib.import_module(module), name) for module, names in FURTHER.items() for name in names]
    return list({id(found): found for found in named if inspect.isfunction(found)}.values())


@pytest.mark.parametrize("function", public_functions(), ids=lambda function: function.__name__)
def test_sections_and_examples(function: object) -> None:
    text = inspect.getdoc(function) or ""
    if function.__module__ != "tombola.errors":
        wanted = ["Args:", "Examples:"]
        if inspect.signature(function, eval_str=False).return_annotation not in (None, "None"):
            wanted.append("Returns:")
        assert [section for section in wanted if f"\n{section}\n" not in text] == []
        arguments = text.partition("\nArgs:\n")[2]
        missing = [name for name in inspect.signature(function).parameters if f"    {name}: " not in arguments]
        assert missing == []
    module = sys.modules[function.__module__]
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    tried = sum(runner.run(test).attempted for test in finder.find(function, function.__name__, module))
    assert runner.failures == 0
    assert tried or "See `" in text
