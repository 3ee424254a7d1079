"""Writes docs/results/lottery.md: the paper's findings beside ours, and the other studies' tables.

    python benchmarks/lottery_results.py MNIST_RUN LENET5_RUN MODES_RUN --images docs/images > docs/results/lottery.md

The runs are those of the configs mnist, fashion and rewind-modes; `make results-lottery` runs whatever of them is
not finished and then this. Everything is computed from their rows.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tombola.reports.documents import bullet_block, document, lowered
from tombola.reports.intervals import Estimate, estimate
from tombola.reports.tables import Table, plus_minus
from tombola.runs.rows import Row, rows_of
from tombola.studies.base.opened import read_result
from tombola.studies.base.paired import paired_accuracy
from tombola.studies.lottery.curves import WON, paired_gap
from tombola.studies.lottery.document import figure_of, summary_markdown
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.study import open_lottery
from tombola.studies.lottery.verdict import Verdict


@dataclass(frozen=True)
class Finding:
    """A number that Frankle & Carbin 2019 report of LeNet-300-100 on MNIST, and how it is measured here.

    `density` is the fraction of weights kept of which they report it. `at_least`: the paper says that it is more than
    this; else it gives the number itself.
    """

    text: str
    density: float
    paper: float
    unit: str
    at_least: bool
    measure: Callable[[Row, Row, Row], float]


def earlier(ticket: Row, dense: Row, reinit: Row) -> float:
    return 100 * (1 - ticket["early_stop_iteration"] / dense["early_stop_iteration"])


def gain_at_early_stop(ticket: Row, dense: Row, reinit: Row) -> float:
    return 100 * (ticket["early_stop_test_accuracy"] - dense["early_stop_test_accuracy"])


def sooner_than_reinit(ticket: Row, dense: Row, reinit: Row) -> float:
    return reinit["early_stop_iteration"] / ticket["early_stop_iteration"]


def better_than_reinit(ticket: Row, dense: Row, reinit: Row) -> float:
    return 100 * (ticket["early_stop_test_accuracy"] - reinit["early_stop_test_accuracy"])


FINDINGS = (
    Finding("early stop comes earlier than dense, 21.1 % of weights", 0.211, 38.0, "%", False, earlier),
    Finding("test accuracy at early stop rises over dense, 13.5 %", 0.135, 0.3, "points", True, gain_at_early_stop),
    Finding(
        "the ticket stops sooner than the re-initialised mask, 21.1 %", 0.211, 2.51, "times", False, sooner_than_reinit
    ),
    Finding("and is more accurate there, 21.1 %", 0.211, 0.5, "points", False, better_than_reinit),
    Finding("about back at the dense accuracy, 3.6 %", 0.036, 0.0, "points", False, gain_at_early_stop),
)


HOW_TO_READ = (
    "{network} on {data}, paired by replicate, ± half of the 95 % confidence interval. Ours is trained for {n} "
    "iterations, the paper's for 50,000: a network that has not passed its early stop at the end (see the note below "
    "the table of costs) counts as stopping there, which makes the ratio to the re-initialised mask too small rather "
    "than too large. *Agrees* means that the paper's number lies in our interval, or that the whole interval is above "
    "a number that the paper calls a minimum, and that ours is clearly not no effect; *same direction* that it is "
    "clearly on the same side of no effect."
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mnist", type=Path, help="run folder of imp_lenet_300_100_short.yaml")
    arguments.add_argument("lenet5", type=Path, help="run folder of imp_lenet5.yaml")
    arguments.add_argument("modes", type=Path, help="run folder of rewind_modes.yaml")
    arguments.add_argument("--images", type=Path, required=True, help="folder for the figures")
    options = arguments.parse_args()
    mnist, lenet5, modes = (read_result(open_lottery(run)) for run in (options.mnist, options.lenet5, options.modes))
    results = (mnist, lenet5, modes)
    studies = [in_short(result.config.name, result.verdicts) for result in results]
    print(beginning(findings_table(mnist), studies, image_of(mnist.config.name)))
    print(f"\n{how_to_read(mnist)}\n")
    for result in results:
        shutil.copyfile(result.folder.results / figure_of(result), options.images / image_of(result.config.name))
        print(lowered(summary_markdown(result, f"../images/{image_of(result.config.name)}")))
    print("Rewinding modes against each other, last round, paired by replicate:\n")
    print(modes_table(modes).to_markdown())


def beginning(findings: Table, studies: Sequence[str], figure: str) -> str:
    """The title, how many of the paper's findings agree, what each study came to, and the figure."""
    agree = sum(row[-1] == "agrees" for row in findings.rows)
    return document(
        "# The lottery study: evidence",
        bullet_block(
            [f"**Frankle & Carbin 2019**: {agree} of {len(findings.rows)} findings agree with the paper.", *studies]
        ),
        f"![Test accuracy of LeNet-300-100 on MNIST against weights remaining](../images/{figure})",
        "## The findings of Frankle & Carbin 2019, beside ours",
        findings.to_markdown(),
    )


