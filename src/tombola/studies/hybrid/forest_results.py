"""What forests come to at every exit, baselines and whole networks beside them: accuracy, cost, size, time."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.compression.measured import BATCH_SIZES
from tombola.reports.intervals import Estimate
from tombola.reports.tables import Table, fixed, plus_minus
from tombola.runs.rows import Row
from tombola.studies.base.numbers import MISSING
from tombola.studies.hybrid.summaries import (
    Measured,
    best_features,
    forests_of,
    networks_of,
)
from tombola.studies.hybrid.timings import TIMES, fastest
from tombola.studies.hybrid.units import NETWORK

EXITS_NOTE = (
    "Random forests on features of a network up to an exit, with the features that are best on validation (mean over "
    "replicates). Test accuracy and macro-F1 in percent, ± half of the 95 % confidence interval; MFLOPs of one example "
    "up to the exit, dense and with kept weights only; comparisons of the forest, mean per example over all trees, "
    "which are no FLOPs; median µs of a whole call by the faster of torch and sparse kernels; kB of the network up "
    "to the exit (kept weights packed) and of the forest as ONNX."
)


MEASURES = ("Test accuracy", "F1", "MFLOPs", "MFLOPs kept", "Comparisons", *TIMES, "kB network", "kB forest")


def exits_table(rows: Sequence[Row]) -> Table:
    """A line for every network and exit."""
    exits = [forest for forest in best_features(forests_of(rows)) if forest.exit is not None]
    names = [(_named(NETWORK[one.network], one), one.exit or "", one.features or "") for one in exits]
    body = [(*name, *cells) for name, cells in zip(names, _measures(rows, exits), strict=True)]
    return Table(("Network", "Exit", "Features", *MEASURES), body)


def baselines_table(rows: Sequence[Row]) -> Table:
    """Forests on plain pixels and PCA, and the whole networks."""
    forests = [forest for forest in best_features(forests_of(rows)) if forest.exit is None]
    networks = [*networks_of(rows).values()]
    names = [_named(f"forest on {NETWORK[forest.network]}", forest) for forest in forests]
    names += [_named(f"{NETWORK[network.network]} network, whole", network) for network in networks]
    measures = _measures(rows, [*forests, *networks])
    return Table(("Baseline", *MEASURES), [(name, *cells) for name, cells in zip(names, measures, strict=True)])


def features_table(rows: Sequence[Row]) -> Table:
    """Every forest, for programs: plain numbers, an empty cell where there is none; `chosen` as on validation."""
    forests = forests_of(rows)
    chosen = best_features(forests)
    columns = ["network", "exit", "features", "chosen", "replicates", "inputs"]
    for part in ("validation", "test"):
        columns += [f"{part}_{column}" for column in ("accuracy_percent", "low", "high", "f1_percent")]
    means = ("flops_dense", "flops_effective", "comparisons", "nodes", "cnn_bytes", "forest_bytes", "density")
    body = []
    for forest in forests:
        cells = [forest.network, forest.exit or "", forest.features or "", str(int(forest in chosen))]
        cells += [str(len(forest.rows)), str(forest.rows[0]["inputs"])]
        for part in ("validation", "test"):
            cells += [*_interval(forest.over(f"{part}_accuracy", 100)), _plain(forest.over(f"{part}_f1", 100))]
        body.append((*cells, *(_plain(forest.over(column)) for column in means)))
    return Table((*columns, *means), body)


def _named(name: str, measured: Measured) -> str:
    """What learned nothing is called so."""
    return name if measured.fault is None else f"{name}, {measured.fault}"


def _measures(rows: Sequence[Row], lines: Sequence[Measured]) -> list[tuple[str, ...]]:
    """The cells of `MEASURES` line by line; a column has as many decimals in every line."""

    def column(name: str, unit: float, instead: str | None = None) -> list[str]:
        means = [_mean(one, name if name in one.rows[0] else instead) for one in lines]
        return fixed([None if mean is None else mean / unit for mean in means])

    accuracies = [one.over("test_accuracy", 100) for one in lines]
    f1 = [one.over("test_f1", 100) for one in lines]
    comparisons = [_mean(one, "comparisons") for one in lines]
    columns = [
        [MISSING if value is None else plus_minus(value) for value in accuracies],
        [MISSING if value is None else f"{value.mean:.2f}" for value in f1],
        column("flops_dense", 1e6),
        column("flops_effective", 1e6),
        [MISSING if mean is None else f"{mean:,.0f}" for mean in comparisons],
        *(fixed([_microseconds(rows, one, batch) for one in lines]) for batch in BATCH_SIZES),
        column("cnn_bytes", 1e3, "bytes"),
        column("forest_bytes", 1e3),
    ]
    return list(zip(*columns, strict=True))


def _mean(measured: Measured, column: str | None) -> float | None:
    """None where the rows have no such column, too."""
    return measured.mean(column) if column in measured.rows[0] else None


def _microseconds(rows: Sequence[Row], measured: Measured, batch: int) -> float | None:
    """The median of the whole call by its fastest engine."""
    found = fastest(rows, measured.network, measured.exit, measured.features if measured.exit else None, batch)
    return None if found is None else 1e6 * float(found["seconds"][1])


def _interval(value: Estimate | None) -> tuple[str, str, str]:
    if value is None:
        return "", "", ""
    low, high = ("" if end is None else f"{end:.6g}" for end in (value.low, value.high))
    return f"{value.mean:.6g}", low, high


def _plain(value: Estimate | None) -> str:
    return "" if value is None else f"{value.mean:.9g}"
