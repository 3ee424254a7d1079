"""What sparse inference is measured on: networks that `tombola imp` trained and pruned on MNIST, and their inputs.

A case is a whole network or a part of one. The input of a part is what the trained layers before it make of test
images: hidden activations with the zeros that a ReLU leaves, not noise.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tombola.data import load_data
from tombola.models import ModelSpec, build
from tombola.pruning import Masks, prunable_parameters, prune
from tombola.runs.atomic import read_json
from tombola.runs.configs import validate
from tombola.studies.lottery.controls import shuffled
from tombola.studies.lottery.networks import replicate_seed
from tombola.studies.lottery.result import OpenedRun, open_run
from tombola.studies.lottery.stored import TRAINED, ReplicateFiles, load_stored, stored_masks

IMAGES = 256
"""Test images used: 4 batches of 64; at batch 1 the first 64, one after the other."""


@dataclass(frozen=True)
class Case:
    """The layers from `first` to `last` of a run's network, and the speed-ups wanted, by batch and sparsity.

    `sweep` are sparsities to measure beside those that the run found, with random masks.
    """

    run: str
    title: str
    first: str
    last: str
    wanted: Mapping[int, Mapping[float, float]]
    sweep: Sequence[float] = ()


CASES = (
    Case(
        "speed-lenet-300-100",
        "LeNet-300-100",
        "flatten",
        "output",
        {64: {0.9: 5.5, 0.95: 8, 0.98: 12}, 1: {0.9: 2.7, 0.95: 3.2, 0.98: 4}},
        (0.2,),
    ),
    Case("speed-head", "Head 512-512-10", "fc2", "output", {64: {0.9: 5}}),
    Case("speed-ffn", "FFN 768→3072", "fc2", "relu2", {64: {0.9: 4.5}}),
    Case("speed-vgg-head", "VGG head 25088-4096-4096", "fc2", "relu3", {64: {0.9: 2.2}, 1: {0.9: 2.9}}),
)
QUICK = Case("quick", "Chain 64-32-16-10", "flatten", "output", {8: {0.9: 1}})


@dataclass(frozen=True)
class Pruned:
    """A network (removed weights 0) with its masks; `mask` says where they come from: found, random or none."""

    mask: str
    network: nn.Module
    masks: Masks


@dataclass(frozen=True)
class Variant:
    """A part of a pruned network, ready to be measured. `sparsity` is that of exactly this part."""

    mask: str
    part: nn.Module
    masks: Masks
    batches: list[Tensor] = field(repr=False)

    @property
    def sparsity(self) -> float:
        return self.masks.sparsity


@dataclass(frozen=True)
class Source:
    """Where a case's networks come from; `networks` makes them one by one, since they may be large."""

    images: Tensor
    networks: Callable[[Case], Iterator[Pruned]]


def from_run(root: Path) -> tuple[str, Source]:
    """The name of a run of `tombola imp`, and replicate 0's images and trained networks, round by round."""
    opened = open_run(root)
    data = load_data(opened.config.data, replicate_seed(opened.config, 0))

    def networks(case: Case) -> Iterator[Pruned]:
        dense, full = trained_network(opened, 0)
        yield Pruned("none", dense, full)
        for planned in opened.rounds[1:]:
            network, masks = trained_network(opened, planned.index)
            yield Pruned("found", network, masks)
            yield masked(copy.deepcopy(dense), shuffled(masks, seed=planned.index))
        for sparsity in case.sweep:
            yield masked(copy.deepcopy(dense), prune(dense, sparsity, criterion="random", budget="uniform", seed=0))

    return opened.config.name, Source(data.test.inputs[:IMAGES], networks)


def trained_network(opened: OpenedRun, index: int) -> tuple[nn.Module, Masks]:
    """Replicate 0's network at the end of the training of round `index`, and the masks it was trained with."""
    files, mode = ReplicateFiles.of(opened.folder.checkpoints, 0), opened.config.rewinds[0]
    network = build(validate(read_json(files.spec), ModelSpec, str(files.spec)))
    masks = stored_masks(files, mode, index, Masks.full(network))
    network.load_state_dict(load_stored(files.round(mode, index) / TRAINED, network.state_dict()))
    return network.eval(), masks


def quick_source() -> Source:
    """A tiny network with random weights and masks, for a first look and for tests."""
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def networks(case: Case) -> Iterator[Pruned]:
        for sparsity in (0.0, 0.5, 0.9):
            network = build(ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0, widths=(32, 16))).eval()
            yield masked(network, prune(network, sparsity, criterion="random", budget="uniform", seed=0))

    return Source(images, networks)


def masked(network: nn.Module, masks: Masks) -> Pruned:
    masks.apply_(network)
    return Pruned("random", network, masks)


def variants(case: Case, source: Source, batch: int) -> Iterator[Variant]:
    """The case's part of every network of its source, with batches of `batch` inputs."""
    images = source.images[: min(64, len(source.images)) if batch == 1 else None].split(batch)
    for pruned in source.networks(case):
        before, part = cut(pruned.network, case.first, case.last)
        with torch.no_grad():
            batches = [before(image).clone() for image in images if len(image) == batch]
        yield Variant(
            pruned.mask, part, Masks({name: pruned.masks[name] for name in prunable_parameters(part)}), batches
        )


def cut(network: nn.Module, first: str, last: str) -> tuple[nn.Module, nn.Module]:
    """The layers before `first`, and those from `first` to `last`, of a chain of named layers."""
    layers = list(network.named_children())
    names = [name for name, _ in layers]
    begin, end = names.index(first), names.index(last) + 1
    before, part = (nn.Sequential(OrderedDict(some)).eval() for some in (layers[:begin], layers[begin:end]))
    return before, part
