"""torch's attention after heads were removed: torch's own takes no fewer numbers within than it is given."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import ModelError


class SlimAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with fewer heads of the same size: the same parameters, cut, and the same call.

    Attention masks of three dimensions are (batch · heads that are left, targets, sources).
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        tensors = [t if batched else t.unsqueeze(0) for t in (query, key, value)]
        if batched and not self.batch_first:
            tensors = [tensor.transpose(0, 1) for tensor in tensors]
        q, k, v = (self._heads(tensor, part) for part, tensor in enumerate(tensors))
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = functional.dropout(weights, self.dropout, self.training)
            attended = weights @ v
        else:
            dropped = self.dropout if self.training else 0.0
            attended = functional.scaled_dot_product_attention(q, k, v, mask, dropped)
        output = self.out_proj(attended.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, tensor: Tensor, part: int) -> Tensor:
        """Query, key or value (`part` 0, 1, 2) as (batch, heads, length, size of a head)."""
        own = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weight = self.in_proj_weight.chunk(3)[part] if self.in_proj_weight is not None else own[part]
        bias = None if self.in_proj_bias is None else self.in_proj_bias.chunk(3)[part]
        return functional.linear(tensor, weight, bias).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores, both masks as one."""
        parts = []
        if mask is not None:
            shape = (1, 1) if mask.dim() == 2 else (q.shape[0], q.shape[1])
            parts.append(_added(mask, q).view(*shape, q.shape[2], k.shape[2]))
        if padding is not None:
            parts.append(_added(padding, q).view(-1, 1, 1, k.shape[2]))
        return sum(parts[1:], parts[0]) if parts else None


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask (True: not to be looked at) as numbers to add."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def slim(attention: Any) -> None:
    """Makes an attention layer whose tensors were cut one with fewer heads, in place."""
    if attention.in_proj_weight is not None:
        inner = attention.in_proj_weight.shape[0] // 3
    else:
        inner = attention.q_proj_weight.shape[0]
    if inner == attention.num_heads * attention.head_dim:
        return
    if attention.bias_k is not None or attention.add_zero_attn:
        raise ModelError("heads of an attention layer with add_bias_kv or add_zero_attn cannot be removed; protect it")
    attention.__class__ = SlimAttention
    attention.num_heads = inner // attention.head_dim
    attention._qkv_same_embed_dim = False  # keeps torch's fused layers away, which read past this class
