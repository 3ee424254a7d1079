"""A model on sparse kernels: `sparsify` gives a copy whose layers run at the cost of what is kept.

How fully connected layers are found is `chains`, convolutional networks `graphs`; what they run on `plans`, `tuning`,
the modules that stand for them `sparse_modules`, files are `sparse_files`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.compression.chains import Chain, find_chains
from tombola.compression.exchange import exchanged
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.finding import find_graphs
from tombola.compression.graphs.nodes import Graph
from tombola.compression.graphs.tuning import tune_graph
from tombola.compression.layers import Layer
from tombola.compression.plans import Plan
from tombola.compression.sparse_modules import SparseChain, SparseModel, weights_of
from tombola.compression.tuning import tune
from tombola.errors import ModelError, PruningError
from tombola.pruning import Masks, prunable_parameters
from tombola.training.threads import one_thread

TOLERANCE = 1e-5
"""The largest difference to the model's own outputs, relative to the largest of these where that is above 1."""


def sparsify(
    model: nn.Module, masks: Masks, example_input: Tensor, batch_sizes: Sequence[int] = (1, 64)
) -> SparseModel:
    """A copy of `model`, removed weights 0, whose convolutional networks and runs of Linear layers are sparse kernels.

    It computes what `model` computes in evaluation mode under `masks`, to 1e-5, which is checked here. `masks` may
    leave layers out: they keep all their weights. Kernels are chosen by measuring `example_input` (a batch, best of
    real data: zeros among inputs cost nothing) in every batch size; others are served by the nearest one's choice.
    What cannot be taken over is left to torch and named in `unsupported`.

    Raises PruningError for masks of another model, ModelError for models that cannot run on the CPU or whose
    outputs would differ, KernelError where kernels do not run on this machine.
    """
    if not isinstance(masks, Masks):
        raise PruningError(f"masks are what prune returns, not a {type(masks).__name__}")
    if not isinstance(model, nn.Module):
        raise ModelError(f"sparsify takes a torch.nn.Module, not a {type(model).__name__}")
    _check_request(model, example_input, batch_sizes)
    keeps = _keeps(model, masks)
    reference = _masked_copy(model, keeps)
    try:
        graphs = find_graphs(reference, keeps, example_input)
        found = find_chains(reference, keeps, example_input, graphs.modules, graphs.reasons)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"the model does not run on example_input: {_one_line(error)}") from None
    parts = [*zip(graphs.graphs, graphs.examples, strict=True), *zip(found.chains, found.examples, strict=True)]
    _warn_of_unused(reference, keeps, [layer for part, _ in parts for layer in part.layers])
    chains = {}
    for part, rows in parts:
        chains[part.sites] = _tuned(part, rows, len(example_input), batch_sizes)
    sparse = SparseModel(exchanged(reference, chains), found.unsupported)
    for batch in [example_input, *_random_batches(example_input, batch_sizes)]:
        _check_equal(reference, sparse, batch)
    return sparse


def _check_request(model: nn.Module, example_input: Tensor, batch_sizes: Sequence[int]) -> None:
    sizes = batch_sizes if isinstance(batch_sizes, (list, tuple, range)) else ()
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ModelError(f"batch_sizes are whole numbers of at least 1, such as (1, 64), not {batch_sizes!r}")
    if not isinstance(example_input, Tensor) or example_input.dim() < 1 or not len(example_input):
        raise ModelError("example_input is a batch of at least one input of the model, a tensor (n, ...)")
    if example_input.is_floating_point() and not bool(torch.isfinite(example_input).all()):
        raise ModelError("example_input has numbers that are not finite: kernels cannot be checked on them")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu" or isinstance(tensor, nn.parameter.UninitializedParameter):
            raise ModelError(
                f"{name} is not on the CPU, or has no values yet: sparse kernels need the whole model there"
            )


def _keeps(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The masks by parameter name; PruningError for those of another model. Layers may be missing."""
    parameters = prunable_parameters(model)
    for name, mask in masks.items():
        if name not in parameters:
            raise PruningError(f"the masks do not belong to this model: it has no weight {name}")
        if mask.shape != parameters[name].shape:
            raise PruningError(
                f"{name}: a mask of shape {tuple(mask.shape)} does not fit {tuple(parameters[name].shape)}"
            )
    return {name: mask.keep.cpu() for name, mask in masks.items()}


def _masked_copy(model: nn.Module, keeps: Mapping[str, Tensor]) -> nn.Module:
    try:
        reference = copy.deepcopy(model).eval().requires_grad_(False)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"the model cannot be copied: {_one_line(error)}") from None
    parameters = dict(reference.named_parameters())
    for name, keep in keeps.items():
        parameters[name].masked_fill_(~keep, 0)
    return reference


def _tuned(chain: Chain | Graph, example: Tensor, examples: int, batch_sizes: Sequence[int]) -> SparseChain:
    """The chain with a plan for the rows that each batch size brings."""
    arrays = weights_of(chain)
    plans: dict[int, Plan] = {}
    with one_thread():
        for batch in sorted(set(batch_sizes)):
            rows = max(1, round(batch * len(example) / examples))
            if rows not in plans:
                tuned = tune_graph if isinstance(arrays, GraphArrays) else tune
                plans[rows] = tuned(arrays, example, batch, rows)
    arrays.keep_only(list(plans.values()))
    return SparseChain(chain, list(plans.values()), arrays)


def _warn_of_unused(model: nn.Module, keeps: Mapping[str, Tensor], layers: Sequence[Layer]) -> None:
    """Sparsity that brings nothing is said aloud."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    used = {names[id(model.get_submodule(layer.name).weight)] for layer in layers}
    unused = [name for name, keep in keeps.items() if name not in used and not bool(keep.all())]
    if unused:
        warnings.warn(
            f"pruned, but left to torch, where zeros bring no speed: {', '.join(unused)}; see `unsupported`",
            stacklevel=3,
        )


def _random_batches(example: Tensor, batch_sizes: Sequence[int]) -> Iterator[Tensor]:
    """Numbers without zeros; where inputs are whole numbers, such as words, those of the example in another order."""
    generator = torch.Generator().manual_seed(0)
    for size in sorted(set(batch_sizes)):
        if example.dtype == torch.float32:
            yield torch.randn(size, *example.shape[1:], generator=generator, dtype=torch.float32)
        else:
            yield example[torch.randint(len(example), (size,), generator=generator)]


def _check_equal(reference: nn.Module, sparse: nn.Module, batch: Tensor) -> None:
    """Raises ModelError unless both give the same. Batches that the model itself refuses are not looked at."""
    with torch.no_grad():
        try:
            expected = list(_tensors(reference(batch)))
        except (RuntimeError, ValueError, IndexError):
            return
        try:
            given = list(_tensors(sparse(batch)))
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ModelError(f"the model does not run without its layers: {_one_line(error)}") from None
    for own, other in zip(expected, given, strict=True):
        allowed = TOLERANCE * max(1.0, own.abs().nan_to_num(0, 0).max().item() if own.numel() else 1.0)
        if own.shape != other.shape or not torch.allclose(own, other, rtol=0, atol=allowed, equal_nan=True):
            apart = (own - other).abs().max().item() if own.shape == other.shape else f"{own.shape} and {other.shape}"
            raise ModelError(
                f"the sparse model's outputs would differ from the model's by {apart} on a batch of {len(batch)}, "
                f"more than {allowed:.1e}: does it use chance, a lower precision, or a layer otherwise than to call it?"
            )


def _tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of what a model returns."""
    if isinstance(output, Tensor) and output.is_floating_point():
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
