"""Saving refuses what loading would refuse, in one line and leaving nothing behind; wrappers make no difference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.optim.swa_utils import AveragedModel

from tombola.compression.ticket import write_ticket
from tombola.errors import ModelError, TombolaError
from tombola.models import FactorySpec, ModelSpec, build, load_model, save_model
from tombola.models.saving import masks_of
from tombola.models.tensors import load_tensors
from tombola.models.weights import load_weights
from tombola.pruning import Masks, prune

SPEC = ModelSpec(input_shape=(1, 4, 4), classes=3, seed=11, widths=(6, 5))
OWN = FactorySpec(factory="nets:make", input_shape=(8,), classes=3)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def compiled_inside(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    name = next(name for name, child in model.named_children() if isinstance(child, nn.Linear))
    setattr(model, name, compiled(getattr(model, name)))
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(compiled(model)),
    "both, the other way": lambda model: compiled(nn.DataParallel(model)),
    "averaged": AveragedModel,
    "one layer": compiled_inside,
}


def assert_same(one: nn.Module, other: nn.Module) -> None:
    found, expected = one.state_dict(), other.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("of_zoo", [True, False])
def test_a_wrapped_model_is_saved_as_the_model_inside(wrapper: str, of_zoo: bool, tmp_path: Path) -> None:
    spec, model = (SPEC, build(SPEC)) if of_zoo else (OWN, make())
    factory = None if of_zoo else make
    wrapped = WRAPPERS[wrapper](model)
    for number, masks in enumerate((prune(model, 0.5), prune(wrapped, 0.5))):
        folder = tmp_path / str(number)
        save_model(folder, spec, wrapped, masks)
        loaded, _, loaded_masks = load_model(folder, factory)
        assert_same(loaded, model)
        assert loaded_masks is not None
        assert list(loaded_masks.items()) == list(prune(model, 0.5).items())
    save_model(tmp_path / "plain", spec, model, prune(wrapped, 0.5))
    assert load_model(tmp_path / "plain", factory)[2] == masks
    write_ticket(tmp_path / "ticket", SPEC, wrapped, masks, {})
    assert set(load_tensors(tmp_path / "ticket" / "winning_ticket.safetensors")[0]) == set(model.state_dict())


def test_a_factory_may_wrap_as_it_likes(tmp_path: Path) -> None:
    model = make()
    save_model(tmp_path / "m", OWN, model, prune(model, 0.5))
    for wrapper in WRAPPERS.values():
        loaded, _, masks = load_model(tmp_path / "m", lambda wrapper=wrapper: wrapper(make()))
        assert masks is not None
        assert masks.parameters_of(loaded).keys() == masks.keys() <= loaded.state_dict().keys()


PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_wrapped_models_are_read_into_plain_ones_and_back(prefix: str, suffix: str, tmp_path: Path) -> None:
    state = make().state_dict()
    for number, names in enumerate(((prefix, ""), ("", prefix))):
        path = tmp_path / f"{number}{suffix}"
        tensors = {names[0] + name: tensor for name, tensor in state.items()}
        (torch.save if suffix == ".pt" else safetensors.torch.save_file)(tensors, path)
        model = make()
        nn.init.zeros_(model[0].weight)
        into = compiled(model) if names[1] else model
        load_weights(into, path)
        assert_same(model, make())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_state_dicts_as_training_scripts_save_them(wrapper: str, tmp_path: Path) -> None:
    torch.save({"state_dict": WRAPPERS[wrapper](make()).state_dict(), "epoch": 3}, tmp_path / "w.pt")
    model = make()
    nn.init.zeros_(model[0].weight)
    load_weights(model, tmp_path / "w.pt")
    assert_same(model, make())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight


class TestSharedTensors:
    @pytest.mark.parametrize("left_out", ["first.weight", "last.weight"])
    def test_one_name_is_enough(self, left_out: str, tmp_path: Path) -> None:
        """As safetensors' own `save_model` stores a tied weight."""
        source, model = Tied(), Tied()
        state = {name: tensor.clone() for name, tensor in source.state_dict().items() if name != left_out}
        safetensors.torch.save_file(state, tmp_path / "w.safetensors")
        load_weights(model, tmp_path / "w.safetensors")
        assert_same(model, source)

    def test_two_names_must_agree(self, tmp_path: Path) -> None:
        state = Tied().state_dict() | {"last.weight": torch.ones(8, 8)}
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"first\.weight and last\.weight are one tensor in this model, here they"):
            load_weights(Tied(), tmp_path / "w.pt")


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None:
        pass


