"""How every study runs: begun, continued or shown, from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.runs.atomic import make_folder, remove, write_text
from tombola.runs.configs import C
from tombola.runs.folder import PROCESSOR, begin_or_continue, writing
from tombola.runs.inventory import findings, refuse, seal, warn
from tombola.runs.results import copy_results, refuse_foreign
from tombola.studies.base.output import Output, output
from tombola.studies.base.own_code import code_facts, refuse_edited
from tombola.studies.base.study import Call, Plan, R, Study
from tombola.studies.base.work import Work
from tombola.training.device import device_facts, on_device
from tombola.training.own import own_functions
from tombola.training.processor import processor_facts


def study_of(kind: type[Study[C, R]], config: C, call: Call) -> Study[C, R]:
    """The study of `config` in its folder, whether it has begun there or not."""
    config = on_device(kind.started(config))
    return kind(config, kind.place(config, call.out), call)


def run_study(kind: type[Study[C, R]], config: C, call: Call) -> R:
    """Runs, continues or shows the study of `config` in its folder.

    A finished study is read, not run again, and never made smaller: asked for fewer replicates than it was finished
    with, it shows all of them; asked for more, it is extended.
    """
    asked = study_of(kind, config, call)
    if call.results is not None and kind.artefacts is not None:
        refuse_foreign(call.results, asked.folder.root.name, kind.artefacts)
    asked.check()
    study, is_whole, result = _as_finished(asked)
    if result is None:
        facts = _facts(study)  # before anything is written: what cannot be run leaves nothing behind
        with writing(study.folder):
            result = _run(study, facts, is_whole)
    study.settle(result)
    if call.results is not None and kind.artefacts is not None:
        copy_results(study.folder.results, call.results, kind.artefacts)
    if study.replicates > asked.replicates:
        call.watcher.say(f"Asked for {asked.replicates} replicates; the run has {study.replicates}, all are shown.")
    return result


def plan_study(kind: type[Study[C, R]], config: C, call: Call) -> Plan:
    """What a study would run and cost; nothing is written."""
    study = study_of(kind, config, call)
    _name_own_code(study)
    plan = study.plan(quick=False)
    assert plan is not None, f"{kind.name} has no plan"
    return plan


def plan_output(study: Study[Any, Any], plan: Plan) -> Output:
    """Of what a study will run: `folder` is where."""
    root = str(study.folder.root.resolve())
    return output("plan", plan.numbers, name=study.called, folder=root, outcome=plan.line)


def _name_own_code(study: Study[C, R]) -> None:
    """Before any of it is called."""
    if study.own_code is not None:
        study.call.watcher.say(f"{study.own_code} makes the network: your own code, looked up from the current folder")
    if study.own_task is not None:
        study.call.watcher.say(f"{study.own_task} makes the task: your own code, looked up from the current folder")
    if named := own_functions(study.config):
        study.call.watcher.say(f"{', '.join(named)}: your own code in the training, looked up from the current folder")


def _facts(study: Study[C, R]) -> dict[str, Any]:
    """What the run depends on; first, of a new run, what it will cost."""
    _name_own_code(study)
    if study.call.says_plan and not study.folder.manifest.exists():
        study.call.watcher.planned(lambda: _line_of(study.plan(quick=True)))
    facts = {**study.facts(), **code_facts(study.own_functions), PROCESSOR: processor_facts()}
    return facts | device_facts(study.config)


def _run(study: Study[C, R], facts: Mapping[str, Any], is_whole: bool) -> R:
    """Runs what is left of a study; of one that `is_whole` nothing is, and what is made of rows is made anew."""
    folder, call = study.folder, study.call
    table = folder.table(study.unit, study.columns)  # damage to it is refused while the folder still has its inventory
    if folder.manifest.exists():
        refuse_edited(folder, facts, study.own_code)
    begin_or_continue(folder, study.name, study.config, facts)
    make_folder(folder.checkpoints)
    if study.artefacts is not None:  # what is there is not of this number of replicates, until it is written again
        remove(folder.results / study.artefacts.summary)
    work = Work(study, table, call.workers, call.watcher)
    if not is_whole:
        study.work(work)
    result = study.result(work.rows, set(range(study.replicates)))
    write_text(folder.report, study.report(result))
    study.write(result)
    seal(folder, study.apart, study.said(result))  # last: it says that all is written
    return result


def _line_of(plan: Plan | None) -> str | None:
    return None if plan is None else plan.line


def _as_finished(asked: Study[C, R]) -> tuple[Study[C, R], bool, R | None]:
    """The study with as many replicates as it was finished with; whether all its work is done; and its result.

    None where something has to be made: files that are gone or altered are warned of, and made anew where rows suffice.
    RunFolderError for others.
    """
    folder = asked.folder
    found = findings(folder) if folder.manifest.exists() else None
    if found is None or found.rows_are_gone:
        return asked, False, None
    refuse(folder, found.among(lambda name: name == folder.manifest.name or asked.is_trained(name)))
    rows = asked.read_rows()
    complete = asked.complete(rows)
    study = asked.with_replicates(len(complete))
    warn(folder, found)
    wanted = set(range(study.replicates))
    is_whole = wanted <= complete and study.is_ready()
    return study, is_whole, study.result(rows, wanted) if is_whole and not found else None
