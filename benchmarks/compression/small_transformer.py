"""A small transformer that reads an image row by row, for `docs/results/compression.md`: a network of one's own.

`small_transformer:row_transformer` is what commands call it, from this folder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS, PIXELS = 28, 28
WIDTH, HEADS, LAYERS, CLASSES = 64, 4, 2, 10


class Block(nn.Module):
    """Attention and a feed-forward part, each after a layer norm and beside a residual."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.project(self._attended(self.norm_1(tokens)))
        return tokens + self.down(functional.gelu(self.up(self.norm_2(tokens))))

    def units_removed(self) -> None:
        """Whole heads may be gone."""
        self.heads = self.query.out_features // self.size

    def _attended(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class RowTransformer(nn.Module):
    """Takes images (n, 1, 28, 28), a row a token; gives logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, WIDTH)
        self.place = nn.Parameter(torch.zeros(ROWS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.blocks(self.embed(images.squeeze(1)) + self.place)
        return self.output(self.norm(tokens.mean(1)))


def row_transformer() -> nn.Module:
    """A transformer of two layers, 64 wide with 4 heads: 104,394 parameters. The caller seeds its weights."""
    return RowTransformer()
