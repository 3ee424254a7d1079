"""Latency as studies measure it: once, on one thread, with a reason where there is no number. How long, nobody asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from listening import Heard
from sealing import retell
from small_models import FINE_TUNING, invoke, make_child, make_parent
from small_study import SMALL_STUDY, run_lottery
from tombola.compression import measured, runtime
from tombola.compression.measured import Latency, measure_latency
from tombola.errors import KernelError
from tombola.models import ModelSpec, build
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.reports.axes import factor_axis
from tombola.runs.configs import validate
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row, read_rows, rows_of
from tombola.studies.base.opened import read_result
from tombola.studies.base.speed import microseconds, speeds_of, times
from tombola.studies.base.watching import Progress
from tombola.studies.lottery import latency as latency_module
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.curves import speed_chart
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.round_results import results_table
from tombola.studies.lottery.search_costs import cost_line, rounds_table, speed_notes
from tombola.studies.lottery.study import open_lottery
from tombola.studies.single.one_model import Result as Child
from tombola.studies.single.stages import stages_note, stages_table

pytestmark = pytest.mark.usefixtures("sparse_kernels")

NO_KERNELS = "this processor has neither AVX2 with FMA nor NEON"


def config(**changes: object) -> LotteryConfig:
    study = {**SMALL_STUDY, "replicates": 1, "controls": [], **changes}
    return validate(study, LotteryConfig, "latency")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, sparse_kernels: None) -> Result:
    torch.set_num_threads(1)
    return run_lottery(config(rewind=["init", "lr"]), tmp_path_factory.mktemp("runs"))


def without_kernels(*_: Any) -> nn.Module:
    raise KernelError(NO_KERNELS)


def never(*_: Any) -> list[Latency]:
    pytest.fail("measured again")


def small_network() -> tuple[nn.Module, Masks]:
    network = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=1, widths=(20, 10)))
    masks = prune(network, 0.8)
    masks.apply_(network)
    return network, masks


class TestMeasureLatency:
    def test_both_ways_in_every_batch_size(self) -> None:
        network, masks = small_network()
        network.train()
        before = content_sha256(network.state_dict())
        found = measure_latency(network, masks, torch.rand(64, 1, 8, 8), (1, 3, 64))
        assert [latency.batch for latency in found] == [1, 3, 64]
        for latency in found:
            assert latency.reason is None
            assert latency.on_torch == ()
            for quartiles in (latency.dense, latency.sparse):
                assert quartiles is not None
                low, median, high = quartiles
                assert 0 < low <= median <= high
        assert network.training
        assert content_sha256(network.state_dict()) == before

    def test_one_thread_and_the_callers_number_afterwards(self) -> None:
        seen: set[int] = set()

        class Watching(nn.Linear):
            def forward(self, input: torch.Tensor) -> torch.Tensor:
                seen.add(torch.get_num_threads())
                assert not torch.is_grad_enabled()
                return super().forward(input)

        network = nn.Sequential(nn.Flatten(), Watching(64, 10))
        torch.set_num_threads(2)
        try:
            measure_latency(network, Masks.full(network), torch.rand(64, 1, 8, 8))
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)
        assert seen == {1}

    def test_what_is_left_to_torch_is_named_without_a_warning(self, recwarn: pytest.WarningsRecorder) -> None:
        network = nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(200, 10))
        found = measure_latency(network, prune(network, 0.5), torch.rand(64, 1, 8, 8))
        assert found[0].on_torch == ("0: ConvTranspose2d",)
        assert found[0].sparse is not None
        assert not recwarn.list

    def test_no_kernels_on_this_machine_is_null_with_a_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measured, "sparsify", without_kernels)
        network, masks = small_network()
        for latency in measure_latency(network, masks, torch.rand(64, 1, 8, 8)):
            assert latency.dense is not None
            assert (latency.sparse, latency.reason) == (None, NO_KERNELS)
            dense, sparse = latency.rows()
            assert (dense["engine"], dense["reason"]) == ("torch eager", None)
            assert (sparse["engine"], sparse["seconds"], sparse["reason"]) == ("sparse kernels", None, NO_KERNELS)

    def test_a_model_that_refuses_a_batch_of_one_costs_no_study(self) -> None:
        class Pairs(nn.Linear):
            def forward(self, input: torch.Tensor) -> torch.Tensor:
                if len(input) < 2:
                    raise ArithmeticError("needs two")
                return super().forward(input)

        network = nn.Sequential(nn.Flatten(), Pairs(64, 10))
        one, many = measure_latency(network, Masks.full(network), torch.rand(64, 1, 8, 8))
        assert one.dense is one.sparse is None
        assert one.reason
        assert many.dense is not None

    def test_fewer_examples_than_a_batch_come_again(self) -> None:
        network, masks = small_network()
        found = measure_latency(network, masks, torch.rand(10, 1, 8, 8))
        assert [latency.batch for latency in found] == [1, 64]
        assert all(latency.sparse is not None for latency in found)


class TestLotteryRows:
    def test_the_first_modes_tickets_and_the_dense_network_of_replicate_0(self, result: Result) -> None:
        rows = rows_of(result.rows, kind="latency")
        assert [(row["round"], row["batch"], row["engine"]) for row in rows] == [
            (index, batch, engine)
            for index in range(4)
            for batch in (1, 64)
            for engine in ("torch eager", "sparse kernels")
        ]
        assert {row["rewind"] for row in rows if row["round"]} == {"init"}
        assert {row["rewind"] for row in rows_of(rows, round=0)} == {None}
        assert {(row["replicate"], row["dtype"], row["threads"]) for row in rows} == {(0, "float32", 1)}
        for row in rows:
            trained = rows_of(result.rows, kind="training", round=row["round"])[0]
            assert row["density"] == trained["density"]
            assert row["reason"] is None
            assert 0 < row["seconds"][0] <= row["seconds"][1] <= row["seconds"][2]

    def test_trained_weights_are_measured_on_test_images(
        self, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[str, str]] = []

        def watched(network: nn.Module, masks: Masks, images: torch.Tensor) -> list[Latency]:
            assert images.shape == (64, 1, 8, 8)
            seen.append((content_sha256(network.state_dict()), content_sha256(masks.to_tensors())))
            return [Latency(batch, None, None, "not asked") for batch in (1, 64)]

        monkeypatch.setattr(latency_module, "measure_latency", watched)
        outcome = run_lottery(config(), tmp_path)
        trained = rows_of(outcome.rows, kind="training")
        assert seen == [(row["weights_sha256"], row["masks_sha256"]) for row in trained]

    def test_every_training_says_its_engine(self, result: Result, tmp_path: Path) -> None:
        rows = rows_of(result.rows, kind="training")
        assert {row["engine"] for row in rows} <= {"dense", "sparse"}
        assert rows[0]["engine"] == "dense"
        asked = {**SMALL_STUDY["training"], "engine": "dense"}
        dense = rows_of(run_lottery(config(training=asked), tmp_path).rows, kind="training")
        assert all(row["engine"] == "dense" for row in dense)


class TestMeasuredOnce:
    def test_a_finished_run_shows_what_it_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = run_lottery(config(), tmp_path)
        monkeypatch.setattr(latency_module, "measure_latency", never)
        assert run_lottery(config(), tmp_path).rows == first.rows
        for command in ("show", "report"):
            assert invoke(command, first.folder.root).exit_code == 0

    def test_more_replicates_do_not_measure_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = run_lottery(config(), tmp_path)
        monkeypatch.setattr(latency_module, "measure_latency", never)
        more = run_lottery(config(replicates=2), tmp_path)
        assert rows_of(more.rows, kind="latency") == rows_of(first.rows, kind="latency")
        assert more.verdict.replicates == 2

    @pytest.mark.parametrize("torn", [0, 3])
    def test_a_run_stopped_while_measuring_measures_the_rest(
        self, torn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two networks are in the table, and the first rows of a third when the kill tore it."""
        calls: list[int] = []

        def measuring(*arguments: Any) -> list[Latency]:
            calls.append(1)
            if len(calls) == 3 and not torn:
                raise KeyboardInterrupt
            return measure_latency(*arguments)

        monkeypatch.setattr(latency_module, "measure_latency", measuring)
        if torn:
            table = run_lottery(config(), tmp_path).folder
            lines = table.rows.read_text().splitlines(keepends=True)
            first = next(number for number, line in enumerate(lines) if '"kind":"latency"' in line)
            table.rows.write_text("".join(lines[: first + 2 * 4 + torn]))
            table.report.unlink()
        else:
            with pytest.raises(KeyboardInterrupt):
                run_lottery(config(), tmp_path)
        (path,) = tmp_path.glob("*/rows.jsonl")
        before = read_rows(path)
        calls.clear()
        calls += [1] * 10
        heard = Heard()
        outcome = run_lottery(config(), tmp_path, watcher=heard)
        assert len(calls) == 10 + 2
        assert heard.tasks == [Progress("measuring latency", done, 2) for done in (1, 2)]
        assert outcome.rows[: len(before)] == before
        assert len(rows_of(outcome.rows, kind="latency")) == 16


