"""Tables: as documents, and on a page."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.reports.html_tables import table_html
from tombola.reports.intervals import Estimate, estimate
from tombola.reports.tables import MOST_ROWS, Table, fixed, plus_minus


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


@given(st.lists(st.none() | st.floats(-1e6, 1e6, allow_subnormal=False), max_size=8))
def test_a_column_has_as_many_decimals_in_every_cell(values: list[float | None]) -> None:
    cells = fixed(values)
    decimals = {len(cell.partition(".")[2]) for cell in cells if cell != "–"}
    assert len(decimals) <= 1
    for value, cell in zip(values, cells, strict=True):
        assert (cell == "–") == (value is None)
        if value is not None:
            assert math.isclose(float(cell.replace(",", "")), value, abs_tol=0.51 * 10 ** -max(decimals), rel_tol=1e-12)


class TestOnAPage:
    TABLE = Table(
        ("Density", "Network", "Accuracy"),
        [("100.0%", "dense", "97.10 ± 0.20"), ("9.0%", "ticket", "97.00 ± 0.30"), ("9.0%", "random", "–")],
    )

    def test_what_it_is_given_is_text(self) -> None:
        shown = table_html(Table(["<i>"], [["<u>"]]), "a < b", "c > d")
        assert "<th scope='col'>&lt;i&gt;</th>" in shown
        assert "&lt;u&gt;" in shown
        assert "<caption><span>a &lt; b</span></caption>" in shown
        assert "c &gt; d" in shown
        assert "<u>" not in shown

    def test_numbers_stand_right_and_words_left(self) -> None:
        shown = table_html(self.TABLE, "Results")
        assert "<td class='number'>97.10 ± 0.20</td>" in shown
        assert "<td class='number'>–</td>" in shown
        assert "<td>dense</td>" in shown

    def test_rows_of_one_density_are_a_group_with_one_heading(self) -> None:
        shown = table_html(self.TABLE, "Results", grouped=True)
        assert shown.count("<tbody>") == 2
        assert re.findall(r"rowspan='(\d)'", shown) == ["1", "2"]
        assert shown.count("9.0%") == 1

    def test_the_winning_round_is_marked(self) -> None:
        shown = table_html(self.TABLE, "Results", grouped=True, marked={"9.0%": "winning"})
        assert shown.count("<tr class=marked>") == 2
        assert shown.count("<span class='mark'>winning</span>") == 1

    def test_long_ones_are_folded(self) -> None:
        rows = [(str(index), "x") for index in range(MOST_ROWS + 1)]
        assert table_html(Table(("n", "what"), rows), "Many").startswith(
            "<details class='long'><summary>Many (17 rows)"
        )
        assert "<details" not in table_html(Table(("n", "what"), rows[1:]), "Few")
