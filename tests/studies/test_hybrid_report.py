"""What a hybrid study shows: tables, charts, page, document, files by fixed names, terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hybrid_rows import EXITS, THRESHOLDS, altered, hybrid_result, hybrid_rows
from rich.console import Console

from document_form import faults_of
from tombola.studies.base.numbers import kilo, listed, mega, percent
from tombola.studies.hybrid.answers import answers_of
from tombola.studies.hybrid.artefacts import NAMES, OPTIONAL_NAMES, SUMMARY, write_results
from tombola.studies.hybrid.checks import check_lines, facts_lines
from tombola.studies.hybrid.exit_curves import exits_chart, gate_chart
from tombola.studies.hybrid.forest_results import baselines_table, exits_table, features_table
from tombola.studies.hybrid.gating import curve_table, gates_of, gates_table
from tombola.studies.hybrid.report import report_page, summary_markdown
from tombola.studies.hybrid.requirements import HybridPlan
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.hybrid.shown import show_result
from tombola.studies.hybrid.timings import latency_table

ALL = ("base", "dense", "ticket")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> HybridResult:
    return hybrid_result(tmp_path_factory.mktemp("run"), networks=ALL, lost={"block1_conv2": 4.0})


class TestTables:
    def test_a_line_for_every_network_and_exit(self) -> None:
        table = exits_table(hybrid_rows(networks=ALL))
        assert [row[0] for row in table.rows] == ["frozen base"] * 3 + ["dense"] * 3 + ["ticket"] * 3
        assert [row[1] for row in table.rows[:3]] == list(EXITS)
        line = dict(zip(table.columns, table.rows[-2], strict=True))
        assert (line["Features"], line["MFLOPs"], line["MFLOPs kept"]) == ("grid", "9.00", "1.80")
        assert (line["Comparisons"], line["µs, batch 1"], line["kB forest"]) == ("2,502", "275.0", "1,500")
        assert "±" in line["Test accuracy"]

    def test_comparisons_are_in_no_flops(self) -> None:
        rows = hybrid_rows()
        more = altered(rows, {"comparisons": 1e9}, kind="forest")
        column = exits_table(rows).columns.index("MFLOPs kept")
        assert [r[column] for r in exits_table(rows).rows] == [r[column] for r in exits_table(more).rows]

    def test_what_is_missing_is_a_dash(self) -> None:
        table = baselines_table(hybrid_rows(networks=ALL))
        lines = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
        assert list(lines)[:2] == ["forest on raw pixels", "forest on PCA"]
        assert lines["frozen base network, whole"]["Test accuracy"] == "–"
        assert lines["forest on PCA"]["µs, batch 1"] == "50"
        assert lines["ticket network, whole"]["µs, batch 1"] == "200"  # by its fastest engine

    def test_the_csv_has_every_forest_in_plain_numbers(self) -> None:
        rows = hybrid_rows()
        read = list(csv.DictReader(io.StringIO(features_table(rows).to_csv())))
        assert len(read) == 2 + 2 * len(EXITS) * 3
        assert {(r["exit"], r["features"]) for r in read if r["chosen"] == "1" and r["network"] == "dense"} == {
            (exit, "grid") for exit in EXITS
        }
        for row in read:
            assert float(row["test_low"]) < float(row["test_accuracy_percent"]) < float(row["test_high"])

    def test_one_replicate_leaves_intervals_empty(self) -> None:
        read = list(csv.DictReader(io.StringIO(features_table(hybrid_rows(replicates=1)).to_csv())))
        assert {row["test_low"] for row in read} == {""}

    def test_gates_at_the_thresholds_chosen_on_validation(self) -> None:
        table = gates_table(hybrid_rows())
        assert [row[3] for row in table.rows] == ["0.7 to 0.704"] * 2
        moved = altered(hybrid_rows(), {"chosen": False}, kind="gate", replicate=0, threshold=0.7)
        moved = altered(moved, {"chosen": True}, kind="gate", replicate=0, threshold=0.9)
        assert [row[3] for row in gates_table(moved).rows] == ["0.701 to 0.9"] * 2
        assert gates_table(altered(hybrid_rows(), {"chosen": False}, kind="gate", chosen=True)).rows == []

    def test_replicates_with_features_of_their_own_are_one_gate(self) -> None:
        rows = altered(hybrid_rows(), {"features": "gap"}, kind="gate", replicate=0)
        assert [row[2] for row in gates_table(rows).rows] == ["gap or grid"] * 2

    def test_the_gates_csv_has_every_threshold_of_both_parts(self) -> None:
        read = list(csv.DictReader(io.StringIO(curve_table(hybrid_rows()).to_csv())))
        assert len(read) == 5 * 2 * 2 * len(THRESHOLDS)
        assert sum(int(row["chosen"]) for row in read) == 5 * 2 * 2

    def test_a_latency_that_is_missing_is_a_dash_with_its_reason(self) -> None:
        gone = {"seconds": None, "reason": "no kernels"}
        rows = altered(hybrid_rows(), gone, kind="latency", engine="sparse kernels")
        line = next(row for row in latency_table(rows).rows if row[4] == "sparse kernels")
        assert line[5:] == ("–", "–")


class TestCharts:
    def test_exits_are_named_places_and_baselines_level(self) -> None:
        chart = exits_chart(hybrid_rows(networks=ALL))
        assert chart is not None
        assert chart.places == list(EXITS)
        by_name = {series.name: series for series in chart.series}
        assert by_name["forest on ticket features"].x == [0.0, 1.0, 2.0]
        assert by_name["forest on frozen base features"].x == [0.0, 1.0, 2.0]
        level = by_name["forest on raw pixels"].y
        assert level[0] == level[-1]
        assert chart.baseline is not None
        assert chart.baseline[0] == "dense network, whole"

    def test_gates_lie_over_their_cost(self) -> None:
        chart = gate_chart(hybrid_rows())
        assert chart is not None
        assert [series.x for series in chart.series] == [sorted(series.x) for series in chart.series]
        assert chart.series[1].x[0] < chart.series[0].x[0]  # the ticket's FLOPs are fewer

    def test_gates_are_pooled_at_equal_fractions_of_early_leavers(self) -> None:
        """Accuracy is a line in the share that leaves, so between thresholds it is known: 0.9 - 0.1 left."""
        (dense, _) = gates_of(hybrid_rows(replicates=3))
        curve = dense.curve()
        for (_, accuracy), left in ((curve[0], 0.3), (curve[10], 0.5), (curve[-1], 0.7)):
            assert accuracy.mean == pytest.approx(100 * (0.9 - 0.1 * left + 0.002))
            assert accuracy.n == 3
        assert len(curve) == 21

    def test_nothing_to_draw(self) -> None:
        assert exits_chart([]) is None
        assert gate_chart(hybrid_rows(networks=("base",))) is None


def test_the_page_opens_with_the_answers_and_carries_all_it_needs(result: HybridResult) -> None:
    page = report_page(result)
    titles = ["The four questions", "Exits", "Gates", "Latency", "Checks of the run", "How it was measured"]
    places = [page.index(f"<h2>{title}</h2>") for title in titles]
    assert places == sorted(places)
    assert "block1_conv2, 1 of 3 exits" in page
    assert 'src="http' not in page
    assert "<link" not in page
    assert "frozen base is one network" in page


def test_the_document_has_answers_and_tables(result: HybridResult) -> None:
    document = summary_markdown(result)
    for answer in answers_of(result):
        assert f"**{answer.question}** {answer.lead}" in document
        assert " ".join(answer.sentences[1:]) in document
    assert faults_of(document) == []
    for title in ("## Exits", "## Baselines", "## Gates", "## Latency", "## Checks", "## How it was measured"):
        assert title in document
    assert "data leaves (abc)" in document


class TestFiles:
    def test_by_fixed_names_the_summary_last(self, result: HybridResult, monkeypatch: pytest.MonkeyPatch) -> None:
        written = []
        replace = Path.replace
        monkeypatch.setattr(Path, "replace", lambda old, new: (written.append(Path(new).name), replace(old, new))[1])
        write_results(result)
        assert sorted(written) == sorted((*NAMES, *OPTIONAL_NAMES))
        assert written[-1] == SUMMARY == "hybrid.json"
        summary = json.loads((result.folder.results / SUMMARY).read_text())
        assert (summary["run"], summary["replicates"]) == (result.folder.root.name, 5)
        assert {name: ticket["round"] for name, ticket in summary["tickets"].items()} == {
            "lenet": 4,
            "head": 4,
            "cnn": 4,
        }
        read = json.loads((result.folder.results / "answers.json").read_text())
        assert [set(entry) for entry in read] == [{"question", "answer", "numbers"}] * 4
        assert (result.folder.results / "exits.png").read_bytes().startswith(b"\x89PNG")

    def test_a_image_of_what_is_gone_goes_too(self, tmp_path: Path) -> None:
        result = hybrid_result(tmp_path, networks=("base",))
        result.folder.results.mkdir()
        (result.folder.results / "gate.png").write_bytes(b"old")
        write_results(result)
        assert not (result.folder.results / "gate.png").exists()
        assert (result.folder.results / SUMMARY).exists()


class TestChecks:
    def test_the_worst_forest_is_shown(self) -> None:
        assert "100 of 100 forests" in check_lines(hybrid_rows())[0]
        other = altered(hybrid_rows(), {"onnx_equal": 999}, kind="forest", replicate=1, network="ticket")
        assert "91 of 100 forests" in check_lines(other)[0]
        older = [{k: v for k, v in row.items() if k != "onnx_equal"} for row in hybrid_rows()]
        assert check_lines(older)[0] == "100 of 100 forests are of a version that did not record their equal labels"
        rows = altered(hybrid_rows(), {"onnx_error": 3e-5}, kind="forest", replicate=1, network="ticket")
        assert check_lines(rows)[1] == "largest difference of their probabilities: 3e-05"
        assert check_lines([]) == ["No forest was grown."]

    def test_facts(self) -> None:
        said = "5 replicates, each with a split of its own; forests of 300 trees learn from 2,000 examples and are"
        assert facts_lines(hybrid_rows())[0].startswith(said)
        assert facts_lines([]) == []


class TestTerminal:
    def test_the_result(self, result: HybridResult) -> None:
        console = Console(record=True, width=120, file=io.StringIO())
        show_result(console, result)
        said = " ".join(console.export_text().split())  # sentences wrap at words
        for answer in answers_of(result):
            assert answer.question in said
            assert answer.text in said
        assert str(result.folder.report) in said

    def test_the_cost_of_a_study_without_lotteries_to_run(self) -> None:
        assert HybridPlan({}, 28).line == "28 forests"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (mega(9_000_000), "9.00"),
        (mega(1_400), "0.00140"),
        (mega(0), "0"),
        (mega(123_456_789), "123"),
        (kilo(12_345), "12.3"),
        (percent(0.00004), "0.004%"),
        (percent(0.9996), "99.96%"),
        (percent(0.0), "0.0%"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed(["a"]), "a"),
    ],
)
def test_numbers_as_they_are_written(written: str, text: str) -> None:
    assert written == text
