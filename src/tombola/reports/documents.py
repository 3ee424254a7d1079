"""Documents in Markdown, as GitHub and MkDocs show them: findings and a figure first, long tables folded."""

from __future__ import annotations

import html
from collections.abc import Sequence

from tombola.reports.tables import MOST_ROWS, Table


def fold_block(title: str, *parts: str) -> str:
    """A fold with paragraphs, tables or code in it.

    Args:
        title: what is in it, in plain text.
        parts: finished Markdown, one block each; empty ones are left out.

    Returns:
        The fold as one block, empty where no part is left.

    Examples:
        >>> print(fold_block("Power", "With 4 replicates ..."))
        <details markdown="1">
        <summary>Power</summary>
        <BLANKLINE>
        With 4 replicates ...
        <BLANKLINE>
        </details>
    """
    blocks = [part for part in parts if part]
    if not blocks:
        return ""
    head = f'<details markdown="1">\n<summary>{html.escape(title, quote=False)}</summary>'
    return "\n\n".join([head, *blocks, "</details>"])


def table_block(table: Table, caption: str, note: str = "") -> str:
    """A table with its note, folded below its caption where it is long.

    Args:
        table: its titles and rows.
        caption: what it holds, in a few words; shown where it is folded.
        note: what its numbers are.

    Returns:
        One block of Markdown.
    """
    text = table.to_markdown()
    if len(table.rows) > MOST_ROWS:
        return fold_block(f"{caption} ({len(table.rows)} rows)", text, note)
    return document(text, note)


def bullet_block(lines: Sequence[str]) -> str:
    """One line of a list for each; empty where there is none."""
    return "\n".join(f"- {line}" for line in lines)


def document(*blocks: str) -> str:
    """Blocks below each other, empty ones left out."""
    return "\n\n".join(block for block in blocks if block)


def lowered(text: str) -> str:
    """A document as a part of another one: its headings one level down; what is in code stays."""
    lines, in_code = [], False
    for line in text.split("\n"):
        in_code ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not in_code else line)
    return "\n".join(lines)
