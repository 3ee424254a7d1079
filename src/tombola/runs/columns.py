"""What the columns of a table may hold: a schema per study, looked at when its rows are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]
Schema = Mapping[str, Mapping[str, Check]]
"""By the kind of a row, what its columns must hold. Other columns, and kinds that are not named, are let pass."""


def misfit(row: Mapping[str, Any], columns: Mapping[str, Check]) -> str | None:
    """What is wrong with a row whose `columns` are known; None where all are there and hold what they may."""
    for column, fits in columns.items():
        if column not in row:
            return f"has no {column}"
        if not fits(row[column]):
            shown = ascii(row[column])
            return f"{column} cannot be {shown if len(shown) <= 40 else shown[:37] + '...'}"
    return None


def count(value: Any) -> bool:
    """A whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def number(value: Any) -> bool:
    """A finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def amount(value: Any) -> bool:
    """A finite number from 0 on."""
    return number(value) and value >= 0


def fraction(value: Any) -> bool:
    """A number from 0 to 1."""
    return number(value) and 0 <= value <= 1


def text(value: Any) -> bool:
    return isinstance(value, str)


def texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def truth(value: Any) -> bool:
    return isinstance(value, bool)


def counts(value: Any) -> bool:
    """A list of counts."""
    return isinstance(value, list) and all(map(count, value))


def optional(check: Check) -> Check:
    """`check`, or null."""
    return lambda value: value is None or check(value)
