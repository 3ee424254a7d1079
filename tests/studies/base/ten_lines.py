"""A study of ten lines: every unit is two rows with squares of numbers. What it inherits is what is tested."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from tombola.errors import ConfigError
from tombola.runs.atomic import make_folder, write_json
from tombola.runs.configs import Config
from tombola.runs.executors import Emit
from tombola.runs.results import Artefacts
from tombola.runs.rows import Row
from tombola.studies.base.study import Study
from tombola.studies.base.watching import Progress
from tombola.studies.base.work import Finished, Work, write_unit

STARTED = "TOMBOLA_TEST_STARTED"
"""Names a file that gets a line for every unit that is computed."""


class Squares(Config):
    study: Literal["squares"] = "squares"
    name: str = "small"
    replicates: int = 2
    numbers: int = 2
    refused: str | None = None

    def identity(self) -> dict[str, Any]:
        return {key: value for key, value in super().identity().items() if key not in ("replicates", "refused")}


class Cell(NamedTuple):
    folder: Path
    replicate: int
    numbers: int


def square(cell: Cell, emit: Emit) -> None:
    for number in range(cell.numbers):
        path = cell.folder / f"{cell.replicate}-{number}.json"
        if not path.exists():
            if STARTED in os.environ:
                with Path(os.environ[STARTED]).open("a") as file:
                    file.write(f"{path.name}\n")
            emit(Progress(f"replicate {cell.replicate}", number, cell.numbers, "squaring"))
            unit = {"replicate": cell.replicate, "number": number}
            write_unit(path, [{"kind": kind, **unit, "value": number**power} for kind, power in POWERS.items()])
        emit(Finished(path))


POWERS = {"square": 2, "cube": 3}


class SquaresStudy(Study[Squares, list[Row]]):
    name = "squares"
    config_type = Squares
    unit = ("replicate", "number")
    artefacts = Artefacts("sum.json", ("sum.json", "rows.json"), ("perhaps.json",))

    def facts(self) -> dict[str, Any]:
        if self.config.refused is not None:
            raise ConfigError(self.config.refused)
        return {"powers": dict(POWERS)}

    def work(self, work: Work) -> None:
        files = self.folder.checkpoints
        left = [
            index
            for index in range(self.replicates)
            if index not in self.complete(work.rows) or len([*files.glob(f"{index}-*.json")]) < self.config.numbers
        ]
        work.watcher.begin("units", len(left) * self.config.numbers, 0)
        work.cells(square, [Cell(files, index, self.config.numbers) for index in left])

    def complete(self, rows: Sequence[Row]) -> set[int]:
        ends = Counter(row["replicate"] for row in rows if row["kind"] == "cube")
        return {index for index, count in ends.items() if count == self.config.numbers}

    def result(self, rows: Sequence[Row], complete: set[int]) -> list[Row]:
        return [row for row in rows if row["replicate"] in complete]

    def report(self, result: list[Row]) -> str:
        return f"<p>{len(result)} rows</p>"

    @staticmethod
    def show(console: Console, result: list[Row]) -> None:
        console.print(SquaresStudy.outcome(result))

    @staticmethod
    def outcome(result: list[Row]) -> str:
        return f"sum {sum(row['value'] for row in result)}"

    def described(self, rows: Sequence[Row]) -> str:
        return f"{rows[0]['number']} squared"

    def failed_checks(self, rows: Sequence[Row]) -> list[str]:
        return [f"{row['value']} is negative" for row in rows if row["value"] < 0]

    def write(self, result: list[Row]) -> None:
        make_folder(self.folder.results)
        write_json(self.folder.results / "rows.json", json.loads(json.dumps(result)))
        write_json(self.folder.results / "sum.json", {"run": self.folder.root.name, "sum": self.outcome(result)})
