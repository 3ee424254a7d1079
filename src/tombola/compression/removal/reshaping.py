"""What operations on shapes do to units: views, transpositions, concatenation, slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from tombola.compression.removal.labels import Dims, Indices, Labels, Lock, has_units, unlabelled
from tombola.compression.removal.reading import Reading, rule, unknown
from tombola.compression.removal.trace import operation, shape_of

PACKED = 3
"""Queries, keys and values that one layer computes: a first axis of this size is none of units."""


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze")
def reshape(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    dims, shape = reading.of(arguments[0]), shape_of(node)
    if not math.prod(shape):
        return unknown(reading, node)
    lock = reading.lock(node, f"{node.target} mixes them with another dimension", unknown=True)
    made: Dims = []
    for before, after in _blocks([len(dim) for dim in dims], shape):
        own, sizes = [dims[place] for place in before], [shape[place] for place in after]
        if reading.fixed_sizes and len(own) == 1 and sum(size > 1 for size in sizes) > 1:
            reading.labels.lock(own[0], reading.lock(node, "the code splits them into a fixed number"))
        first = 1 if sizes and (sizes[0] == PACKED or _takes_turns(node, after)) else 0
        made += _reshaped(reading.labels, own, sizes, lock, first)
    return made


def _takes_turns(node: Node, axes: Sequence[int]) -> bool:
    """Whether the next thing is that two new axes change places: channels of groups are shuffled."""
    users = [user for user in node.users if operation(user) in ("transpose", "permute")]
    if len(axes) != 2 or len(users) != 1 or len(node.users) != 1:
        return False
    order = list(range(len(shape_of(node))))
    given = users[0].args[1:]
    if isinstance(given[0], (list, tuple)):
        moved = list(given[0])
    else:
        moved = list(order)
        moved[given[0]], moved[given[1]] = order[given[1]], order[given[0]]  # type: ignore[index]
    order[axes[0]], order[axes[1]] = axes[1], axes[0]
    return moved == order


def _blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Dimensions that become each other: the shortest runs of the same number of elements."""
    left, right = iter(enumerate(before)), iter(enumerate(after))
    while True:
        ours, theirs = list(itertools.islice(left, 1)), list(itertools.islice(right, 1))
        if not (ours or theirs):
            return
        while (a := math.prod(size for _, size in ours)) != (b := math.prod(size for _, size in theirs)):
            longer = theirs if a > b else ours
            longer.append(next(right if a > b else left))
        yield [place for place, _ in ours], [place for place, _ in theirs]


