"""How pictures of one's own must lie: the classes, in training and test pictures, of a tree of names.

A tree is the same on disk (`folders`) and in an archive (`tars`); what is wrong with its layout is said here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tombola.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
LAYOUT = "the layout is <class>/<picture>, or train/<class>/<picture> and test/<class>/<picture>"


@dataclass(frozen=True)
class Entry:
    """A name in a tree. `children` is None for what is no folder, `read` (its bytes) for what is no file."""

    path: str
    """From the data's folder down, with slashes; "" for that folder."""
    where: str
    """The file, or the archive and its member: so errors begin."""
    children: Callable[[], list[Entry]] | None = None
    read: Callable[[], bytes] | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_picture(self) -> bool:
        return not self.children and self.name.lower().endswith(SUFFIXES)

    def inside(self) -> list[Entry]:
        """What is in this folder and not hidden, by name."""
        found = self.children() if self.children else []
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)


@dataclass(frozen=True)
class Labelled:
    """A picture and the number of its class. Whether it can be decoded nobody knows yet."""

    entry: Entry
    label: int


def labelled_parts(root: Entry) -> list[list[Labelled]]:
    """The training pictures below `root`, and its test pictures if it has them: by class, then by name.

    Classes are numbered by name. Raises DataError that names what does not fit the layout.
    """
    parts = _parts(root)
    classes = [entry.name for entry in _sub_folders(parts[0])]
    return [_pictures(part, classes) for part in parts]


def shown(name: str) -> str:
    """`name` for a message of one line, whatever characters it is made of."""
    return name if name.isprintable() else ascii(name)


def _parts(root: Entry) -> list[Entry]:
    """The folders of classes: `root` itself, or its train/ and test/, which then stand alone."""
    there = _sub_folders(root)
    parts = [entry for name in ("train", "test") for entry in there if entry.name == name]
    if len(parts) < 2:
        return [root]
    if others := [entry.name for entry in there if entry not in parts]:
        raise DataError(f"{root.where}: holds {shown(others[0])}/ beside train/ and test/; {LAYOUT}")
    return parts


def _sub_folders(folder: Entry) -> list[Entry]:
    entries = folder.inside()
    found = [entry for entry in entries if entry.children]
    if not found:
        raise DataError(f"{folder.where}: holds no class folders; {LAYOUT}")
    if stray := [entry for entry in entries if entry.is_picture]:
        raise DataError(f"{stray[0].where}: a picture outside of the class folders; {LAYOUT}")
    return found


def _pictures(part: Entry, classes: Sequence[str]) -> list[Labelled]:
    """The pictures of every class folder in `part`, each with its label."""
    found: list[Labelled] = []
    for folder in _sub_folders(part):
        if folder.name not in classes:
            known = ", ".join(shown(name) for name in classes[:20])
            raise DataError(f"{folder.where}: a class without training pictures; the classes are {known}")
        entries = folder.inside()
        if nested := [entry for entry in entries if entry.children]:
            raise DataError(f"{nested[0].where}: a folder within a class folder; {LAYOUT}")
        pictures = [entry for entry in entries if entry.is_picture]
        if not pictures:
            aside = f" ({count} other files left aside)" if (count := len(entries)) else ""
            raise DataError(f"{folder.where}: no picture ({', '.join(SUFFIXES)}) of this class{aside}")
        found += [Labelled(entry, classes.index(folder.name)) for entry in pictures]
    return found
