"""What every published document looks like: findings and a figure on the first screen, what is long folded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tombola.reports.tables import MOST_ROWS

FIRST_SCREEN = 3_000
"""Characters before which a figure has to stand."""
SHORT = 25
"""Lines that fit a screen: such a page needs neither figure nor fold."""
FOLD = re.compile(r'^<details markdown="1">\n<summary>[^\n]+</summary>\n\n(.*?)\n\n</details>$', flags=re.M | re.S)
TABLE = re.compile(r"(?:^\|.*\|$\n?)+", flags=re.M)
CODE = re.compile(r"^```.*?^```", flags=re.M | re.S)


def faults_of(text: str) -> list[str]:
    """What is wrong with the form of a document; empty where nothing is."""
    return [*_folds(text), *_tables(text), *_beginning(text)]


def _folds(text: str) -> Iterator[str]:
    """Folds are whole, one in another nowhere; what is long lies in them."""
    if len(FOLD.findall(text)) != text.count("<details") or text.count("<details") != text.count("</details>"):
        yield "a fold is not closed, or has no empty line behind its title"
    open_text = FOLD.sub("", text)
    for table in TABLE.findall(open_text):
        rows = table.strip().count("\n") - 1
        if rows > MOST_ROWS:
            yield f"a table of {rows} rows is not folded: {table[:60]}"
    for code in CODE.findall(open_text):
        if code.count("\n") > MOST_ROWS:
            yield f"code of {code.count(chr(10))} lines is not folded"


def _tables(text: str) -> Iterator[str]:
    for table in TABLE.findall(text):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().split("\n")}
        if len(widths) > 1:
            yield f"rows of a table have {widths} borders: {table[:60]}"


def _beginning(text: str) -> Iterator[str]:
    blocks = text.strip().split("\n\n")
    if not blocks[0].startswith("# "):
        yield "it does not begin with a title"
    if blocks[1].startswith(("|", "<", "!", "#", "```", ">")):
        yield f"its title is not followed by what was found: {blocks[1][:60]}"
    if text.count("\n") <= SHORT:
        return
    figure = text.find("![")
    if not 0 <= figure < FIRST_SCREEN:
        yield "there is no figure on the first screen"
