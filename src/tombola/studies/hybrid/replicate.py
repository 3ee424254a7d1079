"""One replicate of a hybrid study: forests on pixels and on features at every exit, and gated early exits.

Each network's rows are a unit on disk; a replicate that is run again computes only those that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # comes with scikit-learn
from torch import Tensor

from tombola.compression.cost import count_flops, count_size
from tombola.data import DataSet, Examples
from tombola.models.exits import Exit, prefix
from tombola.pruning import Masks, prunable_parameters
from tombola.runs.atomic import make_folder, write_bytes
from tombola.runs.executors import Emit
from tombola.runs.rows import Row, rows_of
from tombola.runs.seeds import derive_seed
from tombola.studies.base.soundness import majority_accuracy
from tombola.studies.base.work import Finished, unit_rows, write_unit
from tombola.studies.hybrid.cuts import BASE, Cut, Sources, cuts_of, images_of
from tombola.studies.hybrid.early_exits import gate_rows
from tombola.studies.hybrid.exits import features_at
from tombola.studies.hybrid.forests import Forest, comparisons, fit_forest, fit_pca
from tombola.studies.hybrid.pooled import PARTS, base_features
from tombola.studies.hybrid.requirements import asked_exits
from tombola.studies.hybrid.trees import Projection
from tombola.studies.hybrid.units import LATENCY, PCA, PIXELS
from tombola.studies.lottery.networks import replicate_seed
from tombola.training.device import placed
from tombola.training.metrics import evaluate, macro_f1
from tombola.training.threads import one_thread

Features = NDArray[np.float32]
NO_CLASSES = "a base alone gives no classes"


@dataclass(frozen=True)
class ReplicateSpec:
    """What a worker needs to run replicate `index`; `folder` is the run's checkpoints."""

    sources: Sources
    index: int
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"replicate-{self.index:02d}"


def forest_path(folder: Path, *names: str) -> Path:
    """Where a replicate keeps a forest as ONNX: that of a network, an exit and its features, or of a baseline."""
    return folder / f"{'-'.join(names)}.onnx"


def is_stored(spec: ReplicateSpec, rows: Sequence[Row]) -> bool:
    """Whether no file is gone of a replicate, of which the table has all `rows`."""
    own = [row for row in rows_of(rows, replicate=spec.index) if row["kind"] != LATENCY]
    units = all((spec.path / f"{name}.json").exists() for name in {row["unit"] for row in own})
    return units and _forests_are_stored(spec.path, own)


def _forests_are_stored(folder: Path, rows: Sequence[Row]) -> bool:
    """Whether the ONNX file of every forest in the rows is there."""
    for row in rows_of(rows, kind="forest"):
        place = (row["network"], row["exit"], row["features"]) if row["exit"] is not None else (row["features"],)
        if not forest_path(folder, *place).exists():
            return False
    return True


def run_replicate(spec: ReplicateSpec, emit: Emit) -> None:
    """Runs what is left of a replicate; the executor's cell. Computes on one thread, PCA included."""
    import sklearn.decomposition  # noqa: F401 (the limit holds for the libraries that are loaded)

    with one_thread(), threadpool_limits(1, "blas"):
        _Replicate(spec, emit).run()


