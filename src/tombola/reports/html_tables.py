"""Tables on a page: a caption, numbers to the right, what is wide in a box of its own, what is long folded."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import groupby

from tombola.reports.tables import MOST_ROWS, Table

LONGEST_LINE = 48
"""Characters of a cell that stand in one line."""


def table_html(
    table: Table,
    caption: str,
    note: str = "",
    *,
    grouped: bool = False,
    marked: Mapping[str, str] | None = None,
) -> str:
    """A table as a page shows it.

    Args:
        table: its titles and rows.
        caption: what it holds, in a few words; the summary of the fold where it is long.
        note: what its numbers are, below it.
        grouped: whether rows that begin with the same cell belong together, and show it once.
        marked: first cells whose rows are set off, each with what is said there.

    Returns:
        HTML; all text is escaped.
    """
    marked = marked or {}
    numeric = [table.is_numeric(column) for column in range(len(table.columns))]
    head = "".join(
        f"<th scope='col'{_right(numeric[at])}>{html.escape(title)}</th>" if title else "<td></td>"
        for at, title in enumerate(table.columns)
    )
    groups = [[*rows] for _, rows in groupby(table.rows, key=lambda row: row[0])] if grouped else [[*table.rows]]
    body = "".join(_group(rows, numeric, grouped, marked) for rows in groups)
    said = html.escape(caption)
    box = (
        f"<div class='scroll' role='group' aria-label='{said}'><table><caption><span>{said}</span></caption>"
        f"<thead><tr>{head}</tr></thead>{body}</table></div>"
    )
    whole = box + (f"<p class='note'>{html.escape(note)}</p>" if note else "")
    if len(table.rows) > MOST_ROWS:
        return f"<details class='long'><summary>{said} ({len(table.rows)} rows)</summary>{whole}</details>"
    return whole


def _group(rows: Sequence[Sequence[str]], numeric: Sequence[bool], grouped: bool, marked: Mapping[str, str]) -> str:
    """One `tbody`: rows that belong together, their common cell as its heading."""
    lines = []
    for number, row in enumerate(rows):
        said = marked.get(row[0])
        cells = "".join(f"<td{_kind(row[at], numeric[at])}>{html.escape(row[at])}</td>" for at in range(1, len(row)))
        badge = f"<br><span class='mark'>{html.escape(said)}</span>" if said and not (grouped and number) else ""
        first = html.escape(row[0]) + badge
        if not grouped:
            first = f"<th scope='row'{_right(numeric[0])}>{first}</th>"
        elif number:
            first = ""
        else:
            first = f"<th scope='rowgroup' rowspan='{len(rows)}'{_right(numeric[0])}>{first}</th>"
        lines.append(f"<tr{' class=marked' if said else ''}>{first}{cells}</tr>")
    return f"<tbody>{''.join(lines)}</tbody>"


def _kind(cell: str, numeric: bool) -> str:
    return " class='long'" if len(cell) > LONGEST_LINE else _right(numeric)


def _right(numeric: bool) -> str:
    return " class='number'" if numeric else ""
