"""What the evidence scripts say is computed from rows: other rows give other words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import before_after
import lottery_results
import sparse_crossover
import sparse_search
import speed_cases
import speed_report
import training_step
from lottery_results import Finding, agreement
from speed_report import Measured, Timing
from tombola.models import ModelSpec, build, save_model
from tombola.reports.intervals import estimate
from tombola.runs.configs import load_config
from tombola.runs.shipped import config_path
from tombola.studies.hybrid.questions import CONTEST, MAPS
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import model_spec

PAPER = Finding("x", 1, 0.5, "points", False, lottery_results.better_than_reinit)
MINIMUM = Finding("x", 1, 0.3, "points", True, lottery_results.gain_at_early_stop)
BACK = Finding("x", 1, 0.0, "points", False, lottery_results.gain_at_early_stop)


@pytest.mark.parametrize(
    ("finding", "values", "word"),
    [
        (PAPER, [0.4, 0.5, 0.7], "agrees"),
        (PAPER, [0.1, 0.12, 0.11], "same direction, smaller"),
        (PAPER, [1.1, 1.12, 1.11], "same direction, larger"),
        (PAPER, [1.1, 0.1, -0.5], "no clear effect"),
        (PAPER, [-1.1, -1.0, -1.05], "opposite direction"),
        (MINIMUM, [0.5, 0.52, 0.51], "agrees"),
        (MINIMUM, [0.2, 0.5, 0.1], "no clear effect"),
        (BACK, [0.2, 0.21, 0.2], "ours is above"),
        (BACK, [0.2, -0.1, 0.1], "agrees"),
        (PAPER, [0.5], "unknown: one replicate"),
    ],
)
def test_agreement_is_read_off_the_interval(finding: Finding, values: list[float], word: str) -> None:
    assert agreement(finding, estimate(values)) == word


def test_a_finding_is_read_at_the_density_that_it_names() -> None:
    """Whatever the schedule of the run: rounds are found by what they keep."""
    fast = [{"kind": "training", "branch": "ticket", "round": i, "density": 0.5**i} for i in range(1, 5)]
    slow = [{"kind": "training", "branch": "ticket", "round": i, "density": 0.8**i} for i in range(1, 16)]
    assert (lottery_results.round_of(fast, 0.125), lottery_results.round_of(slow, 0.135)) == (3, 9)
    with pytest.raises(SystemExit, match=r"no round keeps 21.1% of the weights, the nearest 25.0%"):
        lottery_results.round_of(fast, 0.211)


def test_findings_measure_what_they_say() -> None:
    ticket = {"early_stop_iteration": 100, "early_stop_test_accuracy": 0.98}
    dense = {"early_stop_iteration": 400, "early_stop_test_accuracy": 0.975}
    reinit = {"early_stop_iteration": 250, "early_stop_test_accuracy": 0.97}
    measured = [finding.measure(ticket, dense, reinit) for finding in lottery_results.FINDINGS]
    assert measured == pytest.approx([75, 0.5, 2.5, 1.0, 0.5])


def test_blocks_take_turns_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    times = training_step.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, blocks=3)
    steps = training_step.STEPS_PER_BLOCK
    assert order == (["a"] * steps + ["b"] * steps) * 4
    assert [len(values) for values in times.values()] == [3, 3]


def timing(way: str, seconds: float, **known: object) -> Timing:
    return Timing(way, **{"error": 1e-7, "seconds": [0.9 * seconds, seconds, 1.1 * seconds], **known})


def measured(*sparse: Timing) -> Measured:
    """A case where bf16 is the fastest and a float32 engine that is wrong the next: neither counts."""
    engines = [
        timing("torch eager", 4e-6),
        timing("exact", 3e-6),
        timing("wrong", 2e-6, error=1e-3),
        timing("bf16", 1e-6, error=1e-3, fp32=False),
        Timing("absent", failed="RuntimeError: no compiler"),
    ]
    return Measured("Network", 64, 0.5, {0.9: 5.5}, engines, list(sparse))


def test_speed_is_compared_with_the_fastest_engine_that_gives_float32_outputs() -> None:
    found = timing("ours", 5e-7, sparsity=0.9001, mask="found")
    slower = timing("ours too", 5e-6, sparsity=0.9001, mask="random")
    result = measured(found, slower)
    page = speed_report.section([result], "a machine")
    assert result.best is not None
    assert result.best.way == "exact"
    assert "6.00 (6.00-6.00) | at least 5.5: reached | 8.00 | 2.00 |" in page
    assert "absent | did not run: RuntimeError: no compiler" in page
    assert "Speed-ups of 6.00 to 6.00 × over the best dense float32 engine; 1 of 1 targets were reached." in page
    assert "sparsity 90.0% (wanted at least 0.95: **NOT kept**)" in page  # that of the random mask
    assert "| Network | 64 | 90.0% | exact 3.0 | 0.5 | 6.00 | at least 5.5: reached | 0.60 |" in page


def test_a_wrong_or_failed_sparse_network_reaches_nothing() -> None:
    wrong = timing("ours", 5e-7, sparsity=0.9, mask="found", error=1e-3)
    failed = Timing("ours", sparsity=0.9, mask="found", failed="KernelError: no")
    for result in (measured(wrong), measured(failed)):
        page = speed_report.section([result], "a machine")
        assert "over the best dense float32 engine; 0 of 1 targets were reached." in page
    assert "Outputs differ" in speed_report.section([measured(wrong)], "a machine")


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ([], "no comparison"),
        ([(0.0, 1.0), (0.5, 2.0)], "faster than the best dense engine at every sparsity measured, from 0% on"),
        ([(0.0, 0.5), (0.99, 0.9)], "the best dense engine wins at 99%, the highest sparsity measured"),
        ([(0.5, 1.1), (0.6, 0.5), (0.8, 1.5)], "up to 60%, ours from 80% on; the crossover is at about 70%"),
        ([(0.0, 0.5), (0.8, 1.5)], "the best dense engine wins up to 0%, ours from 80% on"),
    ],
)
def test_crossover_is_the_last_one_and_not_guessed_over_a_wide_gap(curve: list[tuple[float, float]], said: str) -> None:
    assert speed_report.crossover(curve).endswith(said)


def test_chosen_kernels_are_told_in_short() -> None:
    """Neighbours of one kernel together, of the wanted sparsity only."""
    chosen = [
        ("conv_1", "shifted rows by 3"),
        ("conv_2", "shifted rows by 32"),
        ("conv_3", "panel"),
        ("output", "torch"),
    ]
    wanted = timing("ours", 5e-7, sparsity=0.9, mask="found", kernels=chosen)
    other = timing("ours too", 5e-7, sparsity=0.5, mask="found", kernels=[("conv_1", "dense")])
    page = speed_report.section([measured(wanted, other)], "a machine")
    assert "* Kernels chosen at 90.0%: conv_1 to conv_2: shifted rows, conv_3: panel, output: torch.\n\n" in page
    assert "Kernels chosen at 50.0%" not in page


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({}, "none measured"),
        ({1.0: 0.5, 0.5: 0.9}, "none measured"),
        ({1.0: 1.5, 0.5: 3.0}, "1, all measured"),
        ({1.0: 0.5, 0.6: 0.9, 0.4: 1.1, 0.1: 4.0}, "0.50"),
        ({0.5: 1.2, 0.4: 0.8, 0.2: 1.6}, "0.35"),
    ],
)
def test_a_layers_crossover_is_the_last_one(ratios: dict[float, float], said: str) -> None:
    sparse = [timing("ours", 1e-6 / ratio, sparsity=1 - d, mask="random") for d, ratio in ratios.items()]
    result = Measured("Layer", 1, 0.0, {}, [timing("torch eager", 1e-6)], sparse)
    assert sparse_crossover.faster_from(result) == said


@pytest.mark.parametrize(
    ("title", "input_shape", "output_shape"),
    [
        ("LeNet-5 (20, 50, 500)", (1, 28, 28), (10,)),
        ("Convolution 64→64 @ 32²", (64, 32, 32), (64, 32, 32)),
        ("Convolution 256→256 @ 8²", (256, 8, 8), (256, 8, 8)),
        ("Convolution 512→512 @ 4²", (512, 4, 4), (512, 4, 4)),
        ("VGG-16", (3, 32, 32), (10,)),
        ("ResNet-20", (3, 32, 32), (10,)),
        ("Conv-6", (3, 32, 32), (10,)),
    ],
)
def test_cases_of_convolutional_networks_are_cut_as_their_titles_say(
    title: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """On what the config of the case's run builds; both parts together are the network up to there."""
    case = next(case for case in speed_cases.CASES if case.title == title)
    config = load_config(config_path(case.run.replace("-", "_")), LotteryConfig)
    shape = (1, 28, 28) if config.data.name == "mnist" else (3, 32, 32)
    network = build(model_spec(config, 0, shape, 10)).eval()
    before, part = speed_cases.cut(network, case.first, case.last)
    images = torch.rand(2, *shape)
    with torch.no_grad():
        inputs = before(images)
        outputs = part(inputs)
        assert (inputs.shape, outputs.shape) == ((2, *input_shape), (2, *output_shape))
        if case.last == "output":
            assert torch.equal(outputs, network(images))


