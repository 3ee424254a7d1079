"""What a person sees of the sensitivity of layers: drops by layer and sparsity, and the rates that follow from them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tombola.compression.sensitivity import Sensitivity
from tombola.errors import StorageError
from tombola.reports.chart import Chart, Series
from tombola.reports.figures import figure_html
from tombola.reports.html_tables import table_html
from tombola.reports.intervals import estimate
from tombola.reports.page import Header, Section, page
from tombola.reports.printed import png
from tombola.reports.tables import Table
from tombola.reports.terminal import drawn, say
from tombola.runs.atomic import make_folder, storage_errors, write_bytes, write_text
from tombola.studies.base.numbers import whole_percent
from tombola.studies.base.output import Numbers

REPORT, TABLE, FIGURE = "report.html", "sensitivity.csv", "sensitivity.png"
CAPTION = "One layer at a time loses units; all others are as they were, and nothing is trained."


def rates_text(found: Sensitivity, max_drop: float) -> str:
    """The distribution as the command line takes it: rates:0,fc1=0.9,..."""
    layers = (f"{name.removesuffix('.weight')}={rate:g}" for name, rate in found.within(max_drop).items())
    return f"rates:0,{','.join(layers)}"


def table(found: Sensitivity, max_drop: float) -> Table:
    """A line a layer: what is lost at each sparsity, and the largest that stays within the allowed drop."""
    sparsities = [point.sparsity for point in found.curve(found.layers[0])]
    within = found.within(max_drop)
    rows = [
        [
            layer.removesuffix(".weight"),
            f"{found.curve(layer)[0].units:,}",
            *(f"{point.drop + 0.0:.2f}" for point in found.curve(layer)),
            whole_percent(within[layer]),
        ]
        for layer in found.layers
    ]
    return Table(("Layer", "Units", *(whole_percent(sparsity) for sparsity in sparsities), "May lose"), rows)


def sentence(found: Sensitivity, max_drop: float) -> str:
    """Which layer minds most, and what may go."""
    worst = {name: max(point.drop for point in found.curve(name)) for name in found.layers}
    most = max(worst, key=lambda name: worst[name])
    return (
        f"{most.removesuffix('.weight')} is the most sensitive layer: up to {worst[most]:.2f} {found.measure.unit} are "
        f"lost. May lose: what each layer alone can be pruned by for a drop of at most {max_drop:g} "
        f"{found.measure.unit}. Together they lose more, so fine-tune."
    )


def show(console: Console, found: Sensitivity, max_drop: float) -> None:
    """The table, and the distribution to prune by."""
    console.print(drawn(table(found, max_drop), left=1))
    say(console, sentence(found, max_drop), "bold")
    say(console, f"To prune so: --distribution {rates_text(found, max_drop)}")


def numbers(found: Sensitivity, max_drop: float) -> Numbers:
    """For a program: a row a layer and sparsity."""
    rows = [asdict(point) for point in found.points]
    verdict = {"before": found.before, "max_drop": max_drop, "within": found.within(max_drop)}
    return Numbers(rows, verdict, {"score": found.measure.unit, "drop": found.measure.unit})


def chart(found: Sensitivity) -> Chart:
    """Score against the sparsity of the one layer."""
    series = [
        Series(
            layer.removesuffix(".weight"),
            [100 * point.sparsity for point in found.curve(layer)],
            [estimate([point.score]) for point in found.curve(layer)],
            index,
        )
        for index, layer in enumerate(found.layers)
    ]
    title = found.measure.words.capitalize()
    return Chart("Removed of the layer (%)", f"Validation {title}", series, ("as given", found.before))


def check_folder(folder: Path) -> None:
    """StorageError where a folder of results would overwrite something."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StorageError(f"--out {folder}: exists and is not an empty folder; choose another")


def write(folder: Path, name: str, found: Sensitivity, max_drop: float) -> dict[str, Path]:
    """The page, the figure and a row a point as CSV; their paths by what they are."""
    check_folder(folder)
    with storage_errors("write to", folder):
        make_folder(folder)
    facts = [
        ("Model", name),
        ("Scored on", "the validation part"),
        (found.measure.words.capitalize(), f"{found.before:.2f}"),
    ]
    header = Header(f"Sensitivity of layers: {name}", sentence(found, max_drop), facts)
    results = table_html(table(found, max_drop), f"Lost by sparsity of the layer, {found.measure.unit}")
    sections = [Section("By layer", figure_html(chart(found), CAPTION) + results)]
    write_text(folder / REPORT, page(header, sections))
    write_bytes(folder / FIGURE, png(chart(found)))
    columns = ("layer", "sparsity", "units", "removed", "score", "drop")
    rows = [[str(getattr(point, column)) for column in columns] for point in found.points]
    write_text(folder / TABLE, Table(columns, rows).to_csv())
    return {"report": folder / REPORT, "table": folder / TABLE, "figure": folder / FIGURE}
