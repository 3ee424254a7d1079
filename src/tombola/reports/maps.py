"""Figures of networks: maps of what survives, and histograms of weights."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tombola.reports import nature


def pixel_maps(titles: Sequence[str], maps: Sequence[Sequence[Sequence[float]]]) -> go.Figure:
    """Small maps side by side, one per title; each map is rows of values, drawn with its own scale from 0."""
    figure = make_subplots(rows=1, cols=len(maps), subplot_titles=list(titles), horizontal_spacing=0.02)
    for column, values in enumerate(maps, start=1):
        figure.add_heatmap(
            z=values, zmin=0, colorscale="Blues", showscale=False, row=1, col=column, hovertemplate="%{z:.3g}"
        )
    figure.update_layout(
        **{key: nature.layout("", "")[key] for key in ("font", "paper_bgcolor", "plot_bgcolor")},
        width=nature.DOUBLE_COLUMN[0],
        height=214,
        margin={"l": 8, "r": 8, "t": 48, "b": 8},
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x")
    figure.update_annotations(font_size=nature.pixels(7))
    return figure


def histograms(
    titles: Sequence[str], limits: Sequence[float], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]
) -> go.Figure:
    """Step histograms side by side, before and after, over [-limit, limit] each."""
    figure = make_subplots(rows=1, cols=len(titles), subplot_titles=list(titles), horizontal_spacing=0.06)
    for column, (limit, *counts) in enumerate(zip(limits, before, after, strict=True), start=1):
        for style, (name, values) in enumerate(zip(("before training", "after"), counts, strict=True)):
            width = 2 * limit / len(values)
            figure.add_scatter(
                x=[-limit + width * (i + 0.5) for i in range(len(values))],
                y=values,
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                mode="lines",
                line={"shape": "hvh", "width": nature.pixels(1), "color": nature.COLOURS[style]},
                row=1,
                col=column,
            )
    base = nature.layout("Weight", "Count")
    figure.update_layout(
        **{key: base[key] for key in ("font", "paper_bgcolor", "plot_bgcolor", "legend")},
        margin=base["margin"] | {"t": 48},
        width=nature.DOUBLE_COLUMN[0],
        height=250,
    )
    axis = {key: value for key, value in base["xaxis"].items() if key != "title"}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_annotations(font_size=nature.pixels(7))
    return figure
