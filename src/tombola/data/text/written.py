"""Tasks from shipped text: languages, verse, code, names, and what reviews of films think of them."""

from __future__ import annotations

import functools
import re

from tombola.data.text.items import Item, TextTask, chance_of, drawn
from tombola.data.text.shipped_text import TextPart, text_of

ABOUT = {
    "german": "Genesis in German (Luther): say the text",
    "french": "Genesis in French (Segond 1910): say the text",
    "swedish": "Genesis in Swedish (1917), which nothing else here has: say the text",
    "verse": "Shakespeare: say the text",
    "code": "Python functions (HumanEval): say the program",
    "names": "first names, six to an item: say them",
}
WIDTHS = {"german": 92, "french": 96, "swedish": 86, "verse": 110, "code": 74}
"""How wide an item is at most: it then has at most 63 tokens of the shipped tokenizer and one that begins it."""
NAMES = 6
"""Names to an item."""
LABELS = {"+": "P", "-": "N"}
"""A positive and a negative review: letters are one token of every tokenizer here, and known from pre-training."""
PARTS: tuple[TextPart, ...] = ("train", "held_out")


def written(kind: str, seed: int, train: int, held_out: int) -> TextTask:
    """The task of a shipped text: items without a prompt, so that every token of theirs is scored."""
    first, last = (
        drawn((Item("", text) for text in windows(kind, part)), count, chance_of(seed, kind, part), f"the task {kind}")
        for part, count in zip(PARTS, (train, held_out), strict=True)
    )
    return TextTask(kind, ABOUT[kind], first, last)


@functools.cache
def windows(kind: str, part: TextPart) -> tuple[str, ...]:
    """All windows of a part of a text, one after the other, none twice. They end where a word ends.

    Those of the held-out part that the text to train on has as well, as programs have a few lines, are left out.
    """
    text = text_of(kind, part)
    if kind == "names":
        names = text.split()
        return tuple(" ".join(names[at : at + NAMES]) for at in range(0, len(names) - NAMES + 1, NAMES))
    known = text_of(kind, "train") if part == "held_out" else ""
    return tuple(dict.fromkeys(piece for piece in _cut(text, WIDTHS[kind]) if piece not in known))


def sentiment(seed: int, train: int, held_out: int, flipped: bool = False) -> TextTask:
    """Sentences of reviews of films (Pang & Lee 2005): positive (P) or negative (N)? As many of one as of the other.

    With `flipped` the same sentences have the opposite label. Sentences held out by one are held out by the other.
    """
    first, last = _reviews(seed, "train", train, flipped), _reviews(seed, "held_out", held_out, flipped)
    if flipped:
        return TextTask("sentiment-flipped", "what a review thinks of a film, the wrong way round", first, last)
    return TextTask("sentiment", "what a review thinks of a film: positive or negative", first, last)


def _reviews(seed: int, part: TextPart, count: int, flipped: bool) -> tuple[Item, ...]:
    chance = chance_of(seed, "sentiment", part)
    lines = [line.split(" ", 1) for line in text_of("sentiment", part).splitlines()]
    chosen: list[Item] = []
    for sign, size in (("+", count - count // 2), ("-", count // 2)):
        label = LABELS[sign] if not flipped else LABELS["-" if sign == "+" else "+"]
        items = (Item(f"{text}\n", label) for said, text in lines if said == sign)
        chosen += drawn(items, size, chance, f"the task sentiment ({sign})")
    chance.shuffle(chosen)
    return tuple(chosen)


def _cut(text: str, width: int) -> list[str]:
    """Pieces of at most that width; their blanks stay where they were, at the beginning of a piece."""
    pieces, piece, wide = [], "", 0
    for word in re.findall(r"\s*\S+", text):
        more = _wide(word)
        if wide + more > width and piece:
            pieces.append(piece)
            piece, wide = "", 0
        piece, wide = piece + word, wide + more
    return pieces  # what is left at the end is short


def _wide(word: str) -> int:
    """What is no small letter a to z is hardly ever merged with others into one token."""
    return sum(1 if "a" <= character <= "z" or character == " " else 2 for character in word)
