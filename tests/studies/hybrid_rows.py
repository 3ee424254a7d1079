"""Rows of a hybrid study as it would write them, made up: plausible numbers with a spread, every one to be altered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tombola.runs.folder import LAYOUT, RunFolder
from tombola.runs.sealed import write_sealed
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.questions import Lottery
from tombola.studies.hybrid.result import HybridResult
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.looks import look_row
from tombola.studies.lottery.result import Result

Row = dict[str, Any]
EXITS = {"block1_conv2": 2_400_000, "block3_conv3": 9_000_000, "block5_conv3": 14_000_000}
"""Exit -> FLOPs of the dense network up to it."""
WHOLE = 15_000_000
POOLINGS = {"gap": 1, "gap+max": 2, "grid": 4}
TEST_EXAMPLES = 500
THRESHOLDS = (0.5, 0.7, 0.9)
DENSITY = 0.2
MAJORITY = 0.3
"""The accuracy of always answering the most frequent class."""
ENGINES = ("torch eager", "sparse kernels")
HEADS = ("head", "head ticket")
"""The frozen base with a head behind it: such a network is not cut."""


def hybrid_rows(
    replicates: int = 5,
    networks: tuple[str, ...] = ("dense", "ticket"),
    lost: Mapping[str, float] | None = None,
    lost_by_features: Mapping[str, float] | None = None,
    pixels: float = 60.0,
    spread: float = 0.3,
) -> list[Row]:
    """Every kind of row. `lost`: points that tickets cost at an exit, `lost_by_features`: by pooling."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for replicate in range(replicates):
        luck = rng.normal(0, 1.0)  # of the replicate's split, common to all of its forests

        def accuracy(true: float, luck: float = luck) -> Row:
            """Validation and test, as shares of a finite number of examples."""
            values = [round((true + luck + rng.normal(0, spread)) / 100 * TEST_EXAMPLES) / TEST_EXAMPLES for _ in "vt"]
            return {
                "validation_accuracy": values[0],
                "validation_f1": values[0] - 0.01,
                "test_accuracy": values[1],
                "test_f1": values[1] - 0.01,
            }

        rows += [_baseline(replicate, name, accuracy(pixels + up)) for name, up in (("pixels", 0.0), ("pca", 2.0))]
        for network in networks:
            for depth, exit in enumerate(EXITS if network not in HEADS else ()):
                for features, factor in POOLINGS.items():
                    true = 70.0 + 8 * depth + factor
                    if network == "ticket":
                        true -= (lost or {}).get(exit, 0.0) + (lost_by_features or {}).get(features, 0.0)
                    rows.append(_forest(replicate, network, exit, features, accuracy(true)))
            rows.append(_network(replicate, network, accuracy(91.0)))
        rows += [
            _gate(replicate, network, part, threshold)
            for network in networks
            if network != "base" and network not in HEADS
            for part in ("validation", "test")
            for threshold in THRESHOLDS
        ]
    return rows + latencies(networks)


def latencies(networks: tuple[str, ...] = ("dense", "ticket")) -> list[Row]:
    """Of whole networks and of every exit and pooling, by both engines; torch is faster but for tickets."""
    rows = []
    for batch in (1, 64):
        for network in networks:
            for engine in ENGINES:
                sparse = 0.5 if network.endswith("ticket") else 1.5
                base = 4e-4 * (1 if engine == "torch eager" else sparse)
                rows.append(_latency(network, None, None, batch, "whole", engine, base * batch**0.7))
                for exit, flops in EXITS.items() if network not in HEADS else ():
                    time = (0.5 + flops / WHOLE) * batch**0.7 * (1 if engine == "torch eager" else 1.1)
                    for features in POOLINGS:
                        way = f"{engine} + onnxruntime"
                        rows.append(_latency(network, exit, features, batch, "whole", way, 2.5e-4 * time))
                        if exit == "block3_conv3":
                            rows.append(_latency(network, exit, features, batch, "cnn", engine, 2e-4 * time))
        rows += [_latency(name, None, None, batch, "whole", "onnxruntime", 5e-5 * batch) for name in ("pixels", "pca")]
    return rows


