"""A comparison says what its rows say: paired by replicate, chosen on validation, reported on test."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from document_form import faults_of
from small_models import FINE_TUNING, SMALL_PARENT, contents, die_at_write, invoke, one_line, what_must_agree
from tombola.errors import RunFailure
from tombola.models import load_model
from tombola.runs.configs import validate
from tombola.runs.folder import LAYOUT
from tombola.runs.rows import Row, rows_of
from tombola.runs.sealed import write_sealed
from tombola.studies.base.life import run_study
from tombola.studies.base.numbers import whole_percent
from tombola.studies.base.study import Call
from tombola.studies.base.watching import SILENT, Watcher
from tombola.studies.single import compare as compare_module
from tombola.studies.single import grid
from tombola.studies.single.compare import Compare
from tombola.studies.single.comparison import Comparison, Setting, summarise
from tombola.studies.single.comparison_report import comparison_page, comparison_table, figure_name, lead
from tombola.studies.single.config import CompareConfig

GRID: dict[str, Any] = {
    **SMALL_PARENT,
    "name": "grid",
    "replicates": 2,
    "fine_tuning": FINE_TUNING,
    "criteria": ["random", "magnitude", "fpgm"],
    "structures": ["weight", "neuron"],
    "sparsities": [0.5, 0.9],
    "score_batches": 2,
}
"""Two parents with twelve methods each; fpgm scores whole outputs and is refused for single weights."""


def config(**changes: Any) -> CompareConfig:
    return validate({**GRID, **changes}, CompareConfig, "grid")


def compare(asked: CompareConfig, out: Path, workers: int = 1, watcher: Watcher = SILENT) -> Comparison:
    return run_study(Compare, asked, Call(out, workers, watcher=watcher))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    torch.set_num_threads(1)
    return compare(config(), tmp_path_factory.mktemp("runs"))


class TestARun:
    def test_there_is_a_row_for_everything(self, comparison: Comparison) -> None:
        ways = rows_of(comparison.rows, kind="way")
        assert len(rows_of(comparison.rows, kind="stage")) == 2
        assert len(ways) == 24
        keys = {(w["replicate"], w["structure"], w["distribution"], w["sparsity"], w["criterion"]) for w in ways}
        assert len(keys) == 24

    def test_refused_ways_are_rows_with_their_reason(self, comparison: Comparison) -> None:
        refused = [row for row in rows_of(comparison.rows, kind="way") if row["refused"] is not None]
        assert {(row["structure"], row["criterion"]) for row in refused} == {("weight", "fpgm")}
        assert len(refused) == 4
        assert all("does not go with the structure 'weight'" in row["refused"] for row in refused)
        assert all("test_accuracy" not in row for row in refused)
        page = (comparison.folder / "report.html").read_text()
        assert "fpgm on weight, global, 50%; fpgm on weight, global, 90%" in page
        assert "Refused" in page

    def test_promises_were_kept(self, comparison: Comparison) -> None:
        for row in rows_of(comparison.rows, kind="way", refused=None):
            assert [row[f"check_{name}"] for name in ("exact", "held", "nested", "parent")] == [True] * 4
            assert row["units"] == (1640 if row["structure"] == "weight" else 32)
            assert row["units"] - row["units_kept"] == round(row["sparsity"] * row["units"])

    def test_parents_differ_and_are_shared_by_their_ways(self, comparison: Comparison) -> None:
        parents = [load_model(comparison.folder / "checkpoints" / f"replicate-0{i}")[0] for i in (0, 1)]
        assert not torch.equal(parents[0][1].weight, parents[1][1].weight)

    def test_a_row_can_be_made_again_by_hand(self, comparison: Comparison) -> None:
        from tombola.data import load_data
        from tombola.pruning import prune
        from tombola.runs.seeds import derive_seed
        from tombola.training.metrics import evaluate

        model, _, _ = load_model(comparison.folder / "checkpoints" / "replicate-01")
        data = load_data(comparison.config.data, derive_seed(0, "replicate", 1))
        (parent,) = rows_of(comparison.rows, kind="stage", replicate=1)
        assert evaluate(model, data.test).accuracy == parent["test_accuracy"]
        masks = prune(model, 0.9)
        masks.apply_(model)
        way = {"replicate": 1, "structure": "weight", "criterion": "magnitude", "sparsity": 0.9}
        (row,) = rows_of(comparison.rows, kind="way", **way)
        assert row["kept"] == masks.kept
        assert row["pruned_test_accuracy"] == evaluate(model, data.test).accuracy

    def test_files(self, comparison: Comparison) -> None:
        names = {path.name for path in comparison.folder.iterdir()}
        figures = {"weight-global.png", "neuron-global.png"}
        assert {"rows.jsonl", "report.html", "summary.md", "config.yaml", "manifest.json"} | figures <= names
        summary = (comparison.folder / "summary.md").read_text()
        for setting in comparison.settings:
            assert setting.sentence in summary
        assert "Root seed 0" in summary
        assert "(neuron-global.png)" in summary
        assert faults_of(summary) == []
        left = {path.name for path in (comparison.folder / "checkpoints" / "replicate-00").iterdir()}
        assert {"spec.json", "weights.safetensors", "parent.json"} <= left
        assert not [name for name in left if "checkpoint" in name or re.fullmatch(r"way-\d+", name)]

    def test_the_page_opens_offline(self, comparison: Comparison) -> None:
        page = (comparison.folder / "report.html").read_text()
        markup = re.sub(r"<script.*?</script>", "", page, flags=re.S)
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", markup)
        assert lead(comparison) in markup

    def test_the_same_again_trains_nothing(self, comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
        before = contents(comparison.folder)
        for name in ("train_parent", "measure_child"):
            monkeypatch.setattr(compare_module, name, lambda *_: pytest.fail("made again"))
        again = compare(config(), comparison.folder.parent)
        assert again.rows == comparison.rows
        assert [setting.sentence for setting in again.settings] == [setting.sentence for setting in comparison.settings]
        after = contents(comparison.folder)
        assert {name: after[name] for name in ("rows.jsonl", "summary.md")} == {
            name: before[name] for name in ("rows.jsonl", "summary.md")
        }

    @pytest.mark.slow
    @pytest.mark.parametrize("flops", [None, 0])
    def test_flops_that_are_not_counted_are_left_out(self, comparison: Comparison, flops: int | None) -> None:
        rows = [row | {"flops_dense": flops, "flops_effective": flops} for row in comparison.rows]
        table = comparison_table(summarise(comparison.folder, comparison.config, rows).settings)
        assert {row[-1] for row in table.rows} == {""}

    @pytest.mark.usefixtures("quick_workers")
    def test_two_workers_give_the_same_rows(self, tmp_path: Path) -> None:
        small = config(criteria=["random", "magnitude"], structures=["weight"], sparsities=[0.5])
        parallel, alone = (compare(small, tmp_path / str(workers), workers) for workers in (2, 1))
        assert parallel.folder.name == alone.folder.name
        mine, theirs = (what_must_agree(run.folder) for run in (parallel, alone))
        assert mine == theirs
        assert [p.sentence for p in parallel.settings] == [p.sentence for p in alone.settings]

    def test_the_command(self, tmp_path: Path) -> None:
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump({**GRID, "replicates": 1, "sparsities": [0.999, 0.5], "fine_tuning": None}))
        result = invoke("compare", path, "--out", tmp_path / "runs", "--workers", 1, "--set", "structures=[weight]")
        assert result.exit_code == 0, result.output
        assert "weight, global, 99.9% removed: every method is refused" in result.stdout
        assert "weight, global, 50% removed: magnitude loses least" in result.stdout
        assert "one replicate: nothing is known of chance" in result.stdout
        assert "Of 2 settings in the grid, these lose least on validation: magnitude in 1." in result.stdout

    def test_a_dry_run_counts_and_leaves_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(GRID))
        result = invoke("compare", path, "--out", tmp_path / "runs", "--workers", 2, "--dry-run")
        assert result.exit_code == 0, result.output
        assert "2 parents and 24 children, 12 of each parent" in result.stdout
        cells = [line.split() for line in result.stdout.splitlines()]
        seconds = {" ".join(row[:3]): row[4] for row in cells if len(row) == 5 and row[1] == "on"}
        assert seconds.pop("fpgm on weight") == "refused"
        assert len(seconds) == 5
        assert all(float(value) > 0 for value in seconds.values())
        assert not (tmp_path / "runs").exists()

    def test_a_failed_check_fails_the_run_and_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = grid.check_child
        small = config(replicates=1, criteria=["magnitude"], structures=["weight"], fine_tuning=None)
        with monkeypatch.context() as patch:
            patch.setattr(grid, "check_child", lambda *a: real(*a) | {"check_held": False})
            with pytest.raises(RunFailure, match=r"self-check failed: .*magnitude: not so: removed weights are 0"):
                compare(small, tmp_path)
        with pytest.raises(RunFailure, match=r"self-check failed: .*magnitude: not so: removed weights are 0"):
            compare(small, tmp_path)


class TestKilled:
    def test_what_is_finished_is_not_repeated(self, comparison: Comparison, tmp_path: Path) -> None:
        """Killed in life after life, at a write; each life begins where the last one ended."""
        begun, lives = [], 0
        while True:
            reading, writing = os.pipe()
            process = os.fork()
            if process == 0:
                _one_life(tmp_path, writing, 40 + 7 * lives, before=lives % 2 == 0)
            os.close(writing)
            with os.fdopen(reading) as pipe:
                begun += [int(line) for line in pipe]
            lives += 1
            if os.WIFEXITED(os.waitpid(process, 0)[1]):
                break
        assert lives >= 3
        assert begun == sorted(begun)
        assert len(begun) == lives
        assert begun[0] == 0 < begun[-1] <= 26
        (folder,) = tmp_path.iterdir()
        assert what_must_agree(folder) == what_must_agree(comparison.folder)


class _Reporting(Watcher):
    """Writes how much was there when a life began."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def begin(self, things: str, total: int, done: int, workers: int = 1) -> None:
        os.write(self.descriptor, f"{done}\n".encode())


