"""What a person sees of a study at work: bars on a terminal, a line now and then in a file or pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import TaskID

from tombola.reports.terminal import LINE_SECONDS, progress_bars

FEATURES = "features of the frozen base"
"""The task of passing examples through a frozen base before anything is trained."""


@dataclass(frozen=True)
class Progress:
    """How far a task is; `said` is what else there is to say of it now."""

    task: str
    done: int
    total: int
    said: str = ""


class Watcher:
    """Told what happens. This one says nothing."""

    def say(self, line: str) -> None:
        """A line that a person wants to read."""

    def planned(self, line: Callable[[], str | None]) -> None:
        """Before a new run; `line` estimates what it will cost, which takes a moment."""

    def begin(self, things: str, total: int, done: int) -> None:
        """There are `total` units, called `things`, of which `done` were finished earlier."""

    def unit(self, said: str) -> None:
        """One more unit is finished."""

    def progress(self, now: Progress) -> None:
        """How far a part of the work is."""

    def counting(self, task: str) -> Callable[[int, int], None]:
        """A function of (done, total) that tells of a task."""
        return lambda done, total: self.progress(Progress(task, done, total))


SILENT = Watcher()


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A watcher that draws bars on a terminal, and prints lines elsewhere."""
    if console.is_terminal:
        with progress_bars(console) as bars:
            yield _Drawing(bars)
    else:
        yield _Printing(console)


def remaining(seconds: float, done: int, left: int) -> float:
    """The seconds that `left` units take when `done` took `seconds`."""
    return seconds / done * left


class _Drawing(Watcher):
    """One bar for all units, and one for each task."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.units: TaskID | None = None
        self.tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        self.bars.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def planned(self, line: Callable[[], str | None]) -> None:
        if found := line():
            self.say(found)

    def begin(self, things: str, total: int, done: int) -> None:
        """Anew, where a study runs another one first."""
        for task in self.bars.task_ids:
            self.bars.remove_task(task)
        self.tasks.clear()
        self.units = self.bars.add_task(f"all {things}", total=total, completed=done)

    def unit(self, said: str) -> None:
        if self.units is not None:
            self.bars.update(self.units, advance=1)

    def progress(self, now: Progress) -> None:
        if now.task not in self.tasks:
            self.tasks[now.task] = self.bars.add_task(now.task, total=now.total)
        task = self.tasks[now.task]
        if now.done < self.bars.tasks[self.bars.task_ids.index(task)].completed:
            self.bars.reset(task)  # the next of its kind; a bar that was full would show no time left
        said = f"{now.task}, {now.said}" if now.said else now.task
        self.bars.update(task, completed=now.done, total=now.total, description=said)


class _Printing(Watcher):
    """At most a line in LINE_SECONDS."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = self.printed = time.monotonic()
        self.things = ""
        self.total = self.done = self.earlier = 0

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def planned(self, line: Callable[[], str | None]) -> None:
        if found := line():
            self.say(found)

    def begin(self, things: str, total: int, done: int) -> None:
        self.began = time.monotonic()
        self.things, self.total, self.done, self.earlier = things, total, done, done
        self.say(f"{total} {things} to run{f', {done} of them finished earlier' if done else ''}")

    def unit(self, said: str) -> None:
        self.done += 1
        if self._is_due():
            left = remaining(time.monotonic() - self.began, self.done - self.earlier, self.total - self.done)
            self.say(f"{self.done} of {self.total} {self.things}, about {left:.0f} s left; {said}")

    def progress(self, now: Progress) -> None:
        if now.done < now.total and self._is_due():
            self.say(f"{now.task}: {now.done} of {now.total}{f', {now.said}' if now.said else ''}")

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS:
            return False
        self.printed = now
        return True
