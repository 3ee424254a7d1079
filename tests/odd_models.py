"""Models that do more in a forward pass than compute: a zoo for whoever claims to run a model without changing it.

`ZOO` names them: a function that makes the model (it has run once and has gradients), and one that makes its batches
of (inputs, targets). `everything_of` is all that must be as before, to the bit.
"""

from __future__ import annotations

import random
import threading
import warnings
import weakref
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.ao.quantization as quantisation
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

CLASSES = 3
Batches = list[tuple[Any, Tensor]]
Pair = namedtuple("Pair", "x extra")


class Net(nn.Module):
    """8 numbers, 16 hidden, 3 classes. What is odd is what a subclass does between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.between(torch.relu(self.a(x))))

    def between(self, h: Tensor) -> Tensor:
        return h


class Counts(Net):
    """Buffers that are written in place, replaced, grown; attributes, a class's, a list of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("cache", torch.zeros(0, 16))
        self.seen: list[Tensor] = []
        self.number = 0

    def between(self, h: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        self.cache = torch.cat([self.cache, h.detach()])
        self.seen.append(h)
        self.number += 1
        self.last = h
        return h


class ByBatch(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rm", torch.zeros(16))
        self.register_buffer("rv", torch.ones(16))

    def between(self, h: Tensor) -> Tensor:
        return functional.batch_norm(h, self.rm, self.rv, training=True)


class Chance(Net):
    """Draws from every stream, in evaluation, too, and turns torch's switches."""

    def between(self, h: Tensor) -> Tensor:
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        noise = torch.rand(1) + random.random() + np.random.rand()
        return h * (1 + noise * 0.01).to(h)


class Hooked(Net):
    """Hooks of every kind, one that closes over the model."""

    def __init__(self) -> None:
        super().__init__()
        self.features: list[Tensor] = []
        self.passes = 0
        self.a.register_forward_hook(lambda module, inputs, output: self.features.append(output))
        self.a.register_forward_pre_hook(self.count)
        self.b.register_full_backward_hook(lambda module, given, wanted: None)
        self.a.weight.register_hook(lambda gradient: self.features.append(gradient))

    def count(self, module: nn.Module, inputs: Any) -> None:
        self.passes += 1


class Closed(Net):
    """Its layer is called by a function that knows it from outside."""

    def __init__(self) -> None:
        super().__init__()
        norm = self.norm = nn.BatchNorm1d(16)
        self.step: Callable[[Tensor], Tensor] = lambda h: norm(h)

    def between(self, h: Tensor) -> Tensor:
        return self.step(h)


class InPlaceInputs(Net):
    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return super().forward(x)


class ReEntrant(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return checkpoint(self.b, h, use_reentrant=True)


class Checkpointed(Net):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


class Experts(Net):
    """Every other row goes to one of two experts; the third never has any."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])

    def between(self, h: Tensor) -> Tensor:
        index = torch.arange(len(h)) % 2
        out = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            rows = index == number
            out = out.index_put((rows,), expert(h[rows]))
        return out


class Attributes(Net):
    """Reads what its layers are."""

    def between(self, h: Tensor) -> Tensor:
        assert isinstance(self.b, nn.Linear)
        assert isinstance(self.b.weight, nn.Parameter)
        h = h.to(next(self.parameters()).device)
        return h.to(self.b.weight.dtype)[:, : self.b.in_features]


class Gradless(Net):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Answer(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return type("Answer", (), {"logits": logits})()


class Auxiliary(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits, logits.detach()


class Words(nn.Module):
    """Sequences of several lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.f = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, CLASSES)

    def forward(self, x: PackedSequence) -> Tensor:
        out, _ = pad_packed_sequence(self.r(x)[0], batch_first=True)
        return self.f(out[:, 0])


class Named(Net):
    def forward(self, batch: Pair) -> Tensor:
        return super().forward(batch.x)


class OfDictionary(Net):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["x"])


class Padded(nn.Module):
    """Torch's own encoder, whose fast path makes nested tensors of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.f = nn.Linear(8, 16), nn.Linear(16, CLASSES)
        self.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.t(self.e(x), src_key_padding_mask=x[..., 0] < 0)[:, 0])


class Locked(Net):
    """Holds what nothing can copy."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.more = {"lock": threading.Lock()}

    def between(self, h: Tensor) -> Tensor:
        with self.lock, self.more["lock"]:
            return h


class ByWeakReference(Net):
    """Writes past every copy: what a weak reference means is the original. Subclasses say what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))
        self.original = weakref.ref(self)

    def between(self, h: Tensor) -> Tensor:
        self.write(self.original(), h)
        return h

    def write(self, model: Any, h: Tensor) -> None:
        model.a.weight.data.mul_(0.9)


class ReplacesData(ByWeakReference):
    def write(self, model: Any, h: Tensor) -> None:
        model.a.weight.data = model.a.weight.data * 0.9


class ReplacesWeight(ByWeakReference):
    def write(self, model: Any, h: Tensor) -> None:
        model.a.weight = nn.Parameter(model.a.weight.detach() * 0.9)


class WritesBuffer(ByWeakReference):
    """The sign of a zero changes: equal values, other bits."""

    def write(self, model: Any, h: Tensor) -> None:
        if model.b.weight.grad is not None:  # not in its first pass
            model.mean[3] = -0.0


class ReplacesBuffer(ByWeakReference):
    def write(self, model: Any, h: Tensor) -> None:
        model.mean = 0.9 * model.mean + h.detach().mean(0)


class BindsBuffer(ByWeakReference):
    """Afterwards the buffer belongs to the graph of a pass."""

    def write(self, model: Any, h: Tensor) -> None:
        model.mean = model.mean.detach()
        model.mean.add_(h.mean(0))


class WritesGradient(ByWeakReference):
    def write(self, model: Any, h: Tensor) -> None:
        model.b.weight.grad = torch.ones_like(model.b.weight)


class Freezes(ByWeakReference):
    def write(self, model: Any, h: Tensor) -> None:
        if model.b.weight.grad is not None:  # not in its first pass
            model.eval().a.requires_grad_(False)


class WritesAndFails(ByWeakReference):
    def write(self, model: Any, h: Tensor) -> None:
        super().write(model, h)
        if model.a.weight.grad is not None:  # not in its first pass
            raise ValueError("enough")


_KNOWN: dict[str, Any] = {}


class ByGlobal(Net):
    def __init__(self) -> None:
        super().__init__()
        _KNOWN["a"] = self.a

    def between(self, h: Tensor) -> Tensor:
        _KNOWN["a"].weight.data.mul_(0.9)
        return h


class Holder:
    def __init__(self, held: nn.Module) -> None:
        self.held, self.lock = held, threading.Lock()


class ByHolder(Net):
    """The holder cannot be copied, so that it is the same object in a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder(self.a)

    def between(self, h: Tensor) -> Tensor:
        self.holder.held.weight.data.mul_(0.9)
        return h


class CallsHolder(ByHolder):
    def between(self, h: Tensor) -> Tensor:
        return h + self.holder.held(torch.zeros(1, 8))


class ByContainers(Net):
    """Functions that hold layers in lists, dictionaries, tuples and defaults: a copy can follow those."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[Any] = [{"b": (self.b,)}, object()]
        parts.append(parts)

        def step(h: Tensor, layer: nn.Module = self.a, *, more: Any = (self.b,)) -> Tensor:
            layer.weight.data.mul_(0.9)
            parts[0]["b"][0].bias.data.add_(0.1)
            more[0].weight.data.mul_(0.9)
            return h + layer(torch.zeros(1, 8))

        self.step = step

    def between(self, h: Tensor) -> Tensor:
        return self.step(h)


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(0)) / 2


def _shared() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, CLASSES))


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    model[2].weight = model[0].weight
    return model


def _mixed_modes() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, CLASSES))
    model[1].eval()
    model[0].requires_grad_(False)
    return model


def _prepared(training: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES)).train(training)
    model.qconfig = (quantisation.get_default_qat_qconfig if training else quantisation.get_default_qconfig)("x86")
    return quantisation.prepare_qat(model) if training else quantisation.prepare(model)


def _with(change: Callable[[nn.Module], Any], bias: bool = True) -> Callable[[], nn.Module]:
    """A network whose middle layer is changed by a function of torch's."""

    def make() -> nn.Module:
        middle = nn.Linear(16, 16, bias=bias)
        change(middle)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), middle, nn.ReLU(), nn.Linear(16, CLASSES))

    return make