def _one_life(out: Path, report: int, at: int, before: bool) -> None:
    """Runs the comparison in this process, which kills itself at its `at`-th write; tells how much was there."""
    try:
        die_at_write(at, before)
        compare(config(), out, watcher=_Reporting(report))
    finally:
        os._exit(0)


# Rows written by hand: what a comparison says is a pure function of them.

ACCURACIES = {"random": (0.80, 0.82, 0.78), "magnitude": (0.90, 0.93, 0.91), "fpgm": (0.89, 0.94, 0.90)}
PARENTS = (0.95, 0.97, 0.96)


def hand_rows(
    test: dict[str, tuple[float, ...]],
    validation: dict[str, tuple[float, ...]] | None = None,
    parents: tuple[float, ...] = PARENTS,
    test_examples: int = 10**9,
) -> list[Row]:
    validation = test if validation is None else validation
    n = len(next(iter(test.values())))
    rows: list[Row] = [
        {"kind": "stage", "replicate": i, "test_accuracy": parents[i], "validation_accuracy": parents[i]}
        for i in range(n)
    ]
    for criterion, accuracies in test.items():
        for i, accuracy in enumerate(accuracies):
            rows.append(
                {
                    "kind": "way",
                    "replicate": i,
                    "structure": "weight",
                    "distribution": "global",
                    "sparsity": 0.5,
                    "criterion": criterion,
                    "refused": None,
                    "test_accuracy": accuracy,
                    "test_examples": test_examples,
                    "validation_accuracy": validation[criterion][i],
                    "pruned_test_accuracy": accuracy - 0.1,
                    "units": 100,
                    "units_kept": 50,
                    "weights": 100,
                    "kept": 50,
                    "flops_dense": 200,
                    "flops_effective": 80,
                }
            )
    return rows


