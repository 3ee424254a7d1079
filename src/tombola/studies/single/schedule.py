"""`oneshot`, `iterative:5`, `linear:5`, `cubic:10`: how a child's target is spread over its fine-tuning."""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tombola.pruning.schedules import geometric, linear

CALLED_ALSO = {"one-shot": "oneshot", "geometric": "iterative"}
"""The names of `tombola.pruning.schedules` that differ from those of a child's rounds."""
KINDS = {
    "oneshot": "prune once, then fine-tune",
    "iterative": "N rounds, each removes the same fraction of the survivors and fine-tunes whole (default 3)",
    "linear": "N rounds, each removes as many and fine-tunes whole (default 3)",
    "cubic": "N steps along a cubic curve during the first half of one fine-tuning (default 10)",
}
ROUNDS = {"oneshot": 1, "iterative": 3, "linear": 3, "cubic": 10}


class PruneSchedule:
    """A kind and a number of rounds; parsed from and written as text, comparable by value."""

    __slots__ = ("kind", "rounds")

    def __init__(self, kind: str = "oneshot", rounds: int = 1) -> None:
        self.kind = kind
        self.rounds = rounds

    @classmethod
    def parse(cls, text: str) -> PruneSchedule:
        """`iterative:5` and the like; raises ValueError with the known ones for anything else."""
        match = re.fullmatch(r"([a-z-]+)(?::([1-9]\d{0,3}))?", text) if isinstance(text, str) else None
        kind = CALLED_ALSO.get(match[1], match[1]) if match else ""
        if match is None or kind not in KINDS or (kind == "oneshot" and match[2]):
            raise ValueError(f"a schedule is oneshot, iterative:N, linear:N or cubic:N, not {text!r}")
        return cls(kind, int(match[2] or ROUNDS[kind]))

    @property
    def gradual(self) -> bool:
        """Whether masks change while the child is trained, not between trainings."""
        return self.kind == "cubic"

    def targets(self, sparsity: float | None, start: float = 0.0) -> list[float | None]:
        """The sparsity after each round, from the parent's; None where structure or distribution bring their own."""
        if sparsity is None or self.kind == "oneshot":
            return [sparsity] * self.rounds
        spread = geometric if self.kind == "iterative" else linear
        return [*spread(sparsity, self.rounds, min(start, sparsity))]

    def __str__(self) -> str:
        return self.kind if self.kind == "oneshot" else f"{self.kind}:{self.rounds}"

    def __repr__(self) -> str:
        return f"PruneSchedule({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PruneSchedule) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> PruneSchedule:
            return value if isinstance(value, PruneSchedule) else cls.parse(value)

        return core_schema.no_info_plain_validator_function(read, serialization=core_schema.to_string_ser_schema())
