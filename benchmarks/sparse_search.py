"""A whole lottery search with the sparse engine against the same search with the dense one.

    python benchmarks/sparse_search.py [--replicates 3] [--iterations 5000] [--out runs] [--quick]

The study is that of the config mnist-paper, 16 rounds with their controls, at a tenth of its length. Both
engines run the same replicates with the same seeds, one replicate each in turn on one core, so that a noisy machine
disturbs both alike. Compared are the seconds of all trainings, evaluations included, round by round, and the tickets'
test accuracies, paired by replicate. Interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tombola.reports.documents import table_block
from tombola.reports.intervals import Estimate, estimate
from tombola.reports.tables import Table
from tombola.runs.configs import load_config
from tombola.runs.folder import machine
from tombola.runs.rows import Row
from tombola.runs.shipped import config_path
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.study import Lottery

CONFIG = config_path("mnist-paper")
ENGINES = ("dense", "auto")
WANTED = 2.5
"""The least by which the sparse search is wanted to be cheaper."""
SIXTEEN_ROUNDS = 0.03
"""A density that 16 rounds of 20 % reach (10 % in the output layer) and 15 do not."""


COLUMNS = ("Round", "Density", "Dense, s", "Auto, s", "Dense / auto", "Ticket, dense", "Ticket, auto", "Difference")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--replicates", type=int, default=3)
    arguments.add_argument("--iterations", type=int, default=5_000, help="of every training; the config has 50,000")
    arguments.add_argument("--out", type=Path, default=Path("runs"), help="folder that holds the run folders")
    arguments.add_argument("--data-dir", type=Path, default=None)
    arguments.add_argument("--quick", action="store_true", help="digits, two rounds, 60 iterations: a trial")
    options = arguments.parse_args()
    print(document(searches(options)))


def searches(options: argparse.Namespace) -> dict[str, Result]:
    """Both engines' results, a replicate of each in turn."""
    found: dict[str, Result] = {}
    for replicates in range(1, options.replicates + 1):
        for engine in ENGINES:
            config = search_config(engine, replicates, options)
            found[engine] = run_study(Lottery, config, Call(options.out, data_dir=options.data_dir))
            seconds = total_seconds(found[engine].rows)
            print(f"{engine}: replicate {replicates}, {seconds:.0f} s of training", file=sys.stderr)
    return found


def search_config(engine: str, replicates: int, options: argparse.Namespace) -> LotteryConfig:
    settings = [
        f"name=sparse-search-{engine}",
        f"replicates={replicates}",
        f"training.engine={engine}",
        f"training.length={60 if options.quick else options.iterations}it",
        f"pruning.target_density={0.6 if options.quick else SIXTEEN_ROUNDS}",
    ]
    if options.quick:
        settings += ["data={name: digits, validation: 250}", "training.evaluate_every=30it"]
    return load_config(CONFIG, LotteryConfig, settings)


def document(results: dict[str, Result]) -> str:
    """The section, from rows alone."""
    dense, sparse = ([row for row in results[engine].rows if row["kind"] == "training"] for engine in ENGINES)
    rounds = sorted({row["round"] for row in dense})
    rows = [round_row(number, dense, sparse) for number in rounds]
    ratio = total_seconds(dense) / total_seconds(sparse)
    replicates = len({row["replicate"] for row in dense})
    lines = [
        "## Training: a whole search\n",
        f"The dense engine took {total_seconds(dense):.0f} s, `auto` {total_seconds(sparse):.0f} s: **{ratio:.2f} × "
        f"cheaper** (wanted at least {WANTED:g} ×). {agreement(dense, sparse, rounds)}\n",
        f"Made by `benchmarks/sparse_search.py`: {len(rounds) - 1} rounds of the config mnist-paper with "
        f"their controls, {results['dense'].config.training.length} a training, {replicates} replicates, one replicate "
        "of each engine in turn. Seconds are those of the trainings (ticket and controls), evaluations included; the "
        "accuracies are the tickets' on the test set, differences paired by replicate with 95 % intervals.\n",
        table_block(Table(COLUMNS, rows), "Every round"),
        f"\n{machine()['cpu']}, torch {torch.__version__}.",
    ]
    return "\n".join(lines)


def round_row(number: int, dense: Sequence[Row], sparse: Sequence[Row]) -> list[str]:
    """A round's cost and its tickets."""
    pair = [[row for row in rows if row["round"] == number] for rows in (dense, sparse)]
    seconds = [total_seconds(rows) for rows in pair]
    tickets = [[row for row in rows if row["branch"] in ("dense", "ticket")] for rows in pair]
    accuracies = [estimate([100 * row["test_accuracy"] for row in rows]) for rows in tickets]
    return [
        str(number),
        f"{tickets[0][0]['density']:.1%}",
        *(f"{s:.1f}" for s in seconds),
        f"{seconds[0] / seconds[1]:.2f} ×",
        *(f"{accuracy.mean:.2f}" for accuracy in accuracies),
        shown(difference(*tickets)),
    ]


def difference(dense: Sequence[Row], sparse: Sequence[Row]) -> Estimate:
    """Points of test accuracy that the sparse engine's tickets have more, paired by replicate."""
    other = {row["replicate"]: row["test_accuracy"] for row in dense}
    return estimate([100 * (row["test_accuracy"] - other[row["replicate"]]) for row in sparse])


def agreement(dense: Sequence[Row], sparse: Sequence[Row], rounds: Sequence[int]) -> str:
    """In how many rounds a difference of the tickets' accuracies is shown; none shown is no proof of none."""
    apart = []
    for number in rounds[1:]:
        tickets = [[r for r in rows if r["round"] == number and r["branch"] == "ticket"] for rows in (dense, sparse)]
        gap = difference(*tickets)
        if gap.low is None or gap.high is None:
            return "One replicate: whether the tickets are equally accurate is not known."
        if not gap.low <= 0 <= gap.high:
            apart.append(number)
    told = (
        f"; there is one in round {' and '.join(map(str, apart))} (one in twenty is expected by chance)"
        if apart
        else ""
    )
    return (
        f"No significant difference in {len(rounds) - 1 - len(apart)} of {len(rounds) - 1} rounds "
        f"(n = {len({row['replicate'] for row in dense})}, 95 % intervals of the paired difference){told}."
    )


def total_seconds(rows: Sequence[Row]) -> float:
    return sum(row["seconds"] for row in rows if row["kind"] == "training")


def shown(gap: Estimate) -> str:
    return f"{gap.mean:+.2f}" if gap.half_width is None else f"{gap.mean:+.2f} ± {gap.half_width:.2f}"


if __name__ == "__main__":
    main()
