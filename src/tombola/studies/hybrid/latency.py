"""How fast the ways to a class are: replicate 0's networks, exits and forests, measured once at the end of a study.

By the parent process, alone, on test pictures. Features of an exit are those that are best on validation, as in the
tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from tombola.compression.measured import BATCH_SIZES
from tombola.models.exits import find_exit
from tombola.runs.atomic import read_bytes
from tombola.runs.rows import Row, rows_of
from tombola.studies.hybrid.cuts import TICKET, Cut, Sources, cuts_of, pictures_of
from tombola.studies.hybrid.forests import Forest
from tombola.studies.hybrid.pipelines import Pipeline, measure_pipelines
from tombola.studies.hybrid.replicate import forest_path
from tombola.studies.hybrid.summaries import best_features, forests_of
from tombola.studies.hybrid.units import LATENCY, MEASURED_REPLICATE, PCA, PIXELS

IMAGES = 64
FOREST_LIMIT = 4 << 30


def latency_units(sources: Sources, folder: Path, rows: Sequence[Row], wanted: Collection[str]) -> Iterator[list[Row]]:
    """One unit of rows for each of the networks `wanted`, measured when it is asked for.

    `folder` is replicate 0's, `rows` are the table's.
    """
    if not wanted:
        return
    pictures = pictures_of(sources, MEASURED_REPLICATE)
    for name in (name for name in (PIXELS, PCA) if name in wanted):
        forest = _forest(forest_path(folder, name))
        yield _unit(name, [Pipeline(name, forest=forest)], pictures.test.inputs[:IMAGES])
    for cut in cuts_of(sources, MEASURED_REPLICATE, pictures):
        if cut.name in wanted:
            yield _unit(cut.name, _pipelines(cut, folder, rows), cut.data.test.inputs[:IMAGES])


def _unit(name: str, pipelines: Sequence[Pipeline], inputs: Tensor) -> list[Row]:
    key = {"kind": "latency", "replicate": MEASURED_REPLICATE, "network": name, "unit": LATENCY}
    return [key | row for row in measure_pipelines(pipelines, inputs, BATCH_SIZES)]


def _pipelines(cut: Cut, folder: Path, rows: Sequence[Row]) -> list[Pipeline]:
    """The whole network, by torch and for a ticket on sparse kernels, too; and every exit with its forest."""
    masks = cut.masks if cut.name == TICKET else None
    found = [Pipeline(cut.name, cut.network)]
    if masks is not None:
        found.append(Pipeline(cut.name, cut.network, masks))
    for best in best_features(forests_of(rows_of(rows, network=cut.name))):
        assert best.exit is not None
        assert best.features is not None
        forest = _forest(forest_path(folder, cut.name, best.exit, best.features))
        exit = find_exit(cut.network, best.exit)
        found.append(Pipeline(cut.name, cut.network, masks, exit, best.features, forest))
    return found


def _forest(path: Path) -> Forest:
    return Forest(read_bytes(path, FOREST_LIMIT))
