"""A watcher that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable

from tombola.studies.base.watching import Progress, Watcher


class Heard(Watcher):
    def __init__(self, on_begin: Callable[[], object] = lambda: None) -> None:
        self.on_begin = on_begin
        self.lines: list[str] = []
        self.plans: list[str | None] = []
        self.begun: list[tuple[int, int]] = []
        self.units: list[str] = []
        self.tasks: list[Progress] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def planned(self, line: Callable[[], str | None]) -> None:
        self.plans.append(line())

    def begin(self, things: str, total: int, done: int, workers: int = 1) -> None:
        self.on_begin()
        self.begun.append((total, done))

    def unit(self, said: str) -> None:
        self.units.append(said)

    def progress(self, now: Progress) -> None:
        self.tasks.append(now)
