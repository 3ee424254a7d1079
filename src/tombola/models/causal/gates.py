"""Gates on attention heads: what a head says is multiplied by a number while the model runs, its weights untouched."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from tombola.errors import ModelError
from tombola.models.causal.families import AttentionLayer, attention_layers


class HeadGates:
    """Within `with HeadGates(model) as gates:` every head's output is multiplied by its gate in `gates.values`.

    A gate of 0 is the head without its columns of the output projection, to the bit. Set `values` at any time:

    - (layers, heads), or one tensor (heads,) a layer where layers differ: one gate a head;
    - (sequences, layers, heads): one a head and sequence of the batch, so that one backward pass gives the gradients
      of every example, whose absolute values Michel et al. (2019, arXiv 1905.10650) average.

    They may ask for gradients. At first all are 1, and the model computes what it does without.

    Args:
        model: A causal language model (see `attention_layers`).

    Raises:
        ModelError: for a model of a family that is not known; within, for gates of another shape.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=40, n_positions=16)).eval()
        >>> ids = torch.arange(14).view(2, 7)
        >>> with HeadGates(model) as gates:
        ...     gates.values = torch.ones(2, 2, 4, requires_grad=True)
        ...     model(input_ids=ids, labels=ids).loss.backward()
        >>> gates.values.grad.abs().mean(0).shape
        torch.Size([2, 4])
    """

    values: Tensor | Sequence[Tensor]

    def __init__(self, model: nn.Module) -> None:
        self.layers = attention_layers(model)
        devices = [next(layer.projection.parameters()).device for layer in self.layers]
        self.values = [torch.ones(layer.heads, device=at) for layer, at in zip(self.layers, devices, strict=True)]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        for layer in self.layers:
            self._handles.append(layer.projection.register_forward_pre_hook(self._hook(layer)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, layer: AttentionLayer) -> Any:
        def gated(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            heads = arguments[0].unflatten(-1, (layer.heads, layer.head_size))
            return ((heads * self._gate(layer, len(heads))).flatten(-2), *arguments[1:])

        return gated

    def _gate(self, layer: AttentionLayer, sequences: int) -> Tensor:
        """The gates of one layer as they multiply (sequences, positions, heads, size of a head)."""
        several = isinstance(self.values, Tensor) and self.values.dim() == 3
        gate = self.values[:, layer.index] if several else self.values[layer.index]  # type: ignore[call-overload]
        if tuple(gate.shape) != ((sequences, layer.heads) if several else (layer.heads,)):
            raise ModelError(
                f"layer {layer.index} has {layer.heads} heads and the batch {sequences} sequences, its gates are of "
                f"shape {tuple(gate.shape)}"
            )
        return gate.view(-1, 1, layer.heads, 1)
