"""An accelerator without numbers: one step of every task, evolution, optimizer and criterion on it.

Run as a script: it registers a device with torch, which no other test should meet, and prints what went wrong, by case.
Tensors know their shapes and their device and nothing else, and to mix devices is an error, as it is on a real one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from tombola.data import DataSet, Examples
from tombola.pruning import Mask, Masks, criteria, precision
from tombola.pruning.criteria import ScoringContext, make_criterion
from tombola.training import Classification, Dynamic, Gradual, GraphTask, LanguageModelling, Recipe, Task, Tokens
from tombola.training import batches as batches_module
from tombola.training import evolution as evolution_module
from tombola.training import graphs as graphs_module
from tombola.training import metrics as metrics_module
from tombola.training.completions import Completions, Mixed
from tombola.training.sentences import Sentences
from tombola.training.statistics import reestimate_statistics
from tombola.training.training import Training

DEVICE = "fake"
AS_MPS = " where there is no float64"
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 1e-2},
}


def examples(count: int) -> Examples:
    return Examples(torch.rand(count, 3, 8, 8), torch.arange(count) % 4)


def classification() -> tuple[Task, nn.Module]:
    data = DataSet("own", examples(30), examples(8), examples(8), 4, "own")
    head = (nn.Flatten(), nn.Dropout(), nn.Linear(216, 4), nn.BatchNorm1d(4))
    layers = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), *head)
    return Classification(data), nn.Sequential(*layers)


def language() -> tuple[Task, nn.Module]:
    tokens = Tokens(torch.arange(90).reshape(10, 9) % 7)
    model = nn.Sequential(nn.Embedding(7, 8), nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), nn.Linear(8, 7))
    return LanguageModelling(tokens, tokens, tokens), model


def completions() -> tuple[Task, nn.Module]:
    return some_completions(0), language()[1]


def gradual_change() -> tuple[Task, nn.Module]:
    return Mixed(some_completions(0), some_completions(1), 20, seed=0), language()[1]


def some_completions(first: int) -> Completions:
    ids = (torch.arange(60).view(10, 6) + first) % 5
    counted = torch.ones(10, 5, dtype=torch.bool)
    parts = (slice(0, 6), slice(6, 10))
    return Completions(*(Sentences(ids[part], counted[part], torch.full((len(ids[part]),), 6)) for part in parts))


def graphs() -> tuple[Task, nn.Module]:
    from torch_geometric.data import Data
    from torch_geometric.nn import GINEConv, global_add_pool

    class Gine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = GINEConv(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8)))
            self.head = nn.Linear(8, 1)

        def forward(self, data: Any) -> Tensor:
            x = self.first(data.x, data.edge_index, data.edge_attr)
            found: Tensor = self.head(global_add_pool(x, data.batch, len(data.y)))
            return found

    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    ring = Data(x=torch.ones(3, 3), edge_index=edges, edge_attr=torch.ones(3, 3), y=torch.ones(1))
    return GraphTask([ring] * 6, [ring] * 2, [ring] * 2, "regression"), Gine()


TASKS: dict[str, Callable[[], tuple[Task, nn.Module]]] = {
    "classification": classification,
    "language": language,
    "completions": completions,
    "completions, gradually": gradual_change,
    "graphs": graphs,
}


def chosen(**more: Any) -> Recipe:
    return Recipe(**{"length": "20it", "evaluate_every": "10it", "batch_size": 5, "ema": 0.5, **more})


def everything_on(device: torch.device, tensors: Any) -> None:
    odd = [name for name, tensor in dict(tensors).items() if tensor.device != device]
    assert not odd, f"{odd} are not on {device}"


def half(model: nn.Module) -> Masks:
    """Masks of every second weight, on the CPU, as files give them."""
    return Masks({name: Mask(torch.arange(mask.total).view(mask.shape) % 2 == 0) for name, mask in full(model).items()})


def full(model: nn.Module) -> Masks:
    return Masks({name: Mask.full(mask.shape) for name, mask in Masks.full(model).items()})


def training(make: Callable[[], tuple[Task, nn.Module]], mode: FakeTensorMode, **more: Any) -> Any:
    task, model = make()
    masks = half(model)
    evolution = more.pop("evolution", None)
    with mode:
        begun = Training(moved(model, mode), task, chosen(**more), masks, 0, 0, evolution)
    assert begun.device.type == DEVICE
    return begun


def moved(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """`model.to(device)`: a real model cannot go there, its parameters are made anew."""
    device = torch.device(DEVICE, 0)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                made = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(made, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return model


def one_step(begun: Any, mode: FakeTensorMode) -> None:
    with mode:
        begun.advance()
        begun.advance()
        everything_on(begun.device, begun.engine.state)
        everything_on(begun.device, {"weights": begun.engine.vector, "average": begun.average.values})
        everything_on(begun.device, dict(begun.model.named_parameters()) | dict(begun.model.named_buffers()))
        with begun.average.in_place():
            everything_on(begun.device, {name: p.grad for name, p in begun.model.named_parameters()})
        begun.engine.evaluate("validation")


def of_task(name: str) -> Callable[[FakeTensorMode], None]:
    return lambda mode: one_step(training(TASKS[name], mode), mode)


def of_batches_elsewhere(mode: FakeTensorMode) -> None:
    """Scores of heads are computed from batches of a task that nobody moved."""
    task, model = completions()
    with mode:
        model = moved(model, mode)
        assert task.loss(model, task.batches(4, 0).at(0)).device.type == DEVICE
        task.scores(model, "validation")


def of_optimizer(name: str) -> Callable[[FakeTensorMode], None]:
    return lambda mode: one_step(training(classification, mode, **OPTIMIZERS[name]), mode)


def of_augmentation(mode: FakeTensorMode) -> None:
    one_step(training(classification, mode, augmentation=("flip", "crop")), mode)


def of_statistics(mode: FakeTensorMode) -> None:
    task, model = classification()
    with mode:
        reestimate_statistics(moved(model, mode), task, 8, 4)


def of_evolution(evolution: Any) -> Callable[[FakeTensorMode], None]:
    def case(mode: FakeTensorMode) -> None:
        begun = training(classification, mode)
        begun.evolution = evolution
        with mode:
            begun.advance()
            begun._replace_masks(evolution.next_masks(begun._moment(), 0.7))
            everything_on(begun.device, {name: mask.keep for name, mask in begun.masks.items()})
            begun.advance()

    return case


def of_criterion(name: str) -> Callable[[FakeTensorMode], None]:
    """Scores, of a network under masks from files and of batches that a task draws."""

    def case(mode: FakeTensorMode) -> None:
        task, model = classification()
        masks = half(model)
        with mode:
            model = moved(model, mode)
            drawn = task.on(torch.device(DEVICE, 0)).scoring(4, 1, 0)
            scores_of(name, model, masks, drawn)

    return case


def without_float64(case: Callable[[FakeTensorMode], None]) -> Callable[[FakeTensorMode], None]:
    """The case on a device that has no numbers of 64 bits, as mps has none."""

    def called(mode: FakeTensorMode) -> None:
        precision.WITHOUT_FLOAT64.add(DEVICE)
        try:
            with Float64Refused():
                case(mode)
        finally:
            precision.WITHOUT_FLOAT64.remove(DEVICE)

    return called


class Float64Refused(TorchFunctionMode):
    """Refuses what gives numbers of 64 bits on the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.dtype == torch.float64 and found.device.type == DEVICE:
            raise TypeError(f"{func} gives float64 on the device")
        return found


