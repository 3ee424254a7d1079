"""How images of one's own must lie: the classes, in training and test images, of a tree of names.

A tree is the same on disk (`folders`) and in an archive (`tars`); what is wrong with its layout is said here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tombola.data.images import looks_like_image
from tombola.errors import DataError

LAYOUT = "the layout is <class>/<image>, or train/<class>/<image> and test/<class>/<image>"
SHOWN = 20
KINDS = "PNG, JPEG, BMP, GIF, WebP or TIFF"


@dataclass(frozen=True)
class Entry:
    """A name in a tree. `children` is None for what is no folder, `read` (its bytes) for what is no file."""

    path: str
    """From the data's folder down, with slashes; "" for that folder."""
    where: str
    """The file, or the archive and its member: so errors begin."""
    children: Callable[[], list[Entry]] | None = None
    read: Callable[[], bytes] | None = None
    head: Callable[[], bytes] | None = None
    """Its first bytes; None where there is no `read`."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_image(self) -> bool:
        """By its name, or else by its first bytes: what has an odd name or none is not left out."""
        if self.children:
            return False
        return looks_like_image(self.name, b"") or (self.head is not None and looks_like_image("", self.head()))

    @property
    def is_hidden(self) -> bool:
        return self.name.startswith(".")

    def inside(self) -> list[Entry]:
        """What is in this folder and not hidden, by name."""
        return [entry for entry in self.all_inside() if not entry.is_hidden]

    def all_inside(self) -> list[Entry]:
        """What is in this folder, by name."""
        return sorted(self.children() if self.children else [], key=lambda entry: entry.name)


@dataclass(frozen=True)
class Labelled:
    """An image and the number of its class. Whether it can be decoded nobody knows yet."""

    entry: Entry
    label: int


def labelled_parts(root: Entry) -> tuple[list[list[Labelled]], list[Entry]]:
    """The training images below `root`, and its test images if it has them: by class, then by name.

    Classes are numbered by name. Also the files that are left aside: what is no image, and hidden images. Other hidden
    files, which systems and tools leave everywhere, are none of the data. Raises DataError that names what does not
    fit the layout.
    """
    parts = _parts(root)
    holding = {entry.path: entry for part in parts for entry in (root, part, *_sub_folders(part))}
    aside = [entry for folder in holding.values() for entry in _aside(folder)]
    classes = [entry.name for entry in _sub_folders(parts[0])]
    return [_images(part, classes) for part in parts], aside


def _aside(folder: Entry) -> list[Entry]:
    """The files in `folder` itself that are not used."""
    files = [entry for entry in folder.all_inside() if not entry.children]
    return [entry for entry in files if entry.is_image == entry.is_hidden]


def some(names: Sequence[str]) -> str:
    """The names for a message of one line: the first of them, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(shown(name) for name in names[:SHOWN]) + more


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
    if stray := [entry for entry in entries if entry.is_image]:
        raise DataError(f"{stray[0].where}: an image outside of the class folders; {LAYOUT}")
    return found


def _images(part: Entry, classes: Sequence[str]) -> list[Labelled]:
    """The images of every class folder in `part`, each with its label."""
    found: list[Labelled] = []
    for folder in _sub_folders(part):
        if folder.name not in classes:
            known = ", ".join(shown(name) for name in classes[:20])
            raise DataError(f"{folder.where}: a class without training images; the classes are {known}")
        entries = folder.inside()
        if nested := [entry for entry in entries if entry.children]:
            raise DataError(f"{nested[0].where}: a folder within a class folder; {LAYOUT}")
        images = [entry for entry in entries if entry.is_image]
        if not images:
            aside = f" ({count} other files left aside)" if (count := len(entries)) else ""
            raise DataError(f"{folder.where}: no image ({KINDS}) of this class{aside}")
        found += [Labelled(entry, classes.index(folder.name)) for entry in images]
    return found
