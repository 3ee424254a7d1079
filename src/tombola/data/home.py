"""The data home: where data sets lie, and how a missing one gets there.

`--data-dir`, else `$TOMBOLA_DATA`, else the user's cache. A missing file is downloaded and accepted only with
the right checksum; without a network the error says which files to put where.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tombola.data.idx import FILES, decompressed_md5, find
from tombola.errors import DataError
from tombola.runs import limits
from tombola.runs.atomic import make_folder, read_bytes, write_bytes
from tombola.runs.cache import cache_home

DOWNLOAD_LIMIT = limits.DOWNLOAD
TIMEOUT_SECONDS = 30


def data_home(data_dir: Path | None = None) -> Path:
    """The folder that holds one folder per data set."""
    if data_dir is not None:
        return data_dir
    if os.environ.get("TOMBOLA_DATA"):
        return Path(os.environ["TOMBOLA_DATA"])
    return cache_home() / "data"


def idx_files(folder: Path, name: str, source: str, checksums: Mapping[str, str]) -> Path:
    """Makes sure that `folder` holds the four files of data set `name`, whose decompressed MD5 sums are known.

    Missing ones are fetched as `<source>/<file>.gz`. Raises DataError for a file with another checksum.
    """
    wanted = ", ".join(f"{stem}.gz" for stem in FILES.values())
    for stem in FILES.values():
        unlike = partial(_unlike_unpacked, checksums[stem])
        try:
            path = find(folder, stem)
        except DataError:
            path = _download(f"{source}/{stem}.gz", folder / f"{stem}.gz", name, wanted, unlike)
        if problem := unlike(path):
            raise DataError(
                f"{path}: not the {name} file ({problem}); remove it to have it downloaded, or load it "
                "as your own data with `data: {name: idx, folder: ...}`"
            )
    return folder


def known_file(path: Path, name: str, checksums: Sequence[str], source: str | None, own: str) -> Path:
    """Makes sure that `path` is the one file of data set `name`, by one of its `checksums` ("md5:..." or "sha256:...").

    A missing one is fetched from the URL `source`, if it is known. Raises DataError for a file with another checksum,
    which can be read by the data set `own` instead.
    """
    unlike = partial(_unlike, checksums)
    if not path.exists():
        if source is None:
            raise DataError(_missing(path, name, "has no known place to be downloaded from", path.name))
        return _download(source, path, name, path.name, unlike)
    if problem := unlike(path):
        raise DataError(
            f"{path}: not the {name} file ({problem}); put the right one there, or load it as your own data with "
            f"`data: {{name: {own}, folder: ...}}`"
        )
    return path


def _download(url: str, target: Path, name: str, wanted: str, unlike: Callable[[Path, bytes], str]) -> Path:
    """Fetches `url` to `target`; what is `unlike` the file is never kept, so the next run tries again."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(DOWNLOAD_LIMIT + 1)
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(_missing(target, name, f"cannot be downloaded ({reason})", wanted)) from None
    if len(content) > DOWNLOAD_LIMIT:
        raise DataError(f"{url}: larger than {DOWNLOAD_LIMIT:,} bytes, not downloaded")
    if problem := unlike(target, content):
        raise DataError(f"{url}: not the {name} file ({problem}), not kept; put the right one at {target}")
    make_folder(target.parent)
    write_bytes(target, content)
    return target


def _unlike_unpacked(checksum: str, path: Path, content: bytes | None = None) -> str:
    """How the packed file at `path`, or `content` in its place, differs from what is wanted; "" if it does not."""
    found = decompressed_md5(path, content)
    return "" if found == checksum else f"MD5 of its content {found}, expected {checksum}"


def _unlike(checksums: Sequence[str], path: Path, content: bytes | None = None) -> str:
    """The same of a whole file that may have any of several checksums."""
    content = read_bytes(path, DOWNLOAD_LIMIT) if content is None else content
    kinds = dict.fromkeys(checksum.partition(":")[0] for checksum in checksums)
    found = [f"{kind}:{hashlib.new(kind, content, usedforsecurity=False).hexdigest()}" for kind in kinds]
    return "" if set(found) & set(checksums) else f"{' and '.join(found)}, expected {' or '.join(checksums)}"


def _missing(path: Path, name: str, why: str, wanted: str) -> str:
    return (
        f"{name} is not in {path.parent} and {why}; put {wanted} there, or point --data-dir or $TOMBOLA_DATA at a "
        f"folder whose {path.parent.name}/ has it"
    )