class WithBuffer(nn.Module):
    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)
        self.register_buffer("table", buffer)

    def forward(self, inputs: Tensor) -> Any:
        return self.layer(inputs)


def pruned_by_torch() -> nn.Module:
    model = make()
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def with_buffer(name: str) -> nn.Module:
    model = make()
    model.register_buffer(name, torch.ones(2))
    return model


def freed() -> nn.Module:
    model = make()
    model[0].weight.untyped_storage().resize_(0)
    return model


def cut() -> nn.Module:
    buffer = torch.ones(9, dtype=torch.int16)[4:]
    buffer.untyped_storage().resize_(16)
    return WithBuffer(buffer)


def two_of_one_name(beside: bool) -> nn.Module:
    """Children of the names that wrappers give, without a wrapper."""
    model = WithBuffer(torch.ones(3)) if beside else nn.Module()
    model.add_module("_orig_mod", WithBuffer(torch.ones(3)))
    if not beside:
        model.add_module("module", WithBuffer(torch.ones(3)))
    return model


@torch.inference_mode()
def made_in_inference_mode() -> nn.Module:
    return make()


def hooked(hook: Callable[[dict[str, Any]], object]) -> nn.Module:
    model = make()
    model._register_state_dict_hook(lambda module, state, prefix, metadata: hook(state))
    return model


class Failing(nn.Linear):
    def get_extra_state(self) -> Any:
        raise RuntimeError("no\nstate")


class OtherState(nn.Linear):
    """A layer whose state dict is whatever it was told to be."""

    def __init__(self, state: Any) -> None:
        super().__init__(8, 3)
        self.other = state

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        if isinstance(self.other, Exception):
            raise self.other
        return self.other


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "extra state": (lambda: nn.Sequential(Extra(8, 3)), r"0\._extra_state is extra state, a dict"),
    "sparse": (lambda: WithBuffer(torch.eye(3).to_sparse()), "table is a sparse_coo tensor"),
    "CSR": (lambda: WithBuffer(torch.eye(3).to_sparse_csr()), "table is a sparse_csr tensor"),
    "quantised": (lambda: WithBuffer(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)), "quantised"),
    "complex128": (lambda: WithBuffer(torch.ones(3, dtype=torch.complex128)), r"table is torch\.complex128, which a"),
    "meta": (lambda: WithBuffer(torch.empty(3, device="meta")), "table is on the meta device"),
    "nested": (lambda: WithBuffer(torch.nested.nested_tensor([torch.ones(2)])), "table is a"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3)), r"0\.weight has no shape yet"),
    "half": (lambda: make().half(), r"0\.weight is torch\.float16, the spec says float32"),
    "bfloat16": (lambda: make().bfloat16(), r"0\.weight is torch\.bfloat16"),
    "half inside a wrapper": (lambda: nn.DataParallel(make().half()), r"torch\.float16"),
    "under torch's own pruning": (pruned_by_torch, r"0: its weight is under torch's own pruning.*prune\.remove"),
    "freed": (freed, r"0\.weight has lost its values: its memory was freed or cut to 0 bytes"),
    "cut": (cut, r"table has lost its values: .* cut to 16 bytes"),
    "expanded": (lambda: WithBuffer(torch.ones(1).expand(5)), r"table is an expanded view.*clone\(\)"),
    "inference mode": (made_in_inference_mode, r"0\.weight was made under torch\.inference_mode"),
    "the name of safetensors' own": (
        lambda: with_buffer("__metadata__"),
        "'__metadata__' is a name that a safetensors",
    ),
    "half a character": (lambda: with_buffer("x\udc80"), r"'x\\udc80' is a name that a safetensors file cannot hold"),
    "wrappers' names": (lambda: two_of_one_name(False), r"_orig_mod\.table cannot be told from another tensor's name"),
    "a wrapper's name": (lambda: two_of_one_name(True), r"table cannot be told from another tensor's name"),
    "renaming hook": (lambda: hooked(lambda s: {f"x.{n}": t for n, t in s.items()}), r"leaves out 0\.bias, as a hook"),
    "hook that takes": (
        lambda: hooked(lambda s: {n: s[n] for n in s if n != "2.bias"}),
        r"state_dict\(\) leaves out 2\.bias",
    ),
    "hook that adds": (lambda: hooked(lambda s: s.update(more=torch.ones(1))), r"state_dict\(\) adds more, as a hook"),
    "failing extra state": (lambda: nn.Sequential(Failing(8, 3)), r"state_dict\(\) failed \(RuntimeError: no state\)"),
    "failing state dict": (lambda: OtherState(ValueError("no")), r"state_dict\(\) failed \(ValueError: no\)"),
    "list": (lambda: OtherState([1, 2]), r"state_dict\(\) gives a list, not tensors by name"),
    "numbered": (lambda: OtherState({3: torch.ones(1)}), r"names a tensor 3, which is no string"),
    "another head": (lambda: nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 5)), "5 outputs, the spec says 3 classes"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_loaded_is_not_saved(case: str, tmp_path: Path) -> None:
    build_model, says = REFUSED[case]
    with pytest.raises(ModelError, match=says) as caught:
        save_model(tmp_path / "m", OWN, build_model())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


