"""What sparse inference is measured on: networks that `tombola imp` trained and pruned, and their inputs.

A case is a whole network or a part of one. The input of a part is what the trained layers before it make of test
images: hidden activations with the zeros that a ReLU leaves, not noise.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from speed_report import NEAR
from tombola.data import load_data
from tombola.models import ModelSpec, build
from tombola.pruning import Masks, prunable_parameters, prune
from tombola.runs.atomic import read_json
from tombola.runs.configs import validate
from tombola.studies.lottery.controls.random import shuffled
from tombola.studies.lottery.networks import replicate_seed
from tombola.studies.lottery.stored import TRAINED, ReplicateFiles, load_stored, stored_masks
from tombola.studies.lottery.study import Lottery, open_lottery

BATCHES = {64: 4, 1: 64}
"""The batch sizes of most cases, and how many batches of each take turns."""
FEW_BATCHES = {64: 1, 1: 16}
"""Where torch takes a second for a batch: enough to see other images, not more than a check of outputs can take."""

WARM_BATCHES = {64: 1, 1: 2}
"""Of a single convolution: inside a network what it reads was just written, and is still near."""


@dataclass(frozen=True)
class Case:
    """The layers from `first` to `last` of a run's network, and the speed-ups wanted, by batch and sparsity.

    `rounds` are the sparsities of the run's rounds that are measured beside 0, all where none is named; `sweep` are
    further ones, with random masks. `batches` is like BATCHES; `blocks` is the least number of blocks of each way.
    """

    run: str
    title: str
    first: str
    last: str
    wanted: Mapping[int, Mapping[float, float]] = field(default_factory=dict)
    rounds: Sequence[float] = ()
    sweep: Sequence[float] = ()
    batches: Mapping[int, int] = field(default_factory=lambda: BATCHES)
    blocks: int = 15

    def has_round(self, sparsity: float) -> bool:
        """Whether the run's round of this sparsity is measured."""
        return not self.rounds or any(abs(sparsity - measured) < NEAR for measured in (0, *self.rounds))


def of_large(
    run: str, title: str, first: str, last: str, wanted: Mapping[int, Mapping[float, float]], rounds: Sequence[float]
) -> Case:
    """Where a call takes up to a second, and choosing kernels half a minute."""
    return Case(run, title, first, last, wanted, rounds, batches=FEW_BATCHES, blocks=7)


def of_vgg16(title: str, first: str, last: str, wanted: Mapping[int, Mapping[float, float]]) -> Case:
    case = of_large("speed-vgg16", title, first, last, wanted, (0.5, 0.7, 0.9, 0.95, 0.98))
    return replace(case, batches=WARM_BATCHES) if first == last else case


CASES = (
    Case(
        "speed-lenet-300-100",
        "LeNet-300-100",
        "flatten",
        "output",
        {64: {0.9: 5.5, 0.95: 8, 0.98: 12}, 1: {0.9: 2.7, 0.95: 3.2, 0.98: 4}},
        sweep=(0.2,),
    ),
    Case("speed-head", "Head 512-512-10", "fc2", "output", {64: {0.9: 5}}),
    Case("speed-ffn", "FFN 768→3072", "fc2", "relu2", {64: {0.9: 4.5}}),
    Case("speed-vgg-head", "VGG head 25088-4096-4096", "fc2", "relu3", {64: {0.9: 2.2}, 1: {0.9: 2.9}}),
    Case("speed-lenet5", "LeNet-5 (20, 50, 500)", "conv_1", "output", {1: {0.9: 3.9, 0.98: 10}}),
    of_vgg16("Convolution 64→64 @ 32²", "conv_2", "conv_2", {1: {0.9: 5}}),
    of_vgg16("Convolution 256→256 @ 8²", "conv_6", "conv_6", {1: {0.9: 3.2}}),
    of_vgg16("Convolution 512→512 @ 4²", "conv_9", "conv_9", {1: {0.9: 3}}),
    of_vgg16("VGG-16", "conv_1", "output", {64: {0.95: 3.5}, 1: {0.95: 3.5}}),
    of_large("speed-resnet20", "ResNet-20", "conv_1", "output", {}, (0.5, 0.7, 0.9, 0.95)),
    of_large("speed-conv6", "Conv-6", "conv_1", "output", {}, (0.5, 0.8, 0.9, 0.98)),
)
QUICK = Case("quick", "Chain 64-32-16-10", "flatten", "output", {8: {0.9: 1}}, batches={8: 2, 1: 16})


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
    opened = open_lottery(root)
    name = opened.config.name
    data = load_data(opened.config.data, replicate_seed(opened.config, 0))

    @cache
    def dense() -> Pruned:
        return Pruned("none", *trained_network(opened, 0))

    def of_round(index: int) -> list[Pruned]:
        if not index:
            return [dense()]
        network, masks = trained_network(opened, index)
        return [Pruned("found", network, masks), random_of(dense(), shuffled(masks, seed=index))]

    # A gigabyte of VGG-16's rounds is read and shuffled once for all cases; one case alone does not need them twice.
    several = sum(case.run == name for case in CASES) > 1
    rounds = cache(of_round) if several else of_round

    def networks(case: Case) -> Iterator[Pruned]:
        for planned in opened.rounds:
            if case.has_round(1 - planned.density):
                yield from rounds(planned.index)
        for sparsity in case.sweep:
            masks = prune(dense().network, sparsity, criterion="random", distribution="uniform", seed=0)
            yield random_of(dense(), masks)

    return name, Source(data.test.inputs, networks)


def trained_network(opened: Lottery, index: int) -> tuple[nn.Module, Masks]:
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
            masks = prune(network, sparsity, criterion="random", distribution="uniform", seed=0)
            yield random_of(Pruned("none", network, masks), masks)

    return Source(images, networks)


def random_of(dense: Pruned, masks: Masks) -> Pruned:
    """A copy of the dense network that keeps what `masks` keep."""
    network = copy.deepcopy(dense.network)
    masks.apply_(network)
    return Pruned("random", network, masks)


def variants(case: Case, source: Source, batch: int) -> Iterator[Variant]:
    """The case's part of every network of its source, with batches of `batch` inputs."""
    images = source.images[: batch * case.batches[batch]].split(batch)
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
