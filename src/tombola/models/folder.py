"""Model folders: `spec.json` and `weights.safetensors`, and `masks.safetensors` when the model is a ticket."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.errors import ModelError, PruningError, StorageError, one_line
from tombola.models.config import Spec
from tombola.models.factory import Factory, FactorySpec, make_with
from tombola.models.packing import NONZERO
from tombola.models.removed import shrink
from tombola.models.saving import masks_of, state_of
from tombola.models.spec import ModelSpec, build, refuse_larger
from tombola.models.states import named_for
from tombola.models.tensors import Stored, content_sha256, read_stored, save_tensors
from tombola.pruning import Masks
from tombola.runs import limits
from tombola.runs.atomic import TEMPORARY_SUFFIX, make_folder, storage_errors
from tombola.runs.configs import validate
from tombola.runs.sealed import Opened, open_sealed, write_sealed

SPEC, WEIGHTS, MASKS = "spec.json", "weights.safetensors", "masks.safetensors"
ALTERED = 'put it back from a copy, or, if you changed it yourself, take out its "format" and "sha256"'


def save_model(
    folder: Path | str,
    spec: Spec,
    model: nn.Module,
    masks: Masks | None = None,
    history: dict[str, Any] | None = None,
) -> None:
    """Writes a model folder, all or nothing: `spec.json`, `weights.safetensors`, and `masks.safetensors` with masks.

    A model inside torch.compile or DataParallel is saved as the model inside, and so are its masks.

    Args:
        folder: A folder that does not exist, or is empty: nothing is overwritten.
        spec: What the model is rebuilt from.
        model: Its weights and buffers are stored, wherever they are.
        masks: Those of a ticket.
        history: JSON that is kept in the spec: where the model comes from.

    Raises:
        StorageError: where `folder` exists and is not empty.
        ModelError: for what `load_model` would refuse: a model or masks that are not those of the spec, state that is
            no plain tensor of numbers, a history that JSON cannot hold.

    Examples:
        >>> import tempfile
        >>> from tombola.models import ModelSpec, build
        >>> spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_model(folder, spec, build(spec))
        >>> sorted(file.name for file in folder.iterdir())
        ['spec.json', 'weights.safetensors']
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StorageError(f"{folder}: exists and is not an empty folder; choose another")
    building = folder.with_name(f".{folder.name}{TEMPORARY_SUFFIX}")
    shutil.rmtree(building, ignore_errors=True)  # what a killed attempt left
    try:
        write_model_files(building, spec, model, masks, history)
        with storage_errors("write", folder):
            building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def holds(
    folder: Path | str,
    spec: Spec,
    model: nn.Module,
    masks: Masks | None,
    history: dict[str, Any],
    factory: str | Factory | None = None,
) -> bool:
    """Whether a folder has exactly this model already, history included: saved before, to its end."""
    folder = Path(folder)
    if not (folder / SPEC).is_file():
        return False
    try:
        if read_spec(folder) != (spec, json.loads(json.dumps(history))):
            return False
        found, _, its_masks = load_model(folder, factory)
    except (ModelError, StorageError):
        return False
    return its_masks == masks and content_sha256(found.state_dict()) == content_sha256(state_of(spec, model))


def write_model_files(
    folder: Path, spec: Spec, model: nn.Module, masks: Masks | None = None, history: dict[str, Any] | None = None
) -> None:
    """Writes a model's files into a folder, such as its run's; the spec last: it says that all are there.

    Raises ModelError as `save_model` does, before anything is written.
    """
    state = state_of(spec, model)
    tensors = None if masks is None else masks_of(model, masks)
    content = {"model": spec.model_dump(mode="json"), "history": history or {}}
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(f"history: holds what JSON cannot ({one_line(error)})") from None
    make_folder(folder)
    files = {WEIGHTS: save_tensors(folder / WEIGHTS, state)}
    if tensors is not None:
        files[MASKS] = save_tensors(folder / MASKS, tensors)
    write_sealed(folder / SPEC, {**content, "files": files})


