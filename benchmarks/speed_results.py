"""Writes docs/results/speed.md: what came out of every part first, with the figures, then the parts.

    python benchmarks/speed_results.py PART [PART ...] > docs/results/speed.md

The parts are what sparse_inference.py, sparse_crossover.py, sparse_training.py and sparse_search.py print: a heading of
the second level, what came out in one paragraph, the rest. `make results-speed` runs them and then this.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tombola.reports.documents import bullet_block, document

TITLE = "# Speed"
FIGURES = {
    1: "Speed-up over the best dense float32 engine at batch 1, by weights kept",
    64: "The same at batch 64",
}
"""What sparse_inference.py draws, by batch size."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("parts", type=Path, nargs="+", metavar="PART")
    print(page([path.read_text() for path in arguments.parse_args().parts]))


def page(parts: Sequence[str]) -> str:
    """The page from its parts; what came out of each goes to the top."""
    found, rest = [], []
    for part in parts:
        title, finding, following = part.strip().split("\n\n", 2)
        found.append(f"**{title.removeprefix('## ')}**: {finding}")
        rest.append(document(title, following))
    figures = [f"![{said}](../images/speed-batch-{batch}.png)" for batch, said in FIGURES.items()]
    return document(TITLE, bullet_block(found), *figures, *rest)


if __name__ == "__main__":
    main()
