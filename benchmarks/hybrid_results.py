"""Writes docs/results/vgg-hybrid.md: what the hybrid studies found, and what served as the frozen base.

    python benchmarks/hybrid_results.py BASE_RUN SUMMARY... --images docs/images > docs/results/vgg-hybrid.md

BASE_RUN is the model folder of the config vgg16-base, each SUMMARY a folder of results of `tombola hybrid`;
`make results-hybrid` runs whatever of them is not finished and then this. Everything is computed from their files.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tombola.models import ModelSpec, read_spec
from tombola.reports.documents import bullet_block, document, lowered
from tombola.runs.atomic import read_json
from tombola.studies.hybrid.questions import CONTEST, MAPS
from tombola.studies.hybrid.report import FIGURES
from tombola.studies.single.one_model import METRICS


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
    text = (results / "summary.md").read_text()
    name = text.removeprefix("# ").partition(":")[0]
    for figure in FIGURES:
        if (results / figure).exists():
            target = f"hybrid-{name}-{figure}"
            shutil.copyfile(results / figure, images / target)
            text = text.replace(f"]({figure})", f"](../images/{target})")
    return lowered(text.strip())


def page(base: str, parts: Sequence[str]) -> str:
    """The page: the studies, each with its answers and figures first, and what served as the frozen base."""
    return document(
        "# VGG16, random forests and tickets",
        bullet_block([in_short(part) for part in parts]),
        *parts,
        f"## {ORIGIN}",
        base,
    )


def in_short(part: str) -> str:
    """A study's name, a link, and what it says of the ticket and of its features."""
    title = part.partition("\n")[0].removeprefix("## ")
    answers: dict[str, str] = {}
    for block in part.split("\n\n"):
        if block.startswith("**"):
            question, _, answer = block.removeprefix("**").partition("** ")
            answers.setdefault(question, answer)  # evidence repeats the question
    return f"**[{title.partition(':')[0]}](#{anchor(title)})**: {answers[CONTEST]} {answers[MAPS]}"


def anchor(title: str) -> str:
    """The name of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


ORIGIN = "The frozen base, and how this page was made"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, metavar="BASE_RUN")
    parser.add_argument("studies", type=Path, nargs="+", metavar="SUMMARY")
    parser.add_argument("--images", type=Path, required=True)
    given = parser.parse_args()
    parts = [study_part(results, given.images) for results in given.studies]
    print(page(base_sentence(given.base), parts))


if __name__ == "__main__":
    main()
