"""Where a training computes: the CPU or an accelerator, and in which precision.

Files, masks and whatever is checked are on the CPU; chance is drawn there, too, so that every device meets the same
examples. Which device a config asks for is resolved once, by `on_device`, in the process that a person started.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tombola.errors import ConfigError, TrainingError
from tombola.runs.configs import Config, parts_of, rebuilt
from tombola.runs.folder import DEVICE

CPU = torch.device("cpu")
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What cuBLAS needs before it begins to give the same sums every time."""
HALF = 0.5
"""Of the free memory, which data may fill; the rest is for the network and its activations."""

C = TypeVar("C", bound=Config)


def available() -> list[str]:
    """The kinds of devices here, the best first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, is_there in there.items() if is_there), "cpu"]


def resolve(asked: str) -> torch.device:
    """The device that a config asks for; ConfigError, which says what there is, where it is not here."""
    there = available()
    name = there[0] if asked == "auto" else asked
    if name not in there:
        built = "" if name != "cuda" or torch.backends.cuda.is_built() else ", and this torch is built without CUDA"
        raise ConfigError(f"device: there is no {name} here, only {' and '.join(there)}{built}; set it to auto or cpu")
    if name == "cuda":
        os.environ.setdefault(*WORKSPACE)  # here: it is too late once CUDA has begun
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name, 0) if name == "mps" else torch.device(name)  # as tensors there name it


def on_device(config: C, asked: str | None = None) -> C:
    """`config` with every device in it resolved, or with `asked` in the place of all of them."""

    def resolved(part: Config) -> Config:
        name = getattr(part, "device", None)
        kind = None if name is None else resolve(asked or name).type
        return part if kind == name else part.model_copy(update={"device": kind})

    return rebuilt(config, resolved)


def devices_of(config: Config) -> set[str]:
    """The kinds of devices that a resolved config computes on beside the CPU."""
    return {getattr(part, "device", "cpu") for part in parts_of(config)} - {"cpu"}


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are; the CPU for one without any."""
    return next((parameter.device for parameter in model.parameters()), CPU)


@contextlib.contextmanager
def placed(model: nn.Module, asked: str) -> Iterator[torch.device]:
    """Within the block the model is on the device of that name, where torch computes to the bit (`deterministic`);
    afterwards it is where it was.

    TrainingError for one that is on another accelerator: whoever put it there did not mean to leave it.
    """
    home, device = device_of(model), resolve(asked)
    if home.type not in ("cpu", device.type):
        raise TrainingError(f"the model is on {home.type}, and the device asked for is {asked}: ask for {home.type}")
    if moves := home.type != device.type:
        model.to(device)
    else:  # of several of a kind, the one that it is on
        device = home
    try:
        with deterministic(model, device):
            yield device
    finally:
        if moves:
            model.to(home)


def finish(device: torch.device) -> None:
    """Waits until all that was begun on an accelerator is done, for whoever takes the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def deterministic(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within the block torch computes on `device` with algorithms that give the same bits every time, and in full
    float32 where nothing else is asked for. TrainingError where a layer has none, by name.

    One thread of a CPU gives the same bits in any case.
    """
    if device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    switches = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    cudnn.benchmark = False  # it would choose among algorithms by their speed, which differs from run to run
    try:
        with naming_what_is_not_deterministic(model, device):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = switches


@contextlib.contextmanager
def naming_what_is_not_deterministic(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Turns torch's refusal to compute into a TrainingError that names the operation, and the layers like it."""
    try:
        yield
    except (RuntimeError, TrainingError) as error:
        found = re.search(r"(\w+) does not have a deterministic implementation", str(error))
        if found is None:
            raise
        operation = found[1].lower().replace("_", "")
        layers = [
            f"{name} ({type(module).__name__})"
            for name, module in model.named_modules()
            if not list(module.children()) and _stem(module) in operation
        ]
        said = f"{', '.join(layers)}: " if layers else ""
        raise TrainingError(
            f"{said}torch has no deterministic algorithm for {found[1]} on {device.type}, so a training could not be "
            "continued to the bit; put another layer in its place, or set the device to cpu"
        ) from None


def _stem(module: nn.Module) -> str:
    """A layer's kind as operations have it in their names: max_unpooling2d_forward_out is of MaxUnpool2d."""
    kind = type(module).__name__.lower()
    return kind.replace("unpool", "unpooling") if "unpool" in kind else kind


def fits(tensors: list[Tensor], device: torch.device) -> bool:
    """Whether the tensors may all lie on the device, beside what a training needs."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return size <= HALF * free
    if device.type == "mps":
        return size <= HALF * torch.mps.recommended_max_memory()
    return True


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Within the block a network's large operations are computed in `precision`; weights stay in float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's random streams that a training on `device` draws from."""
    states = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["rng.mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Goes on from `random_states`."""
    torch.set_rng_state(states["rng"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["rng.cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["rng.mps"])


def facts(device: torch.device) -> dict[str, str]:
    """What of a device and its libraries decides the last bits of a result; of the CPU nothing (see `processor`)."""
    if device.type == "cpu":
        return {}
    if device.type != "cuda":
        return {"type": device.type}
    found = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def device_facts(config: Config) -> dict[str, Any]:
    """The manifest's fact of a resolved config's devices; None where all is computed on the CPU."""
    return {DEVICE: [facts(resolve(name)) for name in sorted(devices_of(config))] or None}


def said(device: torch.device) -> str:
    """A device as a person knows it and a checkpoint records it, with the libraries that decide its bits."""
    more = facts(device)
    if "name" not in more:
        return device.type
    return f"cuda ({more['name']}, CUDA {more['cuda']}, cuDNN {more['cudnn']})"
