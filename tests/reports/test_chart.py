"""One description of a chart, and its two drawings: what they share, and that no two series look the same."""

from __future__ import annotations

import io
import itertools
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from charts import chart, layers, pixels
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tombola.reports import nature
from tombola.reports.chart import Chart, Series
from tombola.reports.described import alternative, hover, numbers
from tombola.reports.heatmap import Heatmap
from tombola.reports.interactive import plotly_figure
from tombola.reports.intervals import Estimate
from tombola.reports.nature import COLOURS, DARK, DARK_COLOURS, LIGHT, STYLES, in_the_dark
from tombola.reports.printed import _fonts, png, svg
from tombola.reports.screen_parts import dashes

pytestmark = pytest.mark.usefixtures("real_figures")

ONE = Estimate(1.0, None, None, None, 1)


def lines(styles: list[int]) -> Chart:
    return Chart("x", "y", [Series(f"line {i}", [0.0, 1.0], [ONE, ONE], style) for i, style in enumerate(styles)])


class TestStyles:
    @given(st.lists(st.integers(-3, 30), max_size=25))
    def test_no_two_series_of_a_chart_look_the_same(self, styles: list[int]) -> None:
        drawn = lines(styles).drawn
        for part in ("colour", "symbol", "marker", "dash"):
            assert len({getattr(style, part) for _, style in drawn}) == len(drawn)
        assert len(drawn) + len(lines(styles).left_out) == len(styles)

    @given(st.lists(st.integers(0, len(STYLES) - 1), max_size=10, unique=True))
    def test_a_series_keeps_the_style_it_asks_for(self, styles: list[int]) -> None:
        assert [style.index for _, style in lines(styles).drawn] == styles

    def test_more_series_than_colours_are_named_and_not_drawn(self) -> None:
        chart = lines([*range(12)])
        assert chart.left_out == ["line 10", "line 11"]
        assert [trace["name"] for trace in plotly_figure(chart)["data"]] == [f"line {i}" for i in range(10)]


# Machado, Oliveira & Fernandes 2009 (doi:10.1109/TVCG.2009.113), table 1, severity 1: no L, M or S cones.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
# Ottosson 2020, OKLab: distances are about as large as differences look.
TO_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.793617785, -0.0040720468],
    [1.9779984951, -2.428592205, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.808675766],
]


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(weights @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


class TestPalette:
    @pytest.mark.parametrize("blindness", BLINDNESS)
    @pytest.mark.parametrize("colours", [COLOURS, DARK_COLOURS])
    def test_colours_are_told_apart_by_colour_blind_readers(self, colours: tuple[str, ...], blindness: str) -> None:
        seen = [np.clip(np.array(BLINDNESS[blindness]) @ linear(colour), 0, 1) for colour in colours]
        labs = [np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ light) for light in seen]
        assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(labs, 2)) > 0.055
        assert len(colours) >= 10

    @pytest.mark.parametrize(("colours", "inks"), [(COLOURS, LIGHT), (DARK_COLOURS, DARK)])
    def test_lines_and_text_stand_out(self, colours: tuple[str, ...], inks: nature.Inks) -> None:
        assert min(contrast(colour, inks.paper) for colour in (*colours, inks.baseline)) >= 3
        assert contrast(inks.ink, inks.paper) >= 4.5

    def test_every_colour_has_one_for_the_dark(self) -> None:
        drawn = json.dumps([plotly_figure(one) for one in (chart(lines=10), pixels(), layers())])
        used = set(re.findall(r"#[0-9A-Fa-f]{6}|rgba\([^)]*\)", drawn))
        assert used <= set(in_the_dark())
        assert len(set(in_the_dark().values())) == len(in_the_dark())


