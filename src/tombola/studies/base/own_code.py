"""Functions of somebody's own that a config names: recorded, so that a run goes on with the code that it began with."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from torch import nn

from tombola.errors import RunFolderError
from tombola.models import ModelConfig
from tombola.models.factory import own_function
from tombola.models.tensors import content_sha256
from tombola.pruning.prunable import prunable_shapes
from tombola.runs.executors import Cell, Emit
from tombola.runs.folder import RunFolder
from tombola.training.code import code_sha256, digest_of

CODE, NETWORK, LIBRARIES = "code", "network", "libraries"
"""Facts of the manifest: a digest by function, what the function that makes the network gave, and the versions of the
libraries whose layers are in it."""


def code_facts(names: Iterable[str]) -> dict[str, Any]:
    """The manifest's fact of the functions called `names`: a digest of each one's code; None where there are none."""
    return {CODE: {name: code_sha256(own_function(name), name.partition(":")[0]) for name in names} or None}


def network_facts(model: ModelConfig, network: nn.Module) -> dict[str, Any]:
    """What the manifest says of somebody's own initial network. Nothing of one of the zoo, which the config says all
    of.

    Its weights, and the code of its layers, which may stand in other modules than the function's. How many weights each
    layer has is there for readers, who call no code.
    """
    if model.factory is None:
        return {}
    kinds = list(dict.fromkeys(type(module) for module in network.modules()))
    return {
        **library_facts(kinds),
        NETWORK: {
            "sha256": content_sha256(network.state_dict()),
            "layers": {name: shape.numel() for name, shape in prunable_shapes(network).items()},
            CODE: digest_of(code_sha256(kind) for kind in kinds),
        },
    }


def library_facts(kinds: Iterable[type]) -> dict[str, Any]:
    """The manifest's fact of the libraries that classes of a network or a task come from, with their versions.

    By the classes and not by what happens to be imported. Torch is among the versions of every run.
    """
    tops = {base.__module__.partition(".")[0] for kind in kinds for base in kind.__mro__}
    tops -= {"torch", "tombola", *sys.stdlib_module_names}
    if not tops:
        return {}
    owners = packages_distributions()
    found = {name: version(name) for top in sorted(tops) for name in owners.get(top, ())}
    return {LIBRARIES: found} if found else {}


def refuse_edited(folder: RunFolder, facts: Mapping[str, Any], factory: str | None) -> None:
    """RunFolderError, which names the function, where one is not what it was when the run began.

    `facts` are those of now; a network that has changed is said to be of `factory`.
    """
    recorded = folder.read_manifest()["must_match"]
    before = recorded.get(CODE) or {}
    edited = [name for name, digest in (facts.get(CODE) or {}).items() if before.get(name) != digest]
    if not edited and facts.get(NETWORK) != recorded.get(NETWORK):
        edited = [f"the network of {factory}"]
    if edited:
        raise RunFolderError(
            f"{folder.root}: begun with other code of {', '.join(edited)}; undo the edit to continue this run, or give "
            "the edited function a new name, which begins a new run"
        )


@dataclass(frozen=True)
class Unedited:
    """A cell that refuses to work with other code than the run in `root` was begun with: workers import it anew."""

    cell: Cell
    root: Path
    names: tuple[str, ...]

    def __call__(self, spec: Any, emit: Emit) -> None:
        folder = RunFolder(self.root)
        refuse_edited(folder, {**folder.read_manifest()["must_match"], **code_facts(self.names)}, None)
        self.cell(spec, emit)
