"""A small lottery study, run for real: its rows, its promises, its controls, its files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from document_form import faults_of
from listening import Heard
from small_study import SMALL_STUDY, run_lottery
from tombola.compression.ticket import read_mask
from tombola.data import load_data
from tombola.errors import ConfigError, RunFailure, RunFolderError, StorageError, TrainingError
from tombola.models import ModelSpec, build, load_model
from tombola.models.tensors import content_sha256, load_tensors
from tombola.pruning import Mask, Masks, prunable_parameters, prune
from tombola.reports.intervals import estimate
from tombola.runs.configs import validate
from tombola.runs.rows import read_rows, rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.base.checks import failed_checks
from tombola.studies.lottery import replicate as replicate_module
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.curves import cost_chart
from tombola.studies.lottery.extract import extract
from tombola.studies.lottery.metrics import CHECKS, UNIT
from tombola.studies.lottery.networks import replicate_seed
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind, is_rewound, rewind
from tombola.studies.lottery.stored import ReplicateFiles
from tombola.training import fit
from tombola.training.metrics import evaluate


def config(**changes: object) -> LotteryConfig:
    return validate({**SMALL_STUDY, **changes}, LotteryConfig, "small")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    return run_lottery(config(), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def first_replicate(result: Result) -> Path:
    return result.folder.checkpoints / "replicate-00"


class TestRows:
    def test_every_replicate_has_dense_and_every_round_ticket_and_controls(self, result: Result) -> None:
        trainings = rows_of(result.rows, kind="training")
        expected = {(0, "dense")} | {(r, b) for r in (1, 2, 3) for b in ("ticket", "random", "reinit")}
        for index in (0, 1):
            rows = rows_of(trainings, replicate=index)
            assert {(row["round"], row["branch"]) for row in rows} == expected
            assert len(rows) == len(expected)

    def test_density_is_as_asked_and_never_ends_above_the_target(self, result: Result) -> None:
        trainings = rows_of(result.rows, kind="training")
        assert all(row["kept"] == row["kept_asked"] for row in trainings)
        last = max(row["round"] for row in trainings)
        assert all(row["density"] <= 0.15 for row in rows_of(trainings, round=last))

    def test_every_check_was_made_and_held(self, result: Result) -> None:
        for row in rows_of(result.rows, kind="training"):
            assert row["check_nested"] is (True if row["branch"] == "ticket" else None)
            assert all(row[check] is True for check in CHECKS if check != "check_nested")

    def test_layers_add_up_to_the_whole(self, result: Result) -> None:
        for row in rows_of(result.rows, kind="training"):
            key = {column: row[column] for column in ("replicate", "round", "branch")}
            layers = rows_of(result.rows, kind="layer", **key)
            assert sum(layer["kept"] for layer in layers) == row["kept"]
            assert sum(layer["total"] for layer in layers) == row["total"] == 64 * 20 + 20 * 10 + 10 * 10

    def test_flops_are_two_a_weight(self, result: Result) -> None:
        for row in rows_of(result.rows, kind="training"):
            assert row["flops_dense"] == 2 * row["total"]
            assert row["flops_effective"] == 2 * row["kept"]

    def test_early_stop_is_where_the_evaluations_say(self, result: Result) -> None:
        for row in rows_of(result.rows, kind="training"):
            key = {column: row[column] for column in ("replicate", "round", "branch")}
            evaluations = rows_of(result.rows, kind="evaluation", **key)
            assert [e["iteration"] for e in evaluations] == [10, 20, 30, 40]
            best = min(evaluations, key=lambda e: e["loss"])
            assert (row["early_stop_iteration"], row["early_stop_validation_loss"]) == (best["iteration"], best["loss"])

    def test_replicates_have_their_own_seeds_and_results(self, result: Result) -> None:
        first, second = (rows_of(result.rows, kind="training", replicate=i, branch="dense")[0] for i in (0, 1))
        assert first["seed"] != second["seed"]
        assert first["weights_sha256"] != second["weights_sha256"]

    def test_a_row_can_be_made_again_from_what_is_stored(self, result: Result, first_replicate: Path) -> None:
        """The ticket of round 2, trained again by hand, gives its row to the bit."""
        seed = replicate_seed(result.config, 0)
        data = load_data(result.config.data, seed)
        start, _ = load_tensors(first_replicate / "initial.safetensors")
        spec_folder = first_replicate.parent.parent / "results"
        spec = json.loads((spec_folder / "spec.json").read_text())["model"]
        assert spec["seed"] == derive_seed(seed, "init")
        extract(result.folder.root, 0.27, spec_folder.parent / "again")
        model, _, masks = load_model(spec_folder.parent / "again")
        assert masks is not None
        assert is_rewound(model, start, masks)
        fit(model, data, result.config.training, masks, derive_seed(seed, "order", 2))
        row = rows_of(result.rows, kind="training", replicate=0, round=2, branch="ticket")[0]
        assert content_sha256(model.state_dict()) == row["weights_sha256"]
        assert evaluate(model, data.test).accuracy == row["test_accuracy"]


class TestControls:
    def test_controls_of_a_run_really_differ_from_the_ticket(self, result: Result) -> None:
        """A control that rebinds a local name, as one library's did, trains the ticket twice."""
        for index in (0, 1):
            for round_index in (1, 2, 3):
                rows = {
                    row["branch"]: row
                    for row in rows_of(result.rows, kind="training", replicate=index, round=round_index)
                }
                ticket, random, reinit = rows["ticket"], rows["random"], rows["reinit"]
                assert random["masks_sha256"] != ticket["masks_sha256"]
                assert reinit["masks_sha256"] == ticket["masks_sha256"]
                assert len({row["weights_sha256"] for row in rows.values()}) == 3

    def test_a_control_can_be_left_out(self, tmp_path: Path) -> None:
        outcome = run_lottery(config(controls=["random"], replicates=1), tmp_path)
        assert {row["branch"] for row in rows_of(outcome.rows, kind="training")} == {"dense", "ticket", "random"}


