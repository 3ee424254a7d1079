"""A model on sparse kernels: `sparsify` gives a copy whose layers run at the cost of what is kept.

How fully connected layers are found is `chains`, convolutional networks `graphs`; what they run on `plans`, `tuning`,
the modules that stand for them `sparse_modules`, files are `sparse_files`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn

from tombola.compression.chains import Chain, find_chains
from tombola.compression.fast_path import leave_fast_path
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.finding import find_graphs
from tombola.compression.graphs.nodes import Graph
from tombola.compression.graphs.tuning import tune_graph
from tombola.compression.layers import Layer
from tombola.compression.plans import Plan
from tombola.compression.sparse_modules import SparseChain, SparseModel, weights_of
from tombola.compression.trials import Check, exchanged_where_it_works, tensors_of, why_apart
from tombola.compression.tuning import tune
from tombola.errors import ModelError, PruningError, one_line
from tombola.kernels.tensors import readable
from tombola.pruning import Masks, prunable_parameters
from tombola.pruning.copies import copy_of
from tombola.pruning.surroundings import put_back
from tombola.pruning.untouched import left_alone
from tombola.pruning.wrapped import matched, unwrapped
from tombola.training.threads import one_thread


def sparsify(
    model: nn.Module, masks: Masks, example_input: Tensor, batch_sizes: Sequence[int] = (1, 64)
) -> SparseModel:
    """A copy of `model`, removed weights 0, whose convolutional networks and runs of Linear layers are sparse kernels.

    It computes what `model` computes in evaluation mode under `masks`, to 1e-5, which is checked here. Kernels are
    chosen by measuring `example_input` in every batch size; others are served by the nearest one's choice. What cannot
    be taken over is left to torch and named in `unsupported`.

    Args:
        model: A model on the CPU; it is not changed.
        masks: They may leave layers out: those keep all their weights.
        example_input: A batch, best of real data: zeros among inputs cost nothing.
        batch_sizes: What to choose kernels for.

    Returns:
        A module for evaluation on the CPU, float32.

    Raises:
        PruningError: for masks of another model.
        ModelError: for models that cannot run on the CPU or whose outputs would differ.
        KernelError: where kernels do not run on this machine.

    Examples:
        >>> import torch
        >>> from tombola import prune
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> masks = prune(model, 0.9)
        >>> inputs = torch.rand(1, 64)
        >>> sparse = sparsify(model, masks, inputs, batch_sizes=(1,))
        >>> masks.apply_(model)
        >>> torch.allclose(sparse(inputs), model(inputs), atol=1e-5)
        True
    """
    if not isinstance(masks, Masks):
        raise PruningError(f"masks are what prune returns, not a {type(masks).__name__}")
    if not isinstance(model, nn.Module):
        raise ModelError(f"sparsify takes a torch.nn.Module, not a {type(model).__name__}")
    model = unwrapped(model)
    _check_request(model, example_input, batch_sizes)
    sizes = sorted({int(size) for size in batch_sizes})
    example = example_input.detach().clone()  # a model may change its input
    keeps = _keeps(model, masks)
    reference = _masked_copy(model, keeps)
    with _alone(model):
        checks = list(_checks(copy_of(reference), example, sizes))
        if any(isinstance(module, nn.TransformerEncoder) for module in reference.modules()):
            checks = _without_fast_path(reference, checks)
        watched = copy_of(reference)  # a pass may change it
        try:
            graphs = find_graphs(watched, keeps, example.clone())
            found = find_chains(watched, keeps, example.clone(), graphs.modules, graphs.reasons)
        except Exception as error:  # the model runs, but not while it is looked at
            raise ModelError(f"the model's layers cannot be watched on example_input: {one_line(error)}") from None
    parts: list[tuple[Chain | Graph, Tensor]] = [*zip(graphs.graphs, graphs.examples, strict=True)]
    parts += zip(found.chains, found.examples, strict=True)
    chains = {part.sites: _tuned(part, rows, len(example), sizes) for part, rows in parts}
    with _alone(model):
        network, taken, left = exchanged_where_it_works(reference, chains, checks)
    _warn_of_unused(reference, keeps, [layer for sites in taken for layer in chains[sites].chain.layers])
    return SparseModel(network, [*found.unsupported, *left])


def _check_request(model: nn.Module, example_input: Tensor, batch_sizes: Sequence[int]) -> None:
    if isinstance(batch_sizes, np.ndarray):
        batch_sizes = batch_sizes.tolist()
    sizes = batch_sizes if isinstance(batch_sizes, (list, tuple, range)) else ()
    whole = [isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1 for size in sizes]
    if not whole or not all(whole):
        raise ModelError(f"batch_sizes are whole numbers of at least 1, such as (1, 64), not {batch_sizes!r}")
    if not isinstance(example_input, Tensor) or example_input.dim() < 1 or not len(example_input):
        raise ModelError("example_input is a batch of at least one input of the model, a tensor (n, ...)")
    if example_input.dtype is torch.float32:
        with torch.no_grad():
            readable(example_input, "example_input")
    elif type(example_input) is not Tensor or example_input.device.type != "cpu":
        raise ModelError(f"example_input is a plain tensor on the CPU, not a {type(example_input).__name__} elsewhere")
    if example_input.is_floating_point() and not bool(torch.isfinite(example_input).all()):
        raise ModelError("example_input has numbers that are not finite: kernels cannot be checked on them")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu" or isinstance(tensor, nn.parameter.UninitializedParameter):
            raise ModelError(
                f"{name} is not on the CPU, or has no values yet: sparse kernels need the whole model there"
            )


def _keeps(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The masks by the model's names; PruningError for those of another model. Layers may be missing."""
    parameters = prunable_parameters(model)
    names = matched(masks, parameters)
    for name, mask in masks.items():
        if name not in names:
            raise PruningError(f"the masks do not belong to this model: it has no weight {name}")
        if mask.shape != parameters[names[name]].shape:
            raise PruningError(
                f"{name}: a mask of shape {tuple(mask.shape)} does not fit {tuple(parameters[names[name]].shape)}"
            )
    return {names[name]: mask.keep.cpu() for name, mask in masks.items()}