def test_every_case_has_its_run_and_measures_what_is_wanted() -> None:
    for case in speed_cases.CASES:
        config = load_config(config_path(case.run.replace("-", "_")), LotteryConfig)
        assert config.name == case.run
        found = {1 - density for density in config.pruning.densities if case.has_round(1 - density)}
        for batch, wanted in case.wanted.items():
            assert batch in case.batches
            assert all(min(abs(sparsity - other) for other in found) < 1e-9 for sparsity in wanted)


def quick(program: str, folder: Path) -> tuple[list[dict[str, list[dict[str, object]]]], str]:
    """What `--quick` measured, and its page."""
    path, written = Path(speed_report.__file__).with_name(program), folder / "speed.json"
    command = [sys.executable, str(path), "--quick", "--seconds", "0.1", "--json", str(written)]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return json.loads(written.read_text()), page


@pytest.mark.parametrize(
    ("program", "batches", "blocks", "title"),
    [
        ("sparse_inference.py", [8, 1], 15, "<summary>Chain 64-32-16-10, batch 8</summary>"),
        ("sparse_crossover.py", [1, 1, 64, 64], 9, "| 3→8 3×3 @ 8² | torch eager, "),
    ],
)
def test_sparse_inference_measures_and_checks_tiny_networks(
    tmp_path: Path, program: str, batches: list[int], blocks: int, title: str
) -> None:
    results, page = quick(program, tmp_path)
    assert [result["batch"] for result in results] == batches
    for result in results:
        timings = result["dense"] + result["sparse"]
        assert len(timings) == 4
        assert all(t["failed"] is None and t["error"] <= 1e-5 and len(t["seconds"]) >= blocks for t in timings)
        assert all(t["kernels"] for t in result["sparse"])
    assert title in page


