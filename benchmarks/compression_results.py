"""Runs of `tombola compress` as a page: every route of every network side by side, with two figures.

    python benchmarks/compression_results.py RUN... [--out docs/results/compression.md] [--images docs/images]

A route is a structure (the model as it is, single weights, units) in a precision. Of each the smallest file that loses
no more than the run allowed is shown: what it loses on validation, its bytes, its latency.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tombola.reports.chart import Chart, Series
from tombola.reports.documents import bullet_block, document, fold_block, table_block
from tombola.reports.intervals import estimate
from tombola.reports.printed import png
from tombola.reports.tables import MISSING, Table
from tombola.runs.configs import dump_config
from tombola.runs.folder import RunFolder
from tombola.studies.base.numbers import amount, listed, points, whole_percent
from tombola.studies.base.opened import open_study, read_result
from tombola.studies.compress.outcome import Candidate, Search
from tombola.studies.compress.report import candidates_table, lead
from tombola.studies.compress.study import Compress
from tombola.studies.compress.target import shown

ROUTES = [(structure, precision) for structure in ("dense", "weight", "unit") for precision in ("float32", "int8")]
NAMES = {"dense": "as it is", "weight": "weights, sparse kernels", "unit": "units removed"}
SMALLER, FASTER = "compression-bytes.png", "compression-latency.png"
NOTE = (
    "Of every route the smallest file within the allowed loss. Lost: points of validation accuracy to the model. Times "
    "smaller: than the model's float32 tensors. Latency: the median of calls with one example on one thread; times "
    "faster: than the model on the faster of torch and ONNX Runtime in float32, in turns with it."
)


def route_name(route: tuple[str, str]) -> str:
    return f"{NAMES[route[0]]}, {route[1]}"


def network_name(search: Search) -> str:
    """`lenet5-mnist`, of the folder of its model `train-lenet5-mnist-6cdf1794`."""
    return Path(search.config.model).name.removeprefix("train-").rpartition("-")[0] or search.config.model


def smallest(search: Search, route: tuple[str, str]) -> Candidate | None:
    """The smallest file of a route that loses little enough."""
    found = [one for one in search.candidates if (one.structure, one.precision) == route and one.within]
    return min(found, key=lambda one: one.costs.bytes or 0.0, default=None)


def times(before: float | None, after: float | None) -> float | None:
    return None if before is None or not after else before / after


def side_by_side(searches: Sequence[Search]) -> Table:
    """A line for every network and route."""
    rows = []
    for search in searches:
        for number, route in enumerate(ROUTES):
            one = smallest(search, route)
            first = network_name(search) if number == 0 else ""
            if one is None:
                rows.append((first, route_name(route), "none within the loss", *[""] * 5))
                continue
            smaller, faster = (times(one.parent.of(m), one.costs.of(m)) for m in ("bytes", "latency"))
            removed = MISSING if one.structure == "dense" else whole_percent(one.sparsity)
            cells = (removed, points(one.drop or 0.0), f"{one.costs.bytes:,}", _times(smaller))
            latency = MISSING if one.costs.latency is None else shown("latency", one.costs.latency)
            rows.append((first, route_name(route), *cells, latency, _times(faster)))
    return Table(("Network", "Route", "Removed", "Lost", "Bytes", "Times smaller", "Latency", "Times faster"), rows)


def _times(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"


def chart(searches: Sequence[Search], measure: str, title: str) -> Chart:
    """Times smaller, or faster, by network; a line for every route."""
    lines = []
    for style, route in enumerate(ROUTES):
        found = []
        for place, search in enumerate(searches):
            one = smallest(search, route)
            value = None if one is None else times(one.parent.of(measure), one.costs.of(measure))  # type: ignore[arg-type]
            if value is not None:
                found.append((float(place), value))
        if found:
            lines.append(Series(route_name(route), [x for x, _ in found], [estimate([y]) for _, y in found], style))
    names = [network_name(search) for search in searches]
    return Chart("Network", title, lines, ("the model", 1.0), factors=True, places=names)


def finding(search: Search) -> str:
    """Which route leads in bytes, and which in latency."""
    routes = [one for route in ROUTES if (one := smallest(search, route)) is not None]
    small = min(routes, key=lambda one: one.costs.bytes or 0.0)
    timed = [one for one in routes if one.costs.latency is not None]
    said = (
        f"**{network_name(search)}** ({search.parent['params']:,} parameters), at most "
        f"{amount(100 * search.config.max_drop)} lost on validation: smallest is {small.name}, {small.costs.bytes:,} "
        f"bytes ({_times(times(small.parent.bytes, small.costs.bytes))} × smaller)"
    )
    if not timed:
        return f"{said}; the machine was too busy for latencies."
    fast = min(timed, key=lambda one: one.costs.latency or 0.0)
    ratio = _times(times(fast.parent.latency, fast.costs.latency))
    return f"{said}; fastest of these is {fast.name}, {shown('latency', fast.costs.latency or 0.0)} ({ratio} × faster)."


def page(searches: Sequence[Search], images: str) -> str:
    """The whole document; `images` is where its figures lie, from its folder."""
    folds = []
    for search in searches:
        table = candidates_table(search)
        asked = search.config.model_copy(update={"model": f"runs/{Path(search.config.model).name}"})
        config = f"```yaml\n{dump_config(asked, defaults=False).rstrip()}\n```"
        folds.append(
            fold_block(f"{network_name(search)}: every candidate ({len(table.rows)} rows)", table.to_markdown(), config)
        )
    machines = listed(sorted({_machine(search) for search in searches}))
    return document(
        "# From a trained network to a file, by every route",
        bullet_block([*map(finding, searches), *(f"Chosen of {network_name(one)}: {lead(one)}" for one in searches)]),
        f"![How many times smaller the file of each route is]({images}/{SMALLER})",
        f"![How many times faster each route is at batch 1]({images}/{FASTER})",
        table_block(side_by_side(searches), "Every network and route", NOTE),
        *folds,
        "vgg16-cifar10 is VGG-16 with a quarter of its channels, on 25,000 images; transformer-mnist reads 28 rows as "
        "tokens, 64 wide, in two layers. Parents and candidates are trained briefly: what is to be compared is the "
        "routes. Bytes and latencies of the model are float32; an int8 ticket is computed in float32.",
        f"Made by `make results-compression` on {machines}; one seed each, one thread.",
    )


def _machine(search: Search) -> str:
    facts = RunFolder(search.folder).read_manifest()["machine"]
    return f"{facts.get('cpu')}, {facts.get('cores')} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/results/compression.md"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    asked = parser.parse_args()
    searches = [read_result(open_study(Compress, run)) for run in asked.runs]
    (asked.images / SMALLER).write_bytes(png(chart(searches, "bytes", "Times smaller")))
    (asked.images / FASTER).write_bytes(png(chart(searches, "latency", "Times faster")))
    asked.out.write_text(page(searches, "../images") + "\n")


if __name__ == "__main__":
    main()