def how_to_read(mnist: Result) -> str:
    """What the table of findings is of, and when a finding agrees."""
    config = mnist.config
    return HOW_TO_READ.format(network=config.model.title, data=config.subject, n=iterations_of(mnist))


def in_short(name: str, verdicts: Mapping[str, Verdict]) -> str:
    """The outcomes of a study, each with the density at which its ticket won or matches."""
    said = []
    for mode, verdict in verdicts.items():
        at = f" at {verdict.density:.1%} of the weights" if verdict.outcome in WON and verdict.density else ""
        said.append(f"{verdict.outcome}{at}" + (f" when rewound to {mode}" if len(verdicts) > 1 else ""))
    return f"**{name}**: {'; '.join(said)}."


def image_of(study: str) -> str:
    """The name of a study's figure in the folder of figures."""
    return f"lottery-{study}.png"


def findings_table(result: Result) -> Table:
    """One line per finding: the paper's number, ours with its interval, and whether they agree."""
    rows = []
    for finding in FINDINGS:
        ours = estimate(
            [finding.measure(*trio) for trio in _trios(result.rows, round_of(result.rows, finding.density))]
        )
        sign = "> " if finding.at_least else ""
        rows.append(
            (
                finding.text,
                f"{sign}{finding.paper:g} {finding.unit}",
                f"{plus_minus(ours)} {finding.unit}",
                agreement(finding, ours),
            )
        )
    return Table(("Finding", "Paper", f"Ours (n = {result.verdict.replicates})", "Agreement"), rows)


def round_of(rows: Sequence[Row], density: float) -> int:
    """The round whose tickets keep this fraction of the weights, to a tenth of it; SystemExit where there is none."""
    tickets = rows_of(rows, kind="training", branch="ticket")
    nearest = min(tickets, key=lambda row: abs(row["density"] - density))
    if abs(nearest["density"] - density) > density / 10:
        raise SystemExit(f"no round keeps {density:.1%} of the weights, the nearest {nearest['density']:.1%}")
    return int(nearest["round"])


def iterations_of(result: Result) -> str:
    """How long the networks were trained."""
    return " or ".join(f"{n:,}" for n in sorted({row["iterations"] for row in rows_of(result.rows, kind="training")}))


def agreement(finding: Finding, ours: Estimate) -> str:
    """Computed from the interval, so that other rows give another word."""
    if ours.low is None or ours.high is None:
        return "unknown: one replicate"
    nothing = 1.0 if finding.unit == "times" else 0.0
    if finding.at_least and ours.low > finding.paper:
        return "agrees"
    covered = not finding.at_least and ours.low <= finding.paper <= ours.high
    if finding.paper == nothing:
        return "agrees" if covered else f"ours is {'above' if ours.low > nothing else 'below'}"
    if ours.high < nothing:
        return "opposite direction"
    if ours.low <= nothing:
        return "no clear effect"
    return "agrees" if covered else "same direction, " + ("larger" if ours.mean > finding.paper else "smaller")


def modes_table(result: Result) -> Table:
    """Every mode's ticket of the last round against dense and against the first mode's."""
    last = max(row["round"] for row in rows_of(result.rows, kind="training"))
    tickets = rows_of(result.rows, kind="training", branch="ticket", round=last)
    first = rows_of(tickets, rewind=result.config.rewind[0])
    rows = []
    for mode in result.config.rewind:
        mine = rows_of(tickets, rewind=mode)
        gap = paired_gap(mine, result.rows, "dense")
        to_first = paired_accuracy(mine, first).interval
        assert gap is not None
        rows.append((mode, _interval(gap), _interval(to_first)))
    return Table(("Rewind to", "Ticket − dense (points)", f"Ticket − {result.config.rewind[0]}"), rows)


def _trios(rows: Sequence[Row], index: int) -> list[tuple[Row, Row, Row]]:
    """(ticket, dense, reinit) of every replicate at a round."""

    def of(branch: str, at: int) -> dict[int, Row]:
        return {row["replicate"]: row for row in rows_of(rows, kind="training", branch=branch, round=at)}

    ticket, dense, reinit = of("ticket", index), of("dense", 0), of("reinit", index)
    return [(ticket[i], dense[i], reinit[i]) for i in sorted(ticket)]


def _interval(value: Estimate) -> str:
    return f"{value.mean:+.2f}" + ("" if value.half_width is None else f" ± {value.half_width:.2f}")


if __name__ == "__main__":
    main()
