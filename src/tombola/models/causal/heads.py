"""Which heads or neurons of a language model stay: exact selection by their scores, and masks that hold the choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tombola.errors import ModelError, PruningError, counted
from tombola.models.causal.families import attention_layers
from tombola.pruning.mask import Mask
from tombola.pruning.masks import Masks
from tombola.pruning.prunable import is_hugging_face_conv1d
from tombola.pruning.wrapped import unwrapped


def select_heads(scores: Tensor, sparsity: float, keep: Tensor | None = None, equal: bool = False) -> Tensor:
    """Which heads stay when exactly `round(sparsity * N)` of all N are gone: those of the lowest scores go first.

    Args:
        scores: What each head is worth, (layers, heads); ties go by position, layer by layer.
        sparsity: The fraction of all heads that is gone afterwards, those that `keep` lacks among them, in [0, 1).
        keep: The heads that are still there, (layers, heads) bool; a head that is gone stays gone.
        equal: Whether every layer loses the same number, `round(sparsity * heads)`.

    Returns:
        Tensor: (layers, heads), bool, True for a head that stays. Every layer keeps at least one.

    Raises:
        PruningError: where that many cannot go, or more are gone already; for scores that are no numbers.

    Examples:
        >>> select_heads(torch.tensor([[3.0, 1.0], [2.0, 4.0]]), 0.5).tolist()
        [[True, False], [False, True]]
    """
    if scores.dim() != 2:
        raise PruningError(f"scores of heads are (layers, heads), not of shape {tuple(scores.shape)}")
    return torch.stack(_select(list(scores), sparsity, None if keep is None else list(keep), equal, "head"))


def select_neurons(
    scores: Sequence[Tensor], sparsity: float, keep: Sequence[Tensor] | None = None, equal: bool = False
) -> list[Tensor]:
    """As `select_heads`, for the neurons of feed-forward layers: one tensor (neurons,) a layer, of any lengths.

    Examples:
        >>> [kept.tolist() for kept in select_neurons([torch.tensor([3.0, 1.0]), torch.tensor([2.0])], 0.3)]
        [[True, False], [True]]
    """
    return _select(list(scores), sparsity, None if keep is None else list(keep), equal, "neuron")


def mask_of_heads(model: nn.Module, keep: Tensor | Sequence[Tensor]) -> Masks:
    """Masks of a language model under which removed heads say nothing: all is kept but the weights that read them.

    These are columns of each layer's output projection (rows of transformers' `Conv1D`). Held at 0 while the model
    trains, they let no gradient reach what computes the head.

    Args:
        model: A causal language model (see `attention_layers`).
        keep: (layers, heads) bool, or one tensor (heads,) a layer where layers differ; True for what stays.

    Raises:
        ModelError: for a model of a family that is not known.
        PruningError: where `keep` is not of this model.
    """
    layers = attention_layers(model)
    kept = _checked(keep, [layer.heads for layer in layers], "head")
    pairs = zip(layers, kept, strict=True)
    columns = {layer.projection_name: row.repeat_interleave(layer.head_size) for layer, row in pairs}
    return _masks(model, {name: (read, None) for name, read in columns.items()})


def mask_of_neurons(model: nn.Module, keep: Sequence[Tensor]) -> Masks:
    """Masks of a language model under which removed neurons of its feed-forward layers neither read nor are read.

    Args:
        model: A causal language model (see `attention_layers`).
        keep: One tensor (neurons,) bool a layer; True for what stays.

    Raises:
        ModelError: for a model of a family that is not known.
        PruningError: where `keep` is not of this model.
    """
    layers = attention_layers(model)
    kept = _checked(keep, [layer.widths.neurons for layer in layers], "neuron")
    parts: dict[str, tuple[Tensor | None, Tensor | None]] = {}
    for layer, row in zip(layers, kept, strict=True):
        parts[layer.widths.read_out_name] = (row, None)
        parts |= dict.fromkeys(layer.widths.read_in_names, (None, row))
    return _masks(model, parts)


def _select(scores: list[Tensor], sparsity: float, keep: list[Tensor] | None, equal: bool, unit: str) -> list[Tensor]:
    if not 0 <= sparsity < 1:
        raise PruningError(f"the fraction of {unit}s that go is in [0, 1), not {sparsity}")
    for layer, row in enumerate(scores):
        if row.isnan().any():
            raise PruningError(f"layer {layer} has a {unit} whose score is not a number")
    sizes = [len(row) for row in scores]
    kept = _checked([torch.ones(size, dtype=torch.bool) for size in sizes] if keep is None else keep, sizes, unit)
    if not equal:
        return _lowest(scores, kept, round(sparsity * sum(sizes)), sparsity, unit)
    pairs = zip(scores, kept, strict=True)
    return [_lowest([row], [own], round(sparsity * len(row)), sparsity, unit)[0] for row, own in pairs]


def _lowest(scores: list[Tensor], keep: list[Tensor], wanted: int, sparsity: float, unit: str) -> list[Tensor]:
    """What stays when the lowest scores go until `wanted` are gone; the last of a layer never goes."""
    kept = [row.clone() for row in keep]
    total, gone = sum(map(len, kept)), sum(int((~row).sum()) for row in kept)
    if gone > wanted:
        raise PruningError(f"{counted(gone, unit)} of {total} are gone already, sparsity {sparsity} asks for {wanted}")
    left = [int(row.sum()) for row in kept]
    places = [(layer, place) for layer, row in enumerate(scores) for place in range(len(row))]
    order = torch.cat([row.detach().double().cpu() for row in scores]).argsort(stable=True)
    for layer, place in (places[i] for i in order.tolist()):
        if gone == wanted:
            break
        if kept[layer][place] and left[layer] > 1:
            kept[layer][place] = False
            left[layer] -= 1
            gone += 1
    if gone < wanted:
        raise PruningError(
            f"sparsity {sparsity} asks for {wanted} of {counted(total, unit)}, but every layer keeps one: at most "
            f"{total - len(kept)} can go"
        )
    return kept


def _checked(keep: Iterable[Tensor], sizes: Sequence[int], unit: str) -> list[Tensor]:
    """One tensor a layer, on the CPU; PruningError where they are not of these sizes, or no truth values."""
    rows = [row.detach().cpu() for row in keep]
    if [tuple(row.shape) for row in rows] != [(size,) for size in sizes]:
        shown = [tuple(row.shape) for row in rows]
        raise PruningError(f"which {unit}s stay has shapes {shown} by layer, and the layers have {list(sizes)}")
    if odd := [row.dtype for row in rows if row.dtype != torch.bool]:
        raise PruningError(f"which {unit}s stay is said by truth values, not by {odd[0]}")
    return rows


def _masks(model: nn.Module, parts: dict[str, tuple[Tensor | None, Tensor | None]]) -> Masks:
    """Full masks but for layers by name: which inputs and which outputs stay, None for all."""
    inner = unwrapped(model)
    full = Masks.full(model)
    own = {id(parameter): name for name, parameter in full.parameters_of(model).items()}
    masks = dict(full)
    for name, (inputs, outputs) in parts.items():
        layer = inner.get_submodule(name)
        weight = layer.weight
        if id(weight) not in own:
            raise ModelError(f"{name}.weight is none of the model's prunable weights: is it shared or parametrised?")
        first = is_hugging_face_conv1d(layer)
        on = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)  # type: ignore[arg-type]
        for kept, dim in ((inputs, 0 if first else 1), (outputs, 1 if first else 0)):
            if kept is not None:
                shape = (-1, 1) if dim == 0 else (1, -1)
                on &= kept.to(on.device).view(shape)
        masks[own[id(weight)]] = Mask(on)
    return Masks(masks)