def _of_dtype(dtype: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: Net().to(dtype)


def rows(dtype: torch.dtype = torch.float32) -> Batches:
    return [(torch.rand(6, 8).to(dtype), torch.tensor([0, 1, 2, 0, 1, 2])) for _ in range(2)]


def _each(make: Callable[[Tensor], Any]) -> Callable[[], Batches]:
    return lambda: [(make(x), y) for x, y in rows()]


def _packed(x: Tensor) -> PackedSequence:
    lengths = torch.arange(len(x)) % 3 + 1
    return pack_padded_sequence(x[:, None].expand(-1, 3, -1), lengths, batch_first=True, enforce_sorted=False)


def _padded(x: Tensor) -> Tensor:
    sequences = x[:, None].repeat(1, 4, 1)
    sequences[::2, 2:] = -1
    return sequences


def _quietly(change: Callable[..., Any]) -> Callable[[nn.Module], Any]:
    def changed(module: nn.Module) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its older functions deprecated
            return change(module)

    return changed


_MAKERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Batches]]] = {
    **{
        kind.__name__: (kind, rows)
        for kind in (Counts, ByBatch, Chance, Hooked, Closed, InPlaceInputs, ReEntrant, Checkpointed, Experts)
    },
    **{kind.__name__: (kind, rows) for kind in (Attributes, Gradless, Answer, Auxiliary, Locked)},
    "shared": (_shared, rows),
    "tied": (_tied, rows),
    "mixed modes": (_mixed_modes, rows),
    "quantisation-aware": (lambda: _prepared(training=True), rows),
    "calibrated": (lambda: _prepared(training=False), rows),
    "spectral norm": (_with(parametrizations.spectral_norm), rows),
    "older spectral norm": (_with(_quietly(nn.utils.spectral_norm)), rows),
    "weight norm": (_with(parametrizations.weight_norm), rows),
    "older weight norm": (_with(_quietly(nn.utils.weight_norm)), rows),
    "parametrised": (_with(lambda m: parametrize.register_parametrization(m, "weight", Symmetric())), rows),
    "log-softmax": (lambda: nn.Sequential(Net(), nn.LogSoftmax(1)), rows),
    "in parallel": (lambda: nn.DataParallel(Net()), rows),
    "packed": (Words, _each(_packed)),
    "named tuple": (Named, _each(lambda x: Pair(x, torch.zeros(len(x))))),
    "dictionary": (OfDictionary, _each(lambda x: {"x": x})),
    "padding": (Padded, _each(_padded)),
    "tokens": (
        lambda: nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(40, CLASSES)),
        _each(lambda x: torch.randint(9, (len(x), 5))),
    ),
    "bfloat16": (_of_dtype(torch.bfloat16), lambda: rows(torch.bfloat16)),
    "float64": (_of_dtype(torch.float64), lambda: rows(torch.float64)),
    "convolutions": (
        lambda: nn.Sequential(
            *(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, CLASSES))
        ),
        _each(lambda x: x[:, None]),
    ),
}
ZOO = tuple(_MAKERS)

