"""What a person sees of a study at work: bars on a terminal, a line now and then in a file or pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from tombola.reports.terminal import LINE_SECONDS, say
from tombola.runs import stopping
from tombola.studies.base.numbers import duration

FIRST_SAID = 3
"""Units that have to end before anything is said of the time that is left."""
KEPT = 0.9
"""What a unit's time counts, beside that of the next one."""
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

    def begin(self, things: str, total: int, done: int, workers: int = 1) -> None:
        """There are `total` units, called `things`, of which `done` were finished earlier, for so many workers."""

    def unit(self, said: str) -> None:
        """One more unit is finished."""

    def progress(self, now: Progress) -> None:
        """How far a part of the work is."""

    def counting(self, task: str) -> Callable[[int, int], None]:
        """A function of (done, total) that tells of a task."""
        return lambda done, total: self.progress(Progress(task, done, total))


SILENT = Watcher()


@contextmanager
def watching(console: Console, *, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher that draws bars on a terminal, and prints lines elsewhere; a `quiet` one says nothing."""
    if quiet:
        yield SILENT
    elif console.is_terminal:
        with _bars(console) as bars:
            yield _Drawing(bars)
    else:
        yield _Printing(console)


class Pace:
    """How long is left, from when units ended: after three of them, a smoothed estimate, the last ones counting most.

    Where `workers` work side by side, all but one have a unit half done whenever one ends, on average.
    """

    def __init__(self, now: float, workers: int = 1) -> None:
        self.last = now
        self.ended = 0
        self._seen = False
        self._reached: int | None = None
        self._seconds = 0.0
        self._units = (workers - 1) / 2

    def starts(self, now: float) -> None:
        """Work is seen to go on: until the first time, its processes were only starting."""
        if not self._seen:
            self.last, self._seen = now, True

    def reached(self, done: int, now: float) -> None:
        """So many have ended by now; those of the first time it is said, nobody knows when."""
        count, before = done - (done if self._reached is None else self._reached), self.last
        self._reached, self.last = done, before if count else now
        for number in range(1, count + 1):
            self.unit(before + (now - before) * number / count)

    def unit(self, now: float) -> None:
        """One more has ended."""
        self._seen = True
        self._seconds = self._seconds * KEPT + now - self.last
        self._units = self._units * KEPT + 1
        self.last = now
        self.ended += 1

    def left(self, units: int, now: float) -> float | None:
        """The seconds until `units` more have ended; None where it is too early to say."""
        if self.ended < FIRST_SAID:
            return None
        one = self._seconds / self._units
        return units * one - min(now - self.last, one) if units else 0.0


class _Bars(Bars):
    """Below the bars stands that the command is about to stop, where somebody asked for it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if stopping.requested() is not None:
            yield stopping.SAID


def _bars(console: Console) -> Bars:
    """Bars of what, how far, since when and how long to go; what there is no room for is cut."""
    columns = (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Left(),
    )
    return _Bars(*columns, console=console, transient=True, expand=True)


class _Drawing(Watcher):
    """One bar for all units, and one for each task."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.units: TaskID | None = None
        self.tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        say(self.bars.console, line)

    def planned(self, line: Callable[[], str | None]) -> None:
        if found := line():
            self.say(found)

    def begin(self, things: str, total: int, done: int, workers: int = 1) -> None:
        """Anew, where a study runs another one first."""
        for task in self.bars.task_ids:
            self.bars.remove_task(task)
        self.tasks.clear()
        self.units = self._added(f"all {things}", total, done, workers)

    def unit(self, said: str) -> None:
        if self.units is not None:
            self._task(self.units).fields["pace"].unit(time.monotonic())
            self.bars.update(self.units, advance=1)

    def progress(self, now: Progress) -> None:
        if self.units is not None:
            self._task(self.units).fields["pace"].starts(time.monotonic())
        if now.task not in self.tasks:
            self.tasks[now.task] = self._added(now.task, now.total, 0)
        task = self.tasks[now.task]
        if now.done < self._task(task).completed:  # the next of its kind; a bar that was full would show no time left
            self.bars.reset(task, pace=Pace(time.monotonic()))
        said = f"{now.task}, {now.said}" if now.said else now.task
        self._task(task).fields["pace"].reached(now.done, time.monotonic())
        self.bars.update(task, completed=now.done, total=now.total, description=said)

    def _added(self, said: str, total: int, done: int, workers: int = 1) -> TaskID:
        return self.bars.add_task(said, total=total, completed=done, pace=Pace(time.monotonic(), workers))

    def _task(self, task: TaskID) -> Task:
        return self.bars.tasks[self.bars.task_ids.index(task)]


class _Left(ProgressColumn):
    """The time that is left."""

    def render(self, task: Task) -> Text:
        left = task.fields["pace"].left(int((task.total or 0) - task.completed), time.monotonic())
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


class _Printing(Watcher):
    """At most a line in LINE_SECONDS."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.printed = time.monotonic()
        self.pace = Pace(self.printed)
        self.things = ""
        self.total = self.done = 0

    def say(self, line: str) -> None:
        say(self.console, line)

    def planned(self, line: Callable[[], str | None]) -> None:
        if found := line():
            self.say(found)

    def begin(self, things: str, total: int, done: int, workers: int = 1) -> None:
        self.pace = Pace(time.monotonic(), workers)
        self.things, self.total, self.done = things, total, done
        self.say(f"{total} {things} to run{f', {done} of them finished earlier' if done else ''}")

    def unit(self, said: str) -> None:
        self.done += 1
        now = time.monotonic()
        self.pace.unit(now)
        if self._is_due():
            left = self.pace.left(self.total - self.done, now)
            about = "" if left is None else f", about {duration(left)} left"
            self.say(f"{self.done} of {self.total} {self.things}{about}; {said}")

    def progress(self, now: Progress) -> None:
        self.pace.starts(time.monotonic())
        if now.done < now.total and self._is_due():
            self.say(f"{now.task}: {now.done} of {now.total}{f', {now.said}' if now.said else ''}")

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS:
            return False
        self.printed = now
        return True