def load_model(
    folder: Path | str, factory: str | Factory | None = None
) -> tuple[nn.Module, ModelSpec | FactorySpec, Masks | None]:
    """The model of a folder, rebuilt from its spec and its weights.

    A file never decides which code runs: a model that somebody's own code made needs that code to be named here.

    Args:
        folder: What `save_model`, `tombola train`, `prune` or `extract` wrote.
        factory: A function without arguments that makes the model, or its `package.module:function`.

    Returns:
        The model on the CPU, in training mode; its spec; its masks, or None where it has none.

    Raises:
        ModelError: when the spec is missing or needs a factory, and when files are damaged or do not fit one another.

    Examples:
        >>> import tempfile
        >>> from tombola import prune
        >>> from tombola.models import ModelSpec, build
        >>> spec, folder = ModelSpec(input_shape=(1, 8, 8), classes=10, seed=0), tempfile.mkdtemp()
        >>> save_model(folder, spec, build(spec), prune(build(spec), 0.9))
        >>> model, found, masks = load_model(folder)
        >>> found.architecture, round(masks.sparsity, 3)
        ('lenet-300-100', 0.9)
    """
    folder = Path(folder)
    opened = _open_spec(folder)
    spec, _ = _parse_spec(folder, opened)
    stored = _fitting_weights(folder, spec)
    model = rebuilt(spec, factory, str(folder))
    masks: Masks | None = None
    checksums: dict[str, str | None] = {}
    try:
        fill(model, stored.tensors)
        checksums[WEIGHTS] = stored.sha256
        if (folder / MASKS).exists():
            stored_masks = read_stored(folder / MASKS)
            checksums[MASKS] = stored_masks.sha256
            # safetensors orders by its own rules; masks are in the order of the model's parameters.
            masks = Masks.from_tensors(stored_masks.tensors).of(model)
        _check_recorded(checksums, opened.content.get("files"))
    except (ModelError, StorageError, PruningError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder}: the files do not make the model of its spec: {one_line(error)}") from None
    _refuse_altered(opened)
    return model, spec, masks


def _fitting_weights(folder: Path, spec: Spec) -> Stored:
    """The weights, of no more memory than their file. A spec may claim far larger ones: then it is not built."""
    try:
        stored = read_stored(folder / WEIGHTS)
        if isinstance(spec, ModelSpec):
            refuse_larger(spec, stored.tensors)
    except (ModelError, StorageError) as error:
        raise ModelError(f"{folder}: the files do not make the model of its spec: {one_line(error)}") from None
    return stored


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads `weights`, all that the model has and in its types, whatever wrappers put into their names.

    Raises ModelError, RuntimeError or KeyError where they are those of another model.
    """
    named = named_for(model, weights)
    _check_types(named, model.state_dict())
    model.load_state_dict(named, strict=True)


def rebuilt(spec: Spec, factory: str | Factory | None, where: str) -> nn.Module:
    """The network of a stored spec before its weights are loaded. ModelError, which begins with `where`, for one that
    somebody's own code makes unless that is named, and the other way round."""
    if isinstance(spec, ModelSpec):
        if factory is not None:
            raise ModelError(f"{where}: this is a {spec.architecture} and needs no factory; leave it out")
        return build(spec)
    if factory is None:
        raise ModelError(
            f"{where}: this model is made by code of its owner, {spec.factory}; if you trust that code name it: "
            f"load_model(folder, factory={spec.factory!r}), or --factory {spec.factory}"
        )
    blank = None if spec.input_shape is None else torch.zeros(()).expand(2, *spec.input_shape)
    model = make_with(factory, spec.seed, blank)
    if spec.removed is not None:
        shrink(model, spec.removed)
    return model