def _reshaped(labels: Labels, own: Dims, sizes: Sequence[int], lock: Lock, first: int) -> Dims:
    """A run of dimensions in its new shape: split to the finest common one, and merged again."""
    if len(own) == len(sizes) == 1:
        return own
    real, wanted = [dim for dim in own if len(dim) != 1], [size for size in sizes if size != 1]
    cuts = sorted({*_ends([len(dim) for dim in real]), *_ends(wanted)})
    mixed = any(later % earlier for earlier, later in itertools.pairwise(cuts))
    for dim in own:
        if len(dim) == 1 or mixed:
            labels.lock(dim, lock if mixed else Lock("it is the only one of its layer"))
    if mixed:
        return [unlabelled(size) for size in sizes]
    pieces: Dims = []
    for dim, (end, start) in zip(real, _spans([len(dim) for dim in real]), strict=True):
        inner = [cut for cut in cuts if end <= cut <= start]
        pieces += _split(labels, dim, [b // a for a, b in itertools.pairwise(inner)][::-1], first)
    merged: Dims = []
    for end, start in _spans(wanted):
        count = len([cut for cut in cuts if end <= cut <= start]) - 1
        merged.append(_merge(labels, pieces[:count], lock))
        pieces = pieces[count:]
    rest = iter(merged)
    return [unlabelled(1) if size == 1 else next(rest) for size in sizes]


def _ends(sizes: Sequence[int]) -> list[int]:
    """How many elements one step of each dimension spans, from the last on, and all in the end."""
    return list(itertools.accumulate(reversed(sizes), lambda a, b: a * b, initial=1))


def _spans(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends = _ends(sizes)
    return list(itertools.pairwise(ends))[::-1]


def _split(labels: Labels, dim: Indices, sizes: Sequence[int], first: int) -> Dims:
    """One dimension as several. Where a single one of them carries the units already, it goes on; else the `first`
    is made to: its parts become units."""
    if len(sizes) == 1:
        return [dim]
    made = [unlabelled(size) for size in sizes]
    if not has_units(dim):
        return made
    roots = labels.roots(dim).reshape(sizes)
    for axis, size in enumerate(sizes):
        by_axis = np.moveaxis(roots, axis, 0).reshape(size, -1)
        if (by_axis == by_axis[:, :1]).all():
            made[axis] = by_axis[:, 0].copy()
            return made
    axis = min(first, len(sizes) - 1)
    by_axis = np.moveaxis(dim.reshape(sizes), axis, 0).reshape(sizes[axis], -1)
    labels.unite_all(by_axis.T)
    made[axis] = by_axis[:, 0].copy()
    return made


def _merge(labels: Labels, pieces: Dims, lock: Lock) -> Indices:
    """Several dimensions as one; no more than one of them may have units."""
    carrying = [place for place, dim in enumerate(pieces) if has_units(dim)]
    sizes = [len(dim) for dim in pieces]
    if len(carrying) > 1:
        for place in carrying:
            labels.lock(pieces[place], lock)
    if len(carrying) != 1:
        return unlabelled(int(np.prod(sizes)))
    shape = [1] * len(sizes)
    shape[carrying[0]] = sizes[carrying[0]]
    return np.broadcast_to(pieces[carrying[0]].reshape(shape), sizes).reshape(-1).copy()


@rule("transpose", "t", "permute", "numpy_T", "movedim", "swapaxes")
def transposed(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    dims = list(reading.of(arguments[0]))
    if isinstance(arguments[1] if len(arguments) > 1 else None, (list, tuple)):
        return [dims[place] for place in arguments[1]]
    one, other = arguments[1:3] if len(arguments) > 2 else (0, -1)
    dims[one], dims[other] = dims[other], dims[one]
    return dims


@rule("expand", "repeat", "expand_as")
def expand(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Axes that are stretched have no units; others keep theirs, tiled where they are repeated."""
    dims, shape = reading.of(arguments[0]), shape_of(node)
    offset = len(shape) - len(dims)
    made = [unlabelled(size) for size in shape]
    for place, dim in enumerate(dims, start=offset):
        if len(dim) == shape[place]:
            made[place] = dim
        elif len(dim) > 1:
            made[place] = np.tile(dim, shape[place] // len(dim))
    return made


@rule("cat")
def concatenation(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    shape = shape_of(node)
    axis = (arguments[1] if len(arguments) > 1 else 0) % len(shape)
    parts = [dims for tensor in arguments[0] if len(dims := reading.of(tensor)) == len(shape)]  # not empty ones
    lock = reading.lock(node, "it is concatenated with a tensor whose size is fixed")
    made = [next((dims[p] for dims in parts if has_units(dims[p])), parts[0][p]) for p in range(len(shape))]
    for place, dims in itertools.product(range(len(shape)), parts):
        if place != axis:
            reading.labels.unite(made[place], dims[place], lock)
    made[axis] = np.concatenate([dims[axis] for dims in parts])
    return made


@rule("stack")
def stack(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    shape = shape_of(node)
    axis = (arguments[1] if len(arguments) > 1 else 0) % len(shape)
    parts = [reading.of(tensor) for tensor in arguments[0]]
    lock = reading.lock(node, "it is stacked with a tensor whose size is fixed")
    for dims in parts[1:]:
        for one, other in zip(parts[0], dims, strict=True):
            reading.labels.unite(one, other, lock)
    made = list(parts[0])
    made.insert(axis, unlabelled(shape[axis]))
    return made


@rule("chunk", "split", "tensor_split", "split_with_sizes")
def split(reading: Reading, node: Node, arguments: Sequence[Any]) -> Any:
    """Parts of the same size lose the same places; other sizes are the code's own and stay."""
    dims = reading.of(arguments[0])
    chosen: Any = arguments[2] if len(arguments) > 2 else node.kwargs.get("dim", 0)
    axis = int(chosen) % len(dims)
    sizes = [int(part.shape[axis]) for part in node.meta["val"]]
    whole = dims[axis]
    if has_units(whole):
        if len(set(sizes)) > 1:
            reading.labels.lock(whole, reading.lock(node, "the code splits them by fixed sizes", unknown=True))
        else:
            _same_of_each(reading, node, whole.reshape(len(sizes), -1))
    starts = [0, *itertools.accumulate(sizes)]
    return [[*dims[:axis], whole[a:b], *dims[axis + 1 :]] for a, b in itertools.pairwise(starts)]


def _same_of_each(reading: Reading, node: Node, rows: Any) -> None:
    if reading.fixed_sizes:
        reading.labels.lock(rows.reshape(-1), reading.lock(node, "the code splits them by fixed sizes", unknown=True))
    else:
        reading.labels.unite_all(rows)


@rule("unbind")
def unbind(reading: Reading, node: Node, arguments: Sequence[Any]) -> Any:
    dims = reading.of(arguments[0])
    axis = (arguments[1] if len(arguments) > 1 else 0) % len(dims)
    reading.labels.lock(dims[axis], reading.lock(node, "the code takes them one by one", unknown=True))
    rest = [*dims[:axis], *dims[axis + 1 :]]
    return [list(rest) for _ in node.meta["val"]]


@rule("select")
def select(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    dims, axis = reading.of(arguments[0]), arguments[1] % len(reading.of(arguments[0]))
    reading.labels.lock(dims[axis], reading.lock(node, "the code takes one of them by number", unknown=True))
    return [*dims[:axis], *dims[axis + 1 :]]


@rule("slice")
def sliced(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    dims, shape = list(reading.of(arguments[0])), shape_of(node)
    axis = (arguments[1] if len(arguments) > 1 else 0) % len(dims)
    start, end, step = (*arguments, None, None, None)[2:5]
    whole = dims[axis]
    dims[axis] = whole[start : end : step or 1]
    if len(dims[axis]) != len(whole):
        reading.labels.lock(whole, reading.lock(node, "the code takes some of them by number", unknown=True))
    assert len(dims[axis]) == shape[axis]
    return dims


@rule("pad", "constant_pad_nd")
def padded(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """New channels of zeros are units like others, where the code may make fewer of them."""
    dims, widths = list(reading.of(arguments[0])), list(arguments[1])
    for number, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        axis = len(dims) - 1 - number
        if not (before or after):
            continue
        if not has_units(dims[axis]):
            dims[axis] = unlabelled(len(dims[axis]) + before + after)
        elif min(before, after) < 0 or (len(arguments) > 2 and arguments[2] in ("reflect", "replicate", "circular")):
            return unknown(reading, node)
        else:
            make = unlabelled if reading.fixed_sizes else reading.labels.fresh
            dims[axis] = np.concatenate([make(before), dims[axis], make(after)])
    return dims


@rule("pixel_shuffle", "pixel_unshuffle")
def shuffled(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Channels that become one channel's pixels go together, and the other way round."""
    dims, shape = reading.of(arguments[0]), shape_of(node)
    few = min(len(dims[1]), shape[1])
    if len(dims[1]) >= shape[1]:
        by_channel = dims[1].reshape(few, -1)
        reading.labels.unite_all(by_channel.T)
        channels = by_channel[:, 0].copy()
    else:
        channels = np.repeat(dims[1], shape[1] // few)
    return [dims[0], channels, *(unlabelled(size) for size in shape[2:])]


@rule("channel_shuffle")
def channel_shuffle(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Groups take turns: the same places of every group go together."""
    dims, groups = list(reading.of(arguments[0])), int(arguments[1])
    by_group = dims[1].reshape(groups, -1)
    reading.labels.unite_all(by_group)
    dims[1] = by_group.T.reshape(-1).copy()
    return dims
