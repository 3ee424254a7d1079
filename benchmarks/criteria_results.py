"""Writes docs/results/criteria.md and its figures from finished comparisons.

    python benchmarks/criteria_results.py RUN [RUN ...] --images docs/images > docs/results/criteria.md

The runs are those of the configs criteria and criteria-vgg11; `make results-criteria` runs whatever of
them is not finished and then this. Everything is computed from their rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from tombola.reports.documents import bullet_block, document, lowered
from tombola.reports.printed import png
from tombola.runs.folder import RunFolder
from tombola.studies.base.numbers import counted
from tombola.studies.base.opened import open_study, read_result
from tombola.studies.single.compare import Compare
from tombola.studies.single.comparison_report import comparison_document, figure_name, lead, loss_chart, panels


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", type=Path, nargs="+", help="run folders of `tombola compare`")
    arguments.add_argument("--images", type=Path, required=True, help="folder for the figures")
    options = arguments.parse_args()
    comparisons = [read_result(open_study(Compare, run)) for run in options.runs]
    print(beginning({c.config.name: (c.config.replicates, lead(c)) for c in comparisons}) + "\n")
    for run, comparison in zip(options.runs, comparisons, strict=True):
        prefix = f"criteria-{comparison.config.name}-"
        for structure, distribution in panels(comparison):
            chart = loss_chart(comparison, structure, distribution)
            if chart.series:
                (options.images / f"{prefix}{figure_name(structure, distribution)}.png").write_bytes(png(chart))
        text = comparison_document(comparison, RunFolder(run).read_manifest(), f"../images/{prefix}")
        print(lowered(text))


def beginning(leads: Mapping[str, tuple[int, str]]) -> str:
    """The title and what each comparison came to; `leads` are replicates and sentence by the comparison's name."""
    return document(
        "# Which criterion loses least? Evidence",
        bullet_block([f"**{name}** ({counted(n, 'replicate')}): {said}" for name, (n, said) in leads.items()]),
        "Made by `make results-criteria`; each part ends with its machine, versions, data and config.",
    )


if __name__ == "__main__":
    main()
