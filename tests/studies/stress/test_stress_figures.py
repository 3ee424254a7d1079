"""Figures and histories of a stress study: the files users know, drawn really; and that they show what rows say."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_up import SMALL, study
from matplotlib.figure import Figure
from PIL import Image

from stress_rows import stress_rows
from tombola.errors import RunFolderError
from tombola.reports import printed
from tombola.reports.intervals import estimate
from tombola.reports.printed import png
from tombola.runs.rows import rows_of
from tombola.studies.stress.outcome.groups import GroupKey
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.summarised import summarise
from tombola.studies.stress.shown.comparisons import SPOKES, comparison, grid, missing_notes, profiles
from tombola.studies.stress.shown.figures import write_figures
from tombola.studies.stress.shown.histories import function_history, metrics_history
from tombola.studies.stress.shown.places import cell_folder, ending, label, slug, titled
from tombola.studies.stress.shown.timelines import (
    FLOORS,
    PRESERVED,
    function_charts,
    named,
    over_seeds_chart,
    probe_chart,
    prunings_of,
    spans_of,
    time_series,
)

pytestmark = pytest.mark.usefixtures("real_figures")

CELL = (
    "metrics_history.json",
    "visualizations/time_series.png",
    "visualizations/radar.png",
    "function_tracking/function_history.json",
    "function_tracking/function.png",
)
OF_JOURNAL = (
    "entropy_tracking/entropy_journal_summary.md",
    "entropy_tracking/visualizations/eeg.png",
    "entropy_tracking/visualizations/entropy_heatmap.png",
)
COMPARED = (
    "recovery_rate_comparison",
    "forgetting_rate_comparison",
    "performance_comparison",
    "heatmaps",
    "plasticity",
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Stress:
    return study(tmp_path_factory.mktemp("stress"), levels=(0.1, 0.3), cost={"random": 1.0}, lost=0.1)


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Stress:
    return study(tmp_path_factory.mktemp("dead"), strategies=("entropy", "magnitude"), dead=("magnitude",))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, real_figures: None) -> tuple[Path, list[Path]]:
    """Drawn really: the dense network, and one strategy at one level."""
    made = study(tmp_path_factory.mktemp("files"), ("entropy",), ("gradual",), strategies=("entropy",), cycles=1)
    return made.folder, write_figures(made.folder, made, "diverse")


@pytest.fixture
def empty_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of figures with nothing in them, where a test is about their names."""
    monkeypatch.setattr(printed, "_drawn", lambda *_: Figure(figsize=(1, 1)))


class TestFiles:
    def test_lie_where_users_know_them(self, written: tuple[Path, list[Path]]) -> None:
        root, files = written
        wanted = {f"diverse_comparison/{name}.png" for name in COMPARED}
        cells = ("dense_0", "entropy_0.3")
        wanted |= {f"diverse_{cell}/{name}" for cell in cells for name in CELL}
        wanted |= {f"diverse_entropy_0.3/{name}" for name in OF_JOURNAL}
        assert {str(file.relative_to(root)) for file in files} == wanted
        assert all(file.stat().st_size for file in files)

    def test_images_show_something(self, written: tuple[Path, list[Path]]) -> None:
        for file in written[1]:
            if file.suffix == ".png":
                image = np.asarray(Image.open(file).convert("L"))
                assert image.shape[1] == 1440, file.name
                assert (image < 128).mean() > 0.002, file.name

    def test_a_strategy_and_dense_have_their_colours(self, written: tuple[Path, list[Path]]) -> None:
        file = written[0] / "diverse_comparison" / "performance_comparison.png"
        pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
        assert (pixels == (0x00, 0x72, 0xB2)).all(axis=1).sum() > 50  # entropy
        assert (pixels == (0x6F, 0x6F, 0x6F)).all(axis=1).sum() > 50  # dense, the line across

    @pytest.mark.usefixtures("empty_images")
    def test_a_damaged_journal_is_an_error(self, tmp_path: Path) -> None:
        damaged = study(tmp_path, journals=("entropy",))
        path = tmp_path / "diverse_entropy_0.3" / "entropy_tracking" / "entropy_journal.jsonl"
        path.write_text("no entry\n" + path.read_text())
        with pytest.raises(RunFolderError, match="line 1 is damaged"):
            write_figures(tmp_path, damaged, "diverse")

    @pytest.mark.usefixtures("empty_images")
    def test_models_and_remedies_share_folders_and_no_file(self, tmp_path: Path) -> None:
        several = study(tmp_path, strategies=("entropy",), models=("tiny", "a/b"), remedies=("none", "reset_dormant"))
        files = write_figures(tmp_path, several, "memory")
        assert len(set(files)) == len(files)
        names = {file.name for file in files}
        assert {"radar.png", "radar-a-b.png", "radar-a-b-reset_dormant.png", "heatmaps-a-b.png"} <= names

    @pytest.mark.usefixtures("empty_images")
    def test_a_study_of_references_alone_has_nothing_to_compare(self, tmp_path: Path) -> None:
        alone = study(tmp_path, strategies=())
        files = write_figures(tmp_path, alone, "diverse")
        assert {file.parent.parent.name for file in files if file.suffix == ".png"} == {
            "diverse_dense_0",
            "diverse_gradual_0",
        }


