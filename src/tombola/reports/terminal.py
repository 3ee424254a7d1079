"""What all studies show in a terminal: tables, and sentences. Progress: `studies/base/watching`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from tombola.errors import harmless
from tombola.reports.tables import Table

LINE_SECONDS = 10.0
"""Without a terminal, a line of progress is printed about this often."""
LONGEST_WORD = 32
"""Words that are longer, such as names of somebody's functions, may be broken to fit."""


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints sentences, wrapped at words: a path that is longer than a line stays whole."""
    lines = [part for line in harmless(text).split("\n") for part in _wrapped(line, console.width)]
    console.print(Text("\n".join(lines), style or ""), soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    """A line as lines of whole words."""
    found = [""]
    for word in line.split(" "):
        longer = f"{found[-1]} {word}" if found[-1] else word
        if not found[-1] or cell_len(longer) <= width:
            found[-1] = longer
        else:
            found.append(word)
    return found


def drawn(table: Table, left: int = 2, bold: tuple[str, ...] = ()) -> Drawn:
    """A table for the terminal; the first `left` columns hold words. Rows whose second begins with `bold` are bold."""
    return Drawn(table, left, bold)


@dataclass(frozen=True)
class Drawn:
    """A table that is never wider than what it is printed on.

    Words fold between words, titles too; numbers do not. Where there is no room left columns are dropped, from the
    last one, and named below.
    """

    table: Table
    left: int
    bold: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = [Column.of(self.table, number, self._holds_words(number)) for number in range(self._count)]
        kept = list(columns)
        while len(kept) > max(1, self.left) and sum(c.narrow for c in kept) > _room(kept, options.max_width):
            kept.pop()
        widths = _shared([(c.narrow, c.wide) for c in kept], _room(kept, options.max_width))
        lines = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
        for number, (column, width) in enumerate(zip(kept, widths, strict=True)):
            words = self._holds_words(number)
            lines.add_column(Text(column.title), justify="left" if words else "right", width=width, overflow="fold")
        for row in self.table.rows:
            bold = bool(self.bold) and row[1].startswith(self.bold)
            lines.add_row(*(Text(harmless(cell)) for cell in row[: len(kept)]), style="bold" if bold else None)
        yield lines
        if dropped := [column.title for column in columns[len(kept) :]]:
            yield Text(f"No room for: {', '.join(dropped)}; a wider terminal, the report and --json have them.")

    @property
    def _count(self) -> int:
        return len(self.table.columns)

    def _holds_words(self, number: int) -> bool:
        return number < self.left and (number > 0 or self.left != 2)


class Column(NamedTuple):
    """A column's title, and what it takes when words fold and when they do not."""

    title: str
    narrow: int
    wide: int

    @classmethod
    def of(cls, table: Table, number: int, words: bool) -> Column:
        title, cells = table.columns[number], [harmless(row[number]) for row in table.rows]
        whole = [cell_len(line) for cell in (title, *cells) for line in cell.splitlines()]
        parts = [title, *cells] if words else [title]
        fixed = [] if words else [cell_len(cell) for cell in cells]
        words_in = [min(cell_len(word), LONGEST_WORD) for part in parts for word in part.split()]
        return cls(title, max([1, *fixed, *words_in]), max([1, *whole]))


def _room(columns: Sequence[Column], width: int) -> int:
    """What the cells of as many columns may take; a space stands beside each."""
    return width - len(columns) - 1


def _shared(needs: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Widths between narrow and wide: the room that is left goes, a place at a time, to the one that lacks most."""
    widths = [narrow for narrow, _ in needs]
    while sum(widths) < room:
        lacks = [wide - width for (_, wide), width in zip(needs, widths, strict=True)]
        if max(lacks) <= 0:
            break
        widths[lacks.index(max(lacks))] += 1
    while sum(widths) > room and max(widths) > 1:  # no terminal to speak of
        widths[widths.index(max(widths))] -= 1
    return widths
