"""What a run checks of itself: columns of its rows that must not be false."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tombola.runs.rows import Row


def named(row: Row, unit: Sequence[str]) -> str:
    """The unit of a row: `replicate 0, round 2`."""
    return ", ".join(f"{column} {row[column]}" for column in unit if row.get(column) is not None)


def failed_checks(rows: Iterable[Row], unit: Sequence[str], checks: Mapping[str, str]) -> list[str]:
    """One line for every check that failed; `checks` says what each column means when it is true."""
    return [
        f"{named(row, unit)}: not so: {meaning}"
        for row in rows
        for check, meaning in checks.items()
        if row.get(check) is False
    ]