def read_spec(folder: Path | str) -> tuple[Spec, dict[str, Any]]:
    """What a model folder says of its model, without its weights.

    Args:
        folder: What `save_model` wrote.

    Returns:
        The spec, and the history beside it.

    Raises:
        ModelError: when there is none, or it is damaged.

    Examples:
        >>> import tempfile
        >>> from tombola.models import ModelSpec, build
        >>> folder = tempfile.mkdtemp()
        >>> spec = ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> save_model(folder, spec, build(spec), history={"run": "mine"})
        >>> found, history = read_spec(folder)
        >>> found.classes, history
        (10, {'run': 'mine'})
    """
    opened = _open_spec(Path(folder))
    spec = _parse_spec(Path(folder), opened)
    _refuse_altered(opened)
    return spec


def weights_form(folder: Path | str) -> Literal["kept values", "dense"]:
    """How a model folder holds its weights; `load_model` reads both forms and gives the same bits.

    Args:
        folder: What `save_model` wrote.

    Returns:
        "kept values" where only weights that are not 0 are stored, with a bit a weight that says which; "dense" where
        all are.

    Raises:
        StorageError: when the weights are missing or damaged.

    Examples:
        >>> import tempfile
        >>> from tombola import prune
        >>> from tombola.models import ModelSpec, build
        >>> folder, spec = tempfile.mkdtemp(), ModelSpec(input_shape=(1, 28, 28), classes=10, seed=0)
        >>> model = build(spec)
        >>> masks = prune(model, 0.9)
        >>> masks.apply_(model)
        >>> save_model(folder, spec, model, masks)
        >>> weights_form(folder)
        'kept values'
    """
    forms = read_stored(Path(folder) / WEIGHTS).forms
    return "kept values" if any(said["form"] == NONZERO for said in forms.values()) else "dense"


def _open_spec(folder: Path) -> Opened:
    path = folder / SPEC
    if not path.exists():
        raise ModelError(
            f"{folder}: no {SPEC} here. A model is rebuilt from its specification, never guessed from weights; "
            "make one with tombola.models.save_model(folder, spec, model)"
        )
    try:
        return open_sealed(path, ALTERED, limits.SPEC)
    except StorageError as error:
        raise ModelError(f"{error}; it is not a Tombola model spec") from None


def _refuse_altered(opened: Opened) -> None:
    """Last of all: what is wrong with the content itself says more."""
    if opened.trouble is not None:
        raise ModelError(opened.trouble)


def _parse_spec(folder: Path, opened: Opened) -> tuple[Spec, dict[str, Any]]:
    path, content = folder / SPEC, opened.content
    if not isinstance(content.get("model"), dict):
        raise ModelError(f"{path}: has no `model`, it is not a Tombola model spec")
    history = content.get("history")
    return parse_spec(content["model"], str(path)), history if isinstance(history, dict) else {}


def parse_spec(content: dict[str, Any], where: str) -> Spec:
    """A spec as JSON has it; ConfigError, which begins with `where`, for what is none."""
    if "factory" in content:
        return validate(content, FactorySpec, where)
    return validate(content, ModelSpec, where)


def _check_recorded(found: dict[str, str | None], recorded: Any) -> None:
    """ModelError where files, by their checksums, are not those written with the spec; older specs recorded none."""
    if not isinstance(recorded, dict):
        return
    for name in (WEIGHTS, MASKS):
        if found.get(name) == recorded.get(name):
            continue
        if name not in found:
            raise ModelError(f"its {name} is gone; put it back from a copy")
        if name not in recorded:
            raise ModelError(f"{name} does not belong to this model, whose {SPEC} records none; remove it")
        raise ModelError(f"{name} is not the file that its {SPEC} records by checksum; put it back from a copy")


def _check_types(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """`load_state_dict` would convert another type silently."""
    for name, tensor in weights.items():
        if name in expected and tensor.dtype != expected[name].dtype:
            raise ModelError(f"{name} is {tensor.dtype}, the spec says {expected[name].dtype}")
