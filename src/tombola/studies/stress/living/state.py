"""Where a cell is in its life: all that the next unit goes on from, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from tombola.models.tensors import load_own, save_tensors

WEIGHTS, KEEP, START = "weights:", "keep:", "start:"


@dataclass
class State:
    """A network and what is known of its life so far.

    `keep`: which heads or neurons of each layer are left. `start`: nats of every held-out item just after the first
    pruning, by task. `difficulty`: of tasks that have one, where it follows the network.
    """

    network: nn.Module
    keep: list[Tensor]
    start: dict[str, Tensor] = field(default_factory=dict)
    difficulty: dict[str, int] = field(default_factory=dict)
    visits: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    epochs: int = 0
    phase: int = 0

    def after(self, steps: int, tokens: int, epochs: int) -> Self:
        """What is counted once a phase has ended."""
        return replace(
            self,
            steps=self.steps + steps,
            tokens=self.tokens + tokens,
            epochs=self.epochs + epochs,
            phase=self.phase + 1,
        )

    def save(self, path: Path) -> None:
        tensors = {f"{WEIGHTS}{name}": value for name, value in _each_once(self.network.state_dict()).items()}
        tensors |= {f"{KEEP}{layer}": keep for layer, keep in enumerate(self.keep)}
        tensors |= {f"{START}{task}": each for task, each in self.start.items()}
        facts = {name: getattr(self, name) for name in ("difficulty", "visits", "steps", "tokens", "epochs", "phase")}
        save_tensors(path, tensors, facts)

    @classmethod
    def load(cls, path: Path, network: nn.Module) -> Self:
        """The state in a file, with `network` given its weights; StorageError where the file is damaged."""
        tensors, facts = load_own(path)
        own = network.state_dict()
        for name, value in _parts(tensors, WEIGHTS).items():
            own[name].copy_(value)  # and what is tied to it
        keep = [keep for _, keep in sorted(_parts(tensors, KEEP).items(), key=lambda item: int(item[0]))]
        known: dict[str, Any] = dict(facts)
        return cls(network, keep, _parts(tensors, START), **known)


def _each_once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that are tied, such as a head and an embedding, by their first name alone."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {
        name: value for name, value in state.items() if first.setdefault((value.data_ptr(), value.shape), name) == name
    }


def _parts(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def all_kept(layers: int, units: int) -> list[Tensor]:
    """Nothing is removed yet."""
    return [torch.ones(units, dtype=torch.bool) for _ in range(layers)]
