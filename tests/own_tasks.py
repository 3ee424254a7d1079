"""Tasks as somebody's own code makes them, for `package.module:function`, and networks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tombola.data.augment import Augmentation
from tombola.errors import TombolaError
from tombola.training import Classification, GraphTask, LanguageModelling, Tokens
from tombola.training.batches import Order
from tombola.training.task import Measure, Part, Scored, Task

VOCABULARY, LENGTH = 13, 8
HIDDEN = 12


def counting(count: int, seed: int) -> Tokens:
    """Sequences that go on in steps of 1 to 3, from anywhere: the step has to be seen to say what comes next."""
    chance = torch.Generator().manual_seed(seed)
    first = torch.randint(0, VOCABULARY, (count, 1), generator=chance)
    step = torch.randint(1, 4, (count, 1), generator=chance)
    return Tokens((first + step * torch.arange(LENGTH + 1)) % VOCABULARY)


def language() -> LanguageModelling:
    return LanguageModelling(counting(120, 0), counting(40, 1), counting(50, 2))


def another_language() -> LanguageModelling:
    return LanguageModelling(counting(120, 3), counting(40, 4), counting(50, 5))


def gpt2() -> nn.Module:
    """Its head is its embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model


class Context(nn.Module):
    """Says the next token from the last two."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.hidden, self.head = nn.Linear(16, 24), nn.Linear(24, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        now = self.embedding(ids)
        before = torch.cat([torch.zeros_like(now[:, :1]), now[:, :-1]], 1)
        said: Tensor = self.head(self.hidden(torch.cat([before, now], 2)).relu())
        return said


def few_words() -> nn.Module:
    return nn.Embedding(VOCABULARY, 4)


def rings(count: int, seed: int, kind: str) -> list[object]:
    """Rings of 3 to 7 nodes whose target is a sum over edges: a network has to pass messages to say it."""
    from torch_geometric.data import Data

    chance = torch.Generator().manual_seed(seed)
    graphs: list[object] = []
    for _ in range(count):
        nodes = int(torch.randint(3, 8, (), generator=chance))
        x, edges = torch.rand(nodes, 2, generator=chance), torch.arange(nodes)
        edge_index = torch.stack([edges, (edges + 1) % nodes])
        edge_attr = torch.rand(nodes, 1, generator=chance)
        total = (x[edge_index[0], 0] * edge_attr[:, 0]).sum()[None]
        y = total if kind == "regression" else (total > 1.2).long()
        graphs.append(Data(x=x, edge_index=edge_index, edge_attr=edge_attr, y=y))
    return graphs


def graph_numbers() -> GraphTask:
    return GraphTask(*(rings(count, seed, "regression") for seed, count in enumerate((80, 30, 40))), "regression")


def graph_classes() -> GraphTask:
    return GraphTask(
        *(rings(count, seed, "classification") for seed, count in enumerate((80, 30, 40))), "classification"
    )


class Gine(nn.Module):
    """Two layers of graph isomorphism with edge features, batch norm and a sum."""

    def __init__(self, outputs: int) -> None:
        from torch_geometric.nn import GINEConv

        super().__init__()
        self.nodes, self.edges = nn.Linear(2, HIDDEN), nn.Linear(1, HIDDEN)
        self.layers = nn.ModuleList(
            GINEConv(nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))) for _ in range(2)
        )
        self.norm, self.head = nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, outputs)

    def forward(self, data: object) -> Tensor:
        from torch_geometric.nn import global_add_pool

        x, edges = self.nodes(data.x), self.edges(data.edge_attr)
        for layer in self.layers:
            x = layer(x, data.edge_index, edges).relu()
        said: Tensor = self.head(self.norm(global_add_pool(x, data.batch)))
        return said


def gine() -> nn.Module:
    return Gine(1)


def gine_of_classes() -> nn.Module:
    return Gine(2)


def no_task() -> int:
    return 3


def failing() -> Task:
    raise TombolaError("no such\ntask today")


def digits() -> Task:
    """Classes in a task of somebody's own."""
    from tombola.data import DataConfig, load_data

    return Classification(load_data(DataConfig(name="digits"), 0))


class ByF1(Classification):
    compares = Measure("f1", higher_is_better=True, scale=100, unit="points")


def digits_by_f1() -> Task:
    from tombola.data import DataConfig, load_data

    return ByF1(load_data(DataConfig(name="digits"), 0))


class Scaled(LanguageModelling):
    """A loss of its own, by a setting that no data tell of."""

    def __init__(self, factor: float) -> None:
        super().__init__(counting(120, 0), counting(40, 1), counting(50, 2))
        self.factor = factor

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return self.factor * super().loss(model, batch)


class Lines(Task):
    """Numbers from plain tensors: examples (3,), whose sum is to be said."""

    name = "lines"
    compares = Measure("error", higher_is_better=False, unit="units")

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(0)
        self.parts = {part: torch.rand(40, 3, generator=chance) for part in ("train", "validation", "test")}
        self.criterion_loss = nn.functional.mse_loss

    @property
    def checksum(self) -> str:
        return "lines"

    def identity(self) -> tuple[str, ...]:
        return ("lines",)

    def count(self, part: Part) -> int:
        return len(self.parts[part])

    def batches(self, size: int, seed: int, augmentation: Sequence[Augmentation] = ()) -> Any:
        x, order = self.parts["train"], Order(40, size, seed)

        class Source:
            size, per_epoch = order.size, order.per_epoch

            def at(self, iteration: int) -> Tensor:
                return x[order.at(iteration)]

        return Source()

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.mse_loss(model(batch), batch.sum(1, keepdim=True))

    def scores(self, model: nn.Module, part: Part) -> Scored:
        with torch.no_grad():
            loss = float(self.loss(model, self.parts[part]))
        return Scored(loss, {"error": loss**0.5}, 40)

    def naive(self, part: Part) -> None:
        return None

    def scoring(self, size: int, count: int, seed: int) -> list[tuple[Any, Any]]:
        x = self.parts["train"][:size]
        return [(x, x.sum(1, keepdim=True))] * count

    def inputs(self, count: int, size: int) -> list[Tensor]:
        return list(self.parts["train"][:count].split(size))


def for_lines() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


def lines() -> Task:
    return Lines()
