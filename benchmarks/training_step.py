"""The training step of LeNet-300-100 against a plain loop and against its arithmetic floor, on one thread.

    python benchmarks/training_step.py [--blocks 25] [--density 0.2]

Three ways take turns in short blocks within one run, so that a noisy machine disturbs all alike; the figures
are medians over blocks, of milliseconds per step:

* tombola: gather the batch, gradients, optimizer, masks: the dense step of `tombola imp` (`sparse_training.py` has the
  sparse one);
* plain: a DataLoader over tensors, torch.nn.utils.prune, autograd and torch.optim with its defaults;
* floor: the step's eight matrix products alone, on the same shapes, in preallocated memory.

All three work on random data of MNIST's shape: the time does not depend on the values.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils.data import DataLoader, TensorDataset

from tombola.data import DataSet, Examples
from tombola.models import ModelSpec, build
from tombola.pruning import Masks, prune
from tombola.reports.tables import Table
from tombola.runs.folder import machine
from tombola.training import Recipe
from tombola.training.training import Training

STEPS_PER_BLOCK = 40


@dataclass(frozen=True)
class Case:
    """What is trained, the most allowed over the floor and the least wanted over a plain loop."""

    optimizer: Literal["adam", "sgd"]
    batch: int
    title: str
    over_floor: float
    over_plain: float


CASES = (Case("adam", 60, "B=60 Adam", 2.0, 2.0), Case("sgd", 128, "B=128 SGD", 1.5, 1.25))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=25, help="interleaved blocks per way (at least 15)")
    arguments.add_argument("--density", type=float, default=0.2, help="share of weights kept")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    data = mnist_shaped()
    rows = [measured(case, data, options) for case in CASES]
    print(f"# The training step of LeNet-300-100\n\n{finding(rows)}\n")
    print(
        "Made by `make benchmark`: our step, a plain loop (DataLoader, torch.nn.utils.prune, autograd, torch.optim) "
        "and the floor (the step's eight matrix products alone), taking turns in one run. Milliseconds per step, "
        f"median and quartiles of {options.blocks} blocks of {STEPS_PER_BLOCK} steps; one thread, "
        f"{options.density:.0%} of the weights kept.\n"
    )
    columns = ("Case", "Tombola", "Plain loop", "Floor", "Tombola / floor", "Plain / Tombola")
    print(Table(columns, rows).to_markdown())
    print(f"\n{machine()['cpu']}, torch {torch.__version__}.")


def finding(rows: Sequence[Sequence[str]]) -> str:
    """How much faster our step is than the plain loop's."""
    said = " and ".join(f"{row[-1].split()[0]} × ({row[0]})" for row in rows)
    return f"**Our training step is faster than a plain PyTorch loop's by {said}.**"


def measured(case: Case, data: DataSet, options: argparse.Namespace) -> list[str]:
    """One row of the table: all three ways of one case, interleaved."""
    recipe = Recipe(
        optimizer=case.optimizer,
        batch_size=case.batch,
        learning_rate=1e-3,
        length="1000000it",
        evaluate_every="1ep",
        engine="dense",
    )
    spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
    masks = prune(build(spec), 1 - options.density)
    times = interleaved(
        {
            "tombola": tombola_steps(build(spec), data, recipe, masks),
            "plain": plain_steps(build(spec), data, recipe, masks),
            "floor": floor_steps(case.batch),
        },
        options.blocks,
    )
    median = {way: statistics.median(values) for way, values in times.items()}
    quartiles = {way: statistics.quantiles(values, n=4) for way, values in times.items()}
    shown = [f"{1e3 * median[w]:.2f} ({1e3 * quartiles[w][0]:.2f}-{1e3 * quartiles[w][2]:.2f})" for w in times]
    over_floor, over_plain = median["tombola"] / median["floor"], median["plain"] / median["tombola"]
    return [
        case.title,
        *shown,
        f"{over_floor:.2f} (wanted at most {case.over_floor})",
        f"{over_plain:.2f} (wanted at least {case.over_plain})",
    ]


def mnist_shaped() -> DataSet:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(55_000, 1, 28, 28, generator=generator)
    examples = Examples(inputs, torch.randint(0, 10, (55_000,), generator=generator))
    few = examples.at(torch.arange(10))
    return DataSet("random", examples, few, few, 10, "random")


def interleaved(
    ways: dict[str, Callable[[], None]], blocks: int, steps: int = STEPS_PER_BLOCK
) -> dict[str, list[float]]:
    """Seconds per step of each way, block by block of so many steps, after one block of warm-up."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for block in range(blocks + 1):
        for way, step in ways.items():
            began = time.perf_counter()
            for _ in range(steps):
                step()
            if block:
                times[way].append((time.perf_counter() - began) / steps)
    return times


def tombola_steps(model: nn.Module, data: DataSet, recipe: Recipe, masks: Masks) -> Callable[[], None]:
    return Training(model, data, recipe, masks, seed=0).advance


def plain_steps(model: nn.Module, data: DataSet, recipe: Recipe, masks: Masks) -> Callable[[], None]:
    for name, mask in masks.items():
        torch_prune.custom_from_mask(model.get_submodule(name.removesuffix(".weight")), "weight", mask.keep)
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[recipe.optimizer]
    optimizer = make(model.parameters(), lr=recipe.learning_rate)
    loader = DataLoader(
        TensorDataset(data.train.inputs, data.train.targets), batch_size=recipe.batch_size, shuffle=True
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step() -> None:
        inputs, targets = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def floor_steps(batch: int) -> Callable[[], None]:
    """Three products forward, three for weight gradients, two for input gradients (the first layer needs none)."""
    sizes = (784, 300, 100, 10)
    weights = [torch.rand(b, a) for a, b in itertools.pairwise(sizes)]
    activations = [torch.rand(batch, size) for size in sizes]
    # Results go to buffers of their own and feed nothing, so the values stay as they are.
    forward = [torch.empty_like(activation) for activation in activations[1:]]
    backward = [torch.empty_like(activation) for activation in activations]
    gradients = [torch.empty_like(weight) for weight in weights]

    @torch.no_grad()
    def step() -> None:
        for index, weight in enumerate(weights):
            torch.mm(activations[index], weight.t(), out=forward[index])
        for index in (2, 1, 0):
            torch.mm(forward[index].t(), activations[index], out=gradients[index])
            if index:
                torch.mm(forward[index], weights[index], out=backward[index])

    return step


if __name__ == "__main__":
    main()
