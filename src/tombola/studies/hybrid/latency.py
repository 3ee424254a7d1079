"""How fast pipelines from images to classes are: replicate 0's, measured once at the end of a study.

By the parent process, alone, on test images, all pipelines taking turns. Every kind of features is measured at every
exit: which is best on validation may change when replicates are added, and no time must be missing then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tombola.runs import limits
from tombola.runs.atomic import read_bytes
from tombola.runs.rows import Row
from tombola.studies.base.speed import IMAGES
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import Cut, Sources, cuts_of, images_of
from tombola.studies.hybrid.forests import Forest
from tombola.studies.hybrid.pipelines import Pipeline, measure_pipelines
from tombola.studies.hybrid.replicate import forest_path
from tombola.studies.hybrid.requirements import asked_exits
from tombola.studies.hybrid.units import LATENCY, MEASURED_REPLICATE, PCA, PIXELS


def latency_unit(sources: Sources, folder: Path, on_prepared: Callable[[int, int], None]) -> list[Row]:
    """The rows of all pipelines, one unit; `folder` is replicate 0's.

    `on_prepared` is told how many pipelines are ready to be measured, and of how many.
    """
    images = images_of(sources, MEASURED_REPLICATE)
    pixels = images.test.inputs[:IMAGES].clone()
    pipelines = [Pipeline(name, pixels, forest=_forest(forest_path(folder, name))) for name in (PIXELS, PCA)]
    for cut in cuts_of(sources, MEASURED_REPLICATE, images):
        pipelines += _pipelines(sources.config, cut, folder)
    key = {"kind": "latency", "replicate": MEASURED_REPLICATE, "unit": LATENCY}
    return [key | row for row in measure_pipelines(pipelines, on_prepared=on_prepared)]


def _pipelines(config: HybridConfig, cut: Cut, folder: Path) -> list[Pipeline]:
    """The whole network, and every exit with the forest of every kind of features; the gated exit in its parts, too."""
    inputs = cut.data.test.inputs[:IMAGES].clone()  # a slice would hold all images in memory
    found = [Pipeline(cut.name, inputs, cut.network, cut.masks)]
    for exit in [] if cut.head is not None else asked_exits(config, cut.network):
        for kind in config.features:
            forest, parts = _forest(forest_path(folder, cut.name, exit.name, kind)), exit.name == config.gate_exit
            found.append(Pipeline(cut.name, inputs, cut.network, cut.masks, exit, kind, forest, parts))
    return found


def _forest(path: Path) -> Forest:
    return Forest(read_bytes(path, limits.FOREST))
