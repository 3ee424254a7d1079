"""Writes docs/results/vgg-hybrid.md: what the hybrid studies found, and what served as the frozen base.

    python benchmarks/hybrid_results.py BASE_RUN SUMMARY... --images docs/images > docs/results/vgg-hybrid.md

BASE_RUN is the model folder of the config vgg16-base, each SUMMARY a folder of results of `tombola hybrid`;
`make results-hybrid` runs whatever of them is not finished and then this. Everything is computed from their files.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tombola.models import ModelSpec, read_spec
from tombola.runs.atomic import read_json
from tombola.studies.single.one_model import METRICS

FIGURES = {"exits.png": "accuracy at every exit", "gate.png": "accuracy against mean cost of a gated early exit"}


def base_sentence(folder: Path) -> str:
    """What the frozen base is, from its model folder."""
    spec, history = read_spec(folder)
    assert isinstance(spec, ModelSpec)
    stage = read_json(folder / METRICS)["stages"][-1]
    data = history["data"]["config"]["name"] if "data" in history else "unnamed data"
    return (
        "No ImageNet weights are at hand where this page is made. The frozen base is a small stand-in, made by "
        f"`tombola train`: {spec.architecture} of widths {list(spec.widths or ())} on {data}, "
        f"{stage['test_accuracy']:.1%} test accuracy there. With ImageNet's its rows would differ: name them with "
        "data.base.weights."
    )


def study_part(results: Path, images: Path) -> str:
    """A study's summary one level down, its figures copied into `images`."""
    lines = (results / "summary.md").read_text().splitlines()
    name = lines[0].removeprefix("# ").partition(":")[0]
    lines = [f"#{line}" if line.startswith("#") else line for line in lines]
    for figure, caption in FIGURES.items():
        if (results / figure).exists():
            target = f"hybrid-{name}-{figure}"
            shutil.copyfile(results / figure, images / target)
            lines.append(f"\n![{name}: {caption}](../images/{target})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, metavar="BASE_RUN")
    parser.add_argument("studies", type=Path, nargs="+", metavar="SUMMARY")
    parser.add_argument("--images", type=Path, required=True)
    given = parser.parse_args()
    parts = [study_part(results, given.images) for results in given.studies]
    print("\n\n".join(["# VGG16, random forests and tickets", base_sentence(given.base), *parts]))


if __name__ == "__main__":
    main()
