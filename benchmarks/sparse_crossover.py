"""From which density on a single layer is faster on sparse kernels than on the best dense engine, by shape and batch.

    python benchmarks/sparse_crossover.py [--seconds 6] [--json crossover.json] > crossover.md
    python benchmarks/sparse_crossover.py --quick

Each layer is alone, its masks are random, and its inputs are random numbers without zeros: no kernel gains from them
here. All densities and the dense engines take turns within one run, as in `sparse_inference.py`, which measures. Ours
is what `sparsify` chooses for this layer; where that is torch, the table says so. --quick measures two small layers
against torch eager, and needs no other engines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from sparse_inference import machine_line, measured, require_packages
from speed_cases import Case, Pruned, Source, random_of
from speed_report import NEAR, Measured, Timing, break_even
from tombola.compression.engines.engine import Engine
from tombola.compression.engines.rivals import DENSE, EAGER
from tombola.pruning import Masks, prune
from tombola.reports.tables import Table

DENSITIES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
BATCHES = {1: 4, 64: 1}
"""The batch sizes, and how many batches of each take turns."""
RIVALS = ("torch eager", "ONNX Runtime", "OpenVINO")
"""What ours is compared with: of the float32 engines those that need no minute to compile a layer."""
BLOCKS = 9
NAME = "layer"


@dataclass(frozen=True)
class Shape:
    """A layer: a convolution, `kernel` × `kernel`, on images `side` × `side`; Linear where both are 0."""

    inputs: int
    outputs: int
    kernel: int = 0
    side: int = 0

    @property
    def title(self) -> str:
        if not self.side:
            return f"{self.inputs}→{self.outputs}"
        return f"{self.inputs}→{self.outputs} {self.kernel}×{self.kernel} @ {self.side}²"

    def layer(self) -> nn.Module:
        """With weights drawn at random; 3×3 convolutions keep the size of their images, 5×5 ones shrink them."""
        torch.manual_seed(0)
        if not self.side:
            return nn.Linear(self.inputs, self.outputs)
        return nn.Conv2d(self.inputs, self.outputs, self.kernel, padding=1 if self.kernel == 3 else 0)

    def input(self, count: int) -> torch.Tensor:
        shape = (self.inputs, self.side, self.side) if self.side else (self.inputs,)
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


SHAPES = (
    Shape(3, 64, 3, 32),
    Shape(64, 64, 3, 32),
    Shape(128, 128, 3, 16),
    Shape(256, 256, 3, 8),
    Shape(512, 512, 3, 4),
    Shape(512, 512, 3, 2),
    Shape(20, 50, 5, 12),
    Shape(784, 300),
    Shape(800, 500),
    Shape(512, 512),
    Shape(4096, 4096),
)
QUICK_SHAPES = (Shape(3, 8, 3, 8), Shape(32, 16))
QUICK_DENSITIES = (1.0, 0.5, 0.1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=6, help="how long the ways of a layer take turns")
    arguments.add_argument("--json", type=Path, help="write every measured block to this file")
    arguments.add_argument("--quick", action="store_true", help="two small layers, torch eager and ours only")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        shapes, densities, engines, seconds = QUICK_SHAPES, QUICK_DENSITIES, [EAGER], min(options.seconds, 0.1)
    else:
        require_packages()
        engines = [engine for engine in DENSE if engine.name in RIVALS]
        shapes, densities, seconds = SHAPES, DENSITIES, options.seconds
    results = [crossing(shape, batch, densities, engines, seconds) for batch in BATCHES for shape in shapes]
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    print(document(results, densities, machine_line()))


def crossing(
    shape: Shape, batch: int, densities: Sequence[float], engines: Sequence[Engine], seconds: float
) -> Measured:
    """One layer in one batch size: every density and every engine in turn."""
    print(f"{shape.title}, batch {batch} ...", file=sys.stderr, flush=True)
    case = Case(NAME, shape.title, NAME, NAME, batches=BATCHES, blocks=BLOCKS)
    return measured(case, source_of(shape, densities), batch, engines, seconds)


def source_of(shape: Shape, densities: Sequence[float]) -> Source:
    """The layer as a network of its own, with a random mask of each density."""

    def networks(case: Case) -> Iterator[Pruned]:
        network = nn.Sequential(OrderedDict([(NAME, shape.layer())])).eval()
        dense = Pruned("none", network, Masks.full(network))
        for density in densities:
            yield random_of(dense, prune(network, 1 - density, criterion="random", seed=0))

    return Source(shape.input(max(batch * count for batch, count in BATCHES.items())), networks)


def document(results: Sequence[Measured], densities: Sequence[float], machine: str) -> str:
    """The section: what came out, then a table for each batch size."""
    batches = list(dict.fromkeys(result.batch for result in results))
    parts = [
        "## Sparse inference, layer by layer",
        " ".join(outcome([result for result in results if result.batch == batch]) for batch in batches),
        "Single layers with random masks, float32 on one thread; their inputs are random numbers without zeros. "
        "Columns are densities, cells the median time of the fastest dense engine (of "
        f"{', '.join(RIVALS)}) over that of ours: above 1 sparse kernels are faster. All took turns within one run. "
        "`torch`: `sparsify` found no kernel that is clearly faster than torch's own, and left the layer to it. The "
        "last column is the density below which ours is the faster one, on a line between two measured densities.",
    ]
    for batch in batches:
        rows = [row(result, densities) for result in results if result.batch == batch]
        titles = ("Layer", "Best dense engine", *(f"{density:g}" for density in densities), "Faster from density")
        parts += [f"### Batch {batch}", Table(titles, rows).to_markdown()]
    return "\n\n".join([*parts, f"Made by `benchmarks/sparse_crossover.py`. {machine}."])


def outcome(results: Sequence[Measured]) -> str:
    """In how many layers ours is the faster one with a half and with a tenth of the weights, of one batch size."""
    said = []
    for sparsity, left in ((0.5, "half"), (0.9, "a tenth")):
        ratios = [ratio for result in results for at, ratio in result.curve() if abs(at - sparsity) < NEAR]
        if ratios:
            said.append(f"{sum(ratio > 1 for ratio in ratios)} of {len(ratios)} layers with {left} of the weights")
    return f"Batch {results[0].batch}: faster than the fastest dense engine in {', '.join(said) or 'no layer'}."


def row(result: Measured, densities: Sequence[float]) -> list[str]:
    """A layer's ratios, and where they pass 1."""
    best = result.best
    engine = f"{best.way}, {1e6 * best.median:,.0f} µs" if best else ""
    return [result.title, engine, *(cell(result, timing) for timing in result.sparse), faster_from(result)]


def cell(result: Measured, timing: Timing) -> str:
    ratio = result.speed_up(timing)
    if ratio is None:
        return "failed"
    if not timing.exact:
        return "outputs differ"
    on_torch = any(kernel == "torch" for _, kernel in timing.kernels)
    return f"{ratio:.2f}" + (" torch" if on_torch else "")


def faster_from(result: Measured) -> str:
    """The density at which ours becomes the faster one and stays it, on a line between two measured densities."""
    curve = result.curve()
    slower = [number for number, (_, ratio) in enumerate(curve) if ratio < 1]
    if not curve or (slower and slower[-1] == len(curve) - 1):
        return "none measured"
    if not slower:
        return f"{1 - curve[0][0]:g}, all measured"
    return f"{1 - break_even(curve[slower[-1]], curve[slower[-1] + 1]):.2f}"


if __name__ == "__main__":
    main()