class _Replicate:
    def __init__(self, spec: ReplicateSpec, emit: Emit) -> None:
        self.spec = spec
        self.config = spec.sources.config
        self.emit = emit
        self.images = images_of(spec.sources, spec.index)
        self.seed = replicate_seed(self.config.lotteries()["cnn"], spec.index)
        make_folder(spec.path)

    def run(self) -> None:
        self._unit(PIXELS, self._pixels)
        self._unit(PCA, self._pca)
        for cut in cuts_of(self.spec.sources, self.spec.index, self.images):
            self._unit(cut.name, partial(self._network, cut))

    def _unit(self, name: str, rows: Callable[[], list[Row]]) -> None:
        path = self.spec.path / f"{name}.json"
        if not path.exists() or not _forests_are_stored(self.spec.path, unit_rows(path)):
            unit = {"replicate": self.spec.index, "network": name, "unit": name}
            write_unit(path, [{"kind": row["kind"], **unit, **row} for row in rows()])
        self.emit(Finished(path))

    def _pixels(self) -> list[Row]:
        """The first baseline: a forest on plain pixels."""
        features = {part: _flat(getattr(self.images, part)) for part in PARTS}
        return [self._baseline(features, PIXELS)]

    def _baseline(self, features: dict[str, Features], kind: str, projection: Projection | None = None) -> Row:
        forest, row = self._forest_row(features, None, kind, projection)
        write_bytes(forest_path(self.spec.path, kind), forest.content)
        return row

    def _pca(self) -> list[Row]:
        """The second: a forest on principal components of pixels, their projection being part of it."""
        features = {part: _flat(getattr(self.images, part)) for part in PARTS}
        components = min(self.config.components, *features["train"].shape)
        projection = fit_pca(features["train"], components, self._seed(PCA))
        return [self._baseline(features, PCA, projection)]

    def _network(self, cut: Cut) -> list[Row]:
        whole = whole_row(cut)
        if cut.head is not None:
            return [whole]
        exits, features = asked_exits(self.config, cut.network), self._features(cut)
        rows: list[Row] = []
        gated = []
        for exit in exits:
            costs = prefix_costs(cut, exit)
            for kind in self.config.features:
                own = {part: features[part][exit.name, kind] for part in PARTS}
                forest, row = self._forest_row(own, exit.name, kind)
                write_bytes(forest_path(self.spec.path, cut.name, exit.name, kind), forest.content)
                rows.append(row | costs)
                if exit.name == self.config.gate_exit:
                    gated.append((rows[-1], forest, own))
        if gated and cut.whole:
            best = max(gated, key=lambda found: (found[0]["validation_accuracy"], -found[0]["inputs"]))
            rows += gate_rows(cut, self.config.gate_tolerance, whole, *best)
        return [*rows, whole]  # last: it says that the unit is finished

    def _features(self, cut: Cut) -> dict[str, dict[tuple[str, str], Features]]:
        """Of each part, at every exit and of every kind. A base is the same in all replicates: its are cached."""
        if cut.name == BASE:
            return base_features(self.config, self.spec.index, self.spec.sources.data_dir)
        exits, kinds = asked_exits(self.config, cut.network), self.config.features
        with placed(cut.network, cut.device):
            return {part: features_at(cut.network, exits, kinds, getattr(cut.data, part).inputs) for part in PARTS}

    def _forest_row(
        self, features: dict[str, Features], exit: str | None, kind: str, projection: Projection | None = None
    ) -> tuple[Forest, Row]:
        """A forest on the training part's features and what it comes to on the others."""
        targets = {part: getattr(self.images, part).targets for part in PARTS}
        seed, began = self._seed("forest", exit or "", kind), time.perf_counter()
        forest = fit_forest(
            features["train"], targets["train"].numpy(), self.images.classes, self.config.trees, seed, projection
        )
        seconds = time.perf_counter() - began
        scores = {part: _scores(forest.predict(features[part]), targets[part]) for part in PARTS[1:]}
        return forest, {
            "kind": "forest",
            "exit": exit,
            "features": kind,
            "inputs": features["train"].shape[1],
            **{f"{part}_{name}": value for part, found in scores.items() for name, value in found.items()},
            **_chance(self.images),
            "trees": self.config.trees,
            "comparisons": comparisons(forest, features["test"]),
            "nodes": forest.nodes,
            "forest_bytes": len(forest.content),
            "cnn_bytes": 0,
            "flops_dense": forest.flops,
            "flops_effective": forest.flops,
            "density": 1.0,
            "onnx_checked": forest.checked,
            "onnx_equal": forest.equal,
            "onnx_error": forest.difference,
            "seconds_fit": seconds,
        }

    def _seed(self, *names: str) -> int:
        return derive_seed(self.seed, *names)


def whole_row(cut: Cut) -> Row:
    """What a whole network comes to; a base alone has no accuracy, one with a head that of the head on its features."""
    flops = count_flops(cut.network, cut.data.input_shape, cut.masks)
    measured: Row = dict.fromkeys(f"{part}_{name}" for part in PARTS[1:] for name in ("accuracy", "f1"))
    chance = _chance(cut.data)
    if cut.whole:
        network, data = (cut.network, cut.data) if cut.head is None else (cut.head.network, cut.head.features)
        with placed(network, cut.device):
            found = {part: evaluate(network, getattr(data, part)) for part in PARTS[1:]}
        for part, scores in found.items():
            measured |= {f"{part}_accuracy": scores.accuracy, f"{part}_f1": scores.f1}
    else:
        chance |= dict.fromkeys(f"{part}_majority_accuracy" for part in PARTS[1:])
    return {
        "kind": "network",
        "exit": None,
        **measured,
        **chance,
        "flops_dense": flops.dense,
        "flops_effective": flops.effective,
        "bytes": count_size(cut.network, cut.masks).packed_bytes,
        "density": cut.density,
        "reason": None if cut.whole else NO_CLASSES,
    }


def prefix_costs(cut: Cut, exit: Exit) -> Row:
    """FLOPs and bytes of a network up to an exit."""
    before, masks = prefix_of(cut, exit)
    flops = count_flops(before, cut.data.input_shape, masks)
    return {
        "cnn_bytes": count_size(before, masks).packed_bytes,
        "flops_dense": flops.dense,
        "flops_effective": flops.effective,
        "density": cut.masks.density,
    }


def prefix_of(cut: Cut, exit: Exit) -> tuple[torch.nn.Sequential, Masks]:
    """The network up to an exit and the masks of what it has."""
    before = prefix(cut.network, exit)
    return before, Masks({name: cut.masks[name] for name in prunable_parameters(before)})


def _chance(data: DataSet) -> Row:
    """How many examples there are, and the accuracy of always answering their most frequent class."""
    found: Row = {f"{part}_examples": len(getattr(data, part)) for part in PARTS}
    return found | {f"{part}_majority_accuracy": majority_accuracy(getattr(data, part).targets) for part in PARTS[1:]}


def _flat(examples: Examples) -> Features:
    pixels: Features = examples.inputs.flatten(1).numpy()
    return pixels


def _scores(predicted: NDArray[np.int64], targets: Tensor) -> dict[str, float]:
    found = torch.from_numpy(predicted)
    return {"accuracy": int((found == targets).sum()) / len(targets), "f1": macro_f1(found, targets)}
