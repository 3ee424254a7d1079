"""What all studies show in a terminal: tables, and progress."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

from tombola.errors import harmless
from tombola.reports.tables import Table

LINE_SECONDS = 10.0
"""Without a terminal, a line of progress is printed about this often."""


def progress_bars(console: Console) -> Progress:
    """Bars of the house: what, how far, since when and how long to go."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def drawn(table: Table, left: int = 2, bold: tuple[str, ...] = ()) -> RichTable:
    """A table for the terminal; the first `left` columns hold words. Rows whose second begins with `bold` are bold."""
    lines = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(table.columns):
        lines.add_column(column, justify="left" if number < left and (number or left != 2) else "right")
    for row in table.rows:
        lines.add_row(
            *(escape(harmless(cell)) for cell in row), style="bold" if bold and row[1].startswith(bold) else None
        )
    return lines