@pytest.mark.parametrize("flops", [None, 0.0])
def test_costs_are_drawn_of_a_network_whose_flops_are_not_counted(result: Result, flops: float | None) -> None:
    counted = None if flops is None else estimate([flops, flops])
    summaries = [replace(summary, flops_effective=counted) for summary in result.summaries]
    assert [series.name for series in cost_chart(summaries).series] == ["measured time of a training iteration"]
    assert len(cost_chart(result.summaries).series) == 2


class TestRewind:
    def test_kept_weights_and_biases_are_restored_to_the_bit(self) -> None:
        model, start = build_small(), build_small().state_dict()
        masks = prune(model, 0.6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        assert not is_rewound(model, start, masks)
        rewind(model, start, masks, {})
        assert is_rewound(model, start, masks)
        assert masks.removed_nonzeros(model) == 0

    @pytest.mark.parametrize("damage", ["a kept weight", "a removed weight", "a bias"])
    def test_any_difference_is_seen(self, damage: str) -> None:
        model, start = build_small(), build_small().state_dict()
        masks = prune(model, 0.6)
        rewind(model, start, masks, {})
        name, keep = "fc1.weight", masks["fc1.weight"].keep
        parameter = prunable_parameters(model)[name]
        with torch.no_grad():
            if damage == "a bias":
                model.output.bias[0] = 1e-30
            else:
                position = (keep if damage == "a kept weight" else ~keep).nonzero()[0]
                parameter[tuple(position)] += 1e-7
        assert not is_rewound(model, start, masks)


class TestBrokenPromises:
    """The run checks itself: each promise, once broken inside, fails the run and is shown in its rows."""

    @pytest.mark.parametrize(
        ("check", "breakage"),
        [
            ("check_sparsity", "prunes one weight too many"),
            ("check_held", "training brings a weight back"),
            ("check_rewound", "rewinding forgets a bias"),
            ("check_nested", "a removed weight returns"),
        ],
    )
    def test_a_broken_promise_fails_the_run(
        self, check: str, breakage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(*BREAKAGES[check])
        study = config(replicates=1)
        with pytest.raises(RunFailure, match=f"self-check failed: .*{CHECKS[check]}") as caught:
            run_lottery(study, tmp_path)
        assert caught.value.exit_code == 1
        (rows,) = [read_rows(path) for path in tmp_path.glob("*/rows.jsonl")]
        assert failed_checks(rows, UNIT, CHECKS)
        with pytest.raises(RunFailure):  # and it stays failed
            run_lottery(study, tmp_path)


def one_weight_too_many(model: torch.nn.Module, *args: object, **kwargs: object) -> Masks:
    tensors = prune(model, *args, **kwargs).to_tensors()  # type: ignore[arg-type]
    first = next(iter(tensors.values()))
    first[tuple(first.nonzero()[0])] = False
    return Masks.from_tensors(tensors)


def another_mask_of_the_same_counts(model: torch.nn.Module, *args: object, **kwargs: object) -> Masks:
    masks = prune(model, *args, **kwargs)  # type: ignore[arg-type]
    earlier = kwargs["masks"]
    assert isinstance(earlier, Masks)
    if earlier.kept == earlier.total:
        return masks
    tensors = masks.to_tensors()
    removed_before = ~earlier["fc1.weight"].keep
    tensors["fc1.weight"][tuple(tensors["fc1.weight"].nonzero()[0])] = False
    tensors["fc1.weight"][tuple(removed_before.nonzero()[0])] = True
    return Masks.from_tensors(tensors)


def fit_and_bring_back(
    model: torch.nn.Module, data: object, recipe: object, masks: Masks, *args: object, **kwargs: object
):
    trained = fit(model, data, recipe, masks, *args, **kwargs)  # type: ignore[arg-type]
    with torch.no_grad():
        prunable_parameters(model)["fc1.weight"][~masks["fc1.weight"].keep] += 1e-3
    return trained


def rewind_but_a_bias(model: torch.nn.Module, start: dict, masks: Masks, unsaved: dict) -> None:
    rewind(model, start, masks, unsaved)
    with torch.no_grad():
        model.output.bias += 1  # type: ignore[union-attr, operator]


BREAKAGES = {
    "check_sparsity": (replicate_module, "prune", one_weight_too_many),
    "check_held": (replicate_module, "fit", fit_and_bring_back),
    "check_rewound": (replicate_module, "rewind", rewind_but_a_bias),
    "check_nested": (replicate_module, "prune", another_mask_of_the_same_counts),
}


class TestArtefacts:
    def test_all_are_there_by_name(self, result: Result) -> None:
        names = {path.name for path in result.folder.results.iterdir()}
        assert names == {
            "sparsity_vs_accuracy.json",
            "winning_ticket_mask.npy",
            "winning_ticket_mask.json",
            "winning_ticket.safetensors",
            "spec.json",
            "sparsity_curve.html",
            "sparsity_curve.png",
            "sparsity_vs_time.html",
            "sparsity_vs_time.json",
            "summary.md",
            "table.csv",
            "table.tex",
        }

    def test_the_mask_is_that_of_replicate_0_at_the_target_when_nothing_won(
        self, result: Result, first_replicate: Path
    ) -> None:
        assert result.verdict.outcome != "winning"
        stored, _ = load_tensors(ReplicateFiles(first_replicate).round(Rewind("init"), 3) / "masks.safetensors")
        assert read_mask(result.folder.results) == Masks({n: Mask(stored[n]) for n in read_mask(result.folder.results)})
        flat = np.load(result.folder.results / "winning_ticket_mask.npy", allow_pickle=False)
        assert (flat.dtype, flat.ndim, len(flat)) == (np.bool_, 1, 1580)

    def test_the_ticket_restarts_from_w0(self, result: Result, first_replicate: Path) -> None:
        weights, _ = load_tensors(result.folder.results / "winning_ticket.safetensors")
        start, _ = load_tensors(first_replicate / "initial.safetensors")
        for name, mask in read_mask(result.folder.results).items():
            assert torch.equal(weights[name], mask.apply(start[name]))

    def test_summary_says_what_the_rows_say(self, result: Result) -> None:
        summary = json.loads((result.folder.results / "sparsity_vs_accuracy.json").read_text())
        assert summary["verdict"]["outcome"] == result.verdict.outcome
        dense = summary["densities"][0]
        values = [100 * row["test_accuracy"] for row in rows_of(result.rows, kind="training", branch="dense")]
        assert dense["test_accuracy"]["mean"] == pytest.approx(np.mean(values))
        assert len(summary["densities"]) == 10

    def test_summary_counts_parameters_flops_and_the_sparsity_of_every_layer(self, result: Result) -> None:
        summary = json.loads((result.folder.results / "sparsity_vs_accuracy.json").read_text())
        ticket = next(entry for entry in summary["densities"] if (entry["branch"], entry["round"]) == ("ticket", 3))
        model = build(ModelSpec(widths=(20, 10), input_shape=(1, 8, 8), classes=10, seed=0))
        biases = 20 + 10 + 10
        rows = rows_of(result.rows, kind="training", branch="ticket", round=3)
        assert sum(p.numel() for p in model.parameters()) == summary["densities"][0]["parameter_count"] == 1580 + biases
        assert ticket["parameter_count"] == np.mean([row["kept"] for row in rows]) + biases
        assert ticket["sparsity"] == pytest.approx(1 - rows[0]["kept"] / 1580)
        assert ticket["flops"] == np.mean([row["flops_effective"] for row in rows])
        assert [layer["weights"] for layer in ticket["layers"]] == [64 * 20, 20 * 10, 10 * 10]
        assert sum(layer["kept"] for layer in ticket["layers"]) == np.mean([row["kept"] for row in rows])
        assert all(layer["sparsity"] == 1 - layer["kept"] / layer["weights"] for layer in ticket["layers"])
        assert all(layer["sparsity"] == 0 for layer in summary["densities"][0]["layers"])

    @pytest.mark.parametrize("name", ["report.html", "results/sparsity_curve.html"])
    def test_pages_open_offline_and_hold_the_verdict(self, result: Result, name: str) -> None:
        page = (result.folder.root / name).read_text()
        assert result.verdict.sentence.split(":")[0] in page
        assert "Weights remaining (%)" in page
        markup = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", markup)

    def test_report_has_every_part(self, result: Result) -> None:
        page = result.folder.report.read_text()
        for part in ("Early-stop iteration", "Weights remaining in layer (%)", "Validation accuracy (%)", "masks held"):
            assert part in page

    def test_markdown_has_verdict_table_and_how_it_was_made(self, result: Result) -> None:
        text = (result.folder.results / "summary.md").read_text()
        assert result.verdict.sentence in text
        assert text.count("| ticket |") == 3
        assert "Root seed 0" in text
        assert "target_density: 0.15" in text
        assert faults_of(text) == []


class TestExtract:
    def test_gives_a_model_folder_that_loads(self, result: Result, tmp_path: Path, first_replicate: Path) -> None:
        planned = extract(result.folder.root, 0.144, tmp_path / "ticket")
        model, spec, masks = load_model(tmp_path / "ticket")
        assert masks is not None
        assert masks.kept == planned.kept
        start, _ = load_tensors(first_replicate / "initial.safetensors")
        assert is_rewound(model, start, masks)
        assert torch.equal(model.fc1.bias, build(spec).fc1.bias)

    def test_reinit_has_the_same_mask_and_weights_of_the_seed(self, result: Result, tmp_path: Path) -> None:
        extract(result.folder.root, 0.144, tmp_path / "ticket")
        extract(result.folder.root, 0.144, tmp_path / "fresh", reinit=7)
        (ticket, spec, masks), (fresh, fresh_spec, fresh_masks) = (
            load_model(tmp_path / "ticket"),
            load_model(tmp_path / "fresh"),
        )
        assert masks == fresh_masks
        assert fresh_spec.seed == 7 != spec.seed
        assert is_rewound(fresh, build(fresh_spec).state_dict(), masks)
        assert not torch.equal(ticket.fc1.weight, fresh.fc1.weight)

    def test_other_replicates_have_tickets_too(self, result: Result, tmp_path: Path) -> None:
        extract(result.folder.root, 0.5, tmp_path / "a", replicate=0)
        extract(result.folder.root, 0.5, tmp_path / "b", replicate=1)
        assert load_model(tmp_path / "a")[2] != load_model(tmp_path / "b")[2]

    def test_the_same_again_changes_nothing_and_another_is_refused(self, result: Result, tmp_path: Path) -> None:
        """The first may have been stopped when the folder was whole; a folder of anything else is not touched."""
        out = tmp_path / "ticket"
        extract(result.folder.root, 0.5, out)
        before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
        extract(result.folder.root, 0.5, out)
        for changes in ({"reinit": 7}, {"replicate": 1}):
            with pytest.raises(StorageError, match="exists and is not an empty folder"):
                extract(result.folder.root, 0.5, out, **changes)
        assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()} == before
        (out / "masks.safetensors").write_bytes(before["masks.safetensors"][0][:-1])
        with pytest.raises(StorageError, match="exists and is not an empty folder"):
            extract(result.folder.root, 0.5, out)

    def test_density_1_is_the_dense_start(self, result: Result, tmp_path: Path) -> None:
        extract(result.folder.root, 1.0, tmp_path / "dense")
        _, _, masks = load_model(tmp_path / "dense")
        assert masks is not None
        assert masks.density == 1

    def test_refusals(self, result: Result, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--density 0\.9: this run has no round near it; its densities: 1, 0\.5"):
            extract(result.folder.root, 0.9, tmp_path / "x")
        with pytest.raises(RunFolderError, match="replicate 5 has no stored ticket"):
            extract(result.folder.root, 0.5, tmp_path / "x", replicate=5)
        with pytest.raises(RunFolderError, match="not a run folder"):
            extract(tmp_path, 0.5, tmp_path / "x")
        assert not (tmp_path / "x").exists()
        (tmp_path / "y").mkdir()
        (tmp_path / "y" / "thesis.tex").write_text("mine")
        with pytest.raises(StorageError, match="exists and is not an empty folder"):
            extract(result.folder.root, 0.5, tmp_path / "y")


class TestShownAndExtended:
    def test_a_finished_study_is_shown_without_training_or_writing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run_lottery(config(replicates=1), tmp_path)
        before = {path: path.stat().st_mtime_ns for path in first.folder.root.rglob("*")}
        monkeypatch.setattr("tombola.studies.base.work.run_cells", None)
        again = run_lottery(config(replicates=1), tmp_path)
        assert again.verdict == first.verdict
        assert {path: path.stat().st_mtime_ns for path in first.folder.root.rglob("*")} == before

    def test_more_replicates_extend_the_run(self, tmp_path: Path) -> None:
        one = run_lottery(config(replicates=1), tmp_path)
        heard = Heard()
        two = run_lottery(config(replicates=2), tmp_path, watcher=heard)
        assert two.folder == one.folder
        assert heard.begun == [(10, 0)]
        assert two.verdict.replicates == 2
        assert rows_of(two.rows, replicate=0) == one.rows
        fewer = run_lottery(config(replicates=1), tmp_path)
        assert fewer.verdict == two.verdict  # a finished run is never made smaller
        assert fewer.config.replicates == 2

    def test_results_are_copied(self, tmp_path: Path) -> None:
        run_lottery(config(replicates=1), tmp_path, results=tmp_path / "copy")
        (original,) = tmp_path.glob("lottery-*/results")
        for path in original.iterdir():
            assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()
        run_lottery(config(replicates=1), tmp_path, results=tmp_path / "copy")
        with pytest.raises(RunFolderError, match="holds files of another run or model"):
            run_lottery(config(replicates=1, seed=5), tmp_path, results=tmp_path / "copy")


@pytest.mark.parametrize(
    "pruning",
    [
        {"densities": [0.6, 0.3]},
        {"distribution": "uniform", "schedule": "cubic", "rounds": 2, "target_density": 0.3},
        {"criterion": "random", "rate": 0.5, "target_density": 0.3},
    ],
)
def test_every_form_of_rounds_runs_and_keeps_its_promises(pruning: dict, tmp_path: Path) -> None:
    outcome = run_lottery(config(replicates=1, pruning=pruning), tmp_path)
    assert not failed_checks(outcome.rows, UNIT, CHECKS)
    assert len(rows_of(outcome.rows, kind="training")) == 7


def test_summaries_hold_one_line_per_round_and_branch(result: Result) -> None:
    summaries = summarise(result.rows)
    assert [s.branch for s in summaries[:4]] == ["dense", "ticket", "random", "reinit"]
    assert all(s.test.n == 2 for s in summaries)


def small_spec():

    return ModelSpec(input_shape=(1, 8, 8), classes=10, seed=3, widths=(20, 10))


def build_small() -> torch.nn.Module:
    return build(small_spec())


def test_an_engine_that_cannot_train_the_network_leaves_nothing(tmp_path: Path) -> None:
    """Neither a folder nor a lock: it is known before any data are read."""
    asked = config(
        model={"architecture": "resnet20", "widths": [2, 2, 2]},
        data={"name": "mnist"},
        training={**SMALL_STUDY["training"], "engine": "sparse"},
    )
    with pytest.raises(TrainingError, match="needs a ReLU right after conv_1, not BatchNorm2d"):
        run_lottery(asked, tmp_path, data_dir=tmp_path / "no data")
    assert not list(tmp_path.iterdir())
