"""Figures, tables and pages: the house style and what they say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tombola.reports import curves, nature
from tombola.reports.curves import Chart, Series
from tombola.reports.intervals import Estimate, estimate
from tombola.reports.page import Section, figure_html, page
from tombola.reports.tables import Table, plus_minus


def chart(replicates: int = 3) -> Chart:
    x = [100.0, 50.0, 20.0, 4.0]
    y = [estimate([90.0 + i + r for r in range(replicates)]) for i in range(4)]
    series = [Series("ticket", x, y, 0), Series("random mask", x, y, 1)]
    return Chart(nature.DENSITY_AXIS, "Test accuracy (%)", series, ("dense", 91.0), over_density=True)


class TestPlotly:
    def test_density_runs_from_100_percent_down_on_a_log_axis_with_the_house_ticks(self) -> None:
        axis = curves.plotly_figure(chart()).layout.xaxis
        assert (axis.type, axis.autorange) == ("log", "reversed")
        assert axis.ticktext == ("100", "50", "20", "10", "5")
        assert axis.title.text == "Weights remaining (%)"

    def test_bands_are_closed_polygons_of_the_interval(self) -> None:
        band = curves.plotly_figure(chart()).data[0]
        assert band.fill == "toself"
        assert band.fillcolor.endswith(f"{nature.BAND_OPACITY})")
        first = chart().series[0].y[0]
        assert (band.y[0], band.y[-1]) == (first.high, first.low)

    def test_one_replicate_draws_no_band(self) -> None:
        names = [trace.name for trace in curves.plotly_figure(chart(replicates=1)).data]
        assert names == ["ticket", "random mask", "dense"]

    def test_series_differ_in_colour_symbol_and_dash(self) -> None:
        lines = [trace for trace in curves.plotly_figure(chart()).data if trace.name in ("ticket", "random mask")]
        assert len({(trace.line.color, trace.line.dash) for trace in lines}) == 2
        assert len({trace.marker.symbol for trace in lines}) == 2

    def test_baseline_is_dotted_grey(self) -> None:
        baseline = curves.plotly_figure(chart()).data[-1]
        assert (baseline.name, baseline.line.dash, baseline.line.color) == ("dense", "dot", nature.BASELINE)


def test_png_is_a_image() -> None:
    content = curves.png(chart())
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


def test_pages_escape_what_they_are_given() -> None:
    body = figure_html(curves.plotly_figure(chart()), "a < b")
    text = page("<b>", "lead & more", [Section("x > y", body + Table(["<i>"], [["<u>"]]).to_html())])
    assert "<h1>&lt;b&gt;</h1>" in text
    assert "lead &amp; more" in text
    assert "<th scope='col'>&lt;i&gt;</th>" in text
    assert "<td>&lt;u&gt;</td>" in text
    assert "a &lt; b" in text


def test_markdown_tables_keep_their_columns() -> None:
    assert Table(["a", "b"], [["1|2", "3"]]).to_markdown() == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(Estimate(97.857, 97.4, 98.314, 0.5, 10), "97.86 ± 0.46"), (Estimate(97.857, None, None, None, 1), "97.86")],
)
def test_plus_minus(value: Estimate, text: str) -> None:
    assert plus_minus(value) == text


def test_an_estimate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])


def test_reports_and_help_do_not_load_torch() -> None:
    for statement in ("import tombola.reports.page, tombola.reports.curves", "import tombola.cli", "import tombola"):
        code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, statement
