"""Grids, dot plots, radars and traces: what they say holds for both drawings, in words, and in the dark."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from more_figures import dots, grid, phases, radar, traces
from PIL import Image

from tombola.reports import printed
from tombola.reports.chart import Chart, Series
from tombola.reports.described import Figure, alternative, numbers
from tombola.reports.dots import Dots, Radar
from tombola.reports.figures import figure_html
from tombola.reports.grid import Cell, Grid
from tombola.reports.interactive import plotly_figure
from tombola.reports.intervals import estimate
from tombola.reports.nature import DARK, LIGHT, PRINT, in_the_dark
from tombola.reports.printed import png, sheet, svg
from tombola.reports.traces import SPACING

pytestmark = pytest.mark.usefixtures("real_figures")

ALL = [grid(), dots(), radar(), traces(), phases()]


@pytest.mark.parametrize("figure", ALL)
def test_plotly_knows_every_word_and_the_dark_every_colour(figure: Figure) -> None:
    drawn = plotly_figure(figure)
    go.Figure(drawn)
    used = set(re.findall(r"#[0-9A-Fa-f]{6}|rgba\([^)]*\)", json.dumps(drawn)))
    assert used <= set(in_the_dark())


@pytest.mark.parametrize("figure", ALL)
def test_files_show_something(figure: Figure) -> None:
    image = Image.open(io.BytesIO(png(figure)))
    assert len(image.convert("RGB").getcolors(1 << 20)) > 5
    assert "<svg" in svg(figure, 300, 300)


@pytest.mark.parametrize("figure", ALL)
def test_text_alternatives_and_pages(figure: Figure) -> None:
    assert len(alternative(figure)) > 40
    assert "role='img'" in figure_html(figure, "caption")


def test_a_sheet_holds_several() -> None:
    image = Image.open(io.BytesIO(sheet([[radar(), dots()], [grid(), grid()]], (180.0, 140.0), ["a note"])))
    assert image.size == (1417, 1102)


def test_a_row_that_is_not_full_ends_with_room() -> None:
    drawn = printed._drawn([[radar(), dots()], [grid()]], (7.0, 5.5), PRINT)
    assert sum(axes.axison for axes in drawn.axes) == sum(
        axes.axison for row in ([[radar(), dots()]], [[grid()]]) for axes in printed._drawn(row, (7.0, 3.0), PRINT).axes
    )


def test_charts_that_share_their_series_share_a_legend() -> None:
    def legends(names: Sequence[str]) -> tuple[int, int]:
        charts = [Chart("x", "y", [replace(phases().series[0], name=name)]) for name in names]
        drawn = printed._drawn([[chart] for chart in charts], (5, 5), PRINT)
        return len(drawn.legends), sum(axes.get_legend() is not None for axes in drawn.axes)

    assert legends(["verse", "verse"]) == (1, 0)
    assert legends(["verse", "names"]) == (0, 2)
    assert legends(["verse"]) == (0, 1)


class TestGrids:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.floats(-1e6, 1e6), st.booleans())
    def test_colours_stay_in_reach_and_better_is_one_side(self, values: list[float], dense: float, more: bool) -> None:
        cells = [Cell(value) for value in values]
        drawn = Grid(
            [cells], ["a"], [str(i) for i in range(len(cells))], reference=("dense", dense), more_is_better=more
        )
        for cell in cells:
            strength, value = drawn.strength(cell), cell.value
            assert strength is not None
            assert value is not None
            assert abs(strength) <= 1 + 1e-9
            assert strength == 0 or (strength > 0) == ((value > dense) == more)

    def test_what_is_missing_is_hatched_and_says_why(self) -> None:
        drawn = plotly_figure(grid())
        assert len(drawn["layout"]["shapes"]) == 7  # of one cell
        assert "it learned nothing" in drawn["data"][0]["text"][1][1]
        assert drawn["data"][0]["z"][1][1] is None
        assert grid().reasons == ["it learned nothing"]
        assert "url(#" in svg(grid(), 400, 300)  # a pattern

    def test_the_reference_is_even_and_less_may_be_better(self) -> None:
        strengths = plotly_figure(grid())["data"][0]["z"][1]
        assert strengths[2] == 0
        assert strengths[0] > 0

    @pytest.mark.parametrize("inks", [LIGHT, DARK])
    def test_text_can_be_read_on_every_colour(self, inks: object) -> None:
        def light(colour: str) -> float:
            value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
            line = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
            return float(np.array([0.2126, 0.7152, 0.0722]) @ line)

        for name in ("worse", "even", "better", "span"):
            low, high = sorted((light(inks.ink), light(getattr(inks, name))))  # type: ignore[attr-defined]
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


class TestDots:
    def test_dots_of_a_place_stay_in_it(self) -> None:
        for trace in plotly_figure(dots())["data"][:2]:
            assert all(abs(height - round(height)) < 0.36 for height in trace["y"])

    def test_what_is_missing_is_marked_with_its_reason(self) -> None:
        mark = plotly_figure(dots())["data"][-1]
        assert mark["marker"]["symbol"] == "x-thin"
        assert "no value: nothing was learned" in mark["text"][0]
        assert ">no value</text>" in svg(dots(), 400, 300)

    def test_every_value_is_within_the_axis(self) -> None:
        low, high = dots().ends
        assert all(low < one.mean < high for series in dots().series for one in series.y)

    @pytest.mark.parametrize("spread", [0.0, 4e-16])
    def test_values_that_differ_by_rounding_alone_have_an_axis_that_can_be_read(self, spread: float) -> None:
        figure = Dots("x", ["a", "b"], [Series("s", [0.0, 1.0], [estimate([0.5]), estimate([0.5 + spread])], 0)])
        assert figure.ends == pytest.approx((0.0, 1.0))

    def test_what_lies_beyond_a_fixed_axis_is_drawn_at_its_end_and_told_as_it_is(self) -> None:
        figure = replace(dots(), range=(0.1, 0.55))
        means = [x for series in plotly_figure(figure)["data"] if series["mode"] == "markers" for x in series["x"]]
        assert (min(means), max(means)) == (0.1, 0.55)
        table = numbers(figure)
        assert table is not None
        assert "0.650" in {cell for row in table.rows for cell in row}

    def test_its_numbers_stand_below(self) -> None:
        table = numbers(dots())
        assert table is not None
        assert len(table.rows) == 5
        assert table.rows[1][1] == "kept of the function"


class TestRadars:
    @given(st.integers(3, 9), st.floats(-3, 3))
    def test_no_value_leaves_the_rim(self, spokes: int, value: float) -> None:
        figure = Radar([str(i) for i in range(spokes)], [])
        assert all(np.hypot(*figure.point(place, value)) <= 1 + 1e-12 for place in range(spokes))

    def test_a_spoke_without_a_value_opens_the_polygon(self) -> None:
        drawn = plotly_figure(radar())["data"]
        assert drawn[1]["x"][1] is None
        assert None not in drawn[0]["x"]
        assert drawn[0]["x"][0] == drawn[0]["x"][-1]

    def test_it_stands_beside_its_dots_with_one_table(self) -> None:
        shown = figure_html([radar(), dots()], "both")
        assert "class='several wide'" in shown
        assert shown.count("<span>Numbers of this figure</span>") == 1


class TestTraces:
    def test_a_removed_one_ends_in_a_cross(self) -> None:
        cross = plotly_figure(traces())["data"][-1]
        assert (cross["name"], cross["x"]) == ("removed", [49.0])
        assert alternative(traces()).endswith("Removed: layer 0, head 1.")

    def test_the_scale_bar_is_as_high_as_it_says(self) -> None:
        bar = plotly_figure(traces())["layout"]["shapes"][-1]
        assert bar["y1"] - bar["y0"] == 2.0

    def test_traces_lie_below_each_other(self) -> None:
        lines = plotly_figure(traces())["data"][:3]
        assert [round(np.mean(line["y"]) / SPACING) for line in lines] == [0, -1, -2]


def test_every_second_phase_is_shaded_and_each_is_named() -> None:
    layout = plotly_figure(phases())["layout"]
    assert [shape["type"] for shape in layout["shapes"]] == ["rect", "line"]
    assert [one["text"] for one in layout["annotations"]] == ["names", "verse", "pruned"]
    for name in ("names", "verse", "pruned"):
        assert f">{name}</text>" in svg(phases(), 400, 300)
