"""Curves with confidence bands, as Plotly figures for pages and as PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from tombola.reports import nature
from tombola.reports.intervals import Estimate


@dataclass(frozen=True)
class Series:
    """A named line: x, and an estimate at each x. `style` is its index in the house palette."""

    name: str
    x: list[float]
    y: list[Estimate]
    style: int

    def band(self) -> tuple[list[float], list[float], list[float]] | None:
        """x, lower and upper edge where there is an interval; None when there is none anywhere."""
        points = [
            (x, e.low, e.high) for x, e in zip(self.x, self.y, strict=True) if e.low is not None and e.high is not None
        ]
        if not points:
            return None
        xs, lows, highs = zip(*points, strict=True)
        return list(xs), list(lows), list(highs)


@dataclass(frozen=True)
class Chart:
    """What a figure shows: series over x, perhaps with a horizontal baseline.

    `within` is the range that values can have at all; an interval may reach beyond, its band does not. With `factors`
    values are positive ratios, on a logarithmic axis. With `places` x counts named places from 0 on, and these are the
    names.
    """

    x_title: str
    y_title: str
    series: Sequence[Series]
    baseline: tuple[str, float] | None = None
    over_density: bool = False
    within: tuple[float, float] | None = None
    factors: bool = False
    places: Sequence[str] = ()

    def band(self, series: Series) -> tuple[list[float], list[float], list[float]] | None:
        """The series' band, clipped to what its values can be."""
        band = series.band()
        if band is None or self.within is None:
            return band
        low, high = self.within
        return band[0], [max(low, y) for y in band[1]], [min(high, y) for y in band[2]]


def plotly_figure(chart: Chart, size: tuple[int, int] = nature.DOUBLE_COLUMN) -> go.Figure:
    """The chart in Plotly; bands are closed polygons, so that they export as one shape each."""
    figure = go.Figure(layout=nature.layout(chart.x_title, chart.y_title, size))
    for series in chart.series:
        style = nature.Style.of(series.style)
        band = chart.band(series)
        if band is not None:
            xs, lows, highs = band
            figure.add_scatter(
                x=xs + xs[::-1],
                y=highs + lows[::-1],
                fill="toself",
                fillcolor=style.band,
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                legendgroup=series.name,
            )
        figure.add_scatter(
            x=series.x,
            y=[estimate.mean for estimate in series.y],
            name=series.name,
            legendgroup=series.name,
            mode="lines+markers" if len(series.x) <= 40 else "lines",
            line={"color": style.colour, "width": nature.pixels(1), "dash": style.dash},
            marker={"symbol": style.symbol, "size": nature.pixels(3), "color": style.colour},
            hovertemplate="%{x:.3g}: %{y:.4g}",
        )
    if chart.baseline is not None:
        name, value = chart.baseline
        ends = [min(x for s in chart.series for x in s.x), max(x for s in chart.series for x in s.x)]
        figure.add_scatter(
            x=ends,
            y=[value, value],
            name=name,
            mode="lines",
            line={"color": nature.BASELINE, "width": nature.pixels(1), "dash": "dot"},
            hovertemplate="%{y:.4g}",
        )
    if chart.over_density:
        figure.update_xaxes(nature.density_axis([x for s in chart.series for x in s.x]))
    if chart.places:
        figure.update_xaxes(tickvals=list(range(len(chart.places))), ticktext=list(chart.places))
    if chart.factors:
        figure.update_yaxes(nature.factor_axis(_heights(chart)))
    return figure


def _heights(chart: Chart) -> list[float]:
    """Every value of a chart, its baseline's included."""
    values = [estimate.mean for series in chart.series for estimate in series.y]
    return values if chart.baseline is None else [*values, chart.baseline[1]]


def png(chart: Chart) -> bytes:
    """The chart as a PNG file, drawn by matplotlib (Plotly would need a browser)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(183 / 25.4, 90 / 25.4), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for series in chart.series:
        style = nature.Style.of(series.style)
        means = [estimate.mean for estimate in series.y]
        axes.plot(
            series.x,
            means,
            color=style.colour,
            marker=style.marker,
            markersize=3,
            linewidth=1,
            label=series.name,
        )
        band = chart.band(series)
        if band is not None:
            axes.fill_between(*band, color=style.colour, alpha=nature.BAND_OPACITY, linewidth=0)
    if chart.baseline is not None:
        axes.axhline(chart.baseline[1], color=nature.BASELINE, linestyle=":", linewidth=1, label=chart.baseline[0])
    if chart.over_density:
        settings = nature.density_axis([x for s in chart.series for x in s.x])
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xticks(settings["tickvals"], settings["ticktext"])
        axes.minorticks_off()
    if chart.places:
        many = len(chart.places) > 8  # side by side they would run into one another
        axes.set_xticks(range(len(chart.places)), chart.places, rotation=30 * many, ha="right" if many else "center")
    if chart.factors:
        settings = nature.factor_axis(_heights(chart))
        axes.set_yscale("log")
        axes.set_yticks(settings["tickvals"], settings["ticktext"])
        axes.minorticks_off()
    axes.set_xlabel(chart.x_title, fontsize=7)
    axes.set_ylabel(chart.y_title, fontsize=7)
    axes.tick_params(labelsize=6, width=0.5, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.5)
    axes.legend(fontsize=6, frameon=False)
    content = io.BytesIO()
    canvas.print_png(content)
    return content.getvalue()
