"""Question 4: do a ticket's feature maps still serve the forest? A pure function of rows.

Forests on a ticket's features against those on dense ones, in points of test accuracy, paired by replicate; at every
exit each network with the features that are its best on validation, and pooling by pooling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tombola.reports.intervals import Estimate, estimate
from tombola.reports.significance import Judged, judged
from tombola.runs.rows import Row
from tombola.studies.base.numbers import begun, counted, found_in_most, listed, signed
from tombola.studies.hybrid.questions import MAPS, Answer
from tombola.studies.hybrid.soundness import unsound
from tombola.studies.hybrid.summaries import (
    Measured,
    accuracies,
    best_features,
    exits_of,
    forests_of,
    networks_of,
    paired,
    resolution_of,
)

BASELINES = {"pixels": "raw pixels", "pca": "PCA"}
COARSEST = "gap"
NOTE = "Comparisons of poolings, and those of baselines, are each corrected among themselves (Holm)."


@dataclass(frozen=True)
class Maps:
    """The forests of a study, and what a ticket's features cost them."""

    forests: Sequence[Measured]
    resolution: float
    unsound: Sequence[str] = ()
    """What is said of the dense and the ticket network where they learned nothing: their maps are then no maps."""

    @cached_property
    def best(self) -> list[Measured]:
        return best_features(self.forests)

    @cached_property
    def losses(self) -> dict[str, Judged]:
        """Ticket minus dense at every exit that both have, best features each; one family."""
        found = {}
        for exit in exits_of(self.best):
            ticket, dense = (self._best_at(network, exit) for network in ("ticket", "dense"))
            if ticket and dense and (loss := paired(accuracies(ticket), accuracies(dense), self.resolution)):
                found[exit] = loss
        return judged(found)

    def _best_at(self, network: str, exit: str) -> Measured | None:
        return next((f for f in self.best if (f.network, f.exit) == (network, exit)), None)

    @cached_property
    def poolings(self) -> list[str]:
        """The features that both a ticket's and dense maps were pooled to."""
        ticket, dense = ({f.features for f in self.forests if f.network == n} for n in ("ticket", "dense"))
        return [name for name in dict.fromkeys(f.features for f in self.forests) if name and name in ticket & dense]

    def by_pooling(self, exit: str, features: str) -> dict[int, float]:
        """Ticket minus dense in points by replicate, at one exit with the same features; empty where one is missing."""
        ticket, dense = (
            next((f for f in self.forests if (f.network, f.exit, f.features) == (network, exit, features)), None)
            for network in ("ticket", "dense")
        )
        if ticket is None or dense is None:
            return {}
        ours, theirs = accuracies(ticket), accuracies(dense)
        return {index: ours[index] - theirs[index] for index in ours.keys() & theirs.keys()}

    def against_coarsest(self, features: str) -> Estimate | None:
        """What `gap` loses beyond `features`, mean over the exits that have both: negative where `gap` suffers more.

        A difference of differences has twice the variance of rounding, and the mean of k exits a k-th of that.
        """
        pairs = [(self.by_pooling(exit, COARSEST), self.by_pooling(exit, features)) for exit in exits_of(self.forests)]
        pairs = [(coarse, other) for coarse, other in pairs if coarse and other]
        if not pairs:
            return None
        whole = set.intersection(*(coarse.keys() & other.keys() for coarse, other in pairs))

        def mean(side: int) -> dict[int, float]:
            return {index: sum(pair[side][index] for pair in pairs) / len(pairs) for index in whole}

        return paired(mean(0), mean(1), self.resolution * math.sqrt(2 / len(pairs)))

    @cached_property
    def margins(self) -> dict[str, Judged]:
        """`against_coarsest` of every other kind of features; one family."""
        others = [features for features in self.poolings if features != COARSEST]
        found = {features: self.against_coarsest(features) for features in others}
        return judged({features: margin for features, margin in found.items() if margin is not None})

    @cached_property
    def baselines(self) -> dict[str, Judged]:
        """`against_best_exit` of every baseline; one family."""
        found = {name: self.against_best_exit(name) for name in BASELINES}
        return judged({name: margin for name, margin in found.items() if margin is not None})

    @property
    def best_exit(self) -> Measured | None:
        """Of all networks and exits the forest of best validation accuracy."""
        exits = [forest for forest in self.best if forest.exit is not None]
        return max(exits, key=lambda f: f.mean("validation_accuracy") or 0.0, default=None)

    def against_best_exit(self, baseline: str) -> Estimate | None:
        """A baseline minus the best exit in points of test accuracy."""
        ours = next((forest for forest in self.best if forest.network == baseline), None)
        if ours is None or self.best_exit is None:
            return None
        return paired(accuracies(ours), accuracies(self.best_exit), self.resolution)


