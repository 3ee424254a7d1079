"""Runs of `tombola stress` as a page: what several protocols say together, one figure, and tables.

    python benchmarks/stress_results.py RUN... [--out docs/results/stress.md] [--images docs/images]

Each RUN is the output folder of one protocol. `make results-stress` runs whatever of them is not finished and then
this. Of a run that is not finished the seeds that are complete count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stress_conclusions import conclusions
from stress_contrasts import brief
from stress_figure import figure
from stress_findings import by_protocol, details, gains, headlines, is_learned
from tombola.errors import TombolaError
from tombola.reports.documents import bullet_block, document, fold_block, table_block
from tombola.reports.tables import MISSING, Table
from tombola.runs.atomic import write_bytes, write_text
from tombola.runs.configs import dump_config
from tombola.runs.folder import RunFolder
from tombola.runs.rows import rows_of
from tombola.studies.base.numbers import begun, counted, duration, listed, whole_percent
from tombola.studies.base.opened import open_study, read_result
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.contrasts import mean_over, number, over_levels
from tombola.studies.stress.outcome.estimates import Estimate, over_seeds
from tombola.studies.stress.outcome.groups import DENSE, GRADUAL, RANDOM, Group
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import LEARNED, remarks
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.report import FUNCTION_NOTE
from tombola.studies.stress.shown.conclusions import check_lines
from tombola.studies.stress.shown.result_tables import OVERVIEW_NOTE, function_table, glossary_table, overview_table
from tombola.studies.stress.study import Stress as Study

IMAGE = "stress-levels.png"
REFERENCES = {DENSE: "dense", GRADUAL: "dense, tasks change gradually"}
RATES = ("avg_forgetting_rate", "recovery_second", "recovery_alone", "recovery_minus_alone")
COMPARED_NOTE = (
    "Mean over levels minus dense, paired by seed, with 95 % intervals (Student t, each by itself); nats a token, less "
    "is better. Random, a control, is the mean of its draws."
)
TASKS_NOTE = (
    "Of the dense model: loss before any task minus loss after the first visit, nats a token, mean over seeds with its "
    f"95 % interval. Learned: the gain is above {LEARNED:g} × its standard deviation (SD) over seeds."
)
RATES_NOTE = (
    "Means over levels and seeds with 95 % intervals. Forgetting rate: of the learned gain, above 1 where a task is "
    "left worse than before it was learned. Recovery: of what was lost, at the second visit; above 1 where a task "
    "becomes better than it was. Without interference: the same network learns the task a second time at once, for as "
    "many steps. No value: single rates of forgetting and second visits whose denominator is within its noise."
)
FIGURE_NOTE = (
    "*Loss on the held-out items of all tasks after the last phase, and on the probe (a held-out language, learned for "
    "a few steps by a copy), both minus the dense model; less is better. Bars are 95 % intervals over seeds, each by "
    "itself, not corrected.*"
)


def compared(results: Sequence[Stress]) -> Table:
    """What each strategy costs by protocol."""
    names = list(dict.fromkeys(name for result in results for name in result.strategies))
    metrics = {"performance_nats": "loss", "probe_nats": "probe loss"}
    rows = []
    for name in names:
        cells = [brief(_cost(result, name, metric), metric, True) for result in results for metric in metrics]
        rows.append([f"{name}, a control" if name == RANDOM else name, *cells])
    titles = [f"{begun(result.config.protocol)}: {short}" for result in results for short in metrics.values()]
    return Table(["Strategy", *titles], rows)


def _cost(result: Stress, name: str, metric: str) -> Estimate:
    return over_seeds(over_levels(result, result.models[0], name, DENSE, metric))


def tasks(results: Sequence[Stress]) -> Table:
    """Whether the dense model learns every task beyond the noise of seeds."""
    rows = []
    for result in results:
        for task, gain in gains(result).items():
            spread = MISSING if gain.sd is None else number(gain.sd, "gain")
            ratio = MISSING if not gain.sd or gain.mean is None else f"{gain.mean / gain.sd:.1f}".replace("-", "−")
            verdict = {True: "yes", False: "no", None: MISSING}[is_learned(gain)]
            rows.append([result.config.protocol, task, brief(gain, "gain", True), spread, ratio, verdict])
    return Table(["Protocol", "Task", "Gain", "SD", "Gain / SD", "Learned"], rows)


def rates(results: Sequence[Stress]) -> Table:
    """Forgetting and recovery beside the control without interference."""
    rows = []
    for result in results:
        names = [name for name in REFERENCES if result.group(result.models[0], name) is not None]
        for name in (*names, *result.strategies):
            found = [_over_levels(result, name, metric) for metric in RATES]
            cells = [brief(one, metric, metric == RATES[-1]) for metric, one in zip(RATES, found, strict=True)]
            rows.append([result.config.protocol, REFERENCES.get(name, name), *cells, _missing(result, name)])
    return Table(["Protocol", "Strategy", *(begun(QUANTITIES[name].title) for name in RATES), "No value"], rows)


def _over_levels(result: Stress, name: str, metric: str) -> Estimate:
    return over_seeds(mean_over(group.by_seed(metric) for group in _groups(result, name)))


def _groups(result: Stress, name: str) -> list[Group]:
    """A strategy at every level; a reference."""
    at = [0.0] if name in REFERENCES else result.levels
    return [group for level in at if (group := result.group(result.models[0], name, level)) is not None]


def _missing(result: Stress, name: str) -> str:
    """Of single rates of forgetting and of recovery at the second visit."""
    found = [group.metrics[metric] for group in _groups(result, name) for metric in RATES[:2]]
    return f"{sum(one.missing for one in found)} of {sum(one.asked for one in found)}"


def removed(result: Stress) -> str:
    """`10% is 2 of 16 heads`, of every level."""
    found = {row["level"]: row for row in rows_of(result.rows, kind="pruned") if row["level"]}
    parts = [f"{whole_percent(level)} is {row['units_removed']}" for level, row in sorted(found.items())]
    total = next((row["units_total"] for row in found.values()), 0)
    return f"Of {total} heads {listed(parts)}" if parts else "Nothing was removed"


def setting(results: Sequence[Stress]) -> str:
    """What was asked, and how far it is."""
    first = results[0]
    row = rows_of(first.rows, kind="pruned")[0]
    layers, networks = len(row["kept_by_layer"]), sum(len(result.lives) for result in results)
    return (
        f"The model `{first.models[0]}` ({row['parameters']:,} parameters, {counted(layers, 'layer')}, "
        f"{row['units_total']} heads) was pruned by {listed(first.strategies)}, "
        f"{listed([whole_percent(level) for level in first.levels])} of the heads, and then learned the tasks of "
        f"{counted(len(results), 'protocol')} in {counted(first.config.cycles, 'cycle')}: {networks} networks "
        f"({'; '.join(by_protocol(results, _seeds))}). Brackets are 95 % intervals over seeds, losses and probe losses "
        "(of a copy that learns a held-out language) nats a target token. *Shown* is what Holm's correction leaves."
    )


def _seeds(result: Stress) -> str:
    done, wanted = len(result.seeds), result.config.replicates
    return counted(done, "seed") if done == wanted else f"{done} of {counted(wanted, 'seed')} so far"


def costs(results: Sequence[Stress]) -> list[str]:
    """Machine, versions, seeds, time, and what the runs checked of themselves."""
    lines = []
    for result in results:
        manifest = RunFolder(result.folder).read_manifest()
        rows = rows_of(result.rows, kind="phase")
        ends = {life.key: life.rows["phase"][-1] for life in result.lives if life.rows.get("phase")}
        steps, tokens = (sum(row[name] for row in ends.values()) for name in ("step", "tokens"))
        lines.append(
            f"{result.config.protocol}: {counted(len(result.seeds), 'seed')} from root seed {result.config.seed}, "
            f"{counted(len(result.lives), 'network')}, {steps:,} optimizer steps on {tokens:,} tokens, "
            f"{duration(sum(row['seconds'] for row in rows))} of learning (sum over phases, by the clock, on "
            f"{counted(manifest['must_match']['threads'], 'thread')}; pruning, looks, probes, controls not counted). "
            f"{removed(result)}. {_machine(manifest)}."
        )
        lines += [f"{result.config.protocol}: {line}" for line in check_lines(result.rows)]
    return lines


def _machine(manifest: dict[str, Any]) -> str:
    facts, machine = manifest["must_match"], manifest["machine"]
    versions = listed([f"{name} {version}" for name, version in facts["versions"].items()])
    return f"{machine.get('cpu')}, {counted(machine.get('cores') or 1, 'core')}; {versions}"


def folds(result: Stress) -> list[str]:
    """The folds of one protocol."""
    name, function = begun(result.config.protocol), function_table(result)
    said = [f"**{one.question}** {one.sentence}" for one in (*answers(result), *remarks(result))]
    config = f"```yaml\n{dump_config(result.config, defaults=False).rstrip()}\n```"
    return [
        fold_block(f"{name}: the five answers, and what must be known beside them", bullet_block(said)),
        table_block(overview_table(result), f"{name}: every strategy and level", OVERVIEW_NOTE),
        "" if function is None else table_block(function, f"{name}: likeness to the unpruned model", FUNCTION_NOTE),
        fold_block(f"{name}: configuration", config),
    ]


def page(results: Sequence[Stress], images: str) -> str:
    """The whole document; `images` is where its figure lies, from its folder."""
    return document(
        "# How pruned transformers keep learning",
        setting(results),
        bullet_block(headlines(results)),
        f"![What every strategy and level costs against dense, by protocol]({images}/{IMAGE})",
        FIGURE_NOTE,
        "## Findings in full",
        bullet_block(details(results)),
        "## What can and cannot be concluded",
        bullet_block(conclusions(results)),
        "## Strategies",
        table_block(compared(results), "Every strategy", COMPARED_NOTE),
        "## Are the tasks learned?",
        table_block(tasks(results), "Every task", TASKS_NOTE),
        "## Forgetting and recovery",
        table_block(rates(results), "Every strategy", RATES_NOTE),
        "## Each protocol",
        *[block for result in results for block in folds(result)],
        table_block(glossary_table(), "What each metric is"),
        "## How it was run",
        bullet_block(costs(results)),
        "`make results-stress` makes this page; every number is computed from the rows of the runs. To run your own: "
        "[the guide](../guide/stress.md).",
    )


def read(folder: Path) -> Stress:
    """The seeds of a run that are complete.

    Raises SystemExit for a run of several models, of which this page says nothing.
    """
    result = read_result(open_study(Study, folder))
    if len(result.models) != 1:
        raise SystemExit(f"{folder}: a run of {len(result.models)} models; this page is of one")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/results/stress.md"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    asked = parser.parse_args()
    try:
        results = [read(run) for run in asked.runs]
    except TombolaError as error:
        raise SystemExit(str(error)) from error
    write_bytes(asked.images / IMAGE, figure(results))
    write_text(asked.out, page(results, "../images") + "\n")


if __name__ == "__main__":
    main()
