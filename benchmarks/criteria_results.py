"""Writes docs/results/criteria.md and its figures from finished comparisons.

    python benchmarks/criteria_results.py RUN [RUN ...] --images docs/images > docs/results/criteria.md

The runs are those of the configs criteria and criteria-vgg11; `make results-criteria` runs whatever of
them is not finished and then this. Everything is computed from their rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tombola.reports.printed import png
from tombola.runs.folder import RunFolder
from tombola.studies.base.opened import open_study, read_result
from tombola.studies.single.compare import Compare
from tombola.studies.single.comparison_report import comparison_document, figure_name, loss_chart, panels


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", type=Path, nargs="+", help="run folders of `tombola compare`")
    arguments.add_argument("--images", type=Path, required=True, help="folder for the figures")
    options = arguments.parse_args()
    print("# Which criterion loses least? Evidence\n")
    print("Made by `make results-criteria`; each part ends with its machine, versions, data and config.\n")
    for run in options.runs:
        comparison = read_result(open_study(Compare, run))
        prefix = f"criteria-{comparison.config.name}-"
        for structure, distribution in panels(comparison):
            chart = loss_chart(comparison, structure, distribution)
            if chart.series:
                (options.images / f"{prefix}{figure_name(structure, distribution)}.png").write_bytes(png(chart))
        document = comparison_document(comparison, RunFolder(run).read_manifest(), f"../images/{prefix}")
        print(document.replace("# ", "## ", 1))


if __name__ == "__main__":
    main()
