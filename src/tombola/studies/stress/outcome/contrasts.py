"""Differences between groups, paired by seed, which of them are shown, and how a sentence writes them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tombola.reports.significance import Judged, judged
from tombola.studies.stress.metrics import Value, mean_of
from tombola.studies.stress.outcome.estimates import BySeed, Estimate
from tombola.studies.stress.outcome.groups import Group, difference_by_seed
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.result import Stress

Name = TypeVar("Name", bound=Hashable)
OfModel = Callable[[Stress, str], tuple[str, dict[str, Any]]]
"""What is said of one model: a sentence, and its numbers."""
LEAST_SPREAD = 1e-9
"""A standard deviation below this is rounding, of networks that are the same."""
LOWER, HIGHER = "below", "above"
ONE_SEED = "Cannot be concluded with one seed."


@dataclass(frozen=True)
class Answer:
    """A question and its answer in plain English; `numbers` are the same for a program."""

    question: str
    sentence: str
    numbers: dict[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        """For a program."""
        return {"question": self.question, "answer": self.sentence, "numbers": self.numbers}


def over_levels(result: Stress, model: str, ours: str, theirs: str, metric: str) -> BySeed:
    """A strategy minus another (or a reference) by seed: the mean over levels that both have, without a remedy."""
    pairs = [
        (own, other)
        for level in result.levels
        if (own := result.group(model, ours, level)) is not None
        and (other := result.group(model, theirs, level) or result.group(model, theirs)) is not None
    ]
    return mean_over((difference_by_seed(own, other, metric) for own, other in pairs))


def mean_over(parts: Iterable[BySeed]) -> BySeed:
    """The mean over several differences for each seed that has all of them; null for one where any of them is."""
    found = list(parts)
    seeds = set.intersection(*(set(part) for part in found)) if found else set()
    return {seed: _mean_of_all([part[seed] for part in found]) for seed in sorted(seeds)}


def _mean_of_all(values: Sequence[Value]) -> Value:
    """Means over other levels or strategies than those of the other seeds could not be compared with theirs."""
    mean = mean_of(values)
    if not mean.missing:
        return mean
    return replace(mean, number=None, reason=f"{mean.missing} of {mean.asked} differences missing: {mean.reason}")


def ratio(ours: Value, by: float) -> Value:
    """A value divided by a number."""
    return ours if ours.number is None else replace(ours, number=ours.number / by)


def judge(differences: Mapping[Name, Estimate]) -> dict[Name, Judged]:
    """Two-sided t tests of one family after Holm, of those differences that have a mean."""
    plain = {name: one.plain for name, one in differences.items()}
    spread = {
        name: replace(one, sd=None if one.sd is None else max(one.sd, LEAST_SPREAD))
        for name, one in plain.items()
        if one is not None
    }
    return judged(spread)


def contrast_entry(estimate: Estimate, verdict: Judged | None) -> dict[str, Any]:
    """An estimate with its p and its side, for a program."""
    p, side = (None, "open") if verdict is None else (verdict.p, verdict.side)
    return estimate.entry | {"p_holm": p, "shown": None if side == "open" else side}


def number(value: float, metric: str, sign: bool = False) -> str:
    """As many places as the metric's unit needs, with a real minus."""
    quantity = QUANTITIES[metric]
    places = 1 if quantity.unit in ("steps", "tokens") else 3
    rounded = round(value, places) + 0.0  # no negative zero
    return f"{rounded:{'+' if sign else ''}.{places}f}".replace("-", "−")


def said(estimate: Estimate, metric: str, sign: bool = True) -> str:
    """`+0.051 nats a token (95 % CI +0.020 to +0.082, n = 3 seeds)`."""
    if estimate.mean is None:
        return f"not known ({estimate.reason})"
    unit = QUANTITIES[metric].unit
    text = f"{number(estimate.mean, metric, sign)} {unit}".rstrip()
    if estimate.low is None or estimate.high is None:
        return f"{text} (one seed, no interval)"
    low, high = number(estimate.low, metric, sign), number(estimate.high, metric, sign)
    return f"{text} (95 % CI {low} to {high}, n = {estimate.n} seeds)"


def seeds_in(estimates: Iterable[Estimate]) -> int:
    """The most seeds that any of them has."""
    return max((one.n for one in estimates), default=0)


def is_better(metric: str, side: str) -> bool:
    """Whether a difference on this side is good."""
    return side == (HIGHER if QUANTITIES[metric].better == "more" else LOWER)


def has(groups: Iterable[Group], metric: str) -> bool:
    """Whether any group has a value of a metric."""
    return any(group.metrics[metric].mean is not None for group in groups)


def of_model(result: Stress, text: str, model: str) -> str:
    """A sentence, begun with the model's name where there are several."""
    return text if len(result.models) == 1 else f"{model}: {text}"


def plain_groups(result: Stress, model: str) -> Sequence[Group]:
    """The groups of a model that something was removed from, without a remedy, in order."""
    return [
        group
        for key, group in result.groups.items()
        if key.model == model and not key.is_reference and key.remedy == "none"
    ]


def per_model(result: Stress, question: str, of: OfModel) -> Answer:
    """One answer of what is said of each model."""
    found = {model: of(result, model) for model in result.models}
    alike = len({text for text, _ in found.values()}) == 1  # nothing that differs from model to model
    said = (text if alike else of_model(result, text, model) for model, (text, _) in found.items())
    sentence = " ".join(dict.fromkeys(said))
    return Answer(question, sentence or "Nothing was measured.", {model: one for model, (_, one) in found.items()})
