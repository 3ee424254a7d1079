"""An entropy journal in words: which heads look where, which of them changed, and what happened when tasks changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.reports.documents import bullet_block, document, table_block
from tombola.reports.intervals import Estimate
from tombola.reports.tables import Table
from tombola.studies.base.numbers import counted, listed
from tombola.studies.stress.shown.journal import Head
from tombola.studies.stress.shown.journal_survey import HeadSummary, Survey, Switch, gathered, largest

NOTABLE = 0.01
"""Of the maximum: a smaller change of a head is not worth its mention."""
SHOWN = 3
"""Heads that are named for each thing that is said."""
SCALE = (
    "Entropy says how widely a head looks: 0 is a head that looks at one token, 1 one that looks at all tokens before "
    "it alike (Shannon entropy of its attention over the logarithm of how many tokens it may look at)."
)
EMPTY = "The journal has no entries: no entropy was recorded."


def summary(path: Path) -> str:
    """`entropy_journal_summary.md`: a journal in words and, folded, in a table.

    Args:
        path: the journal; it is read once, line by line.

    Raises:
        RunFolderError: a line is damaged.
        StorageError: the file cannot be read.
    """
    return summary_of(gathered(path).surveys, path.resolve().parent.parent.name)


def summary_of(surveys: Sequence[Survey], name: str) -> str:
    """The same of a journal that was read; `name` is what it is of."""
    title = f"# Attention entropy: {name}"
    if not surveys:
        return document(title, EMPTY) + "\n"
    return document(title, SCALE, *(block for one in surveys for block in _of_model(one, len(surveys) > 1))) + "\n"


def _of_model(found: Survey, named: bool) -> list[str]:
    remedy = "" if found.remedy == "none" else f", with {found.remedy.replace('_', ' ')}"
    heading = [f"## {found.model}{remedy}"] if named else []
    heads, lines = found.summaries, lines_of(found)
    table = heads_table(heads)
    note = (
        "Means over seeds, as fractions of the maximum; each interval by itself, so that of many heads some move by "
        "chance. Heads that were removed by the end are left out."
    )
    folded = [table_block(table, "Every head", note)] if heads else []
    return [*heading, bullet_block(lines), *folded]


def lines_of(found: Survey) -> list[str]:
    """What is said of a journal, a line for each thing."""
    heads = found.summaries
    return [recorded(found), drift(found), *changes(heads), *extremes(heads), switches(found), removed(found)]


def recorded(found: Survey) -> str:
    """How much there is: heads, steps, cycles and lives."""
    layers = len({layer for layer, _ in found.heads})
    seeds = counted(len(found.seeds), "seed")
    lives = "" if len(found.lives) == len(found.seeds) else f", {counted(len(found.lives), 'network')} in all"
    return (
        f"Recorded: {counted(len(found.heads), 'head')} in {counted(layers, 'layer')} over "
        f"{counted(found.steps, 'training step')} and {counted(found.cycles, 'cycle')}, {seeds}{lives}; "
        f"{found.entries:,} entries."
    )


def drift(found: Survey) -> str:
    """Whether entropy drifted from the first cycle to the last."""
    first, last, change = found.mean_of(0), found.mean_of(1), found.drift
    if first is None or last is None:
        return "Drift: no head is kept to the end."
    if change is None:
        return f"Drift: cannot be said of one cycle; the mean over heads is {first.mean:.2f} of the maximum."
    ends = f"mean over heads from {first.mean:.2f} in the first cycle to {last.mean:.2f} of the maximum in the last"
    if change.low is None or change.high is None:
        said = "one seed: whether that is chance is not known"
    elif change.low > 0:
        said = "heads came to look more widely"
    elif change.high < 0:
        said = "heads came to look more narrowly"
    else:
        said = f"no drift shown (n = {change.n} seeds)"
    return f"Drift: {ends}, {_change(change)}: {said}."


def changes(heads: Sequence[HeadSummary]) -> list[str]:
    """The heads whose entropy changed most, either way."""
    moved = [head for head in heads if abs(head.change.mean) >= NOTABLE]
    if not moved:
        return []
    wider = sorted((one for one in moved if one.change.mean > 0), key=lambda one: -one.change.mean)[:SHOWN]
    narrower = sorted((one for one in moved if one.change.mean < 0), key=lambda one: one.change.mean)[:SHOWN]
    return [
        f"Became {word} most: {'; '.join(_moved(one) for one in ones)}."
        for word, ones in (("more diffuse", wider), ("more focused", narrower))
        if ones
    ]


def extremes(heads: Sequence[HeadSummary]) -> list[str]:
    """The most focused and the most diffuse heads, in the last cycle."""
    if len(heads) < 2:
        return []
    ordered = sorted(heads, key=lambda one: one.last.mean)
    count = min(SHOWN, len(heads) // 2)
    return [
        f"{word} in the last cycle: {'; '.join(map(_stands, ones))}."
        for word, ones in (("Most focused", ordered[:count]), ("Most diffuse", ordered[::-1][:count]))
    ]


def switches(found: Survey) -> str:
    """What entropy did when the task changed."""
    every = found.switches
    if not every:
        return "Switches of tasks: none lies between two looks at the entropy."
    size = sum(abs(switch.change) for switch in every) / len(every)
    up = sum(switch.change > 0 for switch in every)
    return (
        f"Switches of tasks: there are {len(every)}. The mean moved by {size:.3f} of the maximum on average, "
        f"up at {up} of them; most {_of(largest(every))}."
    )


def removed(found: Survey) -> str:
    """Which heads are pruned by the end."""
    gone, lives = found.removed, len(found.lives)
    if not gone:
        return "Pruned heads: none."
    always = [head for head, count in gone.items() if count == lives]
    sometimes = [head for head, count in gone.items() if count < lives]
    parts = [f"in every network {_by_layer(always)}"] if always and lives > 1 else []
    parts += [_by_layer(always)] if always and lives == 1 else []
    if sometimes:
        parts.append(f"in some of {lives} networks {_by_layer(sometimes)}")
    return f"Pruned heads: {'; '.join(parts)}."


def heads_table(heads: Sequence[HeadSummary]) -> Table:
    """Every head that is kept: its entropy first and last, and the change."""
    rows = [
        (f"{one.head[0]}.{one.head[1]}", f"{one.first.mean:.3f}", f"{one.last.mean:.3f}", _interval(one.change))
        for one in heads
    ]
    return Table(("Layer.head", "First cycle", "Last cycle", "Change (95 % CI)"), rows)


def name(head: Head) -> str:
    """`layer 2, head 5`, both counted from 0."""
    return f"layer {head[0]}, head {head[1]}"


def _by_layer(heads: Sequence[Head]) -> str:
    layers = dict.fromkeys(layer for layer, _ in heads)
    return "; ".join(
        f"layer {layer}: {'heads' if len(which) > 1 else 'head'} {listed(which)}"
        for layer in layers
        for which in [[str(head) for of, head in heads if of == layer]]
    )


def _stands(one: HeadSummary) -> str:
    return f"{name(one.head)} ({one.last.mean:.2f} of the maximum)"


def _moved(one: HeadSummary) -> str:
    return f"{name(one.head)} (from {one.first.mean:.2f} to {one.last.mean:.2f} of the maximum)"


def _change(change: Estimate) -> str:
    if change.low is None or change.high is None:
        return f"{_signed(change.mean)}"
    return f"{_signed(change.mean)} (95 % CI {_signed(change.low)} to {_signed(change.high)})"


def _interval(change: Estimate) -> str:
    if change.low is None or change.high is None:
        return _signed(change.mean)
    return f"{_signed(change.mean)} [{_signed(change.low)}, {_signed(change.high)}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _of(switch: Switch) -> str:
    return f"from {switch.before} to {switch.after} ({_signed(switch.change)})"
