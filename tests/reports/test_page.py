"""Pages: one look, nothing from outside, something to read for everybody; what needs no browser to be seen."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from charts import chart, layers, pixels
from plotly.offline import get_plotlyjs

from tombola.reports.figures import figure_html, still_html
from tombola.reports.page import POLICY, Header, Section, copyable, page

pytestmark = pytest.mark.usefixtures("real_figures")

HEAD = Header("Lottery study: <b>", "Winning & well.", [("Run", "lottery-digits-1234"), ("Tombola", "0.1.0")])


@pytest.fixture(scope="module")
def whole() -> str:
    figures = figure_html(chart(), "a < b") + figure_html([pixels(), pixels()], "maps") + figure_html(layers(), "kept")
    return page(HEAD, [Section("Results > all", figures), Section("Results: all", copyable("As CSV", "a,b"))])


def markup(text: str) -> str:
    """Without what scripts hold."""
    return re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_text_is_escaped(whole: str) -> None:
    assert "<h1>Lottery study: &lt;b&gt;</h1>" in whole
    assert "Winning &amp; well." in whole
    assert "<h2>Results &gt; all</h2>" in whole
    assert "<figcaption>a &lt; b</figcaption>" in whole


def test_the_header_has_the_facts_and_the_contents_lead_to_every_section(whole: str) -> None:
    assert "<dt>Run</dt><dd>lottery-digits-1234</dd>" in whole
    links = re.findall(r"<a href='#([\w-]+)'>", whole)
    assert links == ["results-all", "results-all-2"]
    assert re.findall(r"<section id='([\w-]+)'>", whole) == links
    assert "<a class='skip' href='#content'>" in whole


def test_nothing_comes_from_outside_and_the_browser_is_told_so(whole: str) -> None:
    assert f'content="{POLICY}"' in whole
    assert "connect-src" not in POLICY  # so that it is default-src's: none
    assert POLICY.startswith("default-src 'none'")
    for alone in ("form-action", "base-uri"):  # which default-src does not stand for
        assert f"{alone} 'none'" in POLICY
    assert not re.search(r"""\b(src|href|action)\s*=\s*(?!["']?#)""", markup(whole))
    assert "@import" not in markup(whole)
    assert "url(" not in markup(whole)


def test_text_to_copy_has_plain_line_ends() -> None:
    assert "a,b\nc,d" in page(HEAD, [Section("Table", copyable("As CSV", "a,b\r\nc,d"))])


def test_plotly_is_there_once_and_only_where_a_figure_wants_it(whole: str) -> None:
    assert whole.count("plotly.js v") == 1
    still = page(HEAD, [Section("Curve", still_html(chart(), "a curve"))])
    assert "plotly.js v" not in still
    assert len(still) < 300_000 < len(get_plotlyjs())


def test_plotly_shows_no_buttons_and_knows_no_server(whole: str) -> None:
    own = whole[whole.rindex("<script>") :]
    assert "displayModeBar: false" in own
    assert "showSendToCloud: false" in own
    assert 'plotlyServerURL: ""' in own


def test_every_figure_is_an_image_with_a_text_alternative(whole: str) -> None:
    plots = re.findall(r"<div class='plot [^>]*>", whole)
    assert len(plots) == 4
    for plot in plots:
        assert " role='img' " in plot
        assert re.search(r"aria-label='[^']{20,}'", plot)


def test_what_a_script_draws_cannot_end_its_element() -> None:
    described = chart()
    hostile = figure_html(type(described)("</script><img src=x>", "y", described.series), "c")
    content = re.findall(r"<script type='application/json'>(.*?)</script>", hostile, flags=re.S)
    assert json.loads(content[0])["layout"]["xaxis"]["title"]["text"] == "&lt;/script&gt;&lt;img src=x&gt;"
    assert "<img" not in hostile


def test_small_figures_stand_side_by_side_with_one_caption() -> None:
    shown = figure_html([pixels(), pixels()], "maps")
    assert shown.count("class='plot map'") == 2
    assert shown.count("<figcaption>") == 1


def test_more_series_than_colours_are_named_below() -> None:
    shown = figure_html(chart(lines=12), "Many.")
    assert "Many. Not drawn, because colours would repeat: line 10, line 11." in shown
    assert shown.count("class='sample'") == 10 + 2  # the series, the baseline, the ring


def test_a_still_figure_has_the_pages_colours_and_its_numbers() -> None:
    shown = still_html(chart(), "a curve")
    assert "#0072b2" not in shown
    assert "var(--figure-0)" in shown
    assert shown.count("role='img'") == 2
    assert "Numbers of this figure" in shown
    assert "<button" not in shown


def test_codes_that_a_browser_obeys_are_written_out() -> None:
    shown = page(Header("a\u202eb", "c\x1b[2J"), [])
    assert "a\\u202eb" in shown
    assert "c\\x1b[2J" in shown


def test_reports_and_help_do_not_load_torch() -> None:
    for statement in ("import tombola.reports.page, tombola.reports.figures", "import tombola.cli", "import tombola"):
        code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, statement
