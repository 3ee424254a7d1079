"""What operations do to units: they pass them on, unite or lock them.

Products are `products`', shapes `reshaping`'s; here is what else computes. An operation that stands nowhere locks what
it touches, by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from tombola.compression.removal import reshaping  # noqa: F401 (files its rules)
from tombola.compression.removal.labels import Dims, has_units, unlabelled
from tombola.compression.removal.products import not_over_units  # and files its rules
from tombola.compression.removal.reading import Reading, rule, unknown
from tombola.compression.removal.trace import operation, shape_of

POINTWISE = (
    *("relu", "relu6", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "elu", "selu", "celu", "leaky_relu", "hardswish"),
    *("hardsigmoid", "mish", "softplus", "softsign", "log_sigmoid", "erf", "exp", "log", "sqrt", "rsqrt", "square"),
    *("neg", "abs", "sin", "cos", "reciprocal", "sign", "clamp", "clamp_min", "clamp_max", "pow", "threshold"),
    *("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where", "lerp", "addcmul", "masked_fill"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or"),
)
"""Number by number, after broadcasting."""
UNCHANGED = (
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "clone", "contiguous", "to", "_to_copy"),
    *("detach", "alias", "lift_fresh_copy", "type_as", "zeros_like", "ones_like", "full_like"),
)
PER_CHANNEL = ("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm", "prelu")
OVER_IMAGES = (
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d"),
    *("adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *("upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d"),
    *("_upsample_nearest_exact2d", "max_pool2d_with_indices"),
)
"""Examples and channels stay, height and width change."""
OVER_DIMENSIONS = (
    *("mean", "sum", "amax", "amin", "var", "std", "prod", "softmax", "log_softmax", "_softmax", "cumsum", "norm"),
    *("linalg_vector_norm", "_log_softmax", "max", "min", "argmax", "logsumexp"),
)


@rule(*POINTWISE, *UNCHANGED)
def pointwise(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Broadcast tensors agree index by index; a size of 1 that is stretched says nothing of units."""
    shape = shape_of(node)
    lock = reading.lock(node, f"{operation(node)} meets a tensor whose size is fixed")
    made = [unlabelled(size) for size in shape]
    given = [reading.of(tensor) for tensor in node.all_input_nodes]
    for dims in given:
        for place, dim in enumerate(dims, start=len(shape) - len(dims)):
            if len(dim) == shape[place] and not has_units(made[place]):
                made[place] = dim
    for dims in given:
        for place, dim in enumerate(dims, start=len(shape) - len(dims)):
            if len(dim) == shape[place]:
                reading.labels.unite(made[place], dim, lock)
    return made


