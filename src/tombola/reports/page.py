"""Self-contained HTML pages: they open offline, and nothing in them is fetched."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from tombola.errors import harmless
from tombola.reports.nature import CONFIG

STYLE = """
body { font: 16px/1.5 Arial, Helvetica, sans-serif; color: #111; background: #fff; margin: 2rem auto;
       max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.verdict { font-size: 1.15rem; border-left: 4px solid #0072B2; padding: .2rem 0 .2rem 1rem; }
.caption { color: #444; font-size: .85rem; max-width: 692px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } th { border-bottom: 1px solid #111; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""


@dataclass(frozen=True)
class Section:
    """A heading with finished HTML below it."""

    title: str
    body: str


def figure_html(figure: go.Figure, caption: str) -> str:
    """A figure and its caption, for a page that carries Plotly itself."""
    drawn = plotly.io.to_html(figure, config=CONFIG, include_plotlyjs=False, full_html=False)
    return f"<figure style='margin:0'>{drawn}<figcaption class='caption'>{html.escape(caption)}</figcaption></figure>"


def copyable(label: str, text: str) -> str:
    """A fold with text and a button that copies it."""
    return (
        f"<details><summary>{html.escape(label)}</summary>"
        "<button type='button' onclick=\"navigator.clipboard.writeText(this.nextElementSibling.textContent)\">copy"
        f"</button><pre>{html.escape(text)}</pre></details>"
    )


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A whole page. `lead` is plain text: what the reader came for, in one or two sentences."""
    body = "".join(f"<section><h2>{html.escape(s.title)}</h2>{s.body}</section>" for s in sections)
    return harmless(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main><h1>{html.escape(title)}</h1>"
        f"<p class='verdict'>{html.escape(lead)}</p>{body}</main></body></html>\n"
    )