class TestARunWithoutLatency:
    @pytest.fixture
    def unmeasured(self, tmp_path: Path) -> RunFolder:
        """A run that was killed after its trainings and before latency was measured."""
        folder = run_lottery(config(), tmp_path).folder
        lines = folder.rows.read_text().splitlines(keepends=True)
        retell(folder, [line for line in lines if json.loads(line)["kind"] != "latency"])
        folder.finished.unlink()
        return folder

    def test_it_opens_and_says_so(self, unmeasured: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(latency_module, "measure_latency", never)
        outcome = read_result(open_lottery(unmeasured.root))
        assert speed_chart(outcome.summaries, outcome.rows) is None
        shown = invoke("show", unmeasured.root)
        assert shown.exit_code == 0, shown.output
        assert "Latency: not measured." in " ".join(shown.stdout.split())
        assert invoke("report", unmeasured.root).exit_code == 0
        assert "Latency: not measured." in unmeasured.report.read_text()

    @pytest.mark.parametrize("replicates", [1, 2])
    def test_the_command_brings_the_measurement(self, unmeasured: RunFolder, replicates: int) -> None:
        outcome = run_lottery(config(replicates=replicates), unmeasured.root.parent)
        assert len(rows_of(outcome.rows, kind="latency")) == 16


class TestLotteryResults:
    def test_json_has_the_latency_of_every_density(self, result: Result) -> None:
        points = json.loads((result.folder.results / "sparsity_vs_time.json").read_text(), parse_constant=pytest.fail)
        assert len(points) == 4
        for index, point in enumerate(points):
            assert point["training_engine"] in ("dense", "sparse")
            assert point["seconds_per_iteration"] > 0
            assert [entry["batch"] for entry in point["latency"]] == [1, 64]
            for entry in point["latency"]:
                rows = {r["engine"]: r for r in rows_of(result.rows, kind="latency", round=index, batch=entry["batch"])}
                assert (entry["threads"], entry["dtype"], entry["reason"]) == (1, "float32", None)
                assert entry["dense"]["seconds"] == rows["torch eager"]["seconds"][1]
                assert entry["ticket"]["seconds"] == rows["sparse kernels"]["seconds"][1]
                assert entry["speed_up"] == pytest.approx(entry["dense"]["seconds"] / entry["ticket"]["seconds"])
        assert points[0]["fraction_of_dense_iteration"] == 1

    @pytest.mark.parametrize("name", ["report.html", "results/sparsity_vs_time.html"])
    def test_pages_have_the_figure_and_the_table(self, name: str, result: Result) -> None:
        page = (result.folder.root / name).read_text()
        for part in ("Measured speed-up (", "dense, torch eager", "batch 64: dense µs", "on the machine of the run"):
            assert part in page

    def test_markdown_and_tables_have_cost_beside_density(self, result: Result) -> None:
        text = (result.folder.results / "summary.md").read_text()
        assert "| Density | ms/it | Of dense | Engine | batch 1: dense µs | ticket µs | × |" in text
        assert cost_line(result.rows) in text
        table = results_table(result.summaries)
        at = table.columns.index("Of dense")
        assert table.rows[0][at : at + 2] == ("1.00 ×", "dense")
        assert "Of dense" in (result.folder.results / "table.csv").read_text()
        assert r"1.00 $\times$" in (result.folder.results / "table.tex").read_text()

    def test_the_cost_is_the_mean_over_replicates_of_time_by_iterations(self) -> None:
        def row(index: int, replicate: int, seconds: float, trained: int, engine: str) -> Row:
            branch = "ticket" if index else "dense"
            key = {"replicate": replicate, "rewind": "init" if index else None, "round": index, "branch": branch}
            values: Row = dict.fromkeys(COLUMNS, 1) | {"seconds": seconds, "iterations_trained": trained}
            return {"kind": "training", **key, **values, "engine": engine}

        rows = [row(0, 0, 2.0, 1000, "dense"), row(0, 1, 4.0, 1000, "dense")]
        rows += [row(1, 0, 0.4, 1000, "sparse"), row(1, 1, 0.4, 500, "sparse"), row(2, 0, 0.0, 0, "sparse")]
        dense, ticket, shared = summarise(rows)
        assert (dense.engine, ticket.engine) == ("dense", "sparse")
        assert dense.seconds_per_iteration is not None
        assert dense.seconds_per_iteration.mean == pytest.approx(3e-3)
        assert shared.seconds_per_iteration is None
        cells = [line[-3:] for line in results_table([dense, ticket, shared]).rows]
        assert cells == [("3.000", "1.00 ×", "dense"), ("0.600", "0.20 ×", "sparse"), ("–", "–", "–")]
        line = cost_line(rows)
        assert "5 trainings (3 on sparse kernels), 7 seconds" in line

    def test_no_kernels_give_reasons_and_no_numbers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measured, "sparsify", without_kernels)
        outcome = run_lottery(config(), tmp_path)
        for row in rows_of(outcome.rows, kind="latency"):
            assert (row["seconds"] is None) == (row["reason"] == NO_KERNELS) == (row["engine"] == "sparse kernels")
        points = json.loads((outcome.folder.results / "sparsity_vs_time.json").read_text())
        for entry in points[1]["latency"]:
            assert (entry["speed_up"], entry["ticket"]["seconds"], entry["reason"]) == (None, None, NO_KERNELS)
            assert entry["dense"]["seconds"] > 0
        assert f"Not measured: {NO_KERNELS}." in (outcome.folder.results / "summary.md").read_text()
        assert speed_chart(outcome.summaries, outcome.rows) is None

    def test_it_is_said_where_dense_is_faster(self, result: Result) -> None:
        rows = [dict(row) for row in result.rows]
        for row in rows_of(rows, kind="latency"):
            slow = row["engine"] == "sparse kernels" and row["round"] == 0 and row["batch"] == 64
            fast = row["engine"] == "sparse kernels" and not slow
            row["seconds"] = [3e-6] * 3 if slow else [1e-6] * 3 if fast else [2e-6] * 3
        tickets = [s for s in result.summaries if s.rewind in (None, "init")]
        assert "Dense is faster at batch 64 with 100.0% of the weights." in speed_notes(tickets, rows)
        assert rounds_table(tickets, rows).rows[0][4:] == ("2", "1", "2.00 ×", "2", "3", "0.67 ×")
        chart = speed_chart(tickets, rows)
        assert chart is not None
        assert [series.y[0].mean for series in chart.series] == pytest.approx([2, 2 / 3])
        for row in rows_of(rows, kind="latency", engine="sparse kernels"):
            row["seconds"] = [1e-6] * 3
        assert "Dense is faster nowhere here." in speed_notes(tickets, rows)


