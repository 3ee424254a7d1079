"""The words that we do not use, held against every message, help text and page (architecture.md has those we do)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UNUSED = {
    r"\w+\(s\)": "write the singular or the plural (`errors.counted`)",
    r"(?:told|tell) \w+ ?apart|told apart": '"no significant difference (n = 4)"',
    r"budgets?": "distribution",
    r"pictures?": "image, or figure",
    r"twins?": "Keras export",
    r"outlooks?": "plan",
    r"promises?": "says; check",
    r"stated share|shares? of (?:its|the|all) (?:weights|examples)": "fraction",
    r"point\(s\)": "point or points",
    r"(?:in|of) silence": "silently",
    r"ways? to a class": "pipeline",
    r"heals?": "recovers",
    r"flatters?": "favours; is too good",
    r"let be|part(?:s|ing)? ways": "say what is done",
    r"(?:simply|obviously|trivially|easily)": "leave it out",
    r"(?:utili[sz]e|leverage)s?": "use",
    r"(?:this|our) (?:session|sandbox|workplace)": "the project speaks of itself alone",
}
KEYS = re.compile(r"[a-z_]+")
"""A string that is one such word is a key and no text."""


def found_in(text: str) -> list[str]:
    """What is used of the words in a text, with what to write instead."""
    return [
        f"{match.group()!r}: {instead}"
        for pattern, instead in UNUSED.items()
        for match in re.finditer(rf"\b(?:{pattern})(?!\w)", text, re.IGNORECASE)
    ]


def texts_of(source: str) -> Iterator[str]:
    """The texts in a module's strings, docstrings among them; the fixed parts of those that are formatted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not KEYS.fullmatch(node.value):
            yield node.value


@pytest.mark.parametrize("text", ["3 weight(s) left", "Not told apart from it", "the budget of a layer", "a Picture"])
def test_they_are_found(text: str) -> None:
    assert found_in(text)


@pytest.mark.parametrize("text", ["shared by all", "a distribution of weights", "the pictured mask", "(s) seconds"])
def test_nothing_else_is(text: str) -> None:
    assert not found_in(text)


def test_messages_and_docstrings() -> None:
    used = {
        f"{path.relative_to(ROOT)}: {said}"
        for path in (ROOT / "src").rglob("*.py")
        for text in texts_of(path.read_text())
        for said in found_in(text)
    }
    assert not used


def test_pages() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.yaml")]
    assert len(pages) > 40
    used = {f"{path.relative_to(ROOT)}: {said}" for path in pages for said in found_in(path.read_text())}
    assert not used


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
