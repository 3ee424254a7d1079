"""The data home: where data sets lie, and how a missing one gets there.

`--data-dir`, else `$TOMBOLA_DATA`, else the user's cache. A missing file is downloaded and accepted only with
the right checksum; without a network the error says which files to put where.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tombola.data.idx import FILES, decompressed_md5, find
from tombola.errors import DataError
from tombola.runs.atomic import make_folder, write_bytes

DOWNLOAD_LIMIT = 256 << 20
TIMEOUT_SECONDS = 30


def data_home(data_dir: Path | None = None) -> Path:
    """The folder that holds one folder per data set."""
    if data_dir is not None:
        return data_dir
    if os.environ.get("TOMBOLA_DATA"):
        return Path(os.environ["TOMBOLA_DATA"])
    return cache_home() / "data"


def cache_home() -> Path:
    """The folder of the user's cache that is ours; RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tombola"


def idx_files(folder: Path, name: str, source: str, checksums: Mapping[str, str]) -> Path:
    """Makes sure that `folder` holds the four files of data set `name`, whose decompressed MD5 sums are known.

    Missing ones are fetched as `<source>/<file>.gz`. Raises DataError for a file with another checksum.
    """
    for stem in FILES.values():
        try:
            path = find(folder, stem)
        except DataError:
            path = _download(f"{source}/{stem}.gz", folder / f"{stem}.gz", name, checksums[stem])
        found = decompressed_md5(path)
        if found != checksums[stem]:
            raise DataError(
                f"{path}: not the {name} file (MD5 of its content {found}, expected {checksums[stem]}); remove it "
                "to have it downloaded, or load it as your own data with `data: {name: idx, folder: ...}`"
            )
    return folder


def _download(url: str, target: Path, name: str, checksum: str) -> Path:
    """Fetches `url` to `target`; what has another checksum is never kept, so the next run tries again."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(DOWNLOAD_LIMIT + 1)
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        wanted = ", ".join(f"{stem}.gz" for stem in FILES.values())
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{name} is not in {target.parent} and cannot be downloaded ({reason}); put {wanted} there, or point "
            "--data-dir or $TOMBOLA_DATA at a folder that has them"
        ) from None
    if len(content) > DOWNLOAD_LIMIT:
        raise DataError(f"{url}: larger than {DOWNLOAD_LIMIT:,} bytes, not downloaded")
    found = decompressed_md5(target, content)
    if found != checksum:
        raise DataError(
            f"{url}: not the {name} file (MD5 of its content {found}, expected {checksum}), not kept; put the right "
            f"one at {target}"
        )
    make_folder(target.parent)
    write_bytes(target, content)
    return target
