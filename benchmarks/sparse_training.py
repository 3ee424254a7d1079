"""The sparse training steps of LeNet-300-100 and of convolutional networks against our own dense steps.

    python benchmarks/sparse_training.py [--blocks 25] [--quick]

Both engines train the same network on the same batches in one run, taking turns in short blocks on one thread; figures
are medians over blocks, with quartiles. Data are random, a fifth of the pixels not 0, and of the shape of MNIST; the
time does not depend on the values. The dense step is that of `benchmarks/training_step.py`.

The second table takes the layers one by one: forward, gradient of weights and, but for the first layer, gradient of
inputs, on sparse kernels and by torch's dense products on the same panels. The third has whole convolutional networks,
whose dense step is autograd's, and the densities at which they break even. `training/sparse/crossover.py` has the
conclusions.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tombola.data import DataSet, Examples
from tombola.models import ModelSpec, build
from tombola.pruning import prune
from tombola.reports.documents import table_block
from tombola.reports.tables import Table
from tombola.runs.folder import machine
from tombola.training import Recipe
from tombola.training.sparse.crossover import CROSSOVER, CROSSOVER_OF_CONVOLUTIONS
from tombola.training.sparse.kept import KeptParameters
from tombola.training.sparse.layer import Layer
from tombola.training.sparse.layers import DenseLayer, SparseLayer
from tombola.training.sparse.operations import Operations
from tombola.training.training import Training
from training_step import STEPS_PER_BLOCK, interleaved

DENSITIES = (0.8, 0.64, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 0.01)
LAYER_DENSITIES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
SHAPES = ((784, 300), (300, 100), (100, 10))
WIDTH = 64


@dataclass(frozen=True)
class Case:
    """A network, an optimizer, a batch, and by density the least wanted speed-up."""

    optimizer: Literal["adam", "sgd"]
    batch: int
    momentum: float
    wanted: Mapping[float, float]
    network: str = "lenet-300-100"
    shape: tuple[int, int, int] = (1, 28, 28)
    steps: int = STEPS_PER_BLOCK
    """Of a block."""

    @property
    def title(self) -> str:
        return f"B={self.batch} {'SGD with momentum' if self.momentum else self.optimizer.capitalize()}"


CASES = (
    Case("adam", 64, 0.0, {0.2: 3.5, 0.1: 7.0, 0.05: 13.0}),
    Case("sgd", 64, 0.9, {}),
    Case("adam", 128, 0.0, {}),
)
CONVOLUTIONAL = (
    Case("adam", 64, 0.0, {}, "lenet5", steps=20),
    Case("adam", 64, 0.0, {0.05: 2.0}, "lenet5-caffe", steps=8),
    Case("adam", 64, 0.0, {0.05: 2.0}, "conv2", (3, 32, 32), steps=1),
    Case("adam", 64, 0.0, {}, "conv4", (3, 32, 32), steps=1),
)
COLUMNS = ("Density", "Dense", "Sparse", "Dense / sparse", "Wanted")
CONVOLUTIONAL_DENSITIES = (1.0, 0.9, 0.8, 0.7, 0.5, 0.2, 0.1, 0.05, 0.02)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=25, help="interleaved blocks per engine (at least 15)")
    arguments.add_argument("--quick", action="store_true", help="one case, two densities, few blocks: a trial")
    options = arguments.parse_args()
    blocks, cases, densities = options.blocks, CASES, DENSITIES
    if options.quick:
        blocks, cases, densities = 2, CASES[:1], (0.2, 0.05)
    torch.set_num_threads(1)
    data = random_data(2_000 if options.quick else 55_000)
    rows = [step_row(case, density, data, blocks) for case in cases for density in densities]
    print(f"## Training: the step\n\n{finding(rows)}\n")
    print(
        "Made by `benchmarks/sparse_training.py`: LeNet-300-100, the sparse step against our own dense step in one "
        "run; every layer keeps as large a fraction of its weights as the density says. "
        f"Microseconds, median and quartiles of {blocks} blocks of {STEPS_PER_BLOCK} steps; one thread.\n"
    )
    print(table_block(Table(("Case", *COLUMNS), rows), "Steps of LeNet-300-100"))
    print("\n### Where a layer's crossover is\n")
    print(
        f"Batches of {WIDTH}: the products of one layer alone, dense over sparse (above 1 the sparse kernels are "
        f"faster). `auto` trains a layer on them at densities up to {CROSSOVER:g}.\n"
    )
    layers = [layer_row(shape, blocks, densities if options.quick else LAYER_DENSITIES) for shape in SHAPES]
    shown = tuple(f"{density:g}" for density in (densities if options.quick else LAYER_DENSITIES))
    print(Table(("Layer", *shown), layers).to_markdown())
    print("\n### Convolutional networks\n")
    print(
        "Whole steps in batches of 64 with Adam, every layer as dense as is said: LeNet-5 and Caffe's wider one "
        "on images of 28 × 28, Conv-2 and Conv-4 on 3 × 32 × 32. The dense step is our dense engine's: torch's "
        "autograd and fused optimizer on parameters that are one vector. Milliseconds. `auto` trains such a network on "
        f"sparse kernels where at most {CROSSOVER_OF_CONVOLUTIONS:.0%} of its multiply-adds are left.\n"
    )
    cases, densities = CONVOLUTIONAL, CONVOLUTIONAL_DENSITIES
    if options.quick:
        cases, densities = cases[1:3], (0.05,)
    rows = [network_row(case, density, blocks) for case in cases for density in densities]
    print(table_block(Table(("Network", *COLUMNS), rows), "Steps of convolutional networks"))
    print(f"\n{machine()['cpu']}, torch {torch.__version__}.")


def finding(rows: Sequence[Sequence[str]]) -> str:
    """How much faster the steps are of which a speed-up was wanted; `rows` are those of the first table."""
    wanted = [(name, density, ratio) for name, density, _, _, ratio, least in rows if least]
    said = ", ".join(f"{ratio} at density {density}" for _, density, ratio in wanted)
    return f"A sparse training step of LeNet-300-100 ({wanted[0][0]}) is faster than the dense one by {said}."


def random_data(count: int, shape: tuple[int, int, int] = (1, 28, 28)) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(count, *shape, generator=generator)
    inputs *= torch.rand(count, *shape, generator=generator) < 0.2
    examples = Examples(inputs, torch.randint(0, 10, (count,), generator=generator))
    few = examples.at(torch.arange(10))
    return DataSet("random", examples, few, few, 10, "random")


def step_row(case: Case, density: float, data: DataSet, blocks: int) -> list[str]:
    """Both engines at one density, in microseconds."""
    return [case.title, *comparison(case, density, data, blocks, 1e6)]


def network_row(case: Case, density: float, blocks: int) -> list[str]:
    """The same of a convolutional network, in milliseconds."""
    return [case.network, *comparison(case, density, random_data(2_000, case.shape), blocks, 1e3)]


def comparison(case: Case, density: float, data: DataSet, blocks: int, unit: float) -> list[str]:
    ways = {engine: training(case, density, data, engine).advance for engine in ("dense", "sparse")}
    times = interleaved(ways, blocks, case.steps)
    ratio = statistics.median(times["dense"]) / statistics.median(times["sparse"])
    wanted = case.wanted.get(density)
    against = "" if wanted is None else f"at least {wanted:g}"
    return [f"{density:g}", shown(times["dense"], unit), shown(times["sparse"], unit), f"{ratio:.2f} ×", against]


def training(case: Case, density: float, data: DataSet, engine: str) -> Training:
    recipe = Recipe(
        optimizer=case.optimizer,
        momentum=case.momentum,
        batch_size=case.batch,
        learning_rate=1e-3,
        length="1000000it",
        evaluate_every="1ep",
        engine=engine,
    )
    model = build(ModelSpec(architecture=case.network, input_shape=case.shape, classes=10, seed=0))
    return Training(model, data, recipe, prune(model, 1 - density, distribution="uniform"), seed=0)


def layer_row(shape: tuple[int, int], blocks: int, densities: tuple[float, ...]) -> list[str]:
    """Dense over sparse for one layer at every density."""
    ratios = []
    for density in densities:
        keep = torch.rand(shape[1], shape[0], generator=torch.Generator().manual_seed(0)) < density
        linear = nn.Linear(*shape)
        ways = {
            "sparse": layer_step(SparseLayer(linear, keep, True)),
            "dense": layer_step(DenseLayer(linear, keep, True)),
        }
        times = interleaved(ways, blocks)
        ratios.append(f"{statistics.median(times['dense']) / statistics.median(times['sparse']):.2f}")
    return [f"{shape[0]} → {shape[1]}", *ratios]


def layer_step(layer: Layer) -> Callable[[], None]:
    """All products of a layer in a step."""
    kept = KeptParameters(layer.count + layer.module.out_features)
    layer.attach(kept)
    layer.read()
    x, delta_below = (torch.rand(layer.module.in_features, WIDTH) for _ in range(2))
    y, delta = (torch.rand(layer.module.out_features, WIDTH) for _ in range(2))
    operations = [*layer.forward(x, y), *layer.backward(delta, x)]
    if layer.module.in_features != SHAPES[0][0]:
        operations += layer.below(delta, x, delta_below)
    sequence = Operations(operations)
    return lambda: sequence(0, 0, 0)


def shown(times: list[float], unit: float) -> str:
    """Median and quartiles in 1 / `unit` seconds."""
    low, middle, high = (unit * value for value in statistics.quantiles(times, n=4))
    digits = 0 if low >= 100 else 1 if low >= 10 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    main()
