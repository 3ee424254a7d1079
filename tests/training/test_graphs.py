"""Graphs and a two-layer GINE: learned, held, killed and resumed, for numbers and for classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_steps import kill_at, recipe
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import DataError, TrainingError
from tombola.models.tensors import content_sha256
from tombola.pruning import Masks, prune
from tombola.training import Gradual, batches, fit
from tombola.training.batches import epoch_order
from tombola.training.graphs import GraphTask
from tombola.training.statistics import reestimate_statistics
from tombola.training.trained import Trained

pytest.importorskip("torch_geometric")

from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINEConv, global_add_pool

Kind = Literal["regression", "classification"]
KINDS: tuple[Kind, ...] = ("regression", "classification")
HIDDEN = 12


def drawn(count: int, seed: int, kind: Kind) -> list[Data]:
    """Rings of 3 to 7 nodes whose target is a sum over edges: a network has to pass messages to say it."""
    chance = torch.Generator().manual_seed(seed)
    graphs = []
    for _ in range(count):
        nodes = int(torch.randint(3, 8, (), generator=chance))
        x, edges = torch.rand(nodes, 2, generator=chance), torch.arange(nodes)
        edge_index = torch.stack([edges, (edges + 1) % nodes])
        edge_attr = torch.rand(nodes, 1, generator=chance)
        total = (x[edge_index[0], 0] * edge_attr[:, 0]).sum()[None]
        y = total if kind == "regression" else (total > 1.2).long()
        graphs.append(Data(x=x, edge_index=edge_index, edge_attr=edge_attr, y=y))
    return graphs


def task_of(kind: Kind) -> GraphTask:
    return GraphTask(drawn(120, 0, kind), drawn(30, 1, kind), drawn(40, 2, kind), kind)


class Always(nn.Module):
    """Says the same of every graph."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, data: Any) -> Tensor:
        return self.answer.expand(data.num_graphs, -1)


