"""What is looked at beside scores: plasticity, what goes along with it, and how much of the function is left."""

from __future__ import annotations

import torch
from torch import nn

from tombola.runs.rows import Row
from tombola.studies.stress.cells import Moment
from tombola.studies.stress.config import StressConfig
from tombola.studies.stress.living.cell import Living
from tombola.studies.stress.living.correlates import ITEMS, correlates
from tombola.studies.stress.living.function import preserved
from tombola.studies.stress.living.probe import probed
from tombola.studies.stress.living.remedies import remedies
from tombola.studies.stress.living.state import State, all_kept
from tombola.studies.stress.living.strategies import entropy_of

PROBE_STEPS, QUICK_PROBE_STEPS, PROBE_LOOKS = 20, 10, 2
NETWORK, FRESH, NONE = "network", "fresh", "none"


def looked_at(living: Living, moment: Moment, state: State) -> tuple[list[Row], State]:
    """The unit that ends a cycle. What is done against lost plasticity is done here, after the look."""
    columns = living.columns(moment, state)
    rows = [probe_row(living, columns, state, state.network, NETWORK), correlates_row(living, columns, state)]
    if living.config.function:
        rows.append(function_row(living, columns, NETWORK, state.network))
    if living.spec.key.remedy != NONE and moment is not living.moments[-1]:  # what nobody looks at any more stays
        _remedy(living, moment, state)
    return rows, state


def _remedy(living: Living, moment: Moment, state: State) -> None:
    tasks = list(living.curriculum.tasks.values())
    remedies.get(living.spec.key.remedy)(state.network, living.fresh("remedy", moment.cycle), tasks)
    living.masks(state.network, state).apply_(state.network)


def probe_steps(config: StressConfig) -> int:
    """How long the held-out language is learned."""
    return QUICK_PROBE_STEPS if config.quick else PROBE_STEPS


def probe_row(living: Living, columns: Row, state: State, network: nn.Module, of: str) -> Row:
    """How well a network, or a fresh one under its mask, learns the held-out language."""
    steps = probe_steps(living.config)
    recipe, masks = living.recipe(f"{steps}it", steps, PROBE_LOOKS), living.masks(network, state)
    found = probed(network, masks, living.curriculum.probe, recipe, living.seed_of("probe"))
    return {**columns, "kind": "probe", "task": living.curriculum.probe_name, "of": of, **found}


def correlates_row(living: Living, columns: Row, state: State) -> Row:
    """Dormant neurons, rank, size of weights; and how evenly the heads look that are left."""
    tasks = list(living.curriculum.tasks.values())
    heads = state.keep if living.config.structure == "head" else all_kept(living.subject.layers, living.subject.heads)
    held_out = [(task, (task.first(ITEMS).held_out.ids, task.first(ITEMS).held_out.counted)) for task in tasks]
    entropy = entropy_of(state.network, held_out)[torch.stack(heads)]
    neurons = None if living.config.structure == "head" else state.keep
    found = correlates(state.network, tasks, neurons)
    return {**columns, "kind": "state", **found, "entropy": float(entropy.mean())}


def function_row(living: Living, columns: Row, of: str, network: nn.Module) -> Row:
    """A network beside the model as it was given."""
    reference = living.subject.reference.to(living.device)
    found = preserved(reference, network, list(living.curriculum.tasks.values()))
    return {**columns, "kind": "function", "of": of, "task": "all", **found}
