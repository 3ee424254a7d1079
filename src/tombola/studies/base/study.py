"""What a study is: the few things that it has to say of itself, so that the life cycle (`life`) can run it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rich.console import Console

from tombola.runs.columns import Schema
from tombola.runs.configs import C, parts_of
from tombola.runs.folder import RunFolder, run_folder
from tombola.runs.inventory import is_finished
from tombola.runs.results import Artefacts
from tombola.runs.rows import Row
from tombola.studies.base.checks import failed_checks, named
from tombola.studies.base.output import Numbers
from tombola.studies.base.watching import SILENT, Watcher
from tombola.studies.base.work import Work

R = TypeVar("R")

WORDING = f"{version('tombola')}, 1"
"""Of what is `said` of finished runs: raise the number where the same rows come to another outcome, state or name.

What was said in another wording is not read back, for `tombola show` says the new one.
"""


@dataclass(frozen=True)
class Call:
    """How a study was asked for: what changes none of its results."""

    out: Path = Path("runs")
    """The folder of the run folders."""
    workers: int = 1
    results: Path | None = None
    """Where the user wants a copy of the artefacts."""
    data_dir: Path | None = None
    watcher: Watcher = SILENT
    says_plan: bool = True
    """Whether a new run says first what it will cost."""

    def within(self) -> Call:
        """The call of a study that another one runs first, and whose cost that one has said."""
        return replace(self, results=None, says_plan=False)


class Plan(Protocol):
    """What a study will run and cost."""

    @property
    def line(self) -> str:
        """All of it in one line."""

    @property
    def numbers(self) -> Numbers:
        """The same for a program."""

    def show(self, console: Console) -> None:
        """Prints the details, for `--dry-run`."""


class Study(ABC, Generic[C, R]):
    """One study in one folder. Subclasses write their science; `R` is what their rows come to.

    A unit is what a kill can lose: the rows that `unit`'s columns name together. Rows whose `kind` is in `schema` are
    held against it when they are read.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    unit: ClassVar[tuple[str, ...]]
    schema: ClassVar[Schema] = {}
    artefacts: ClassVar[Artefacts | None] = None
    """The files of `results/`, if the study leaves any there."""
    apart: ClassVar[tuple[str, ...]] = ()
    """Folders of what is only there to continue from: no part of a finished run."""
    checks: ClassVar[Mapping[str, str]] = {}
    """What the study checks of itself: columns that must not be false, and what they say when true."""

    def __init__(self, config: C, folder: RunFolder, call: Call = Call()) -> None:
        self.config = config
        self.folder = folder
        self.call = call

    # What a study has to say.

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the run depends on beside its config, for the manifest.

        Everything that cannot be run is refused here, before anything is trained: a run that was not begun leaves
        nothing behind.
        """

    @abstractmethod
    def work(self, work: Work) -> None:
        """Does what is not done yet, until the table has every row. May be killed at any instant and called again."""

    @abstractmethod
    def result(self, rows: Sequence[Row], complete: set[int]) -> R:
        """What the rows of the `complete` replicates come to; other rows are not looked at."""

    @abstractmethod
    def report(self, result: R) -> str:
        """`report.html`."""

    @staticmethod
    @abstractmethod
    def show(console: Console, result: R) -> None:
        """Prints the result."""

    @staticmethod
    @abstractmethod
    def outcome(result: R) -> str:
        """The result in a few words, for `tombola list`."""

    # What most studies need not say otherwise.

    @staticmethod
    def numbers(result: R) -> Numbers:
        """The result for a program, for `--json`."""
        return Numbers()

    @classmethod
    def started(cls, config: C) -> C:
        """The config as it is run, where a file that it names decides some of it."""
        return config

    @classmethod
    def place(cls, config: C, out: Path) -> RunFolder:
        """The folder of the run of `config`."""
        return run_folder(out, cls.name, getattr(config, "name", cls.name), config)

    @property
    def columns(self) -> Schema:
        """What rows of this run are held against; for studies whose config decides of it."""
        return self.schema

    @property
    def own_code(self) -> str | None:
        """The function of somebody's own that makes the network: it is named before it is called."""
        return getattr(getattr(self.config, "model", None), "factory", None)

    @property
    def own_functions(self) -> tuple[str, ...]:
        """All functions of somebody's own that its work calls."""
        from tombola.training.own import own_functions  # here: who lists runs need not load torch

        makers = [getattr(part, "factory", None) for part in parts_of(self.config)]
        return tuple(dict.fromkeys([*(name for name in makers if name is not None), *own_functions(self.config)]))

    @property
    def own_task(self) -> str | None:
        """The function of somebody's own that makes the task: it is named before it is called, too."""
        return getattr(getattr(self.config, "task", None), "factory", None)

    def check(self) -> None:
        """Refuses a call that does not fit what is in its folder, before a run there is continued or shown."""

    @property
    def called(self) -> str:
        """The name that a person gave the study, or its folder's."""
        return str(getattr(self.config, "name", self.folder.root.name))

    @property
    def replicates(self) -> int:
        """How many replicates are asked for."""
        return int(getattr(self.config, "replicates", 1))

    def complete(self, rows: Sequence[Row]) -> set[int]:
        """The replicates of which the table has all rows; a run without replicates is 0, once it is finished."""
        return {0} if is_finished(self.folder) else set()

    def state(self, done: int) -> str:
        """How far a run is of which `done` replicates are complete."""
        return f"{done} of {self.replicates} replicates"

    def failed_checks(self, rows: Sequence[Row]) -> list[str]:
        """What the run checked of itself and found not to be so."""
        return failed_checks(rows, self.unit, self.checks)

    def described(self, rows: Sequence[Row]) -> str:
        """A unit that has ended, in a few words: what it was, and how well it went."""
        return named(rows[0], self.unit)

    def plan(self, *, quick: bool) -> Plan | None:
        """What the study will cost; where `quick`, estimated in a moment, or None: its run begins without a word."""
        return None

    def write(self, result: R) -> None:
        """Writes the artefacts beside the report."""

    def is_ready(self) -> bool:
        """Whether other runs that a finished one stands on are there."""
        return True

    def said(self, result: R) -> dict[str, str] | None:
        """What a list says of the finished run; None where that hangs on more than its own files."""
        said = {"name": self.called, "outcome": self.outcome(result), "state": self.state(self.replicates)}
        return said | {"wording": WORDING}

    def model_folder(self, result: R) -> Path | None:
        """The model folder that a finished run gives away; None where it has no single one."""
        return None

    def settle(self, result: R) -> None:
        """Called when the run is finished, now or earlier."""

    def is_trained(self, name: str) -> bool:
        """Whether a file of the run is not made of its rows, so that it took work that nobody asked to repeat."""
        return name.startswith("checkpoints/")

    # What the others may ask.

    @functools.cached_property
    def recorded(self) -> dict[str, Any]:
        """The facts in the manifest of the run, which has begun."""
        found: dict[str, Any] = self.folder.read_manifest()["must_match"]
        return found

    def with_replicates(self, count: int) -> Study[C, R]:
        """The same study with as many replicates, or itself where it has more."""
        if count <= self.replicates:
            return self
        return type(self)(self.config.model_copy(update={"replicates": count}), self.folder, self.call)

    def read_rows(self) -> list[Row]:
        """The rows in the folder."""
        return self.folder.read_rows(self.unit, self.columns)