@rule(*PER_CHANNEL)
def per_channel(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Every channel for itself, with numbers of its own."""
    dims = reading.of(arguments[0])
    lock = reading.lock(node, "they are normalised with numbers that are fixed")
    for tensor in arguments[1:5]:
        own = reading.of(tensor)
        if own and len(own[0]) == len(dims[1]):
            reading.labels.unite(dims[1], own[0], lock)
    return dims


@rule("group_norm")
def group_norm(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Channels that are normalised together go together."""
    dims, groups = reading.of(arguments[0]), int(arguments[1])
    if not reading.of(arguments[2] if len(arguments) > 2 else None):
        groups = 1  # nothing that could be cut would say how many groups are left
    _together(reading, node, dims[1], groups)
    for tensor in arguments[2:4]:
        if own := reading.of(tensor):
            reading.labels.unite(dims[1], own[0], reading.lock(node, "they are normalised with numbers that are fixed"))
    return dims


@rule("layer_norm", "rms_norm")
def layer_norm(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Without one of them the others would be normalised differently: all go or none."""
    dims, over = reading.of(arguments[0]), len(arguments[1])
    lock = reading.lock(node, "they are normalised together")
    for dim in dims[-over:]:
        reading.labels.lock(dim, lock)
    for tensor in arguments[2:4]:
        for own, dim in zip(reading.of(tensor), dims[-over:], strict=False):
            reading.labels.unite(dim, own, lock)
    return dims


def _together(reading: Reading, node: Node, channels: Any, groups: int) -> None:
    if groups == 1:
        reading.labels.lock(channels, reading.lock(node, "they are normalised together"))
    else:
        reading.labels.unite_all(channels.reshape(groups, -1).T)


@rule(*OVER_IMAGES)
def over_images(reading: Reading, node: Node, arguments: Sequence[Any]) -> Any:
    dims, value = reading.of(arguments[0]), node.meta["val"]
    not_over_units(reading, node, dims)
    values = value if isinstance(value, (list, tuple)) else [value]
    made = [[*dims[:2], *(unlabelled(int(size)) for size in one.shape[2:])] for one in values]
    return made if isinstance(value, (list, tuple)) else made[0]


@rule(*OVER_DIMENSIONS)
def over_dimensions(reading: Reading, node: Node, arguments: Sequence[Any]) -> Any:
    """What is summed or compared stays; other dimensions pass on, those that are gone with `keepdim` left out."""
    dims, rank = reading.of(arguments[0]), len(reading.of(arguments[0]))
    value = node.meta["val"]
    if isinstance(value, (list, tuple)):
        value = value[0]
    chosen = next((a for a in arguments[1:2] if isinstance(a, (int, list, tuple)) and not isinstance(a, bool)), None)
    if operation(node) in ("norm", "linalg_vector_norm"):
        chosen = arguments[2] if len(arguments) > 2 else None
    over = {d % rank for d in ([chosen] if isinstance(chosen, int) else chosen or range(rank))}
    lock = reading.lock(node, f"{operation(node)} is taken over all of them")
    for place in over:
        reading.labels.lock(dims[place], lock)
    if value.dim() == rank:
        made = [unlabelled(int(s)) if place in over else dims[place] for place, s in enumerate(value.shape)]
    else:
        made = [dim for place, dim in enumerate(dims) if place not in over]
    return [made, list(made)] if isinstance(node.meta["val"], (list, tuple)) else made


@rule("embedding")
def embedding(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Rows are chosen by numbers of the data and stay; columns are written."""
    weight, numbers = arguments[:2]
    rows, columns = reading.of(weight)
    reading.labels.lock(rows, reading.lock(node, "they are looked up by number"))
    reading.written(weight, 1)
    return [*(unlabelled(size) for size in shape_of(numbers)), columns]


@rule("index_select", "gather", "index")
def chosen_by_number(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Examples, nodes or tokens are taken by number; units lie in other dimensions."""
    dims, shape = reading.of(arguments[0]), shape_of(node)
    if operation(node) == "index":
        indices = arguments[1]
        if len(indices) != 1 or any(reading.of(indices[0])[1:]) or has_units(dims[0]):
            return unknown(reading, node)
        return [unlabelled(shape[0]), *dims[1:]]
    axis = arguments[1] % len(dims)
    if has_units(dims[axis]) or len(dims) != len(shape):
        return unknown(reading, node)
    return [*dims[:axis], unlabelled(shape[axis]), *dims[axis + 1 :]]


@rule("scatter_add", "scatter_reduce", "index_add", "scatter")
def scattered(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """Rows are added up where numbers say; units lie in other dimensions and agree."""
    into, source = reading.of(arguments[0]), reading.of(arguments[3])
    axis = arguments[1] % len(into)
    if len(source) != len(into) or has_units(into[axis]) or has_units(source[axis]):
        return unknown(reading, node)
    lock = reading.lock(node, f"{operation(node)} meets a tensor whose size is fixed")
    for place in range(len(into)):
        if place != axis:
            reading.labels.unite(into[place], source[place], lock)
    return into


@rule("new_zeros", "new_ones", "new_full", "new_empty")
def new_tensor(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    """As large as what it is made after, it is taken to ask that for its size."""
    dims, shape = reading.of(arguments[0]), shape_of(node)
    made = [unlabelled(size) for size in shape]
    for back in range(1, min(len(dims), len(shape)) + 1):
        if len(dims[-back]) == shape[-back] and not reading.fixed_sizes:
            made[-back] = dims[-back]
    return made


@rule("_assert_tensor_metadata")
def nothing(reading: Reading, node: Node, arguments: Sequence[Any]) -> Dims:
    return []