COLUMNS = (
    *("density", "kept", "total", "test_accuracy", "validation_accuracy", "early_stop_test_accuracy", "test_f1"),
    *("early_stop_iteration", "flops_dense", "flops_effective"),
)


@pytest.fixture(scope="module")
def child(parent: Path, tmp_path_factory: pytest.TempPathFactory, sparse_kernels: None) -> Child:
    return make_child(parent, tmp_path_factory.mktemp("children") / "child", {"sparsity": 0.9})


class TestPrune:
    def test_every_stage_is_measured_and_in_the_metrics(self, child: Child) -> None:
        rows = child.latencies
        assert [(row["stage"], row["batch"]) for row in rows[::2]] == [
            (stage, batch) for stage in ("before", "pruned", "fine-tuned") for batch in (1, 64)
        ]
        metrics = json.loads((child.folder / "metrics.json").read_text(), parse_constant=pytest.fail)
        assert metrics["latency"] == rows
        assert all(row["reason"] is None and row["seconds"] for row in rows)

    def test_table_and_page_show_it(self, child: Child) -> None:
        table = {row[0]: row[1:] for row in stages_table(child.stages, child.latencies).rows}
        for batch in (1, 64):
            assert all(cell.endswith(" µs") for cell in table[f"latency, batch {batch}, torch"])
            assert all(cell.endswith(" ×)") for cell in table[f"latency, batch {batch}, sparse kernels"])
        page = (child.folder / "report.html").read_text()
        assert "latency, batch 64, sparse kernels" in page
        assert "measured on this machine" in page
        shown = " ".join(invoke("show", child.folder).stdout.split())
        assert "latency, batch 1, torch" in shown
        assert "other dense engines may be faster" in shown

    def test_structures_too(self, parent: Path, tmp_path: Path) -> None:
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.5, "structure": "neuron"}, fine_tuning=None)
        assert len(outcome.latencies) == 2 * 4
        assert all(row["seconds"] for row in outcome.latencies)

    def test_convolutions_run_on_kernels_and_what_does_not_is_named(self, convolutional: Path, tmp_path: Path) -> None:
        outcome = make_child(convolutional, tmp_path / "child", {"sparsity": 0.5}, fine_tuning=None)
        assert all(row["on_torch"] == [] and row["seconds"] for row in outcome.latencies)
        assert "Left to torch" not in stages_note(outcome.stages, outcome.latencies)
        partly = [{**row, "on_torch": ["0: ConvTranspose2d"]} for row in outcome.latencies]
        assert "Left to torch: 0: ConvTranspose2d" in stages_note(outcome.stages, partly)

    def test_a_finished_child_is_not_measured_again(
        self, child: Child, parent: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tombola.studies.single.of_parent.measure_latency", never)
        again = make_child(parent, child.folder, {"sparsity": 0.9})
        assert again.rows == child.rows

    def test_no_kernels(self, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measured, "sparsify", without_kernels)
        outcome = make_child(parent, tmp_path / "child", {"sparsity": 0.9})
        cells = {row[0]: row[1:] for row in stages_table(outcome.stages, outcome.latencies).rows}
        assert cells["latency, batch 1, sparse kernels"] == ("not measured",) * 3
        assert all(cell.endswith(" µs") for cell in cells["latency, batch 1, torch"])
        assert f"Not measured: {NO_KERNELS}." in (outcome.folder / "report.html").read_text()

    def test_an_older_child_says_that_it_was_not_measured(self, child: Child) -> None:
        table = stages_table(child.stages)
        assert table.rows[-1] == ("latency, batch 64, sparse kernels", *["not measured"] * 3)
        assert "Latency: not measured." in stages_note(child.stages, [])

    def test_a_parent_that_nobody_pruned_has_no_such_rows(self, tmp_path: Path) -> None:
        trained = make_parent(tmp_path, training=FINE_TUNING)
        assert not trained.latencies
        assert "latency" not in json.loads((trained.folder / "metrics.json").read_text())
        assert not any("latency" in row[0] for row in stages_table(trained.stages).rows)


def test_numbers_are_written_with_three_figures() -> None:
    assert [microseconds([0, value, 0]) for value in (4.156e-6, 41.56e-6, 4156e-6)] == ["4.16", "41.6", "4,156"]
    assert [times(value) for value in (0.5, 2.345, 12.34, None)] == ["0.50 ×", "2.35 ×", "12.3 ×", "–"]
    assert [speed.reason for speed in speeds_of([])] == ["not measured"] * 2


def test_the_stand_in_of_other_tests_is_not_used_here() -> None:
    assert measured.sparsify is runtime.sparsify


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.05], [0.3, 0.4], [0.5, 20.0], [1.0, 137.0]])
def test_an_axis_of_factors_has_ticks_and_holds_every_value(values: list[float]) -> None:
    axis = factor_axis("Speed-up (×)", values)
    assert axis.range is not None
    low, high = axis.range
    assert low < min(values) <= max(values) < high
    assert len(axis.ticks) >= 2
    assert all(low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9) for tick, _ in axis.ticks)
