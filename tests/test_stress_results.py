"""What the published page of the stress study says is computed from rows: other rows give other words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import stress_conclusions
import stress_findings
import stress_results
from document_form import faults_of
from stress_figure import figure
from stress_rows import altered, stress_rows
from tombola.runs.folder import LAYOUT
from tombola.runs.sealed import write_sealed
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.summarised import summarise

STRATEGIES, LEVELS = ("entropy", "entropy_low", "random"), (0.3, 0.7)
SMALL: dict[str, Any] = {"strategies": STRATEGIES, "levels": LEVELS, "tasks": ("german", "names"), "seeds": 3}
FACTS = {"study": "stress", "threads": 1, "versions": {"python": "3.11", "torch": "2.13"}}


def study(folder: Path, protocol: str = "diverse", rows: list[Any] | None = None, **asked: Any) -> Stress:
    """A finished run of one protocol, made up."""
    root = folder / protocol
    root.mkdir(exist_ok=True)
    write_sealed(root / "manifest.json", {"layout": LAYOUT, "machine": {"cpu": "A", "cores": 2}, "must_match": FACTS})
    config = StressConfig(
        model=("tiny",), strategies=STRATEGIES, levels=LEVELS, protocol=protocol, cycles=2, replicates=3
    )
    return summarise(root, config, stress_rows(**(SMALL | asked)) if rows is None else rows)


def test_a_control_that_wins_is_named_as_one(tmp_path: Path) -> None:
    costly = study(tmp_path, cost={"entropy": 0.4, "entropy_low": 0.4})
    assert "random, a control, is better than entropy" in stress_findings.strategies(costly)
    assert " won by random, a control (clearest: random better than entropy" in stress_findings.controls_in_short(
        costly
    )
    cheap = study(tmp_path, cost={"random": 0.4})
    assert "entropy is better than random (−0.2" in stress_findings.strategies(cheap)
    assert "random, a control" not in stress_findings.controls(cheap)


def test_without_an_effect_no_difference_is_shown(tmp_path: Path) -> None:
    same = study(tmp_path)
    assert stress_findings.strategies(same) == "no difference shown in 3 pairs (n = 3 seeds)"
    assert stress_findings.levels_in_short(same).endswith("from 30% to 70%, no difference shown")


def test_more_heads_cost_more(tmp_path: Path) -> None:
    costly = study(tmp_path, cost=dict.fromkeys(STRATEGIES, 0.5))
    assert stress_findings.levels_in_short(costly).endswith(", shown")
    assert "probe loss +" in stress_findings.levels(costly)


def test_one_seed_concludes_nothing(tmp_path: Path) -> None:
    one = study(tmp_path, seeds=1, cost={"random": 0.4})
    assert stress_findings.strategies(one) == "cannot be concluded with one seed"
    assert stress_findings.learned([one]) == "Cannot be judged with one seed."
    first, *others = stress_conclusions.conclusions([one])
    assert first == "**Can be concluded**: nothing yet. With one seed nothing is known of chance."
    assert not [line for line in others if "small differences" in line]
    assert "1 of 3 seeds so far" in stress_results.setting([one])


def test_the_verdict_on_plasticity_is_that_of_the_rows(tmp_path: Path) -> None:
    rising = study(tmp_path, lost=0.3)
    verdict = stress_findings.onset(rising)
    assert verdict.startswith("shown in 8 of 8 groups")
    assert "from cycle 1 on" in verdict
    lost = stress_conclusions.onsets([rising])
    assert "Each of the 8 is judged by itself" in lost
    assert "; 8 are" in lost
    kept = study(tmp_path, lost=-0.3)
    assert stress_findings.onset(kept).startswith("onset not reached in these 2 cycles, in any of 8 groups")
    assert stress_conclusions.onsets([kept]) == ""


@pytest.mark.parametrize(("worth", "word"), [(0.8, "yes, "), (0.01, "no, ")])
def test_whether_attention_matters_is_read_off_the_floor(tmp_path: Path, worth: float, word: str) -> None:
    found = study(tmp_path, attention=worth)
    assert stress_findings.attention(found).startswith(f"{word}all heads off cost {worth:.3f} [")
    assert bool(stress_conclusions.attention([found])) == (word == "no, ")


def test_a_task_within_the_noise_of_seeds_is_named(tmp_path: Path) -> None:
    assert stress_findings.learned([study(tmp_path)]) == "All 2 are."
    rows = altered(stress_rows(**SMALL), {"nats": lambda nats: 5.0 + nats / 1e3}, kind="score", task="names")
    for seed in range(3):
        rows = altered(rows, {"nats": 5.0 + seed}, kind="score", task="names", training="names", seed=seed)
    noisy = [study(tmp_path, rows=rows)]
    assert stress_findings.learned(noisy) == "1 of 2; not names (diverse): what is said of these alone is noise."
    assert "anything of names (diverse)" in stress_conclusions.noise(noisy)
    assert [row[-1] for row in stress_results.tasks(noisy).rows] == ["yes", "no"]


def test_forgetting_is_that_of_the_rows(tmp_path: Path) -> None:
    """Where the dense model ends worse at every task than it began, that is said."""
    rows = stress_rows(**SMALL)
    same = stress_findings.forgetting(study(tmp_path, rows=rows))
    assert "no difference shown for entropy, entropy_low and random" in same
    assert "above 1" not in same
    worse = altered(rows, {"nats": lambda nats: nats + 5}, kind="score", look="end", strategy="dense", cycle=2)
    more = stress_findings.forgetting(study(tmp_path, rows=worse))
    assert ", above 1: the task is left worse than before it was learned; " in more


def test_what_is_said_of_several_protocols_is_said_once(tmp_path: Path) -> None:
    results = [study(tmp_path, "diverse"), study(tmp_path, "conflict"), study(tmp_path, "memory", attention=0.01)]
    said = stress_findings.by_protocol(results, stress_findings.attention)
    assert [line.split(":")[0] for line in said] == ["diverse and conflict", "memory"]


def test_the_page_has_the_form_of_all_results(tmp_path: Path) -> None:
    """Also where everything differs, so that findings are as long as they get."""
    costs = {"entropy": 0.2, "entropy_low": 0.4, "random": 0.8}
    results = [
        study(tmp_path, protocol, cost={name: (1 + place / 10) * cost for name, cost in costs.items()}, lost=place / 9)
        for place, protocol in enumerate(("diverse", "conflict", "memory"))
    ]
    text = stress_results.page(results, "../images") + "\n"
    assert faults_of(text) == []
    assert text.count("| conflict | dense |") == 1
    assert all(part in text for part in ("30% is ", " of learning", "torch 2.13"))


def test_costs_are_sums_of_the_rows(tmp_path: Path) -> None:
    result = study(tmp_path)
    rows = altered(stress_rows(**SMALL), {"seconds": 0.0}, kind="phase")
    rows = altered(rows, {"seconds": 30.0}, kind="phase", strategy="dense")
    assert f"{len(result.lives)} networks" in stress_results.costs([result])[0]
    phases = 3 * 2 * 2  # seeds, tasks, cycles
    assert f"{30 * phases // 60} min of learning" in stress_results.costs([study(tmp_path, rows=rows)])[0]


def test_the_figure_is_drawn_of_one_protocol_and_of_three(tmp_path: Path) -> None:
    one, other = study(tmp_path), study(tmp_path, "memory", seeds=1)
    images = {figure([one]), figure([one, other]), figure([other, one])}
    assert len(images) == 3
    assert all(image.startswith(b"\x89PNG") for image in images)


def test_a_run_that_cannot_be_read_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["stress_results.py", str(tmp_path / "nowhere"), "--out", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="nowhere"):
        stress_results.main()
    assert not (tmp_path / "page.md").exists()