class Doubled(nn.Linear):
    """Writes an entry of its own and reads it."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}twice"] = 2 * self.bias.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}twice")
        super()._load_from_state_dict(state_dict, prefix, *others)


class TensorExtra(nn.Linear):
    def get_extra_state(self) -> Any:
        return torch.ones(2)

    def set_extra_state(self, state: Any) -> None:
        assert torch.equal(state, torch.ones(2))


class Named(nn.Module):
    """A layer called `module`, and one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.module, self.more = nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False)
        self.register_buffer("passing", torch.ones(1).expand(4), persistent=False)


@pytest.mark.parametrize("of", [lambda: nn.Sequential(Doubled(8, 3)), lambda: nn.Sequential(TensorExtra(8, 3)), Named])
def test_what_layers_write_and_read_themselves_is_saved(of: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = of()
    save_model(tmp_path / "m", OWN, model)
    assert_same(load_model(tmp_path / "m", of)[0], model)


def test_a_state_dict_that_fails_is_one_line_where_weights_are_loaded_into_it(tmp_path: Path) -> None:
    torch.save(make().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"state_dict\(\) failed \(RuntimeError: no state\)"):
        load_weights(Failing(8, 3), tmp_path / "w.pt")


def test_masks_of_two_layers_that_would_have_one_name_are_refused(tmp_path: Path) -> None:
    model = nn.Module()
    model.layer = nn.Linear(8, 3)
    model.layer.add_module("_orig_mod", nn.Linear(8, 3))
    with pytest.raises(ModelError, match="cannot be told from another tensor's name"):
        masks_of(model, prune(model, 0.5))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda m: setattr(m, "output", nn.Linear(5, 4)),
            r"output\.bias is torch\.float32 \(4,\), the spec's: .*\(3,\)",
        ),
        (lambda m: m.add_module("more", nn.Linear(2, 2)), r"more\.bias is torch\.float32 \(2,\), the spec's: no such"),
        (lambda m: m.half(), r"is torch\.float16"),
        (lambda m: delattr(m, "output"), r"output\.bias is missing"),
        (lambda m: nn.utils.parametrizations.weight_norm(m.output), r"output\.parametrizations\.weight\.original0 is"),
    ],
)
def test_a_model_of_the_zoo_is_that_of_its_spec(change: Callable[[Any], object], says: str, tmp_path: Path) -> None:
    model = build(SPEC)
    change(model)
    with pytest.raises(ModelError, match=says):
        save_model(tmp_path / "m", SPEC, model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        {"masks": Masks.full(nn.Sequential(nn.Linear(8, 3)))},
        {"masks": {"0.weight": torch.ones(16, 8, dtype=torch.bool)}},
        {"model": {"0.weight": torch.ones(16, 8)}},
        {"spec": {"factory": "a:b"}},
        {"history": {"loss": torch.ones(1)}},
        {"history": {"loss": float("nan")}},
    ],
)
def test_what_is_no_model_spec_masks_or_history_is_one_line(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TombolaError) as caught:
        save_model(tmp_path / "m", **{"spec": OWN, "model": make(), **arguments})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_saving_changes_nothing_of_the_model(tmp_path: Path) -> None:
    model = make().train()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    state = torch.random.get_rng_state()
    save_model(tmp_path / "m", OWN, model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_a_lazy_layer_takes_its_shape_from_the_file(tmp_path: Path) -> None:
    torch.save(make().state_dict(), tmp_path / "w.pt")
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))
    load_weights(model, tmp_path / "w.pt")
    assert_same(model, make())