class TestBothDrawings:
    """The page's figure and the file show the same."""

    def test_density_runs_from_100_percent_down_on_a_log_axis_with_the_house_ticks(self) -> None:
        axis = plotly_figure(chart())["layout"]["xaxis"]
        assert axis["type"] == "log"
        assert axis["range"][0] > 2 > axis["range"][1]
        assert axis["ticktext"] == ["100", "50", "20", "10", "5"]
        assert axis["title"]["text"] == "Weights remaining (%)"
        for label in axis["ticktext"]:
            assert f">{label}</text>" in svg(chart(), 600, 300)

    def test_colours_dashes_and_names_are_the_same(self) -> None:
        described = chart(lines=10)
        traces = {trace["name"]: trace for trace in plotly_figure(described)["data"] if "name" in trace}
        drawn = svg(described, 860, 500)
        for series, style in described.drawn:
            assert traces[series.name]["line"] == {"color": style.colour, "width": 2, "dash": dashes(style.dash, 2)}
            assert f"stroke: {style.colour.lower()}" in drawn
            if style.dash:
                assert f"stroke-dasharray: {','.join(f'{2 * part:g}' for part in style.dash)};" in drawn
            assert f">{series.name}</text>" in drawn
        assert traces["dense"]["line"]["color"] == LIGHT.baseline
        assert f"stroke: {LIGHT.baseline.lower()}" in drawn

    def test_the_winning_round_has_a_ring(self) -> None:
        described = chart()
        ring = plotly_figure(described)["data"][-1]
        assert (ring["name"], ring["marker"]["symbol"]) == ("winning round, 20.0% of the weights", "circle-open")
        assert (ring["x"], ring["y"]) == ([20.0], [described.series[0].y[2].mean])
        assert "winning round, 20.0% of the weights" in svg(described, 600, 300)

    def test_fonts_have_a_fallback(self) -> None:
        assert plotly_figure(chart())["layout"]["font"]["family"].startswith("Arial, Helvetica")
        assert "font-family: 'Arial', 'Helvetica', 'Liberation Sans', 'DejaVu Sans', sans-serif" in svg(
            chart(), 600, 300
        )
        assert set(_fonts()) <= set(nature.FONTS)
        assert "DejaVu Sans" in _fonts()

    def test_names_of_places(self) -> None:
        described = Chart("Exit", "y", [Series("a", [0.0, 1.0], [ONE, ONE], 0)], places=("first", "second"))
        assert plotly_figure(described)["layout"]["xaxis"]["ticktext"] == ["first", "second"]
        assert ">second</text>" in svg(described, 600, 300)

    def test_names_are_no_markup_and_no_formula(self) -> None:
        described = Chart("<b>$x$</b>", "y", [Series("<i>$a$</i>", [0.0], [ONE], 0)])
        figure = plotly_figure(described)
        assert figure["layout"]["xaxis"]["title"]["text"] == "&lt;b&gt;$x$&lt;/b&gt;"
        assert figure["data"][0]["text"][0].startswith("&lt;i&gt;")
        assert "&lt;b&gt;$x$&lt;/b&gt;" in svg(described, 600, 300)

    def test_names_of_a_maps_rows_and_columns_are_no_markup(self) -> None:
        link = "<a href='https://elsewhere'>fc1</a>"
        written = json.dumps(plotly_figure(Heatmap([[1.0]], link, link, link, columns=[link], rows=[link])))
        assert written.count("&lt;a href") >= 4
        assert "<a " not in written

    @pytest.mark.parametrize("figure", [chart(lines=10), pixels(), layers(), lines([0])])
    def test_plotly_knows_every_word_of_it(self, figure: Chart | Heatmap) -> None:
        go.Figure(plotly_figure(figure))

    @pytest.mark.parametrize("figure", [chart(), pixels(), layers()])
    def test_files_are_images_of_the_printed_size(self, figure: Chart | Heatmap) -> None:
        image = Image.open(io.BytesIO(png(figure)))
        assert image.size == (1440, 708)  # 183 x 90 mm at 200 dpi
        assert len(image.convert("RGB").getcolors(1 << 20)) > 5

    def test_a_still_drawing_refers_to_nothing_outside_itself(self) -> None:
        drawn = svg(chart(), 600, 300)
        assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink)\")", drawn)
        assert drawn == svg(chart(), 600, 300)


class TestBands:
    def test_are_closed_polygons_of_the_interval(self) -> None:
        band = plotly_figure(chart())["data"][0]
        assert (band["fill"], band["hoverinfo"]) == ("toself", "skip")
        first = chart().series[0].y[0]
        assert (band["y"][0], band["y"][-1]) == (first.high, first.low)

    def test_one_replicate_draws_none(self) -> None:
        names = [trace["name"] for trace in plotly_figure(chart(replicates=1))["data"]]
        assert names[:3] == ["ticket", "random mask", "dense"]

    def test_end_where_values_can_be(self) -> None:
        described = Chart("x", "y", [Series("a", [0.0], [Estimate(99.0, 90.0, 108.0, 1.0, 3)], 0)], within=(0, 100))
        assert described.band(described.series[0]) == ([0.0], [90.0], [100.0])


class TestWords:
    def test_a_pointer_shows_mean_interval_and_n(self) -> None:
        described = chart()
        assert hover(described, described.series[0], 2) == [
            "ticket",
            "Weights remaining (%): 20",
            "Test accuracy (%): 93.00 (95 % CI 90.52 to 95.48, n = 3)",
        ]
        alone = chart(replicates=1)
        assert hover(alone, alone.series[0], 0)[2] == "Test accuracy (%): 90 (no interval, n = 1)"

    def test_an_alternative_says_what_is_drawn(self) -> None:
        said = alternative(chart())
        for part in ("ticket: 91 at 100, 94 at 4", "random mask: 90 at 100", "dense: 91", "winning round"):
            assert part in said
        assert alternative(pixels()) == (
            "4.0% of the weights. Heat map of 2 by 3 values, connections kept, from 0 to 8."
        )

    def test_every_point_is_in_the_numbers(self) -> None:
        table = numbers(chart())
        assert table is not None
        assert len(table.rows) == 8
        assert table.rows[2] == ("ticket", "20", "93.00", "90.52", "95.48", "3")


class TestHeatmaps:
    def test_colour_bars_have_units(self) -> None:
        for figure in (pixels(), layers()):
            (trace,) = plotly_figure(figure)["data"]
            assert trace["colorbar"]["title"]["text"] == figure.unit
            assert f">{figure.unit}</text>" in svg(figure, 400, 300)
        assert plotly_figure(pixels())["data"][0]["zmax"] == 8
        assert plotly_figure(layers())["data"][0]["zmax"] == 100

    def test_rows_of_an_image_begin_at_the_top(self) -> None:
        assert plotly_figure(pixels())["layout"]["yaxis"]["autorange"] == "reversed"
        assert plotly_figure(layers())["layout"]["yaxis"]["autorange"] == "reversed"

    def test_nothing_kept_is_a_map_too(self) -> None:
        assert Heatmap([[0.0]], "kept").highest == 1
