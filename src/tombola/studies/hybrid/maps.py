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
from tombola.runs.rows import Row
from tombola.studies.hybrid.questions import MAPS, Answer
from tombola.studies.hybrid.summaries import (
    Measured,
    accuracies,
    best_features,
    exits_of,
    forests_of,
    paired,
    resolution_of,
    side,
)
from tombola.studies.hybrid.wording import listed, signed

BASELINES = {"pixels": "raw pixels", "pca": "PCA"}
COARSEST = "gap"


@dataclass(frozen=True)
class Maps:
    """The forests of a study, and what a ticket's features cost them."""

    forests: Sequence[Measured]
    resolution: float

    @cached_property
    def best(self) -> list[Measured]:
        return best_features(self.forests)

    @cached_property
    def losses(self) -> dict[str, Estimate]:
        """Ticket minus dense at every exit that both have, best features each."""
        found = {}
        for exit in exits_of(self.best):
            ticket, dense = (self._best_at(network, exit) for network in ("ticket", "dense"))
            if ticket and dense and (loss := paired(accuracies(ticket), accuracies(dense), self.resolution)):
                found[exit] = loss
        return found

    def _best_at(self, network: str, exit: str) -> Measured | None:
        return next((f for f in self.best if (f.network, f.exit) == (network, exit)), None)

    @cached_property
    def poolings(self) -> list[str]:
        """The features that both a ticket's and dense maps were pooled to."""
        ticket, dense = ({f.features for f in self.forests if f.network == n} for n in ("ticket", "dense"))
        return [name for name in dict.fromkeys(f.features for f in self.forests) if name in ticket & dense]

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
    found = Maps(forests, resolution_of(rows))
    said = [
        _lead(found),
        *_exit_sentences(found),
        *_caution(found),
        *_pooling_sentences(found),
        *_baseline_sentences(found),
    ]
    return Answer(MAPS, tuple(said), _numbers(found))


def _lead(found: Maps) -> str:
    losses = found.losses
    if not losses:
        return "Not known: there are no forests on a ticket's and on dense features of the same exit."
    if all(loss.n < 2 for loss in losses.values()):
        return "Undecided: one replicate has no spread."
    lost = [exit for exit, loss in losses.items() if side(loss) == "below"]
    if not lost:
        unseen = max(loss.half_width or 0.0 for loss in losses.values())
        return (
            f"As far as can be seen they do: at none of {len(losses)} exits is a forest on the ticket's features shown "
            f"to be worse (losses of less than {unseen:.2f} points may go unseen)."
        )
    if len(lost) == len(losses):
        return f"No: at every exit ({len(losses)}) a forest on the ticket's features is worse."
    return (
        f"In part: at {listed(lost)}, {len(lost)} of {len(losses)} exits, a forest on the ticket's features is worse."
    )


def _exit_sentences(found: Maps) -> list[str]:
    if not found.losses:
        return []
    gaps = [f"{exit} {signed(loss)}" for exit, loss in found.losses.items()]
    said = [f"Ticket − dense, best features on validation each: {'; '.join(gaps)}."]
    gained = [exit for exit, loss in found.losses.items() if side(loss) == "above"]
    unclear = [exit for exit, loss in found.losses.items() if side(loss) == "open" and loss.n > 1]
    if gained:
        said.append(f"The ticket's features serve better at {listed(gained)}.")
    if unclear:
        said.append(f"Not told apart: {listed(unclear)}.")
    return said


def _caution(found: Maps) -> list[str]:
    if len(found.losses) < 2:
        return []
    return [f"Each exit is judged at 95 % by itself: nothing is corrected for there being {len(found.losses)} of them."]


def _open_words(margin: Estimate) -> str:
    """What is said where an interval holds 0, or where one replicate gives none."""
    return "cannot be judged against" if margin.n < 2 else "is not told apart from"


def _pooling_sentences(found: Maps) -> list[str]:
    said = []
    for features in found.poolings:
        if features == COARSEST or (margin := found.against_coarsest(features)) is None:
            continue
        verb = {
            "below": "suffers more than",
            "above": "suffers less than",
            "open": _open_words(margin),
        }[side(margin)]
        said.append(
            f"Of the poolings {COARSEST} {verb} {features}: averaged over exits, ticket − dense with {COARSEST} minus "
            f"ticket − dense with {features} is {signed(margin)}."
        )
    return said


def _baseline_sentences(found: Maps) -> list[str]:
    best = found.best_exit
    if best is None:
        return []
    said = []
    for baseline, title in BASELINES.items():
        margin = found.against_best_exit(baseline)
        if margin is None:
            said.append(f"A forest on {title} was not grown.")
            continue
        verb = {"above": "beats", "below": "is worse than", "open": _open_words(margin)}[side(margin)]
        said.append(f"A forest on {title} {verb} the best exit on validation ({best.name}): {signed(margin)}.")
    return said


def _numbers(found: Maps) -> dict[str, Any]:
    best = found.best_exit
    return {
        "ticket_minus_dense": {exit: asdict(loss) for exit, loss in found.losses.items()},
        "ticket_minus_dense_by_features": [
            {"exit": exit, "features": features, "difference": _estimated(gaps, found.resolution)}
            for exit in exits_of(found.forests)
            for features in found.poolings
            if (gaps := found.by_pooling(exit, features))
        ],
        "gap_minus_others": {
            features: asdict(margin)
            for features in found.poolings
            if features != COARSEST and (margin := found.against_coarsest(features))
        },
        "best_exit": best and {"network": best.network, "exit": best.exit, "features": best.features},
        "baselines_minus_best_exit": {
            name: (margin := found.against_best_exit(name)) and asdict(margin) for name in BASELINES
        },
    }


def _estimated(differences: dict[int, float], resolution: float) -> dict[str, Any]:
    return asdict(estimate([differences[index] for index in sorted(differences)], resolution))
