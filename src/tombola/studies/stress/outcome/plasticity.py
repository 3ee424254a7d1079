"""Loss of plasticity: whether, and from which cycle on, a network learns a held-out language worse than at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.reports.significance import holm, judged
from tombola.studies.stress.outcome.estimates import Estimate, by_seed, over_seeds, paired
from tombola.studies.stress.outcome.lives import Life, Moment
from tombola.studies.stress.outcome.measured import probes_of

LEVEL = 0.05
UNTREATED = "none"


@dataclass(frozen=True)
class Onset:
    """The first cycle after which the probe loss is shown to be above that of just after the pruning before it.

    Student's t test over seeds, one-sided at 5 %, with Holm's correction over all cycles that are looked at. What a
    pruning alone did is not among them; nor is the first cycle of a network with a remedy, which acts only after it.
    `reached` is None where it cannot be judged.
    """

    reached: bool | None
    cycle: int | None
    cycles: int
    sentence: str
    p: Mapping[int, float | None]

    @property
    def least_p(self) -> float | None:
        """Of its cycles."""
        return min((one for one in self.p.values() if one is not None), default=None)

    @property
    def entry(self) -> dict[str, Any]:
        """For a program."""
        return {"reached": self.reached, "cycle": self.cycle, "verdict": self.sentence, "p_holm": dict(self.p)}


def after_correction(onsets: Mapping[str, Onset]) -> list[str]:
    """Those that are still shown with Holm's correction over all of them: groups that chance alone would not give."""
    known = {name: p for name, one in onsets.items() if (p := one.least_p) is not None}
    return [name for name, p in zip(known, holm([*known.values()]), strict=True) if p <= LEVEL]


@dataclass(frozen=True)
class Plasticity:
    """The probe of a group over seeds, by cycle; a cycle is counted over all prunings of a life."""

    network: Mapping[Moment, Estimate]
    fresh: Mapping[Moment, Estimate]
    changes: Mapping[Moment, Estimate]
    """Loss after a cycle minus that of just after the pruning before it, paired by seed; above 0 is plasticity lost."""
    onset: Onset


def plasticity_of(lives: Sequence[Life]) -> Plasticity:
    """The probe of the lives of one group; draws of a seed are averaged first."""
    seeds = {of: _by_moment(lives, of) for of in ("network", "fresh")}
    network = seeds["network"]
    over = {of: {moment: over_seeds(found) for moment, found in by.items()} for of, by in seeds.items()}
    moments = list(network)
    after_pruning = {prune_cycle: min(found) for prune_cycle, found in _by_pruning(moments).items()}
    starts = {moment: after_pruning[moment.prune_cycle] for moment in moments}
    changes = {moment: paired(network[moment], network[start]) for moment, start in starts.items() if moment != start}
    learned = {moment for life in lives for moment in life.moments}
    if any(life.key.remedy != UNTREATED for life in lives):
        learned.discard(min(learned, default=moments[0]))
    after_cycles = {moment: change for moment, change in changes.items() if moment in learned}
    return Plasticity(over["network"], over["fresh"], changes, _onset(after_cycles))


def _by_pruning(moments: Sequence[Moment]) -> dict[int, list[Moment]]:
    found: dict[int, list[Moment]] = {}
    for moment in moments:
        found.setdefault(moment.prune_cycle, []).append(moment)
    return found


def _by_moment(lives: Sequence[Life], of: str) -> dict[Moment, dict[int, Any]]:
    probes = [(life.key.seed, probes_of(life, of)) for life in lives]
    moments = sorted({moment for _, found in probes for moment in found})
    return {moment: by_seed((seed, found[moment]) for seed, found in probes if moment in found) for moment in moments}


def _onset(changes: Mapping[Moment, Estimate]) -> Onset:
    cycles = len(changes)
    if not changes:
        return Onset(None, None, 0, "not measured: the probe was not run after any cycle that could show it", {})
    if all(change.mean is None for change in changes.values()):
        return Onset(None, None, cycles, "not measured: the probe was not run after any cycle", {})
    if all(change.n < 2 for change in changes.values()):
        return Onset(None, None, cycles, "cannot be judged with one seed", {})
    falls = {moment: fall for moment, change in changes.items() if (fall := _turned(change)) is not None}
    shown = judged(falls, tail="below")
    p = {moment.cycle: found.p for moment, found in shown.items()}
    for moment, found in shown.items():
        if found.side == "below":
            lost = -found.difference.mean
            said = f"onset at cycle {moment.cycle}: the probe loss is {lost:.3f} nats a token above that after pruning"
            return Onset(True, moment.cycle, cycles, f"{said} (n = {found.difference.n} seeds)", p)
    n = max(change.n for change in changes.values())
    counted = "this one cycle" if cycles == 1 else f"these {cycles} cycles"
    return Onset(False, None, cycles, f"onset not reached in {counted} (n = {n} seeds)", p)


def _turned(change: Estimate) -> Any:
    """A rise as a fall, whose tail `judged` knows."""
    plain = change.plain
    if plain is None:
        return None
    low, high = (None if bound is None else -bound for bound in (plain.high, plain.low))
    return type(plain)(-plain.mean, low, high, plain.sd, plain.n)
