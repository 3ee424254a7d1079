"""A run read back from its folder, as far as it is complete. Nothing here trains."""

from __future__ import annotations

from pathlib import Path

from tombola.errors import ConfigError, RunFolderError
from tombola.runs.atomic import write_text
from tombola.runs.configs import C
from tombola.runs.folder import RunFolder, writing
from tombola.runs.inventory import findings, refuse, rewriting
from tombola.studies.base.output import Output, output
from tombola.studies.base.study import Call, R, Study


def open_study(kind: type[Study[C, R]], root: Path) -> Study[C, R]:
    """The study of the run in folder `root`.

    Raises RunFolderError where it is no run of that study, ConfigError where its config is damaged.
    """
    folder = RunFolder(root)
    begun = folder.read_manifest()["must_match"].get("study")
    if begun != kind.name:
        raise RunFolderError(
            f"{root}: a run of tombola {command_of(begun)}; this is for runs of tombola {command_of(kind.name)}"
        )
    return kind(folder.read_config(kind.config_type), folder, Call(out=root.parent))


def command_of(study: str) -> str:
    """The command that runs a study."""
    return "imp" if study == "lottery" else study


def complete_replicates(study: Study[C, R]) -> set[int]:
    """The replicates of a run that are complete, of those that it was asked for."""
    return study.complete(study.read_rows()) & set(range(study.replicates))


def read_result(study: Study[C, R]) -> R:
    """What the complete replicates come to; ConfigError while there is none."""
    rows = study.read_rows()
    complete = study.complete(rows) & set(range(study.replicates))
    if not complete:
        refuse_changes(study, quick=True)  # of one that was finished rows are gone
        raise ConfigError(f"{study.folder.root}: nothing of it is complete yet; the command that began it continues it")
    return study.result(rows, complete)


def refuse_changes(study: Study[C, R], *, quick: bool = False) -> None:
    """RunFolderError for a file that is not as it was when the run was finished; `quick` spares large files."""
    refuse(study.folder, findings(study.folder, quick=quick))


def remake_report(study: Study[C, R]) -> Path:
    """Makes `report.html` anew from the rows; returns its path."""
    page = study.report(read_result(study))
    with writing(study.folder), rewriting(study.folder, study.folder.report):
        write_text(study.folder.report, page)
    return study.folder.report


def run_output(study: Study[C, R], result: R) -> Output:
    """Of a run: where it is, how far, what came of it, and where its files are."""
    folder = study.folder
    done = len(complete_replicates(study))
    places = {"report": folder.report, "rows": folder.rows, "config": folder.config, "results": folder.results}
    return output(
        study.name,
        study.numbers(result),
        name=study.called,
        folder=str(folder.root.resolve()),
        state=study.state(done),
        finished=done == study.replicates,
        outcome=study.outcome(result),
        paths={name: path for name, path in places.items() if path.exists()},
    )
