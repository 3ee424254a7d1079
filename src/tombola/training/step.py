"""`Step`: a point in training or a length of it, such as `50000it`, `3ep` or `2ep50it`.

One word for epochs and iterations together ends the confusion between them; what it comes to in iterations
depends on the data (iterations per epoch) and is asked for where it is needed.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

PATTERN = re.compile(r"(?:(\d{1,12})ep)?(?:(\d{1,12})it)?")


class Step:
    """Whole epochs plus iterations. Parsed from and written as text; immutable and comparable by value."""

    __slots__ = ("epochs", "extra")

    def __init__(self, epochs: int = 0, extra: int = 0) -> None:
        self.epochs = epochs
        self.extra = extra

    @classmethod
    def parse(cls, text: str) -> Step:
        """`2ep50it` and the like; raises ValueError with an example for anything else."""
        match = PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or not text.strip():
            raise ValueError(f"write a length as 50000it, 3ep or 2ep50it, not {text!r}")
        return cls(int(match[1] or 0), int(match[2] or 0))

    def iterations(self, per_epoch: int) -> int:
        """The number of iterations when an epoch has `per_epoch` of them."""
        return self.epochs * per_epoch + self.extra

    def __str__(self) -> str:
        epochs = f"{self.epochs}ep" if self.epochs else ""
        return epochs + (f"{self.extra}it" if self.extra or not self.epochs else "")

    def __repr__(self) -> str:
        return f"Step({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and (self.epochs, self.extra) == (other.epochs, other.extra)

    def __hash__(self) -> int:
        return hash((self.epochs, self.extra))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> Step:
            return value if isinstance(value, Step) else cls.parse(value)

        return core_schema.no_info_plain_validator_function(read, serialization=core_schema.to_string_ser_schema())
