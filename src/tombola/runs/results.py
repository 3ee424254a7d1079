"""The results of a run: files by fixed names, one of which, the summary, is written last and names the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import RunFolderError, StorageError
from tombola.runs import limits
from tombola.runs.atomic import make_folder, read_bytes, read_json, write_bytes

COPY_LIMIT = limits.COPY


@dataclass(frozen=True)
class Artefacts:
    """The files of a study's results: the summary, all that are always there (it is one), those that may be."""

    summary: str
    names: tuple[str, ...]
    optional: tuple[str, ...] = ()


def read_summary(results: Path, summary: str) -> dict[str, Any]:
    """The summary in a folder of results; empty when there is none that can be read, for it is made from rows."""
    try:
        found = read_json(results / summary)
    except StorageError:
        return {}
    return found if isinstance(found, dict) else {}


def refuse_foreign(results: Path, run: str, artefacts: Artefacts) -> None:
    """Before hours of work: results of another run, or files of their names, must not be overwritten at their end.

    `results` is what `--results` names, `run` the folder's name of the run that is to be copied there.
    """
    if results.exists() and not results.is_dir():
        raise StorageError(f"--results {results}: is a file; name a folder")
    ours = read_summary(results, artefacts.summary).get("run") == run
    if not ours and any((results / name).exists() for name in (*artefacts.names, *artefacts.optional)):
        raise RunFolderError(f"--results {results}: holds files of another run or model; choose another folder")
    make_folder(results)


def copy_results(source: Path, results: Path, artefacts: Artefacts) -> None:
    """Copies the artefacts; the summary last, as it is written.

    An optional file that is not there now is not left there from an earlier time, either.
    """
    summary = artefacts.summary
    (results / summary).unlink(missing_ok=True)
    for name in artefacts.optional:
        (results / name).unlink(missing_ok=True)
    there = [name for name in artefacts.optional if (source / name).exists()]
    for name in (*there, *(name for name in artefacts.names if name != summary), summary):
        write_bytes(results / name, read_bytes(source / name, COPY_LIMIT))
