"""What tuning tries: kernels that can run inside the network, whatever is measured to be the fastest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tombola import prune, sparsify
from tombola.compression import sparse_modules
from tombola.compression.calls import Panels, call_of
from tombola.compression.graphs import tuning
from tombola.compression.graphs.arrays import GraphArrays
from tombola.compression.graphs.symbolic import UnsupportedError
from tombola.compression.graphs.tracing import trace
from tombola.compression.graphs.tuning import panel_choices, tune_graph
from tombola.compression.plans import Choice, Form, Kernel, Plan
from tombola.compression.sparse_modules import SparseChain
from tombola.compression.tuning import plan_on_torch


class Transition(nn.Module):
    """As where a ResNet halves its images: one value read by a padded convolution and by one of single positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(channels, 8, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + self.shortcut(x))


def arrays_of(model: nn.Module, *shape: int) -> GraphArrays:
    return GraphArrays(trace([("", model.eval())], {}, (1, *shape)))


@pytest.mark.parametrize("lanes", [16, 64])
def test_every_choice_of_a_panel_runs_inside_the_network(lanes: int) -> None:
    """Borders and spare positions of a value that several read make its channels longer than for one alone."""
    torch.manual_seed(0)
    model, x = Transition(256), torch.randn(4, 256, 14, 14)
    arrays = arrays_of(model, 256, 14, 14)
    candidates = [panel_choices(arrays, number, lanes) for number in arrays.numbers]
    for choices in zip(*([own[0], own[-2]] for own in candidates), strict=True):
        y = torch.empty(4, 8, 7, 7)
        call_of(arrays, Plan(4, 4, Form.PANELS, choices, panel=lanes), 4)(x.data_ptr(), y.data_ptr())
        assert torch.allclose(y, model(x), atol=1e-4)


def test_large_images_go_one_by_one_in_any_batch() -> None:
    """Panels do not count so many positions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()).eval()
    masks, x = prune(model, 0.8), torch.randn(10, 1, 260, 260)
    arrays = arrays_of(model, 1, 260, 260)
    assert panel_choices(arrays, 0, 16) == [Choice(Kernel.DENSE)]
    plan = tune_graph(arrays, x, 10, 10)
    assert plan.form in (Form.VECTORS, Form.TORCH)
    sparse = sparsify(model, masks, x[:1], (1, 10))
    masks.apply_(model)
    for count in (1, 8, 9, 17):
        batch = torch.randn(count, 1, 260, 260)
        assert torch.allclose(sparse(batch), model(batch), atol=1e-5)
    one_by_one = Plan(10, 10, Form.VECTORS, (Choice(Kernel.ALL_WINDOWS, 1),))
    y = torch.empty(10, 2, 260, 260)
    call_of(arrays_of(model, 1, 260, 260), one_by_one, 10)(x.data_ptr(), y.data_ptr())
    assert torch.allclose(y, model(x), atol=1e-5)


def test_which_panels_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = arrays_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), 1, 8, 8)
    tried: list[tuple[str, int]] = []

    def by_panel(arrays: GraphArrays, x: Tensor, batch: int, panel: int) -> Plan:
        tried.append(("panels", panel))
        return Plan(batch, len(x), Form.PANELS, (Choice(Kernel.PANEL, 1),), panel=panel)

    def by_image(arrays: GraphArrays, example: Tensor, batch: int, rows: int) -> Plan:
        tried.append(("images", rows))
        return Plan(batch, rows, Form.VECTORS, (Choice(Kernel.ALL_WINDOWS, 1),))

    monkeypatch.setattr(tuning, "_by_panel", by_panel)
    monkeypatch.setattr(tuning, "_by_image", by_image)
    lanes = tuning.host().lanes
    wanted = {
        1: [("images", 1)],
        4: [("images", 4), ("panels", lanes)],
        9: [("panels", lanes)],
        64: [("panels", lanes), ("panels", 64)],
    }
    for rows, ways in wanted.items():
        tried.clear()
        tune_graph(arrays, torch.randn(2, 1, 8, 8), rows, rows)
        assert tried == ways
    tried.clear()
    monkeypatch.setattr(tuning, "WIDE_PANELS_UP_TO", 0)
    tune_graph(arrays, torch.randn(2, 1, 8, 8), 64, 64)
    assert tried == [("panels", lanes)]


def test_weights_that_no_plan_needs_are_forgotten() -> None:
    arrays = arrays_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)), 1, 8, 8)
    for kernel in (Kernel.ALL_WINDOWS, Kernel.DENSE):
        arrays.compile(Plan(1, 1, Form.VECTORS, (Choice(kernel, 1), Choice(Kernel.ROWS))), 1)
    arrays.keep_only([Plan(1, 1, Form.VECTORS, (Choice(Kernel.ALL_WINDOWS, 1), Choice(Kernel.ROWS)))])
    assert [key[:3] for key in arrays._packed] == [(0, Kernel.ALL_WINDOWS, 1)]
    assert not arrays._dense
    assert not arrays.linear._dense


def test_torch_between_kernels_is_not_spread_over_threads() -> None:
    """It has threads of its own."""
    arrays = arrays_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), 1, 8, 8)
    for second, spread in ((Choice(Kernel.PANEL, 4), True), (Choice(Kernel.DENSE), False)):
        plan = Plan(64, 64, Form.PANELS, (Choice(Kernel.PANEL, 1), second), seconds=1.0, panel=16)
        call = call_of(arrays, plan, 64)
        assert isinstance(call, Panels)
        assert call._spread == spread


def test_a_new_batch_size_is_measured_on_its_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On all ways that are known, and once: no rule tells between panels that are not full, one by one and torch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval()
    graph = trace([("", model)], {}, (1, 1, 8, 8))
    ways = [Plan(1, 1, Form.VECTORS, (Choice(Kernel.ALL_WINDOWS, 1),), 1.0, 2.0)]
    ways += [Plan(64, 64, Form.PANELS, (Choice(Kernel.PANEL, 1),), 1.0, 2.0, panel=16)]
    sparse = SparseChain(graph, [*ways, plan_on_torch(graph.layers, 7)])
    asked: list[tuple[list[Form], int]] = []

    def best_of(arrays: GraphArrays, plans: list[Plan], x: Tensor) -> Plan:
        asked.append(([plan.form for plan in plans], len(x)))
        return plans[-1]

    monkeypatch.setattr(sparse_modules, "best_of", best_of)
    for count in (20, 20, 9, 64, 1, 7, 0):
        x = torch.randn(count, 1, 8, 8)
        assert torch.allclose(sparse(x), model(x), atol=1e-5)
    assert asked == [([Form.VECTORS, Form.PANELS], 20), ([Form.VECTORS, Form.PANELS], 9)]


def test_a_pool_with_too_large_a_table_stays_with_torch() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(65, 1, 32)).eval()
    with pytest.raises(UnsupportedError, match="a pool of 65 × 65 in so many places"):
        trace([("", model)], {}, (1, 1, 300, 300))
