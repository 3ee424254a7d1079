"""The house style of figures, for pages (light and dark) and for files: colours, symbols, dashes, letters, sizes.

Files have the sizes of a figure in Nature: 183 mm (two columns) wide, Arial 7 pt and 6 pt, thin axes, ticks outside, no
grid. On a page the same figure is as wide as its column, with text that can be read on a screen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#A9117C",
    "#895F4B",
    "#161616",
    "#4C2AB8",
    "#660F15",
    "#8884D2",
    "#595200",
)
"""On white. Found by a search from Okabe & Ito's first three, which stay: the least distance of any two in OKLab, seen
without one of the three kinds of cones, is as large as it got, and each stands out from the paper by 3:1 at least."""
DARK_COLOURS = (
    "#4FA8E8",
    "#FF8A3D",
    "#2FCB96",
    "#E057B6",
    "#BA8277",
    "#FFFFF8",
    "#814AE3",
    "#A85D4E",
    "#F2D7E5",
    "#C9DC00",
)
"""The same series on a dark page."""
SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "cross",
    "x",
    "pentagon",
    "star",
    "hexagon",
)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "*", "h")
"""The same symbols in matplotlib's words."""
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (4, 2),
    (1, 1.5),
    (6, 2, 1, 2),
    (8, 3),
    (2, 2),
    (6, 2, 1, 2, 1, 2),
    (3, 1),
    (10, 2, 3, 2),
    (1, 3),
)
"""Lines and gaps, in widths of the line."""
BASELINE_DASH = (1.0, 1.5)
BAND_OPACITY = 0.18

FONTS = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")
"""The first one that is there; the last comes with matplotlib."""


@dataclass(frozen=True)
class Inks:
    """The colours of a page and of what is not a series; `low` and `high` are the ends of colour scales.

    `worse`, `even` and `better` are behind text, on which ink can be read; `span` is behind lines.
    """

    ink: str
    paper: str
    baseline: str
    low: str
    high: str
    worse: str
    even: str
    better: str
    span: str


LIGHT = Inks("#161617", "#FFFFFF", "#6F6F6F", "#F1F5F9", "#08519C", "#F4A582", "#F7F7F6", "#92C5DE", "#EEF0F3")
DARK = Inks("#E6E6E7", "#16191D", "#9A9A9A", "#20262D", "#7CC4F2", "#8A4A21", "#24282E", "#1F5E89", "#22272F")
BASELINE = LIGHT.baseline

DENSITY_AXIS = "Weights remaining (%)"


@dataclass(frozen=True)
class Sizes:
    """Of letters, lines and symbols, in the unit of the drawing."""

    text: float
    small: float
    line: float
    thin: float
    symbol: float


PRINT = Sizes(text=7, small=6, line=1, thin=0.5, symbol=3)
"""In points."""
SCREEN = Sizes(text=14, small=13, line=2, thin=1, symbol=7)
"""In pixels of a page."""
PRINT_MILLIMETRES = (183.0, 90.0)
RING = 2.6
"""The size of the ring round a marked point, in symbols."""


@dataclass(frozen=True)
class Style:
    """How one series is drawn; `index` names its colour on a page."""

    index: int
    colour: str
    symbol: str
    marker: str
    dash: tuple[float, ...]

    @property
    def band(self) -> str:
        """The colour of the series' band, before which the paper shows through."""
        return translucent(self.colour)


STYLES = tuple(Style(index, *parts) for index, parts in enumerate(zip(COLOURS, SYMBOLS, MARKERS, DASHES, strict=True)))


def translucent(colour: str) -> str:
    """`#0072B2` as a colour of bands.

    Examples:
        >>> translucent("#0072B2")
        'rgba(0,114,178,0.18)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND_OPACITY})"


def in_the_dark() -> dict[str, str]:
    """Every colour of figures, and what a dark page shows instead."""
    series = dict(zip(COLOURS, DARK_COLOURS, strict=True))
    bands = {translucent(light): translucent(dark) for light, dark in series.items()}
    inks = {getattr(LIGHT, part.name): getattr(DARK, part.name) for part in fields(Inks)}
    return series | bands | inks
