"""Differences of the published stress page: which are shown, who wins, and how that is written, briefly or in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tombola.studies.base.numbers import MISSING, counted, listed
from tombola.studies.stress.outcome import answers as asked
from tombola.studies.stress.outcome.contrasts import contrast_entry, judge, number, over_levels, said
from tombola.studies.stress.outcome.estimates import Estimate, over_seeds
from tombola.studies.stress.outcome.groups import DENSE, RANDOM
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import remarks
from tombola.studies.stress.outcome.result import Stress

Entry = Mapping[str, Any]
"""A difference as answers and remarks write it: `mean`, `ci`, `n`, `p_holm`, and the side on which it is `shown`."""


@dataclass(frozen=True)
class Contrast:
    """Two strategies by one metric."""

    ours: str
    theirs: str
    metric: str
    entry: Entry

    @property
    def is_shown(self) -> bool:
        """After Holm's correction."""
        return self.entry["shown"] is not None

    @property
    def is_won(self) -> bool:
        """Whether ours is the better one."""
        return (self.entry["mean"] > 0) == (QUANTITIES[self.metric].better == "more")

    @property
    def winner(self) -> str:
        """The better of both."""
        return self.ours if self.is_won else self.theirs

    @property
    def loser(self) -> str:
        """The worse of both."""
        return self.theirs if self.is_won else self.ours

    @property
    def gap(self) -> Estimate:
        """Winner minus loser."""
        found = estimate_from(self.entry)
        if self.is_won or found.mean is None:
            return found
        low, high = (None if bound is None else -bound for bound in (found.high, found.low))
        return replace(found, mean=-found.mean, low=low, high=high)


def pairs_of(result: Stress) -> list[Contrast]:
    """All pairs of strategies by the loss of the probe, mean over levels."""
    found = asked.strategies(result).numbers[result.models[0]]
    return [Contrast(pair["ours"], pair["theirs"], found["metric"], pair) for pair in found.get("pairs", ())]


def controls_of(result: Stress) -> list[Contrast]:
    """Strategies and their controls by several metrics, mean over levels."""
    found = remark_of(result, "Controls") or {}
    return [Contrast(one["ours"], one["control"], one["metric"], one) for one in found.get("comparisons", ())]


def forgetting_of(result: Stress) -> dict[str, Entry]:
    """How much more each strategy forgets than the dense model, mean over levels; one family."""
    costs = {
        name: over_levels(result, result.models[0], name, DENSE, "avg_forgetting_rate") for name in result.strategies
    }
    found = {name: over_seeds(seeds) for name, seeds in costs.items()}
    verdicts = judge(found)
    return {name: contrast_entry(one, verdicts.get(name)) for name, one in found.items()}


def interference_of(result: Stress) -> Entry:
    """What other tasks cost the recovery of the dense model, a difference by itself."""
    dense = result.dense(result.models[0])
    one = (
        Estimate(None, reason="the dense model was not run") if dense is None else dense.metrics["recovery_minus_alone"]
    )
    return contrast_entry(one, judge({"cost": one}).get("cost"))


def in_short(compared: Sequence[Contrast], thing: str) -> str:
    """How many differ, how often the control wins, and the clearest difference."""
    if (unknown := unjudged(compared)) is not None:
        return unknown
    shown = [one for one in compared if one.is_shown]
    of = counted(len(compared), thing)
    if not shown:
        return f"no difference shown in {of}"
    most, lost = clearest(shown), sum(one.winner == RANDOM for one in shown)
    control = f", {lost} of them won by random, a control" if lost else ""
    title = f"{QUANTITIES[most.metric].title} {brief(most.gap, most.metric)}"
    return f"shown in {len(shown)} of {of}{control} (clearest: {most.winner} better than {most.loser}, {title})"


def in_full(compared: Sequence[Contrast], thing: str) -> str:
    """Who wins against whom, with the metrics where there are several, and the clearest difference of each winner."""
    if (unknown := unjudged(compared)) is not None:
        return unknown
    winners: dict[str, list[Contrast]] = {}
    for one in compared:
        if one.is_shown:
            winners.setdefault(one.winner, []).append(one)
    rest = len(compared) - sum(map(len, winners.values()))
    several = len({one.metric for one in compared}) > 1
    parts = [_wins(winner, won, several) for winner, won in winners.items()]
    if rest:
        n = max(one.entry["n"] for one in compared)
        others = f"the other {counted(rest, thing)}" if parts else counted(rest, thing)
        parts.append(f"no difference shown in {others} (n = {n} seeds)")
    return "; ".join(parts)


def _wins(winner: str, won: Sequence[Contrast], several: bool) -> str:
    metrics: dict[str, list[str]] = {}
    for one in won:
        metrics.setdefault(one.loser, []).append(QUANTITIES[one.metric].title)
    over = [f"{loser} by {listed(by)}" if several else loser for loser, by in metrics.items()]
    most = clearest(won)
    which = f"clearest, to {most.loser}: " if len(won) > 1 else ""
    which += f"{QUANTITIES[most.metric].title} " if several else ""
    control = ", a control," if winner == RANDOM else ""
    return f"{winner}{control} is better than {listed(over)} ({which}{said(most.gap, most.metric)})"


def unjudged(compared: Sequence[Contrast]) -> str | None:
    """Why nothing can be said; None where something can."""
    if not compared:
        return "not measured"
    return "cannot be concluded with one seed" if max(one.entry["n"] for one in compared) < 2 else None


def clearest(shown: Sequence[Contrast]) -> Contrast:
    """The one with the least p."""
    return min(shown, key=lambda one: (one.entry["p_holm"], -abs(one.entry["mean"])))


def brief(one: Estimate, metric: str, sign: bool = True) -> str:
    """`+0.051 [+0.020, +0.082]`: a mean and its 95 % interval."""
    if one.mean is None:
        return MISSING
    text = number(one.mean, metric, sign)
    if one.low is None or one.high is None:
        return text
    return f"{text} [{number(one.low, metric, sign)}, {number(one.high, metric, sign)}]"


def remark_of(result: Stress, topic: str) -> Entry | None:
    """The numbers of a remark; None where it does not apply."""
    (model,) = result.models
    return next((one.numbers[model] for one in remarks(result) if one.question == topic), None)


def estimate_from(entry: Entry) -> Estimate:
    """The estimate that an entry was written from, as far as sentences need it."""
    low, high = entry["ci"] or (None, None)
    return Estimate(entry["mean"], low, high, entry["n"], entry["reason"])
