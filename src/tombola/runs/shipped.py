"""The configs that Tombola brings, in `tombola/configs`: by name, with a line about each. A config is named or a file.

The first two lines of each say what it is called, what it does and how long that takes.
"""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path
from typing import NamedTuple

from tombola.errors import ConfigError

FOLDER = Path(__file__).parent.parent / "configs"
HEADER = re.compile(r"# ([a-z0-9-]+): (.+)\n# Takes (.+)\.\n(?:#.*\n)*study: (\w+)\n")


class Shipped(NamedTuple):
    """A config that Tombola brings."""

    name: str
    path: Path
    study: str
    does: str
    takes: str


@functools.cache
def shipped() -> dict[str, Shipped]:
    """All of them by name."""
    return {config.name: config for config in map(_read, sorted(FOLDER.glob("*.yaml")))}


def config_path(asked: str, beside: Path | None = None) -> Path:
    """Where a config is that somebody asked for, by the name of one that Tombola brings or as a file.

    What has a suffix or a path separator is a file, looked for in the current folder and then in the folder `beside`.
    Raises ConfigError for an unknown name.
    """
    path = Path(asked)
    if path.suffix or path.name != asked:
        return beside / path if beside is not None and not path.is_file() and (beside / path).is_file() else path
    known = {called: config.path for config in shipped().values() for called in (config.name, config.path.stem)}
    if not asked:
        raise ConfigError("no config is called ''; name one that `tombola configs` lists, or a file, such as ./my.yaml")
    if asked not in known:
        close = difflib.get_close_matches(asked, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"no config is called {asked!r}; {hint}`tombola configs` lists those that Tombola brings; a file of "
            f"your own is written with its suffix or folder, such as ./{asked}"
        )
    return known[asked]


def _read(path: Path) -> Shipped:
    header = HEADER.match(path.read_text(encoding="utf-8"))
    if header is None:
        raise ConfigError(f"{path}: its first two lines are no `# NAME: what it does` and `# Takes so long.`")
    name, does, takes, study = header.groups()
    return Shipped(name, path, study, does, takes)