REACHED: dict[str, str] = {
    **{kind.__name__: "a.weight" for kind in (ByWeakReference, ReplacesData, ReplacesWeight, WritesAndFails, ByGlobal)},
    **{kind.__name__: "mean" for kind in (WritesBuffer, ReplacesBuffer, BindsBuffer)},
    **{"WritesGradient": "the gradient of b.weight", "Freezes": "a.weight", "ByHolder": "a.weight", "CallsHolder": "a"},
}
"""Models that write to themselves, or call themselves, past any copy: what of them is reached. Not in `ZOO`."""
FOLLOWED = "ByContainers"
_MAKERS |= {name: (globals()[name], rows) for name in (*REACHED, FOLLOWED)}


def odd_model(name: str) -> tuple[nn.Module, Batches]:
    """A model that has run once and has gradients where it can have any, and two batches."""
    make, make_batches = _MAKERS[name]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        model, given = make(), make_batches()
        again = make_batches()[0]
        output = model(again[0])
        output = getattr(output, "logits", output[0] if isinstance(output, tuple) else output)
        if output.requires_grad:
            functional.cross_entropy(output.float(), again[1]).backward()
    return model, given


def everything_of(model: nn.Module) -> dict[str, Any]:
    """What must be as before: every tensor and which one it is, modes, hooks, attributes, random states, switches."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return {
        "tensors": {name: (id(t), t.detach().clone(), t.requires_grad) for name, t in tensors.items()},
        "gradients": {name: (id(p.grad), p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None},
        "attributes": {name: _attributes(module) for name, module in model.named_modules()},
        "random": (torch.get_rng_state(), str(np.random.get_state()), random.getstate()),
        "switches": (
            *(torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled, torch.is_grad_enabled()),
            *(torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()),
        ),
    }


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Values by name; what is no number or text by its identity, lists and dictionaries also by what lies in them."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, (int, float, str)):
            found[name] = value
        elif isinstance(value, dict):
            found[name] = id(value), [(str(key), id(part)) for key, part in value.items()]
        elif isinstance(value, list):
            found[name] = id(value), [id(part) for part in value]
        else:
            found[name] = id(value)
    return found


def assert_same(before: Any, after: Any) -> None:
    """Equal to the bit, NaN included."""
    if isinstance(before, Tensor):
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    elif isinstance(before, dict):
        assert list(before) == list(after)
        for key, value in before.items():
            assert_same(value, after[key])
    elif isinstance(before, (tuple, list)):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    else:
        assert before == after
