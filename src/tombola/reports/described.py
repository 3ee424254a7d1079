"""A chart in words and numbers: what a pointer shows, what a screen reader says, and the table behind it."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.reports.chart import Chart, Series
from tombola.reports.dots import Dots, Radar
from tombola.reports.grid import Grid
from tombola.reports.heatmap import Heatmap
from tombola.reports.intervals import Estimate
from tombola.reports.tables import MISSING, Table, fixed
from tombola.reports.traces import Traces

Figure = Chart | Heatmap | Grid | Dots | Radar | Traces

MOST_NUMBERS = 500
"""Points of a chart that are listed below it."""


def hover(chart: Chart, series: Series, index: int) -> list[str]:
    """The lines that a pointer shows at a point: what it is, where, its mean, its interval and n."""
    x = chart.places[round(series.x[index])] if chart.places else f"{series.x[index]:.4g}"
    return [series.name, f"{chart.x_title}: {x}", f"{chart.y_title}: {_estimate(series.y[index])}"]


def alternative(figure: Figure) -> str:
    """What a figure shows, in a few sentences, for who cannot see it."""
    title = f"{figure.title}. " if figure.title else ""
    match figure:
        case Heatmap():
            size = f"{len(figure.values)} by {len(figure.values[0])}"
            low = min(min(row) for row in figure.values)
            high = max(max(row) for row in figure.values)
            return f"{title}Heat map of {size} values, {figure.unit}, from {_number(low)} to {_number(high)}."
        case Grid():
            return title + _of_grid(figure)
        case Dots() | Radar():
            return title + _of_estimates(figure)
        case Traces():
            ended = [trace.name for trace in figure.traces if trace.is_ended]
            gone = f" Removed: {', '.join(ended)}." if ended else ""
            return f"{title}{len(figure.traces)} traces below each other against {figure.x_title}.{gone}"
    return title + _of_chart(figure)


def _of_grid(grid: Grid) -> str:
    rows = [
        f"{_cell(name)}: {', '.join(_cell(cell.text if cell.value is not None else MISSING) for cell in cells)}"
        for name, cells in zip(grid.rows, grid.cells, strict=True)
    ]
    beside = "" if grid.reference is None else f" {grid.reference[0]}: {_number(grid.reference[1])}."
    return f"Cells by {grid.x_title}, {', '.join(grid.columns)}. {'; '.join(rows)}.{beside}"


def _cell(text: str) -> str:
    return text.replace("\n", " ")


def _of_estimates(figure: Dots | Radar) -> str:
    said = []
    for series, _ in figure.drawn:
        at = [f"{_cell(figure.places[round(x)])} {_number(y.mean)}" for x, y in zip(series.x, series.y, strict=True)]
        said.append(f"{series.name}: {', '.join(at) or 'no values'}")
    kind = "Radar from 0 to 1" if isinstance(figure, Radar) else f"Dot plot of {figure.x_title}"
    return f"{kind}. {'; '.join(said)}."


def _of_chart(figure: Chart) -> str:
    lines = [_course(chart=figure, series=series) for series, _ in figure.drawn]
    if figure.baseline is not None:
        lines.append(f"{figure.baseline[0]}: {_number(figure.baseline[1])}")
    if figure.mark is not None:
        lines.append(f"{figure.mark.label} at {_number(figure.mark.x)}: {_number(figure.mark.y)}")
    kind = "Histogram" if figure.steps else "Line chart"
    return f"{kind} of {figure.y_title} against {figure.x_title}. {'; '.join(lines)}."


def numbers(figure: Figure) -> Table | None:
    """Every point with its interval; None where there are too many to be read, or the figure says its numbers."""
    match figure:
        case Chart():
            return _of_points(figure)
        case Dots():
            points = [(one, x, y) for one in figure.series for x, y in zip(one.x, one.y, strict=True)]
            places = [_cell(figure.places[round(x)]) for _, x, _ in points]
            return _listed(points, places, ("Series", "Of", figure.x_title))
    return None


def _of_points(chart: Chart) -> Table | None:
    if chart.steps or sum(len(series.x) for series in chart.series) > MOST_NUMBERS:
        return None
    points = [(series, x, y) for series in chart.series for x, y in zip(series.x, series.y, strict=True)]
    xs: Sequence[str] = fixed([x for _, x, _ in points])
    if chart.places:
        named = range(len(chart.places))
        xs = [chart.places[round(x)] if round(x) in named and x == round(x) else "all" for _, x, _ in points]
    return _listed(points, xs, ("Series", chart.x_title, chart.y_title))


def _listed(points: Sequence[tuple[Series, float, Estimate]], xs: Sequence[str], titles: tuple[str, str, str]) -> Table:
    cells = fixed([value for _, _, y in points for value in (y.mean, y.low, y.high)])
    rows = [
        (series.name, x, *cells[3 * index : 3 * index + 3], str(y.n))
        for index, ((series, _, y), x) in enumerate(zip(points, xs, strict=True))
    ]
    return Table((*titles, "95 % CI from", "to", "n"), rows)


def _course(chart: Chart, series: Series) -> str:
    """`ticket: 96.9 at 100, 95.1 at 5`: where a line begins and ends."""
    at = (0, -1) if len(series.x) > 1 and not chart.steps else (0,)
    if chart.steps:
        peak = max(range(len(series.x)), key=lambda index: series.y[index].mean)
        return f"{series.name}: highest {_number(series.y[peak].mean)} at {_number(series.x[peak])}"

    def place(index: int) -> str:
        x = series.x[index]
        return chart.places[min(max(round(x), 0), len(chart.places) - 1)] if chart.places else _number(x)

    return f"{series.name}: " + ", ".join(f"{_number(series.y[index].mean)} at {place(index)}" for index in at)


def _estimate(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return f"{_number(value.mean)} (no interval, n = {value.n})"
    mean, low, high = fixed([value.mean, value.low, value.high])
    return f"{mean} (95 % CI {low} to {high}, n = {value.n})"


def _number(value: float) -> str:
    return f"{value:.4g}"