class Gine(nn.Module):
    """Two layers of graph isomorphism with edge features (Hu et al. 2020, arXiv 1905.12265), batch norm and a sum."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nodes, self.edges = nn.Linear(2, HIDDEN), nn.Linear(1, HIDDEN)
        self.layers = nn.ModuleList(
            GINEConv(nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))) for _ in range(2)
        )
        self.norm, self.head = nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, outputs)

    def forward(self, data: Batch) -> Tensor:
        x, edges = self.nodes(data.x), self.edges(data.edge_attr)
        for layer in self.layers:
            x = layer(x, data.edge_index, edges).relu()
        return self.head(self.norm(global_add_pool(x, data.batch)))


def gine(kind: Kind) -> Gine:
    return Gine(1 if kind == "regression" else 2)


def trained(task: GraphTask, **more: Any) -> tuple[nn.Module, Trained]:
    model = gine(task.kind)
    chosen = recipe(learning_rate=1e-2, length="60it", evaluate_every="15it", batch_size=25, ema=0.2)
    return model, fit(model, task, chosen, prune(model, 0.4), 5, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_gine_learns_under_masks_and_goes_on_after_a_kill(kind: Kind, tmp_path: Path) -> None:
    task = task_of(kind)
    model, whole = trained(task)
    assert whole.early_stop.loss < 0.8 * task.scores(gine(kind), "validation").loss
    assert whole.masks.removed_nonzeros(model) == 0
    again: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        trained(task, on_evaluation=kill_at(45), **again)
    resumed, end = trained(task_of(kind), **again)
    assert end.evaluations == whole.evaluations
    assert content_sha256(resumed.state_dict()) == content_sha256(model.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_over_all_graphs(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.training.graphs.CHUNK", 7)
    task, model = task_of(kind), gine(kind).train()
    scored = task.scores(model, "test")
    assert model.training
    batch = Batch.from_data_list(drawn(40, 2, kind))
    with torch.no_grad():
        given = model.eval()(batch)
    assert scored.each is not None
    if kind == "regression":
        errors = given[:, 0] - batch.y
        torch.testing.assert_close(scored.each, errors.abs())
        assert scored.loss == pytest.approx(float(errors.square().mean()), rel=1e-5)
        assert scored.values["rmse"] ** 2 == pytest.approx(scored.loss)
        assert scored.values["mae"] == pytest.approx(float(errors.abs().mean()), rel=1e-5)
    else:
        assert scored.loss == pytest.approx(float(functional.cross_entropy(given, batch.y)), rel=1e-5)
        assert scored.each.tolist() == (given.argmax(1) == batch.y).float().tolist()
        assert scored.accuracy == pytest.approx(float(scored.each.mean()))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_may_change_by_a_criterion_that_looks_at_data(kind: Kind) -> None:
    task, model = task_of(kind), gine(kind)
    evolution = Gradual(criterion="taylor", sparsity=0.5, every="5it", end="10it")
    found = fit(model, task, recipe(length="15it"), Masks.full(model), 5, evolution=evolution)
    assert found.masks.sparsity == pytest.approx(0.5, abs=2e-3)
    assert found.masks.removed_nonzeros(model) == 0


def test_statistics_are_estimated_over_graphs() -> None:
    task, model = task_of("regression"), gine("regression")
    reestimate_statistics(model, task, 50, batch=50)
    seen: list[Tensor] = []
    model.norm.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model.eval()(Batch.from_data_list(drawn(50, 0, "regression")))
    torch.testing.assert_close(model.norm.running_mean, seen[0].mean(0))


@given(answer=st.floats(-2, 4, width=32), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_no_answer_for_all_graphs_is_better_than_the_naive_one(answer: float, seed: int) -> None:
    """Of a target that is far from symmetric, whose mean a median beats."""
    chance = torch.Generator().manual_seed(seed)

    def graphs(count: int) -> list[Data]:
        targets = torch.empty(count).exponential_(generator=chance)
        return [Data(x=torch.zeros(1, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64), y=y[None]) for y in targets]

    task = GraphTask(graphs(15), graphs(3), graphs(24), "regression")
    model = Always(torch.tensor([answer]))
    assert task.scores(model, "test").values["mae"] >= task.naive("test").values["mae"] - 1e-9
    learned = task.targets("train")
    assert task.naive("train").loss == pytest.approx(float(learned.var(correction=0)))  # what squares are least of


def test_the_most_frequent_class_is_no_better_than_itself() -> None:
    """3 of 5 right: as float32 numbers their mean is more than the fraction."""
    graphs = [
        Data(x=torch.zeros(2, 2), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([n > 2]).long()) for n in range(5)
    ]
    task = GraphTask(graphs, graphs, graphs, "classification")
    assert task.scores(Always(torch.tensor([1.0, 0.0])), "test").accuracy == 3 / 5
    assert task.naive("test").accuracy == 3 / 5


@pytest.mark.parametrize("count", [7, 9, 10, 11, 14, 21])
def test_statistics_are_estimated_over_even_passes(count: int) -> None:
    """A graph that is left over has no variance of its own."""
    task, model = GraphTask(*(drawn(count, seed, "regression") for seed in range(3)), "regression"), gine("regression")
    sizes = [batch.num_graphs for batch in task.inputs(100, 10)]
    assert (sum(sizes), max(sizes) - min(sizes) <= 1) == (count, True)
    reestimate_statistics(model, task, 100, batch=10)


def test_a_model_may_write_into_its_batch() -> None:
    """As many do (`data.x = ...`): every batch is made anew."""
    task = task_of("regression")
    task.batches(10, 0).at(0).x.zero_()
    assert task.batches(10, 0).at(0).x.any()
    assert task.identity() == task_of("regression").identity()


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(batches, "epoch_order", lambda *epoch: drawn.append(epoch) or epoch_order(*epoch))
    task = task_of("regression")
    source = task.batches(50, 4)
    targets = torch.cat([source.at(iteration).y for iteration in range(6)])
    task.scoring(50, 3, 4)
    assert drawn == [(120, 4, 0), (120, 4, 1), (120, 4, 0)]
    every = torch.cat([graph.y for graph in task.parts["train"]])
    assert torch.equal(targets, torch.cat([every[epoch_order(120, 4, epoch)] for epoch in (0, 1)]))


@pytest.mark.parametrize(
    ("y", "kind", "said"),
    [
        (None, "regression", "one row of torch.float32 for regression, not NoneType"),
        (torch.rand(5), "regression", r"not \(5,\) of torch.float32"),
        (torch.rand(1), "classification", r"torch.int64 for classification, not \(1,\) of torch.float32"),
        (torch.tensor(1.0), "regression", r"not \(\) of"),
        (torch.tensor([float("nan")]), "regression", r"y is \[nan\], which is not finite"),
        (torch.tensor([[1.0, -float("inf")]]), "regression", r"y is \[\[1.0, -inf\]\], which is not finite"),
        (torch.tensor([-1]), "classification", r"one class, counted from 0, not \[-1\]"),
        (torch.tensor([[1]]), "classification", r"not \[\[1\]\]"),
    ],
)
def test_targets_that_are_none_of_a_graph_are_refused(y: Tensor | None, kind: Kind, said: str) -> None:
    good = drawn(3, 0, kind)
    odd = Data(x=good[0].x, edge_index=good[0].edge_index, edge_attr=good[0].edge_attr, y=y)
    with pytest.raises(DataError, match=f"validation graph 1: .*{said}"):
        GraphTask(good, [good[0], odd], good, kind)
    with pytest.raises(DataError, match="the test part has no graph"):
        GraphTask(good, good, [], kind)


@pytest.mark.parametrize(
    ("kind", "outputs", "said"),
    [
        ("regression", 3, r"shape \(30, 3\) for 30 graphs, not 1 number each"),
        ("classification", 1, r"shape \(30, 1\) for 30 graphs, not logits of 2 classes or more"),
    ],
)
def test_answers_of_something_else_are_refused_in_one_line(kind: Kind, outputs: int, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        task_of(kind).scores(Gine(outputs), "validation")
    with pytest.raises(TrainingError, match="the model fails on 30 graphs: TypeError"):
        task_of(kind).scores(nn.Linear(2, 2), "validation")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("regression")
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(TrainingError, match=r"pip install 'tombola\[graphs\]'"):
        task.batches(5, 0).at(0)


def test_fast_paths_are_not_taken() -> None:
    model, task = gine("classification"), task_of("classification")
    with pytest.raises(TrainingError, match="knows classification only, and this task is graph classification"):
        fit(model, task, recipe(engine="sparse"), prune(model, 0.4), 5)