def scores_of(name: str, model: nn.Module, masks: Masks, drawn: Any) -> None:
    device = next(model.parameters()).device
    scores = make_criterion(name)(model, ScoringContext(0, drawn, masks=masks.of(model)))
    for name, score in scores.items():  # on the CPU they are ranked
        assert score.is_cpu or score.device == device, f"{name} is elsewhere"


def pruned(model: nn.Module, sparsity: float, criterion: str, *rest: Any, **more: Any) -> Masks:
    """What `prune` would do up to the choice, for which numbers are needed."""
    masks, drawn = rest[2], rest[3]
    scores_of(criterion, model, masks, drawn)
    return masks.of(model)


def lowest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    assert among is None or among.device == scores.device
    return torch.zeros_like(scores, dtype=torch.bool)


def fused_sgd(*lists: list[Tensor], **settings: Any) -> None:
    """In the place of the fused kernel, which does not exist without numbers."""
    assert len({tensor.device for tensors in lists for tensor in tensors}) == 1


def macro_f1(predicted: Tensor, targets: Tensor) -> float:
    assert predicted.is_cpu
    assert targets.is_cpu
    return 1.0


def double(model: nn.Module) -> nn.Module:
    return changed(model, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def cpu(model: nn.Module) -> nn.Module:
    return changed(model, lambda tensor: tensor.cpu())


def changed(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Torch's own way exchanges the content of parameters, which fake ones do not let it."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(change(parameter.detach()))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = change(buffer)
    return model


CASES: dict[str, Callable[[FakeTensorMode], None]] = {
    **{f"task {name}": of_task(name) for name in TASKS},
    **{f"optimizer {name}": of_optimizer(name) for name in OPTIMIZERS},
    "batches elsewhere": of_batches_elsewhere,
    f"batches elsewhere{AS_MPS}": without_float64(of_batches_elsewhere),
    "augmentation": of_augmentation,
    "statistics": of_statistics,
    **{
        f"evolution {name}": of_evolution(evolution)
        for name, evolution in {
            "gradual": Gradual(criterion="taylor", sparsity=0.8, every="5it", end="10it"),
            "set": Dynamic(method="set", sparsity=0.5, every="5it"),
            "rigl": Dynamic(method="rigl", sparsity=0.5, every="5it"),
        }.items()
    },
    **{f"criterion {name}": of_criterion(name) for name in criteria},
    **{f"criterion {name}{AS_MPS}": without_float64(of_criterion(name)) for name in criteria},
}


def without_values(mode: FakeTensorMode) -> None:
    """Puts what reads numbers, and is nothing of a device, out of the way, for the rest of this process."""
    to = Tensor.to

    def outside(function: Callable[..., Any]) -> Callable[..., Any]:
        """With numbers."""

        def called(*arguments: Any) -> Any:
            with unset_fake_temporarily():
                return function(*arguments)

        return called

    def moved_to(tensor: Tensor, *arguments: Any, **more: Any) -> Tensor:
        """The mode takes a real tensor that is moved for a constant, and tries to move its numbers."""
        active = _get_current_dispatch_mode() is mode
        fake = mode.from_tensor(tensor) if active and type(tensor) is Tensor else tensor
        return to(fake, *arguments, **more)

    dynamic, Order = sys.modules["tombola.pruning.dynamic"], batches_module.Order  # noqa: N806
    for module, name, instead in (
        (batches_module, "epoch_order", outside(batches_module.epoch_order)),
        (graphs_module, "Order", type("Order", (Order,), {"at": outside(Order.at)})),
        (graphs_module, "together", outside(graphs_module.together)),
        (Tensor, "to", moved_to),
        (FakeTensor, "__bool__", lambda tensor: True),
        (FakeTensor, "__float__", lambda tensor: 1.0),
        (FakeTensor, "__int__", lambda tensor: 1),
        (FakeTensor, "item", lambda tensor: 1.0),
        (torch, "_fused_sgd_", fused_sgd),
        (metrics_module, "macro_f1", macro_f1),
        (nn.Module, "double", double),
        (nn.Module, "cpu", cpu),
        (Training, "_fingerprint", lambda training: ""),
        (evolution_module, "prune", pruned),
        (dynamic, "lowest", lowest),
        (dynamic, "_check_scores", lambda *_: None),
        (Mask, "kept", property(lambda mask: mask.total // 2)),
    ):
        setattr(module, name, instead)


def main() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(DEVICE)
    found: dict[str, str | None] = {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    without_values(mode)
    for name, case in CASES.items():
        try:
            case(mode)
            found[name] = None
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
