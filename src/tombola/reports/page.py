"""Self-contained HTML pages with one look: they open offline, and nothing in them is fetched or sent.

A page carries plotly.js where a figure wants to be drawn by it, and its own small theme and script.
"""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from plotly.offline import get_plotlyjs

from tombola.errors import harmless
from tombola.reports.nature import COLOURS, DARK, DARK_COLOURS, LIGHT, PRINT, PRINT_MILLIMETRES, SCREEN, in_the_dark

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)
"""What a browser allows the page: what stands in it, and no connection to anywhere."""


@dataclass(frozen=True)
class Section:
    """A heading with finished HTML below it."""

    title: str
    body: str


@dataclass(frozen=True)
class Header:
    """The head of a page, in plain text: what it is of, the verdict, and the facts of the run by name."""

    title: str
    verdict: str
    facts: Sequence[tuple[str, str]] = ()


def page(header: Header, sections: Sequence[Section]) -> str:
    """A whole page: the header, contents, the sections.

    Args:
        header: what the reader came for, first.
        sections: titles and finished HTML, in the order of the page.

    Returns:
        The page. What a browser would obey instead of showing it (control characters and the like) is written out.
    """
    named = _anchors([section.title for section in sections])
    body = "".join(
        f"<section id='{name}'><h2>{html.escape(section.title)}</h2>{section.body}</section>"
        for name, section in zip(named, sections, strict=True)
    )
    title = html.escape(header.title)
    content = harmless(
        f"<body><a class='skip' href='#content'>Skip to the content</a>{_head(header)}{_contents(named, sections)}"
        f"<main id='content' tabindex='-1'>{body}</main>"
    )
    plotly = f"<script>{get_plotlyjs()}</script>" if "class='plot " in body else ""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{POLICY}\">"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta name='color-scheme' content='light dark'><title>{harmless(title)}</title>"
        f"<style>{_colours()}{_own('theme.css')}</style></head>{content}{plotly}"
        f"<script type='application/json' id='look'>{json.dumps(_look())}</script>"
        f"<script>{_own('page.js')}</script></body></html>\n"
    )


def copyable(label: str, text: str) -> str:
    """A fold with text and a button that copies it; not printed."""
    text = text.replace("\r\n", "\n")
    return (
        f"<details class='aside'><summary>{html.escape(label)}</summary>"
        f"<button type='button' class='copy'>Copy</button>{listing(text, label)}</details>"
    )


def folded(label: str, body: str) -> str:
    """A fold with finished HTML."""
    return f"<details><summary>{html.escape(label)}</summary>{body}</details>"


def listing(text: str, label: str) -> str:
    """Text as it was written, a config for example."""
    return f"<pre class='scroll' role='group' aria-label='{html.escape(label)}'>{html.escape(text)}</pre>"


def paragraphs(lines: Sequence[str], kind: str = "") -> str:
    """A paragraph for each line."""
    opened = f"<p class='{kind}'>" if kind else "<p>"
    return "".join(f"{opened}{html.escape(line)}</p>" for line in lines)


def titled(title: str, body: str) -> str:
    """Finished HTML below a heading within a section."""
    return f"<h3>{html.escape(title)}</h3>{body}"


def bullets(lines: Sequence[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _head(header: Header) -> str:
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in header.facts
    )
    listed = f"<dl class='facts'>{facts}</dl>" if facts else ""
    return (
        f"<header><h1>{html.escape(header.title)}</h1><p class='verdict'>{html.escape(header.verdict)}</p>{listed}"
        "</header>"
    )


def _contents(names: Sequence[str], sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    items = "".join(
        f"<li><a href='#{name}'>{html.escape(section.title)}</a></li>"
        for name, section in zip(names, sections, strict=True)
    )
    return f"<nav aria-label='Contents'><ol>{items}</ol></nav>"


def _anchors(titles: Sequence[str]) -> list[str]:
    """A name for each title that can stand in an address; no two are the same."""
    names: list[str] = []
    for title in titles:
        plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


@functools.cache
def _own(name: str) -> str:
    """A file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _colours() -> str:
    """The colours of figures, light and dark, as CSS custom properties."""

    def block(series: Sequence[str], figures: Sequence[str], baseline: str) -> str:
        named = [f"--series-{index}:{colour}" for index, colour in enumerate(series)]
        named += [f"--figure-{index}:{colour}" for index, colour in enumerate(figures)]
        return ";".join([*named, f"--baseline:{baseline}"])

    swaps = in_the_dark()
    light = block(COLOURS, [*swaps], LIGHT.baseline)
    dark = block(DARK_COLOURS, [*swaps.values()], DARK.baseline)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _look() -> dict[str, object]:
    """What the script knows of the house style: dark colours by light ones, and the sizes of a saved figure."""
    width, height = (millimetres / 25.4 * 96 for millimetres in PRINT_MILLIMETRES)
    scale = 96 / 72
    saved = {"width": round(width), "height": round(height), "text": PRINT.text * scale, "small": PRINT.small * scale}
    saved |= {"lines": PRINT.line * scale / SCREEN.line, "symbols": PRINT.symbol * scale / SCREEN.symbol}
    return {"dark": in_the_dark(), "saved": saved}
