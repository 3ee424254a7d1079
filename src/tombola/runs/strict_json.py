"""JSON of strangers: what Python's parser takes beside the standard, or decides silently, is refused."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(content: bytes | str, infinite: bool = False) -> Any:
    """The value that `content` holds. Raises ValueError in one line for anything that is no JSON.

    That is also: keys given twice, numbers of thousands of digits, nesting beyond what Python can follow; and NaN,
    infinities and numbers too large for a float, unless they may be `infinite`, as in what Keras writes.
    """
    number, constant = (float, float) if infinite else (_finite, _refuse_constant)
    try:
        return json.loads(content, object_pairs_hook=_object, parse_float=number, parse_constant=constant)
    except (RecursionError, MemoryError):
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name!r:.60} is given twice")
        found[name] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.20} is too large a number")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