def trainings(accuracies: list[float], seconds: float) -> list[dict[str, object]]:
    """A dense network and one round with a ticket and a control, a replicate for each accuracy."""
    branches = ((0, "dense", 0.9), (1, "ticket", None), (1, "random", 0.5))
    return [
        {
            "kind": "training", "replicate": replicate, "round": number, "branch": branch, "density": 0.8**number,
            "seconds": seconds, "test_accuracy": accuracy if known is None else known,
        }
        for replicate, accuracy in enumerate(accuracies)
        for number, branch, known in branches
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([0.92, 0.93, 0.94], "No significant difference in 1 of 1 rounds (n = 3, 95 % intervals of the paired"),
        ([0.93, 0.94, 0.951], "No significant difference in 0 of 1 rounds (n = 3, 95 % intervals of the paired"),
    ],
)
def test_a_search_compares_tickets_by_replicate_and_costs_by_round(other: list[float], said: str) -> None:
    dense, sparse = trainings([0.92, 0.93, 0.94], 6.0), trainings(other, 2.0)
    assert sparse_search.agreement(dense, sparse, [0, 1]).startswith(said)
    assert ("; there is one in round 1 (one in twenty" in sparse_search.agreement(dense, sparse, [0, 1])) == (
        "in 0 of 1" in said
    )
    row = sparse_search.round_row(1, dense, sparse)
    assert row[:5] == ["1", "80.0%", "36.0", "12.0", "3.00 ×"]
    assert row[5] == "93.00"


def test_one_replicate_says_nothing_of_equal_tickets() -> None:
    assert sparse_search.agreement(trainings([0.9], 1), trainings([0.9], 1), [0, 1]).startswith("One replicate")


def test_the_hybrid_page_says_what_the_base_is_and_shifts_headings(tmp_path: Path) -> None:
    base, images, results = tmp_path / "base", tmp_path / "images", tmp_path / "results"
    images.mkdir()
    results.mkdir()
    spec = ModelSpec(architecture="lenet5", input_shape=(1, 28, 28), classes=2, seed=0)
    save_model(base, spec, build(spec), history={"data": {"config": {"name": "leaves"}}})
    (base / "metrics.json").write_text(json.dumps({"stages": [{"test_accuracy": 0.625}]}))
    answers = f"**{CONTEST}** Undecided.\n\n**{MAPS}** Yes."
    (results / "summary.md").write_text(f"# leaves: what was found\n\n{answers}\n\n![Exits](exits.png)\n\n## Exits\n")
    (results / "exits.png").write_bytes(b"a figure")
    program = Path(speed_report.__file__).with_name("hybrid_results.py")
    command = [sys.executable, str(program), str(base), str(results), "--images", str(images)]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "lenet5 of widths [6, 16, 120, 84] on leaves, " in page
    assert "CIFAR" not in page
    assert "62.5% test accuracy" in page
    assert page.count("\n## leaves: what was found\n") == page.count("\n### Exits\n") == 1
    assert (images / "hybrid-leaves-exits.png").read_bytes() == b"a figure"
    assert "gate.png" not in page
    assert "![Exits](../images/hybrid-leaves-exits.png)" in page
    assert "- **[leaves](#leaves-what-was-found)**: Undecided. Yes.\n" in page


def test_two_checkouts_take_turns_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One checkout against itself: both workers answer, and who begins changes from block to block."""
    workers = [before_after.Worker(before_after.HERE) for _ in range(2)]
    order: list[int] = []
    real = before_after.Worker.block
    monkeypatch.setattr(
        before_after.Worker, "block", lambda self, number: order.append(workers.index(self)) or real(self, number)
    )
    taken = before_after.taken_in_turns(0, workers, 3)
    for worker in workers:
        worker.process.stdin.close()
        assert worker.process.wait(10) == 0
    assert order == [1, 0, 0, 1, 1, 0, 0, 1]
    assert [len(blocks) for blocks in taken] == [3, 3]
    assert before_after.row(0, [(2e-6, 1e-6)] * 3, [(3e-6, 1e-6)] * 3).endswith("| 2 | 3 | 1.500 | 1.000 |")
