"""How evenly each attention head looks: the entropy of its attention, streamed while a model runs, no maps kept.

transformers lets anybody register an attention function by name. Ours computes what `sdpa` computes, by that function
itself, and looks at queries and keys beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.causal.families import attention_layers
from tombola.pruning.wrapped import unwrapped

NAME = "tombola_entropy"
"""Of our attention function, in transformers' table of such functions."""
REPLACED = "sdpa"
FEWEST = 2
"""Keys that a query must see: with one there is nothing to choose."""
_HIDDEN = -1e38
"""Added to the score of a key that is not seen: its weight is exactly 0, and 0 times it is a number."""

_RECORDERS: WeakKeyDictionary[nn.Module, EntropyRecorder] = WeakKeyDictionary()
"""Who listens to which attention module; a copy of a recorded model has modules that nobody listens to."""


class EntropyRecorder:
    """Within `with EntropyRecorder(model, on_step):` every forward pass tells the entropy of each head.

    A head's entropy is the mean over sequences and query positions that see t >= 2 keys of H(A_t) / log t, in [0, 1]:
    0 looks at one key, 1 at all alike. What the model computes, and its gradients, stay what they are with `sdpa`, to
    the bit. Padded positions of an `attention_mask` count neither as queries nor as keys, and a sliding window hides
    what is outside. Where the scores themselves are no longer finite, so is the entropy not.

    Args:
        model: A causal language model (see `attention_layers`) whose attention is `sdpa`, transformers' default.
        on_step: Called in every pass and layer with the layer's index and a tensor (heads,) of float32 without
            gradients; not called where no query sees two keys.
        sequences: Of each batch so many sequences are looked at, the first ones. All others cost nothing.
        training_only: Whether passes of a model in evaluation mode are left out.

    Attributes:
        valid: Which positions of the next batches are no padding, (sequences, positions) bool, for batches that are
            padded at the right end and come without `attention_mask`; None for all.

    Raises:
        ModelError: for a model of a family that is not known, or whose attention is not `sdpa` or already recorded.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=40, n_positions=16))
        >>> with EntropyRecorder(model, lambda layer, entropy: print(layer, tuple(entropy.shape))):
        ...     _ = model(torch.arange(14).view(2, 7))
        0 (4,)
        1 (4,)
    """

    valid: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        on_step: Callable[[int, Tensor], None],
        sequences: int = 4,
        training_only: bool = True,
    ) -> None:
        self.model: Any = unwrapped(model)
        self.layers = {layer.attention: layer.index for layer in attention_layers(model)}
        self.on_step, self.sequences, self.training_only = on_step, sequences, training_only
        self.valid = None

    def __enter__(self) -> Self:
        found = self.model.config._attn_implementation
        if found != REPLACED:
            raise ModelError(
                f"the model's attention is {found!r}, entropy is recorded of {REPLACED!r} only, by one recorder at a "
                f"time: call model.set_attn_implementation({REPLACED!r}) before"
            )
        _register()
        self.model.set_attn_implementation(NAME)
        if self.model.config._attn_implementation != NAME:
            kind = self.model.config.model_type
            raise ModelError(f"the attention of this {kind} does not go through transformers' AttentionInterface")
        _RECORDERS.update(dict.fromkeys(self.layers, self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for module in self.layers:
            _RECORDERS.pop(module, None)
        self.model.set_attn_implementation(REPLACED)

    def look(self, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> None:
        """Tells the entropy of one layer's heads, from what its `sdpa` is called with.

        query: (n, heads, T, size); key: (n, groups, S, size).
        """
        if self.training_only and not module.training:
            return
        count = min(self.sequences, len(query))
        query, key = query[:count], key[:count]
        seen = _seen(mask, count, query.shape[2], key.shape[2], query.device)
        positions = seen.diagonal(key.shape[2] - query.shape[2], -2, -1).squeeze(1)  # a padded query is a padded key
        if self.valid is not None:
            positions = positions & self.valid[:count, -query.shape[2] :].to(positions.device)
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):  # scores want float32
            entropy = entropy_of_heads(query, key, seen, positions, scaling)
        if entropy is not None:
            self.on_step(self.layers[module], entropy)


def entropy_of_heads(
    query: Tensor, key: Tensor, seen: Tensor, positions: Tensor, scaling: float | None = None
) -> Tensor | None:
    """The normalised entropy of each head; None where no query counts.

    Args:
        query: (n, heads, T, size).
        key: (n, groups, S, size), head h reads group h // (heads // groups).
        seen: (n or 1, 1, T, S), bool: which keys a query sees.
        positions: (n or 1, T), bool: which queries count; those that see fewer than two keys never do.
        scaling: What scores are multiplied by; 1 / sqrt(size) where None.

    Returns:
        Tensor: (heads,), float32, in [0, 1].
    """
    n, heads, length, size = query.shape
    groups = key.shape[1]
    scaling = size**-0.5 if scaling is None else scaling
    grouped = query.float().reshape(n, groups, heads // groups, length, size) * scaling
    scores = (grouped @ key.float().transpose(-1, -2).unsqueeze(2)).flatten(1, 2)
    scores += torch.where(seen, 0.0, _HIDDEN)
    logs = scores.log_softmax(-1)
    entropies = -(logs.exp() * logs).sum(-1)
    visible = seen.sum(-1).squeeze(1)
    counted = (positions & (visible >= FEWEST)).expand(n, length)
    weights = counted / visible.clamp(min=FEWEST).log()
    count = int(counted.sum())
    if not count:
        return None
    return (entropies * weights.unsqueeze(1)).sum((0, 2)).div(count).clamp(0, 1)


def _seen(mask: Tensor | None, count: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys each query sees, (n or 1, 1, queries, keys) bool, of a mask as `sdpa` takes it; None is causal."""
    if mask is None:
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None, None]
    mask = mask[:count, :1, :, :keys]
    return mask if mask.dtype == torch.bool else mask >= 0


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> Any:
    """transformers' `sdpa`, for modules that a recorder listens to with a look beside it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if (recorder := _RECORDERS.get(module)) is not None:
        recorder.look(module, query, key, attention_mask, others.get("scaling"))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **others)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # as `sdpa` has it, so that outputs stay the same to the bit