class TestComparisons:
    def test_dots_are_the_means_over_seeds_of_the_rows(self, result: Stress) -> None:
        dots = comparison(result, "performance_nats")
        assert dots.places == ["10%", "30%"]
        for series in dots.series:
            for place, level in enumerate((0.1, 0.3)):
                by_seed = []
                for seed in (0, 1):
                    of = {"kind": "score", "strategy": series.name, "level": level, "seed": seed, "look": "end"}
                    rows = rows_of(result.rows, **of)
                    last = [row["nats"] for row in rows if row["phase"] == max(r["phase"] for r in rows)]
                    by_seed.append(float(np.mean(last)))
                assert series.y[place].mean == pytest.approx(np.mean(by_seed))
                assert series.y[place].low == pytest.approx(estimate(by_seed).low)

    def test_the_dense_network_is_a_line_across(self, result: Stress) -> None:
        dots, dense = comparison(result, "avg_recovery_rate"), result.dense("tiny")
        assert dots.baseline is not None
        assert dense is not None
        assert dots.baseline[1] == dense.metrics["avg_recovery_rate"].mean

    def test_of_several_models_dense_is_a_dot_each(self, tmp_path: Path) -> None:
        dots = comparison(study(tmp_path, models=("tiny", "other")), "performance_nats")
        assert dots.baseline is None
        assert [series.name for series in dots.series][-1].startswith("dense")
        assert dots.places == ["tiny\n30%", "other\n30%"]

    def test_nulls_are_marked_and_explained(self, dead: Stress) -> None:
        dots = comparison(dead, "avg_recovery_rate")
        assert [(one.series, one.place) for one in dots.missing] == [("magnitude", 0)]
        (note,) = missing_notes([dots])
        assert note.startswith("No value (×): magnitude 30%: a dead network")

    def test_cells_are_hatched_where_nothing_was_learned_and_orange_where_it_is_worse(self, dead: Stress) -> None:
        recovery, loss = grid(dead, "tiny", "avg_recovery_rate"), grid(dead, "tiny", "performance_nats")
        assert recovery.cells[1][0].value is None
        assert "dead" in recovery.cells[1][0].reason
        assert loss.strength(loss.cells[1][0]) == -1

    def test_noise_looks_pale(self, result: Stress) -> None:
        """Where intervals are longer than differences no colour is strong."""
        drawn = grid(result, "tiny", "probe_change")
        strengths = [drawn.strength(cell) for row in drawn.cells for cell in row]
        assert all(abs(strength) <= 0.75 for strength in strengths if strength is not None)

    def test_one_seed_has_no_interval(self, tmp_path: Path) -> None:
        drawn = grid(study(tmp_path, seeds=1), "tiny", "performance_nats")
        assert all("±" not in cell.text for row in drawn.cells for cell in row)


class TestRadars:
    def test_more_is_better_on_every_spoke(self, result: Stress) -> None:
        better = {"avg_forgetting_rate": -1, "probe_change": -1}
        for spoke in SPOKES:
            assert (spoke.of(0.6) - spoke.of(0.4)) * better.get(spoke.metric, 1) > 0

    def test_spokes_are_metrics_and_dots_the_same_values(self, result: Stress) -> None:
        group = result.group("tiny", "random", 0.3)
        assert group is not None
        radar, dots = profiles(named(result, [group]))
        assert [series.name for series in radar.series] == ["dense", "random, 30%"]
        assert radar.series == dots.series
        values = dict(zip(radar.series[1].x, radar.series[1].y, strict=True))
        lost = group.metrics["probe_change"].mean
        assert lost is not None
        assert values[5.0].mean == pytest.approx(math.exp(-lost))

    def test_a_dead_network_has_open_spokes(self, dead: Stress) -> None:
        group = dead.group("tiny", "magnitude", 0.3)
        assert group is not None
        radar, dots = profiles([("magnitude", group)])
        assert radar.outline(radar.series[0])[2] is None
        assert {one.place for one in dots.missing} >= {1, 2, 3}


