"""What a command says with `--json`: one object of one form for every study, in which a number that is none is null.

The form is documented in the guide, `docs/guide/command-line.md`, and `Output` is what holds it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from tombola.reports.tables import Table

NOT_FINITE = "it was computed and is not a finite number"
NO_INTERVAL = "one replicate has no interval"
SPELLED = (PurePath, bytes)
"""What is written as text: paths, and `!!binary` of a YAML file."""


@dataclass(frozen=True)
class Numbers:
    """A result for a program: rows of a table and perhaps a verdict, of numbers, words, and dataclasses of these.

    `units` says what the numbers are in, by column.
    """

    table: Sequence[Any] = ()
    verdict: Any = None
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table, keys: Sequence[str]) -> Numbers:
        """A table of words, by the `keys` of its columns: titles are a person's, and may be worded anew."""
        return cls([dict(zip(keys, row, strict=True)) for row in table.rows])


class Output(BaseModel):
    """The object. `reasons` says of what is null in table and verdict why there is no number, by JSON pointer."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    name: str | None = None
    folder: str | None = None
    state: str | None = None
    finished: bool | None = None
    outcome: str | None = None
    verdict: dict[str, Any] | None = None
    table: list[dict[str, Any]] = []
    units: dict[str, str] = {}
    paths: dict[str, str] = {}
    reasons: dict[str, str] = {}

    def to_json(self) -> str:
        """One object in ASCII, which every terminal and encoding can take."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)


def output(kind: str, numbers: Numbers = Numbers(), *, paths: Mapping[str, Path] | None = None, **said: Any) -> Output:
    """The object of `kind`, with what is `said`: `name`, `folder` and the others by their names."""
    reasons: dict[str, str] = {}
    return Output(
        kind=kind,
        verdict=None if numbers.verdict is None else _plain(numbers.verdict, "/verdict", reasons),
        table=[_plain(row, f"/table/{index}", reasons) for index, row in enumerate(numbers.table)],
        units=dict(numbers.units),
        paths={name: str(path.resolve()) for name, path in (paths or {}).items()},
        reasons=reasons,
        **said,
    )


def _plain(value: Any, at: str, reasons: dict[str, str]) -> Any:
    """`value` as JSON has it, numpy's scalars as Python's. What is not finite becomes null, with its pointer's reason.

    Raises TypeError for what is no JSON and has no spelling that a program could count on.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        reasons[at] = NOT_FINITE
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        if {"mean", "sd", "n"} <= value.keys() and value["n"] < 2:
            reasons.update({f"{at}/{key}": NO_INTERVAL for key, part in value.items() if part is None})
        return {str(key): _plain(part, f"{at}/{_escaped(str(key))}", reasons) for key, part in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(part, f"{at}/{index}", reasons) for index, part in enumerate(value)]
    if isinstance(value, SPELLED):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{at} is a {type(value).__name__}, which JSON has no word for")


def _escaped(key: str) -> str:
    """A key within a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
