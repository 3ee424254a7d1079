"""One table for every reader: HTML for a page, Markdown for a document; the terminal draws its own."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from tombola.reports.intervals import Estimate


@dataclass(frozen=True)
class Table:
    """Column titles and rows of finished text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_html(self) -> str:
        head = "".join(f"<th scope='col'>{html.escape(column)}</th>" for column in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"

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


def plus_minus(estimate: Estimate, digits: int = 2, scale: float = 1.0) -> str:
    """`97.86 ± 0.43`, or the mean alone where one replicate gives no interval."""
    mean = f"{estimate.mean * scale:.{digits}f}"
    half = estimate.half_width
    return mean if half is None else f"{mean} ± {half * scale:.{digits}f}"
