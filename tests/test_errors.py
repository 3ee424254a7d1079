"""Errors are one line, whoever raised them."""

from __future__ import annotations

import pytest

from tombola.errors import one_line, one_line_by_name


@pytest.mark.parametrize(
    ("error", "said", "by_name"),
    [
        (ValueError("no such\n  layer\n"), "no such layer", "ValueError: no such layer"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (RuntimeError("\n \n"), "RuntimeError", "RuntimeError"),
        (SystemExit(3), "3", "SystemExit: 3"),
    ],
)
def test_one_line_of_any_error(error: BaseException, said: str, by_name: str) -> None:
    assert one_line(error) == said
    assert one_line_by_name(error) == by_name


def test_a_long_error_is_cut_and_says_so() -> None:
    error = ValueError("x" * 301)
    assert one_line(error) == "x" * 297 + "..."
    assert one_line(error, 301) == "x" * 301
