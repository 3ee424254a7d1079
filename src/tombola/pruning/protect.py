"""Layers that are left alone, by name or pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from tombola.errors import PruningError
from tombola.pruning.wrapped import without_wrappers
from tombola.registry import suggest


def protected_names(parameters: Iterable[str], protect: Sequence[str]) -> set[str]:
    """The parameters that `protect` names: `output`, `output.weight`, all of `stage_1`, or a pattern such as `*conv*`.

    Raises PruningError for an entry that matches nothing.
    """
    if isinstance(protect, str):
        raise PruningError(f"`protect` is a list of names and patterns: write protect=[{protect!r}]")
    if not isinstance(protect, Iterable) or not all(isinstance(pattern, str) for pattern in protect):
        raise PruningError(f"`protect` is a list of names and patterns, not {protect!r}")
    known = list(parameters)
    found: set[str] = set()
    for pattern in protect:
        matching = [name for name in known if names(pattern, name)]
        if not matching:
            layers = [name.removesuffix(".weight") for name in known]
            raise PruningError(f"protect: no layer is called {pattern!r}{suggest(pattern, layers)}")
        found.update(matching)
    return found


def names(layer: str, parameter: str) -> bool:
    """Whether `layer`, a name or pattern of a parameter or of a module that holds it, means the parameter.

    With or without what torch.compile and DataParallel put into names.
    """
    plain = without_wrappers(parameter)
    meant = ((parameter, layer), (plain, layer), (plain, without_wrappers(layer)))
    return any(fnmatch.fnmatchcase(name, pattern) for name, one in meant for pattern in (one, f"{one}.*"))