def lottery_rows(
    replicates: int = 5,
    drops: tuple[float, ...] = (0.0, 0.0, 0.2, 3.0),
    controls: Mapping[str, float] | None = None,
    flops: int = 10_000_000,
    weights: int = 100_000,
    spread: float = 0.1,
    seed: int = 1,
) -> list[Row]:
    """Training rows whose ticket of round i+1 keeps half as many weights as before and loses `drops[i]` points.

    `controls` lose so many points more than the ticket. A first look at them is recorded, as a run does.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for replicate in range(replicates):
        luck = rng.normal(0, 1.0)
        for index, drop in enumerate((0.0, *drops)):
            more = {"random": 4.0, "reinit": 4.0} | dict(controls or {})
            branches = {"ticket": 0.0, **more} if index else {"dense": 0.0}
            for branch, extra in branches.items():
                kept = weights >> index
                row: Row = {
                    "kind": "training",
                    "replicate": replicate,
                    "rewind": "init" if index else None,
                    "round": index,
                    "branch": branch,
                    "density": kept / weights,
                    "kept": kept,
                    "total": weights,
                    "flops_dense": flops,
                    "flops_effective": flops >> index,
                }
                for part in ("validation", "test"):
                    true = 90.0 + luck - drop - extra + rng.normal(0, spread)
                    row[f"{part}_accuracy"] = round(true / 100 * TEST_EXAMPLES) / TEST_EXAMPLES
                    row[f"{part}_examples"] = TEST_EXAMPLES
                    row[f"{part}_majority_accuracy"] = MAJORITY
                rows.append(row)
    return [*rows, look_row(replicates)]


ARCHITECTURE = {"cnn": "vgg11", "head": "head", "lenet": "lenet5"}
SIZES = {"head": {"flops": 100_000, "weights": 50_000}}


def lottery(name: str = "cnn", tolerance: float = 1.0, **kind: Any) -> Lottery:
    return Lottery(name, ARCHITECTURE[name], tolerance, lottery_rows(**SIZES.get(name, {}) | kind))


def lottery_config(name: str) -> Row:
    return {
        "name": name,
        "data": {"name": "digits"},
        "model": {"architecture": ARCHITECTURE[name]},
        "training": {"length": "40it", "evaluate_every": "10it", "learning_rate": 1e-2},
        "pruning": {"rate": 0.5, "target_density": 0.1},
    }


def lottery_result(folder: Path, name: str = "cnn", **kind: Any) -> Result:
    config = LotteryConfig.model_validate(lottery_config(name))
    return Result(RunFolder(folder), config, {}, list(lottery(name, **kind).rows), [], {})


def hybrid_result(folder: Path, lotteries: tuple[str, ...] = ("cnn", "head", "lenet"), **kind: Any) -> HybridResult:
    """A result whose folder is there, and empty but for its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"versions": {"python": "3.12", "torch": "2.13.0"}, "data": {"name": "leaves", "checksum": "abc"}}
    machine = {"system": "Linux", "cpu": "a cpu", "cores": 2}
    write_sealed(folder / "manifest.json", {"layout": LAYOUT, "must_match": facts, "machine": machine})
    config = HybridConfig.model_validate({"name": "leaves", "cnn": lottery_config("cnn")})
    found = {name: lottery_result(folder / name, name) for name in lotteries}
    return HybridResult(RunFolder(folder), config, hybrid_rows(**kind), found)


def altered(rows: list[Row], change: Mapping[str, Any], **where: Any) -> list[Row]:
    """A copy of the rows with columns changed where others have these values; a number is set, a function applied."""
    made = []
    for row in rows:
        hit = all(row.get(column) == value for column, value in where.items())
        new = {c: (v(row[c]) if callable(v) else v) for c, v in change.items()} if hit else {}
        made.append(row | new)
    assert made != rows, "nothing was altered"
    return made


def _baseline(replicate: int, name: str, accuracy: Row) -> Row:
    return _forest(replicate, name, None, name, accuracy) | {"cnn_bytes": 0, "flops_dense": 0, "flops_effective": 0}


def _forest(replicate: int, network: str, exit: str | None, features: str, accuracy: Row) -> Row:
    flops = EXITS.get(exit or "", 0)
    kept = DENSITY if network == "ticket" else 1.0
    return {
        "kind": "forest",
        "replicate": replicate,
        "network": network,
        "exit": exit,
        "features": features,
        "inputs": 64 * POOLINGS.get(features, 1),
        **accuracy,
        "test_majority_accuracy": MAJORITY,
        "train_examples": 2000,
        "test_examples": TEST_EXAMPLES,
        "trees": 300,
        "comparisons": 2500.0 + replicate,
        "nodes": 40_000,
        "forest_bytes": 1_500_000,
        "cnn_bytes": round(flops * kept / 20),
        "flops_dense": flops,
        "flops_effective": round(flops * kept) + replicate,
        "density": kept,
        "onnx_checked": 1000,
        "onnx_equal": 1000,
        "onnx_error": 2e-7,
        "seconds_fit": 1.5,
    }


def _network(replicate: int, network: str, accuracy: Row) -> Row:
    kept = DENSITY if network.endswith("ticket") else 1.0
    alone = network == "base"
    return {
        "kind": "network",
        "replicate": replicate,
        "network": network,
        "exit": None,
        **(dict.fromkeys(accuracy) if alone else {**accuracy, "test_majority_accuracy": MAJORITY}),
        "test_examples": TEST_EXAMPLES,
        "flops_dense": WHOLE,
        "flops_effective": (WHOLE if network in HEADS else round(WHOLE * kept)) + replicate,
        "bytes": round(WHOLE * kept / 20),
        "density": kept,
        "reason": "a base has no classes of its own" if alone else None,
    }


def _gate(replicate: int, network: str, part: str, threshold: float) -> Row:
    left = 1.2 - threshold
    kept = DENSITY if network == "ticket" else 1.0
    return {
        "kind": "gate",
        "replicate": replicate,
        "network": network,
        "exit": "block3_conv3",
        "features": "grid",
        "part": part,
        "threshold": threshold + 0.001 * replicate,  # each replicate has its own
        "chosen": threshold == 0.7,
        "left": left,
        "accuracy": 0.9 - 0.1 * left + 0.002 * replicate,
        "f1": 0.85 - 0.1 * left,
        "flops": WHOLE * kept * (1 - 0.4 * left),
        "comparisons": 2500.0,
    }


def _latency(
    network: str, exit: str | None, features: str | None, batch: int, part: str, engine: str, seconds: float
) -> Row:
    return {
        "kind": "latency",
        "replicate": 0,
        "network": network,
        "exit": exit,
        "features": features,
        "batch": batch,
        "part": part,
        "engine": engine,
        "reason": None,
        "on_torch": [],
        "seconds": [0.95 * seconds, seconds, 1.05 * seconds],
    }
