"""One table for every reader: here as data, Markdown, CSV and LaTeX; `html_tables` draws it on a page."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tombola.reports.intervals import Estimate

MISSING = "–"
"""In a table: there is no number, and a note says why."""
MOST_ROWS = 16
"""A table of more rows is folded, on a page and in a document."""
NUMBER = re.compile(r"[+−-]?\d")


@dataclass(frozen=True)
class Table:
    """Column titles and rows of finished text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def is_numeric(self, column: int) -> bool:
        """Whether most of a column are numbers, as far as it has any: such columns are aligned right."""
        cells = [row[column] for row in self.rows if row[column] not in ("", MISSING)]
        return 2 * sum(bool(NUMBER.match(cell)) for cell in cells) > len(cells)

    def to_markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def to_csv(self) -> str:
        """Comma-separated values (RFC 4180)."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *self.rows])
        return text.getvalue()

    def to_latex(self) -> str:
        """A `tabular` with booktabs rules."""
        lines = [" & ".join(_latex(cell) for cell in line) + r" \\" for line in (self.columns, *self.rows)]
        body = "\n".join(lines[1:])
        rules = (r"\toprule", r"\midrule", r"\bottomrule")
        columns = "l" * min(2, len(self.columns)) + "r" * (len(self.columns) - 2)
        return (
            f"\\begin{{tabular}}{{{columns}}}\n{rules[0]}\n{lines[0]}\n{rules[1]}\n{body}\n{rules[2]}\n"
            "\\end{tabular}\n"
        )


def _latex(cell: str) -> str:
    for plain, escaped in (
        ("%", r"\%"),
        ("_", r"\_"),
        ("&", r"\&"),
        ("±", r"$\pm$"),
        ("−", "$-$"),
        ("×", r"$\times$"),
        ("µ", r"$\mu$"),
    ):
        cell = cell.replace(plain, escaped)
    return cell


def fixed(values: Sequence[float | None]) -> list[str]:
    """The numbers of one column with the same number of decimals: four figures of the largest, two of the smallest.

    Args:
        values: the column; None is where there is no number.

    Returns:
        One cell for each.

    Examples:
        >>> fixed([96.8712, 4.2, None])
        ['96.87', '4.20', '–']
        >>> fixed([1200, 50])
        ['1,200', '50']
    """
    sizes = [abs(value) for value in values if value]
    if not sizes or all(math.isclose(value, round(value), rel_tol=1e-9) for value in sizes):
        decimals = 0
    else:
        decimals = min(4, max(_decimals(max(sizes), 4), _decimals(min(sizes), 2), 0))
    return [MISSING if value is None else f"{value:,.{decimals}f}" for value in values]


def _decimals(value: float, figures: int) -> int:
    """How many decimals show as many figures of a number."""
    return figures - 1 - math.floor(math.log10(value))


def plus_minus(estimate: Estimate, digits: int = 2, scale: float = 1.0) -> str:
    """`97.86 ± 0.43`, or the mean alone where one replicate gives no interval."""
    mean = f"{estimate.mean * scale:.{digits}f}"
    half = estimate.half_width
    return mean if half is None else f"{mean} ± {half * scale:.{digits}f}"