def maps(rows: Sequence[Row]) -> Answer:
    """The answer, exit by exit and pooling by pooling; then whether plain pixels do better."""
    forests = forests_of(rows)
    if not forests:
        return Answer(MAPS, ("Not known: no forest was grown.",), {"reason": "no forest was grown"})
    networks = {name: one for name, one in networks_of(rows).items() if name in ("dense", "ticket")}
    found = Maps(forests, resolution_of(rows), unsound(networks))
    said = [_lead(found), *_exit_sentences(found), *_pooling_sentences(found), *_baseline_sentences(found)]
    return Answer(MAPS, (*said, NOTE) if found.losses else tuple(said), _numbers(found))


def _lead(found: Maps) -> str:
    losses = found.losses
    if not losses:
        return "Not known: there are no forests on a ticket's and on dense features of the same exit."
    if all(loss.p is None for loss in losses.values()):
        return "Undecided: one replicate has no spread."
    if found.unsound:
        return f"Not known: {listed(found.unsound)}, and maps that nothing was learned with can serve nothing."
    lost = [exit for exit, loss in losses.items() if loss.side == "below"]
    if not lost:
        return (
            f"No loss is shown at any of {counted(len(losses), 'exit')}, which does not show that there is none: "
            f"{found_in_most([*losses.values()], 'by exit')}."
        )
    if len(lost) == len(losses):
        return f"No: at every exit ({len(losses)}) a forest on the ticket's features is worse."
    others = {exit: loss for exit, loss in losses.items() if loss.side == "open"}
    rest = f"; at {counted(len(others), 'exit')} no significant difference is shown" if others else ""
    return (
        f"Not everywhere: at {listed(lost)}, {len(lost)} of {len(losses)} exits, a forest on the ticket's features is "
        f"worse{rest}."
    )


def _exit_sentences(found: Maps) -> list[str]:
    losses = found.losses
    if not losses:
        return []
    gaps = [f"{exit} {signed(loss.difference)}" for exit, loss in losses.items()]
    said = [f"Ticket − dense on test, each network with its features that are best on validation: {'; '.join(gaps)}."]
    gained = [exit for exit, loss in losses.items() if loss.side == "above"]
    unclear = {exit: loss for exit, loss in losses.items() if loss.side == "open" and loss.p is not None}
    if gained:
        said.append(f"The ticket's features serve better at {listed(gained)}.")
    if unclear:
        missing = begun(found_in_most([*unclear.values()], "by exit"))
        said.append(f"No significant difference: {listed([*unclear])}. {missing}.")
    if len(losses) > 1:
        said.append(
            f"Exits are judged at 5 %, corrected for {len(losses)} of them (Holm); intervals are each by itself."
        )
    return said


def _open_words(one: Judged) -> str:
    """What is said where no difference is shown, or where one replicate gives no interval."""
    return "cannot be judged against" if one.p is None else "shows no significant difference to"


def _missed(one: Judged) -> str:
    return f"; {found_in_most([one])}" if one.side == "open" and one.p is not None else ""


def _pooling_sentences(found: Maps) -> list[str]:
    said = []
    for features, margin in found.margins.items():
        verb = {"below": "suffers more than", "above": "suffers less than", "open": _open_words(margin)}[margin.side]
        said.append(
            f"Of the poolings {COARSEST} {verb} {features}: averaged over exits, ticket − dense with {COARSEST} minus "
            f"ticket − dense with {features} is {signed(margin.difference)}{_missed(margin)}."
        )
    return said


def _baseline_sentences(found: Maps) -> list[str]:
    best = found.best_exit
    if best is None:
        return []
    said, margins = [], found.baselines
    for baseline, title in BASELINES.items():
        margin = margins.get(baseline)
        if margin is None:
            said.append(f"A forest on {title} was not grown.")
            continue
        verb = {"above": "beats", "below": "is worse than", "open": _open_words(margin)}[margin.side]
        said.append(
            f"A forest on {title} {verb} the best exit on validation ({best.name}), on test: "
            f"{signed(margin.difference)}{_missed(margin)}."
        )
    return said


def _numbers(found: Maps) -> dict[str, Any]:
    best = found.best_exit
    return {
        "part": "test",
        "reason": listed(found.unsound) if found.unsound else None,
        "correction": "Holm, over exits, over poolings and over baselines",
        "ticket_minus_dense": {exit: _entry(loss) for exit, loss in found.losses.items()},
        "ticket_minus_dense_by_features": [
            {"exit": exit, "features": features, "difference": _estimated(gaps, found.resolution)}
            for exit in exits_of(found.forests)
            for features in found.poolings
            if (gaps := found.by_pooling(exit, features))
        ],
        "gap_minus_others": {features: _entry(margin) for features, margin in found.margins.items()},
        "best_exit": best and {"network": best.network, "exit": best.exit, "features": best.features},
        "baselines_minus_best_exit": {
            name: _entry(found.baselines[name]) if name in found.baselines else None for name in BASELINES
        },
    }


def _entry(one: Judged) -> dict[str, Any]:
    """A difference for a program: its interval by itself, and what is left of it in its family."""
    return asdict(one.difference) | {"p_adjusted": one.p, "side": one.side, "detectable": one.detectable}


def _estimated(differences: dict[int, float], resolution: float) -> dict[str, Any]:
    return asdict(estimate([differences[index] for index in sorted(differences)], resolution))