def _masked_copy(model: nn.Module, keeps: Mapping[str, Tensor]) -> nn.Module:
    reference = copy_of(model).eval().requires_grad_(False)
    parameters = dict(reference.named_parameters())
    for name, keep in keeps.items():
        parameters[name].masked_fill_(~keep, 0)
    return reference


@contextlib.contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """Within the block copies of `model` run, and no part of it; nothing around it stays changed."""
    with put_back(), left_alone(model):
        yield


def _tuned(chain: Chain | Graph, example: Tensor, examples: int, batch_sizes: Sequence[int]) -> SparseChain:
    """The chain with a plan for the rows that each batch size brings. Where none came, random ones are looked at."""
    arrays = weights_of(chain)
    if not len(example):
        shape = chain.shape if isinstance(chain, Graph) else (chain.inputs,)
        example = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        examples = 1
    plans: dict[int, Plan] = {}
    with one_thread():
        for batch in sorted(set(batch_sizes)):
            rows = max(1, round(batch * len(example) / examples))
            if rows not in plans:
                if isinstance(arrays, GraphArrays):
                    plans[rows] = tune_graph(arrays, example, batch, rows)
                else:
                    plans[rows] = tune(arrays, example, batch, rows)
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


def _without_fast_path(reference: nn.Module, checks: Sequence[Check]) -> list[Check]:
    """Has `reference` leave torch's fused transformer layers; the checks whose outputs stay what they were."""
    leave_fast_path(reference)
    if (why := why_apart(copy_of(reference), checks[:1])) is not None:
        raise ModelError(
            "the model's outputs depend on what stands at padded positions, where torch's fused transformer layers "
            f"give 0: leave these out of the outputs, or make the encoder with enable_nested_tensor=False ({why})"
        )
    return [check for check in checks if why_apart(copy_of(reference), [check]) is None]


def _checks(reference: nn.Module, example: Tensor, sizes: Sequence[int]) -> Iterator[Check]:
    """Batches and what the model makes of them: of the example, and of random ones that it does not refuse."""
    for number, batch in enumerate([example, *_random_batches(example, sizes)]):
        with put_back(), torch.no_grad():
            try:
                expected = list(tensors_of(reference(batch.clone())))
            except Exception as error:  # anybody's model may raise anything
                if not number:
                    raise ModelError(f"the model does not run on example_input: {one_line(error)}") from None
                continue
        yield batch, expected
