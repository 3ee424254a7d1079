"""The published results (`docs/results`), and what makes them: one screen of findings and a figure first."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import criteria_results
import hybrid_results
import lottery_results
import speed_results
from document_form import faults_of
from tombola.reports.documents import document, fold_block, lowered, table_block
from tombola.reports.tables import MOST_ROWS, Table

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))
LONG = Table(("Density", "Accuracy"), [(str(row), "9") for row in range(MOST_ROWS + 1)])
FIGURE = "![A curve](curve.png)"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_a_page_begins_with_its_findings_and_folds_what_is_long(path: Path) -> None:
    assert faults_of(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"# Title\n\n{LONG.to_markdown()}\n", "is not followed by what was found"),
        (f"# Title\n\nFound.\n\n{FIGURE}\n\n{LONG.to_markdown()}\n", "17 rows is not folded"),
        ("# Title\n\nFound.\n\n" + "Text.\n\n" * 20, "no figure"),
        (f"# Title\n\nFound.\n\n{FIGURE}\n\n<details>\n\nText.\n", "not closed"),
        ("# Title\n\nFound.\n\n| a | b |\n| --- | --- |\n| 1 |\n", "rows of a table have"),
    ],
)
def test_other_forms_are_found(text: str, fault: str) -> None:
    assert any(fault in said for said in faults_of(text))


def test_a_document_is_of_that_form() -> None:
    yaml = fold_block("Configuration", "```yaml\n" + "# key\n" * 40 + "```")
    text = document("# Title", "Found.", "", FIGURE, table_block(LONG, "Every round", "A note."), yaml) + "\n"
    assert faults_of(text) == []
    assert "<summary>Every round (17 rows)</summary>" in text
    assert lowered(text) == text.replace("# Title", "## Title")


def test_a_fold_of_nothing_is_nothing() -> None:
    assert fold_block("Why") == fold_block("Why", "", "") == ""
    assert "<summary>a &lt; b</summary>" in fold_block("a < b", "Text.")


class TestBeginnings:
    """Those of the published pages are what the scripts give."""

    def test_of_the_speeds(self) -> None:
        text = page_of("speed.md")
        parts = ["## A title\n\nOf 17, 16.\n\nHow, and a table.\n", "## Another\n\nSooner.\n\nHow."]
        made = speed_results.page(parts)
        assert made.startswith("# Speed\n\n- **A title**: Of 17, 16.\n- **Another**: Sooner.\n\n![")
        assert made.endswith("## A title\n\nHow, and a table.\n\n## Another\n\nHow.")
        parts = [f"## {part}" for part in text.split("\n## ")[1:]]
        found = [line.partition("**: ")[2] for line in text.split("\n\n")[1].split("\n")]
        assert len(found) == len(parts) == 4
        with_findings = [part.replace("\n\n", f"\n\n{said}\n\n", 1) for part, said in zip(parts, found, strict=True)]
        assert speed_results.page(with_findings) == text.strip()

    def test_of_the_criteria(self) -> None:
        text = page_of("criteria.md")
        leads = {name: (n, lead(text, name)) for name, n in (("lenet5-fashion", 3), ("vgg11-cifar10", 1))}
        assert text.startswith(criteria_results.beginning(leads))

    def test_of_the_lottery(self) -> None:
        text = page_of("lottery.md")
        findings = [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith("| ")][:7]
        table = Table(findings[0], findings[2:7])
        studies = text.split("\n\n")[1].split("\n- ")[1:]
        image = lottery_results.image_of("lenet-300-100-short")
        assert text.startswith(lottery_results.beginning(table, studies, image))

    def test_of_the_hybrid_studies(self) -> None:
        text = page_of("vgg-hybrid.md")
        text, _, base = text.strip().partition(f"\n\n## {hybrid_results.ORIGIN}\n\n")
        parts = [f"## {part}" for part in text.split("\n## ")[1:]]
        assert [part.partition(":")[0] for part in parts] == ["## apple", "## pneumonia"]
        assert hybrid_results.page(base, [part.rstrip("\n") for part in parts]) == page_of("vgg-hybrid.md").strip()


class TestReadme:
    README = (ROOT / "README.md").read_text()

    def test_quotes_the_verdict_of_its_page(self) -> None:
        sentence = page_of("lottery-digits.md").split("**")[1]
        assert sentence in " ".join(self.README.split())

    @pytest.mark.parametrize("page", ["lottery-digits.md", "lottery-mnist.md"])
    def test_its_table_says_what_the_pages_say(self, page: str) -> None:
        (line,) = [line for line in self.README.split("\n") if line.startswith("| ") and f"results/{page}" in line]
        density = re.search(r"\*\*winning at ([\d.]+) %\*\*", line)
        assert density is not None
        assert page_of(page).split("\n\n")[1].startswith(f"**Winning: the ticket with {density[1]}% of the weights")


def page_of(name: str) -> str:
    return (ROOT / "docs" / "results" / name).read_text()


def lead(text: str, study: str) -> str:
    """The sentence in bold with which a study's part begins."""
    return text.partition(f"\n## {study}: ")[2].split("**")[1]