class TestTimelines:
    def test_a_life_is_told_over_global_steps(self, result: Stress) -> None:
        group = result.group("tiny", "entropy", 0.3)
        assert group is not None
        life = group.lives[0]
        chart, rows = time_series(life), life.rows["phase"]
        assert [one.label for one in chart.spans] == [row["training"] for row in rows]
        assert [one.end for one in chart.spans] == [row["step"] for row in rows]
        assert [one.x for one in chart.moments] == [0]
        for line in chart.series:
            looks = [row for row in life.rows["score"] if row["task"] == line.name]
            ends = {float(row["step"]): row["few_nats"] for row in looks if row["look"] == "end"}
            drawn = dict(zip(line.x, (one.mean for one in line.y), strict=True))
            assert ends.items() <= {step: pytest.approx(value) for step, value in drawn.items()}.items()
            inside = {float(row["step"]) for row in looks if row["look"] == "inside"}
            assert inside <= set(line.x)

    def test_a_dense_life_was_not_pruned(self, result: Stress) -> None:
        dense = result.dense("tiny")
        assert dense is not None
        assert prunings_of(dense.lives[0]) == []

    def test_each_pruning_is_marked(self, tmp_path: Path) -> None:
        group = study(tmp_path, prune_cycles=2, cycles=1).group("tiny", "entropy", 0.3)
        assert group is not None
        life = group.lives[0]
        assert [one.x for one in prunings_of(life)] == [0, spans_of(life)[2].start]

    def test_ribbons_are_over_seeds(self, result: Stress) -> None:
        group = result.group("tiny", "random", 0.3)
        assert group is not None
        lines = {one.name: one for one in over_seeds_chart(group).series}
        assert all(one.n == 2 for line in lines.values() for one in line.y)
        whole = lines["mean over all tasks"]
        assert whole.y[-1].mean == pytest.approx(group.metrics["performance_nats"].mean)
        assert lines["task just learned"].x[0] == 1
        assert lines["tasks learned before"].x[0] == 2

    def test_the_probe_has_every_strategy_dense_and_the_fresh_network(self, result: Stress) -> None:
        chart = probe_chart(result, "tiny", 0.3)
        assert [series.name for series in chart.series] == ["entropy", "random", "dense"]
        assert chart.baseline is not None
        fresh = [row["nats"] for row in rows_of(result.rows, kind="probe", of="fresh", level=0.3, strategy="entropy")]
        other = [row["nats"] for row in rows_of(result.rows, kind="probe", of="fresh", level=0.3, strategy="random")]
        assert chart.baseline[1] == pytest.approx((np.mean(fresh) + np.mean(other)) / 2)
        assert len(chart.series[0].x) == 3

    def test_function_stands_beside_both_floors(self, result: Stress) -> None:
        group = result.group("tiny", "random", 0.3)
        assert group is not None
        charts = function_charts(named(result, [group]))
        assert len(charts) == len(PRESERVED)
        for chart in charts:
            assert [series.name for series in chart.series] == ["dense", "random, 30%", *FLOORS.values()]
            assert len(chart.series[1].x) == 3

    def test_without_function_there_is_no_chart(self, tmp_path: Path) -> None:
        rows = [row for row in stress_rows(**SMALL) if row["kind"] != "function"]
        bare = summarise(tmp_path, None, rows)
        group = bare.group("tiny", "entropy", 0.3)
        assert group is not None
        assert function_charts(named(bare, [group])) == []

    def test_a_dead_life_can_be_drawn(self, dead: Stress) -> None:
        group = dead.group("tiny", "magnitude", 0.3)
        assert group is not None
        assert Image.open(io.BytesIO(png(time_series(group.lives[0])))).size[0] == 1440


class TestHistories:
    def test_every_score_of_a_cell_is_there_as_the_rows_have_it(self, result: Stress) -> None:
        group = result.group("tiny", "random", 0.3)
        assert group is not None
        history = json.loads(json.dumps(metrics_history([group]), allow_nan=False))
        scores = [one for one in history if one["measured"] == "score"]
        rows = [row for row in rows_of(result.rows, kind="score", strategy="random", level=0.3) if row["look"] == "end"]
        assert len(scores) == len(rows) > 0
        assert sorted(one["nats"] for one in scores) == sorted(row["nats"] for row in rows)
        assert {"phase", "cycle", "task", "training", "seed", "draw", "step", "epochs"} <= scores[0].keys()
        assert {one["measured"] for one in history} == {"score", "probe", "state"}

    def test_function_has_its_floors(self, result: Stress) -> None:
        group = result.group("tiny", "entropy", 0.1)
        assert group is not None
        history = function_history([group])
        assert {one["of"] for one in history} == {"network", "all_off", "independent"}
        assert sum(one["of"] == "network" for one in history) == 2 * 3  # seeds by pruning and two cycles

    def test_a_null_keeps_its_reason(self, tmp_path: Path) -> None:
        rows = stress_rows(**SMALL)
        for row in rows:
            if row["kind"] == "function":
                row |= {"cka": None, "cka_reason": "one token"}
        group = summarise(tmp_path, None, rows).group("tiny", "entropy", 0.3)
        assert group is not None
        assert all(one["cka_reason"] == "one token" for one in function_history([group]))


class TestNames:
    def test_of_folders_files_and_series(self, result: Stress) -> None:
        assert cell_folder(Path("o"), "conflict", ("entropy_low", 0.25)) == Path("o/conflict_entropy_low_0.25")
        key = GroupKey("tiny", "entropy_low", 0.25, "reset_dormant")
        assert label(key) == "entropy low, reset dormant"
        assert titled(result, key) == "entropy low, reset dormant, 25%"
        assert ending(result, key) == "-reset_dormant"
        assert ending(result, key._replace(remedy="none")) == ""

    @pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "c:\\d", ""])
    def test_a_models_name_leaves_no_folder(self, name: str) -> None:
        assert "/" not in slug(name)
        assert "\\" not in slug(name)
        assert slug(name).strip(".")
