"""What people and programs are shown of a stress study: the page, the terminal, the list, `--json`."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html import escape, unescape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from made_up import study
from rich.console import Console

from said import fits
from stress_rows import altered, stress_rows
from tombola.reports.nature import in_the_dark
from tombola.reports.tables import MISSING
from tombola.studies.base.output import output
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import remarks
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.summarised import summarise
from tombola.studies.stress.report import stress_page
from tombola.studies.stress.shown.conclusions import check_lines, how_lines, in_short, lead, plasticity_line
from tombola.studies.stress.shown.result_tables import (
    cycles_table,
    null_lines,
    overview_table,
    short_table,
    tasks_table,
)
from tombola.studies.stress.shown.terminal import numbers, outcome, show_result
from tombola.studies.stress.shown.timelines import search_chart

SECTIONS = (
    "What was found",
    "Plasticity",
    "Strategies and levels",
    "Profiles",
    "Scores over time",
    "Entropy of attention",
    "Function preserved",
    "Every task",
    "Every cycle",
    "What each metric means",
    "How it was run",
    "Configuration",
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Stress:
    home = tmp_path_factory.mktemp("stress")
    return study(home, journals=("entropy",), levels=(0.1, 0.3), cost={"random": 1.0}, lost=0.1, seeds=3)


@pytest.fixture(scope="module")
def whole(result: Stress) -> str:
    return stress_page(result, "diverse")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Stress:
    return study(tmp_path_factory.mktemp("dead"), strategies=("entropy", "magnitude"), dead=("magnitude",))


def text_of(page: str) -> str:
    """What a reader sees, without scripts."""
    return unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)))


def printed(result: Stress, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    show_result(console, result)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


class TestPage:
    def test_findings_come_first_and_every_section_is_there(self, whole: str) -> None:
        assert re.findall(r"<section id='[\w-]+'><h2>(.*?)</h2>", whole) == [escape(one) for one in SECTIONS]

    def test_it_has_every_answer_and_remark(self, result: Stress, whole: str) -> None:
        seen = text_of(whole)
        for one in [*answers(result), *remarks(result)]:
            assert one.question in seen
            assert one.sentence in seen
        assert lead(result) in seen

    def test_the_table_has_dense_and_both_floors(self, result: Stress, whole: str) -> None:
        table = overview_table(result)
        assert [row[0] for row in table.rows][:2] == ["dense", "gradual"]
        assert [row[0] for row in table.rows][-2:] == ["floor: all heads off", "floor: never trained"]
        dense = result.dense("tiny")
        assert dense is not None
        loss = dense.metrics["performance_nats"]
        assert loss.mean is not None
        assert table.rows[0][2].startswith(f"{loss.mean:.2f} ±")
        assert table.rows[0][2] in whole
        assert [row[-1] for row in table.rows if row[0] == "random"] == ["3 × 2", "3 × 2"]

    def test_metrics_are_explained_with_their_direction(self, whole: str) -> None:
        seen = text_of(whole)
        for one in QUANTITIES.values():
            assert one.meaning in seen
        assert "less is better" in seen

    def test_plotly_knows_every_figure_and_the_dark_every_colour(self, whole: str) -> None:
        figures = [
            json.loads(one) for one in re.findall(r"<script type='application/json'>(.*?)</script>", whole, re.S)
        ]
        assert len(figures) > 20
        for figure in figures:
            go.Figure(figure)
        used = set(re.findall(r"#[0-9A-Fa-f]{6}|rgba\([^)]*\)", json.dumps(figures)))
        assert used <= set(in_the_dark())

    def test_drawings_that_are_folded_away_are_drawn_when_they_are_unfolded(self, whole: str) -> None:
        assert whole.count("class='plot ") > 20
        assert 'addEventListener("toggle"' in whole

    def test_of_each_journal_there_is_an_eeg_and_a_map(self, whole: str) -> None:
        assert text_of(whole).count("EEG of seed 0") == 2
        assert whole.count("removed in every network") >= 2

    def test_a_search_shows_what_its_controllers_were_rewarded_with(self, result: Stress) -> None:
        cell = {"kind": "pull", "model": "tiny", "strategy": "random", "level": 0.3, "draw": 0, "seed": 0, "unit": None}
        pulls = [
            cell | {"remedy": "none", "controller": controller, "pull": pull, "reward": reward}
            for controller, rewards in (("bandit", (1.0, 2.0, 6.0)), ("random", (1.0, 1.0, 1.0)))
            for pull, reward in enumerate(rewards)
        ]
        chart = search_chart(pulls)
        assert chart is not None
        assert {line.name: line.y[-1].mean for line in chart.series} == {"bandit": 3.0, "chance": 1.0}
        assert search_chart(result.rows) is None

    def test_without_journals_there_is_no_section_of_them(self, tmp_path: Path) -> None:
        assert "<h2>Entropy of attention" not in stress_page(study(tmp_path), "diverse")

    def test_a_network_that_learned_nothing_has_reasons(self, dead: Stress) -> None:
        page = text_of(stress_page(dead, "diverse"))
        assert "No forgetting rate, recovery rate" in page
        assert "magnitude 30%: a dead network" in page

    def test_names_are_escaped(self, tmp_path: Path) -> None:
        page = stress_page(study(tmp_path, models=("<img src=x>",)), "diverse")
        assert "<img" not in page.split("<script>")[0]

    @pytest.mark.parametrize(
        "asked",
        [
            {"seeds": 1},
            {"strategies": ()},
            {"strategies": ("random",), "cycles": 1},
            {"models": ("tiny", "other"), "remedies": ("none", "reset_dormant")},
            {"prune_cycles": 2},
            {"tasks": ("names",)},
        ],
    )
    def test_every_kind_of_study_has_a_page_and_a_table(self, tmp_path: Path, asked: dict[str, Any]) -> None:
        made = study(tmp_path, **asked)
        seen = text_of(stress_page(made, "diverse"))
        assert plasticity_line(made) in seen
        assert "nan" not in seen.lower().split()
        assert fits(printed(made))
        assert outcome(made)

    @pytest.mark.parametrize("kept", ["nothing", "pruned", "entropy", "gradual", "seed 0"])
    def test_what_is_not_there_yet_is_left_out(self, tmp_path: Path, kept: str) -> None:
        """A study that has only begun, or whose reference is missing, is shown as far as it goes."""
        made = study(tmp_path)
        keeps = {
            "nothing": lambda row: False,
            "pruned": lambda row: row["kind"] in ("pruned", "score", "phase"),
            "entropy": lambda row: row["strategy"] == "entropy",
            "gradual": lambda row: row["strategy"] == "gradual",
            "seed 0": lambda row: row["seed"] == 0 or row["strategy"] == "random",
        }
        part = summarise(tmp_path, made.config, [row for row in made.rows if keeps[kept](row)])
        assert plasticity_line(part) in text_of(stress_page(part, "diverse"))
        assert fits(printed(part))
        assert json.loads(output("stress", numbers(part)).to_json())["kind"] == "stress"

    def test_one_seed_claims_nothing(self, tmp_path: Path) -> None:
        made = study(tmp_path, seeds=1)
        assert lead(made).startswith("One seed: what differs may be chance")
        assert "±" not in "".join("".join(row) for row in overview_table(made).rows)

    def test_neither_page_nor_terminal_needs_torch(self) -> None:
        modules = "tombola.studies.stress.report, tombola.studies.stress.shown.terminal"
        code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestTerminal:
    def test_it_fits_80_columns_with_the_columns_asked_for(self, result: Stress) -> None:
        shown = printed(result)
        assert fits(shown)
        for title in ("Strategy", "Level", "Loss", "Forget", "Recover", "Alone", "Probe change", "Steps"):
            assert title in shown
        assert "No room for" not in shown
        assert str(result.folder / "report.html") in printed(result, 400)

    def test_it_says_every_answer(self, result: Stress) -> None:
        shown = " ".join(printed(result).split())
        for one in answers(result):
            assert " ".join(one.sentence.split()) in shown

    def test_nulls_have_their_reason(self, dead: Stress) -> None:
        rows = short_table(dead).rows
        assert [row[3] for row in rows if row[0] == "magnitude"] == [MISSING]
        (line,) = [one for one in null_lines(dead) if "magnitude" in one]
        assert line.startswith("No forgetting rate")
        assert "recovery without interference" in line


class TestPrograms:
    def test_numbers_are_one_object_with_units_intervals_and_reasons(self, dead: Stress) -> None:
        said = json.loads(output("stress", numbers(dead)).to_json())
        by_name = {row["name"]: row for row in said["table"]}
        assert set(by_name) == {"dense", "gradual", "entropy_0.3", "magnitude_0.3"}
        assert by_name["magnitude_0.3"]["metrics"]["avg_recovery_rate"]["mean"] is None
        assert "dead" in by_name["magnitude_0.3"]["metrics"]["avg_recovery_rate"]["reason"]
        assert len(by_name["entropy_0.3"]["metrics"]["performance_nats"]["ci"]) == 2
        assert len(said["verdict"]["answers"]) == 5
        assert said["units"]["performance_nats"] == "nats a token"

    def test_a_list_says_it_in_a_few_words(self, result: Stress) -> None:
        assert in_short(result) == (
            "Loss of plasticity is shown in 6 of 6 groups, each judged by itself (6 with a correction over groups), "
            "from cycle 1 on. "
            "Entropy preserves more than random."
        )


class TestWords:
    def test_of_several_models_the_head_compares_them(self, tmp_path: Path) -> None:
        made = study(tmp_path, models=("tiny", "other"), seeds=3)
        assert "Tiny" not in lead(made)
        assert lead(made).endswith("No difference shown (n = 3 seeds).")

    def test_of_own_tasks_it_says_so(self, tmp_path: Path) -> None:
        assert "<h1>Stress study: tiny, own tasks</h1>" in stress_page(study(tmp_path), "tasks")

    def test_of_many_strategies_the_head_of_the_page_stays_short(self, tmp_path: Path) -> None:
        cost = {"random": 2.0, "magnitude": 1.5, "gradient": 1.0, "oracle": 0.5}
        made = study(tmp_path, strategies=("entropy", *cost), cost=cost, seeds=3)
        assert "; more below." in lead(made)
        assert len(lead(made)) < 500

    def test_an_onset_that_is_not_reached_is_said_with_the_cycles(self, tmp_path: Path) -> None:
        said = plasticity_line(study(tmp_path, seeds=3))
        assert re.match(r"Loss of plasticity: onset not reached in these 2 cycles, in any of \d groups\.", said)

    def test_checks_count_and_name_what_failed(self) -> None:
        rows = stress_rows(strategies=("entropy",), levels=(0.3,), seeds=1, tasks=("names",))
        assert check_lines(rows)[0] == "1 of 1 pruning removed exactly as many units as asked."
        failed = altered(rows, {"check_held": False}, kind="phase", strategy="entropy")
        assert any(line.startswith("Check failed: 4 of 6 phases ended") for line in check_lines(failed))

    def test_epochs_stand_beside_steps(self, result: Stress) -> None:
        assert any("optimizer steps" in line and "epochs" in line and "tokens" in line for line in how_lines(result))

    def test_tasks_are_listed_for_every_group(self, result: Stress) -> None:
        table = tasks_table(result)
        assert len(table.rows) == 2 * len(result.groups)

    def test_every_pruning_and_cycle_is_a_row(self, tmp_path: Path) -> None:
        made = study(tmp_path, prune_cycles=2, cycles=2)
        table = cycles_table(made)
        of_entropy = [row[2:4] for row in table.rows if row[0] == "entropy"]
        assert of_entropy == [["1", "0"], ["1", "1"], ["1", "2"], ["2", "2"], ["2", "3"], ["2", "4"]]
