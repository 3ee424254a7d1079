"""The life of a cell in a process of its own: pruned, taught one task after the other, looked at; unit by unit.

What was done before a kill is read and not done again, so that a life goes on where it was, to the same end.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tombola.errors import ModelError, StorageError
from tombola.runs.atomic import make_folder, remove
from tombola.runs.executors import Emit
from tombola.runs.rows import Row
from tombola.studies.base.watching import Progress
from tombola.studies.base.work import Finished, unit_rows, write_unit
from tombola.studies.stress.cells import LEARN, PRUNE, Moment
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.living.cell import CellSpec, Living
from tombola.studies.stress.living.keeping import keep_model
from tombola.studies.stress.living.learning import learned
from tombola.studies.stress.living.looking import looked_at
from tombola.studies.stress.living.removing import pruned
from tombola.studies.stress.living.state import State, all_kept
from tombola.studies.stress.subjects.curriculum import Curriculum
from tombola.studies.stress.subjects.networks import open_subject
from tombola.training.threads import one_thread


def live(spec: CellSpec, emit: Emit) -> None:
    """The executor's cell: lives it to its end."""
    with one_thread():
        living = _opened(spec)
        total = len(living.moments)
        make_folder(spec.home)
        done, state = _reached(living)
        for unit in range(done):
            emit(Finished(spec.unit(unit)))
        for moment in living.moments[done:]:
            emit(Progress(spec.key.name, moment.unit, total, said_of(living, moment)))
            rows, state = _unit(living, moment, state)
            if spec.config.save_models and moment is living.moments[-1]:
                keep_model(living, state)
            state.save(spec.state(moment.unit))
            write_unit(spec.unit(moment.unit), rows)
            remove(spec.state(moment.unit - 1))
            emit(Finished(spec.unit(moment.unit)))
        remove(spec.state(total - 1))  # whose weights would else lie there for every network of the study
        emit(Progress(spec.key.name, total, total))


def _opened(spec: CellSpec) -> Living:
    subject = open_subject(spec.model, spec.config.quick)
    if subject.loaded.sha256 != spec.sha256:
        raise ModelError(f"{spec.model}: was replaced while the study was at work; put it back")
    return Living(spec, subject, _curriculum(spec.config, spec.key.seed, spec.model))


@functools.lru_cache(maxsize=1)
def _curriculum(config: StressConfig, seed: int, model: str) -> Curriculum:
    """The tasks of a replicate, made once in a process."""
    return Curriculum(config, seed, open_subject(model, config.quick).tokenizer)


def said_of(living: Living, moment: Moment) -> str:
    """What a unit does, for who watches."""
    if moment.does == LEARN:
        return f"cycle {moment.cycle}, {living.name_at(moment)}"
    return "pruning" if moment.does == PRUNE else f"cycle {moment.cycle}, plasticity"


def _unit(living: Living, moment: Moment, state: State) -> tuple[Sequence[Row], State]:
    does = {PRUNE: pruned, LEARN: learned}.get(moment.does, looked_at)
    return does(living, moment, state)


def _reached(living: Living) -> tuple[int, State]:
    """How many units need not be lived again, and the state after them."""
    spec = living.spec
    whole = next((moment.unit for moment in living.moments if not _is_whole(spec, moment.unit)), len(living.moments))
    subject = living.subject
    units = subject.heads if spec.config.structure == "head" else subject.neurons
    beginning = State(living.network(), all_kept(subject.layers, units))
    if whole == len(living.moments):
        return whole, beginning  # which nobody goes on from
    for unit in reversed(range(whole)):
        try:
            if spec.state(unit).exists():
                return unit + 1, State.load(spec.state(unit), living.network())
        except StorageError:
            continue  # torn by a kill
    return 0, beginning


def _is_whole(spec: CellSpec, unit: int) -> bool:
    try:
        return spec.unit(unit).exists() and bool(unit_rows(spec.unit(unit)))
    except StorageError:
        return False
