"""What there is to choose from: criteria, structures, distributions, schedules, controls, models, data sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tombola.data import data_sets
from tombola.errors import ConfigError
from tombola.models import architectures
from tombola.pruning import criteria, distributions, schedules, structures
from tombola.pruning.criteria import Needs
from tombola.registry import Registry, described, suggest
from tombola.reports.tables import Table
from tombola.studies.lottery.controls import controls
from tombola.studies.single.schedule import CALLED_ALSO, KINDS


def listing(what: str) -> Table:
    """The names and what they mean; ConfigError for anything that is not listed."""
    if what not in LISTINGS:
        raise ConfigError(f"nothing is listed as {what!r}{suggest(what, ('runs', *LISTINGS))}")
    return LISTINGS[what]()


def _criteria() -> Table:
    least_first = sorted(criteria, key=lambda name: list(Needs).index(criteria.get(name).needs))
    rows = [(name, str(criteria.get(name).needs), criteria.get(name).description) for name in least_first]
    return Table(("Criterion", "Needs", "A unit is worth"), rows)


def _models() -> Table:
    rows = [
        (n, " ".join(map(str, architectures.get(n).widths)), architectures.get(n).description) for n in architectures
    ]
    return Table(("Model", "Widths", "What it is"), rows)


def _schedules() -> Table:
    """The curves, and how `tombola prune --schedule` calls and follows each."""
    rows = []
    for name in schedules:
        kind = CALLED_ALSO.get(name, name)
        asked = kind if kind == "oneshot" else f"{kind}:N"
        rows.append((name, described(schedules.get(name)), f"{asked}: {KINDS[kind]}"))
    return Table(("Schedule", "How the target spreads over rounds", "In `tombola prune --schedule`"), rows)


def _controls() -> Table:
    rows = [(n, "yes" if controls.get(n).decides else "no", controls.get(n).description) for n in controls]
    return Table(("Control", "A winner beats it", "What is trained"), rows)


def _of(registry: Registry[Any], columns: tuple[str, str]) -> Callable[[], Table]:
    return lambda: Table(columns, [(name, described(registry.get(name))) for name in registry])


LISTINGS: dict[str, Callable[[], Table]] = {
    "criteria": _criteria,
    "structures": _of(structures, ("Structure", "What is kept or removed whole")),
    "distributions": _of(distributions, ("Distribution", "How the target spreads over layers")),
    "schedules": _schedules,
    "controls": _controls,
    "models": _models,
    "data": _of(data_sets, ("Data set", "What it is")),
}
_DESCRIBED = ("name", "description")
KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LISTINGS, _DESCRIBED),
    "criteria": ("name", "needs", "description"),
    "schedules": ("name", "description", "option"),
    "controls": ("name", "decides", "description"),
    "models": ("name", "widths", "description"),
}
"""The columns of each for programs, in their order."""
