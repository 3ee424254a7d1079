"""How every study runs: begun, continued or shown, from top to bottom."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from tombola.errors import TombolaError
from tombola.runs.atomic import make_folder, remove, write_text
from tombola.runs.configs import C
from tombola.runs.folder import PROCESSOR, RunFolder, begin_or_continue, writing
from tombola.runs.inventory import findings, refuse, seal, warn
from tombola.runs.results import copy_results, refuse_foreign
from tombola.studies.base.study import Call, R, Study
from tombola.studies.base.work import Work
from tombola.training.processor import processor_facts


def run_study(kind: type[Study[C, R]], config: C, call: Call) -> R:
    """Runs, continues or shows the study of `config` in its folder.

    A finished study is read, not run again, and never made smaller: asked for fewer replicates than it was finished
    with, it shows all of them; asked for more, it is extended.
    """
    config = kind.started(config)
    asked = kind(config, kind.place(config, call.out), call)
    if call.results is not None and kind.artefacts is not None:
        refuse_foreign(call.results, asked.folder.root.name, kind.artefacts)
    study, result = _as_finished(asked)
    if result is not None:
        study.shown_again(result)
    else:
        with writing(study.folder), _leaving_nothing_unbegun(study.folder):
            result = _run(study)
    if call.results is not None and kind.artefacts is not None:
        copy_results(study.folder.results, call.results, kind.artefacts)
    if study.replicates > asked.replicates:
        call.watcher.say(f"Asked for {asked.replicates} replicates; the run has {study.replicates}, all are shown.")
    return result


def _run(study: Study[C, R]) -> R:
    folder, call = study.folder, study.call
    if call.says_plan and not folder.manifest.exists():
        call.watcher.planned(lambda: (plan := study.plan(quick=True)) and plan.line)
    begin_or_continue(folder, study.name, study.config, {**study.facts(), PROCESSOR: processor_facts()})
    make_folder(folder.checkpoints)
    if study.artefacts is not None:  # what is there is not of this number of replicates, until it is written again
        remove(folder.results / study.artefacts.summary)
    work = Work(study, folder.table(study.unit, study.schema), call.workers, call.watcher)
    study.work(work)
    result = study.result(work.rows, set(range(study.replicates)))
    write_text(folder.report, study.report(result))
    study.write(result)
    seal(folder)  # last: it says that all is written
    return result


def _as_finished(asked: Study[C, R]) -> tuple[Study[C, R], R | None]:
    """The study with as many replicates as it was finished with, and its result; None where it has to go on.

    Files that are gone or altered are warned of and made anew where rows suffice; RunFolderError for others.
    """
    folder = asked.folder
    found = findings(folder) if folder.manifest.exists() else None
    if found is None or found.rows_are_gone:
        return asked, None
    refuse(folder, found.among(lambda name: name == folder.manifest.name or asked.is_trained(name)))
    rows = asked.read_rows()
    complete = asked.complete(rows)
    study = asked.with_replicates(len(complete))
    warn(folder, found)
    wanted = set(range(study.replicates))
    return study, study.result(rows, wanted) if not found and wanted <= complete else None


@contextlib.contextmanager
def _leaving_nothing_unbegun(folder: RunFolder) -> Iterator[None]:
    """Takes away what is there of a run that was refused before any of its work was done."""
    try:
        yield
    except TombolaError:
        begun = {path.name for path in (folder.lock, folder.manifest, folder.config, folder.checkpoints)}
        if {path.name for path in folder.root.iterdir()} <= begun and not any(folder.checkpoints.glob("*")):
            shutil.rmtree(folder.root)
        raise