def setting_of(rows: list[Row], **changes: Any) -> Setting:
    small = {"structures": ["weight"], "sparsities": [0.5], "replicates": 3, **changes}
    return summarise(Path("nowhere"), config(**small), rows).settings[0]


def by_hand(values: list[float]) -> tuple[float, float]:
    n, mean = len(values), sum(values) / len(values)
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)


class TestAPureFunctionOfTheRows:
    def test_losses_are_paired_by_replicate(self) -> None:
        setting = setting_of(hand_rows(ACCURACIES))
        for method in setting.methods:
            lost = [100 * (p - a) for p, a in zip(PARENTS, ACCURACIES[method.criterion], strict=True)]
            mean, half = by_hand(lost)
            assert method.lost is not None
            assert method.lost.mean == pytest.approx(mean)
            assert method.lost.half_width == pytest.approx(half)
            assert method.lost_pruned is not None
            assert method.lost_pruned.mean == pytest.approx(mean + 10)
            assert (method.weights_kept, method.flops_kept, method.units_kept) == pytest.approx((0.5, 0.4, 0.5))

    def test_rivals_are_told_by_the_paired_difference(self) -> None:
        """fpgm is 1, -1 and 1 points from magnitude; random 10 and more."""
        setting = setting_of(hand_rows(ACCURACIES))
        assert setting.best is not None
        assert setting.best.criterion == "magnitude"
        assert setting.rivals == ["fpgm"]
        expected = (
            "magnitude loses least on validation, 4.67 points (95 % CI 3.23 to 6.10, n = 3) of test accuracy; no "
            "significant difference to it: fpgm"
        )
        assert setting.sentence.startswith(f"weight, global, 50% removed: {expected} (80 % of such studies would find ")

    def test_pairing_finds_what_the_spread_of_parents_hides(self) -> None:
        parents = (0.95, 0.75, 0.55)
        test = {
            "random": tuple(p - 0.03 - d for p, d in zip(parents, (0.001, 0, 0.002), strict=True)),
            "magnitude": tuple(p - 0.01 for p in parents),
            "fpgm": tuple(p - 0.03 for p in parents),
        }
        setting = setting_of(hand_rows(test, parents=parents))
        assert setting.rivals == []
        assert setting.sentence.endswith("; every other method loses more.")

    def test_agreement_by_rounding_is_no_certainty(self) -> None:
        """Two replicates differ by one and the same example of a hundred: that much is chance."""
        test = {"random": (0.90, 0.92), "magnitude": (0.91, 0.93), "fpgm": (0.5, 0.52)}
        assert setting_of(hand_rows(test, test_examples=10**9), replicates=2).rivals == []
        setting = setting_of(hand_rows(test, test_examples=100), replicates=2)
        assert "random" in setting.rivals
        assert setting.best is not None
        assert setting.best.lost is not None
        assert setting.best.lost.half_width == pytest.approx(stats.t.ppf(0.975, 1) / math.sqrt(6) / math.sqrt(2))

    def test_chosen_on_validation_reported_on_test(self) -> None:
        validation = {"random": (0.99,) * 3, "magnitude": (0.5,) * 3, "fpgm": (0.6,) * 3}
        setting = setting_of(hand_rows(ACCURACIES, validation))
        assert setting.best is not None
        assert setting.best.criterion == "random"
        assert "random loses least on validation, 16.00 points (95 % CI " in setting.sentence
        assert setting.better == ["magnitude", "fpgm"]  # the test set says so, and it is said
        assert "on the test set these lose less: magnitude, fpgm" in setting.sentence
        assert "every other method loses more" not in setting.sentence

    def test_sentences_change_when_rows_change(self) -> None:
        one = setting_of(hand_rows(ACCURACIES)).sentence
        better = ACCURACIES | {"random": (0.94, 0.96, 0.95)}
        two = setting_of(hand_rows(better)).sentence
        assert "random loses least on validation, 1.00 points (95 % CI 1.00 to 1.00, n = 3)" in two
        assert one != two

    def test_one_replicate_has_no_interval(self) -> None:
        setting = setting_of(hand_rows({name: values[:1] for name, values in ACCURACIES.items()}))
        assert all(method.lost is not None and method.lost.half_width is None for method in setting.methods)
        assert setting.sentence.endswith("5.00 points of test accuracy (one replicate: nothing is known of chance).")
        table = comparison_table([setting])
        assert not any("±" in cell for row in table.rows for cell in row)

    def test_one_refused_replicate_refuses_the_way(self) -> None:
        rows = hand_rows(ACCURACIES)
        rows[3] = {key: rows[3][key] for key in list(rows[3])[:6]} | {"refused": "too small"}
        setting = setting_of(rows)
        assert setting.methods[0].refused == "too small"
        assert setting.methods[0].lost is None
        assert setting.rivals == ["fpgm"]

    def test_all_refused(self) -> None:
        rows = [row | ({"refused": "no"} if row["kind"] == "way" else {}) for row in hand_rows(ACCURACIES)]
        setting = setting_of(rows)
        assert setting.best is None
        assert setting.rivals == setting.better == []
        assert setting.sentence == "weight, global, 50% removed: every method is refused (no)."

    def test_a_single_way_has_none_to_lose_to(self) -> None:
        setting = setting_of(hand_rows({"magnitude": (0.9, 0.93, 0.91)}), criteria=["magnitude"])
        assert setting.sentence.endswith("4.67 points (95 % CI 3.23 to 6.10, n = 3) of test accuracy.")

    def test_a_gain_is_a_negative_loss_with_a_real_minus(self) -> None:
        setting = setting_of(hand_rows({"magnitude": (0.96, 0.98, 0.97)}), criteria=["magnitude"])
        assert "loses least on validation, −1.00 points (95 % CI −1.00 to −1.00, n = 3)" in setting.sentence

    @given(
        st.lists(st.tuples(*[st.integers(0, 1000)] * 4), min_size=2, max_size=6),
        st.randoms(use_true_random=False),
    )
    @settings(max_examples=40)
    def test_the_order_of_the_rows_says_nothing(self, counts: list[tuple[int, ...]], chance: Any) -> None:
        parents = tuple(row[0] / 1000 for row in counts)
        names = ("random", "magnitude", "fpgm")
        test = {name: tuple(row[i + 1] / 1000 for row in counts) for i, name in enumerate(names)}
        rows = hand_rows(test, parents=parents)
        one = setting_of(rows)
        chance.shuffle(rows)
        two = setting_of(rows)
        assert one.best is not None
        assert two.best is not None
        assert {method.criterion for method in one.methods} == set(names)
        assert one.best.lost_validation.mean == pytest.approx(two.best.lost_validation.mean)
        assert not set(one.rivals) & set(one.better)
        for mine, theirs in zip(one.methods, two.methods, strict=True):
            assert mine.lost.mean == pytest.approx(theirs.lost.mean, abs=1e-9)
            assert mine.by_replicate == theirs.by_replicate

    def test_the_table_and_the_page(self, tmp_path: Path) -> None:
        write_sealed(tmp_path / "manifest.json", {"layout": LAYOUT, "must_match": {"study": "compare"}})
        made = summarise(tmp_path, config(structures=["weight"], sparsities=[0.5], replicates=3), hand_rows(ACCURACIES))
        table = comparison_table(made.settings)
        marked = {row[3]: row[4] for row in table.rows}
        assert marked == {"random": "16.00 ± 4.30", "magnitude (least)": "4.67 ± 1.43", "fpgm *": "5.00 ± 4.30"}
        page = comparison_page(made)
        assert "magnitude loses least" in page
        assert "n = 3 replicates, bands" in page


@pytest.mark.parametrize(
    ("fraction", "said"),
    [(0.5, "50%"), (0.9, "90%"), (0.985, "98.5%"), (0.999, "99.9%"), (0.29, "29%"), (1 / 3, "33.3333%")],
)
def test_fractions_are_not_rounded_to_something_else(fraction: float, said: str) -> None:
    assert whole_percent(fraction) == said


def test_figures_of_different_panels_have_different_names() -> None:
    names = {figure_name(s, b) for s in ("weight", "block:4x4", "block:1x4") for b in ("global", "uniform", "erk")}
    assert len(names) == 9


def test_too_small_a_grid_to_compare(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in GRID.items() if key != "criteria"}))
    one_line(invoke("compare", path, "--out", tmp_path / "runs"), "criteria is missing")
