"""Two of the five questions: whether smaller networks adapt worse, and whether other architectures keep more."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from tombola.reports.significance import Judged
from tombola.studies.base.numbers import listed
from tombola.studies.stress.metrics import Value
from tombola.studies.stress.outcome.contrasts import (
    LOWER,
    ONE_SEED,
    Answer,
    contrast_entry,
    is_better,
    judge,
    mean_over,
    per_model,
    plain_groups,
    ratio,
    said,
    seeds_in,
)
from tombola.studies.stress.outcome.estimates import BySeed, Estimate, minus, over_seeds
from tombola.studies.stress.outcome.groups import DENSE, difference_by_seed
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.result import Stress

SIZE = "Is there a trade-off between size and adaptability?"
ARCHITECTURES = "Do certain architectures keep more plasticity?"
NO_SIZE = "no removed parameters were counted in a network that has a dense reference"
TENTH = 0.1


def size(result: Stress) -> Answer:
    """How what was lost against dense grows with the parameters that are really gone: a line through dense, by seed."""
    return per_model(result, SIZE, _size)


def _size(result: Stress, model: str) -> tuple[str, dict[str, Any]]:
    slopes = {metric: over_seeds(_slopes(result, model, metric), NO_SIZE) for metric in ("learning_area", "probe_nats")}
    verdicts = judge(slopes)
    numbers = {metric: contrast_entry(one, verdicts.get(metric)) for metric, one in slopes.items()}
    n = seeds_in(slopes.values())
    if not n:
        return f"Not known: {NO_SIZE}.", numbers
    shown = {metric: one for metric, one in verdicts.items() if one.side != "open"}
    per = "for every 10 % of the parameters that are removed"
    parts = "; ".join(f"{QUANTITIES[metric].title} {said(one, metric)}" for metric, one in slopes.items())
    if n < 2:
        return f"{ONE_SEED} {per[0].upper()}{per[1:]}: {parts}.", numbers
    if not shown:
        return f"No trade-off is shown (n = {n} seeds); {per}: {parts}.", numbers
    worse = [metric for metric, one in shown.items() if not is_better(metric, one.side)]
    lead = "Yes" if len(worse) == len(shown) else "No, smaller networks adapt better" if not worse else "Both ways"
    of = listed([QUANTITIES[metric].title for metric in shown])
    return f"{lead}, shown by {of}; {per}: {parts}.", numbers


def _slopes(result: Stress, model: str, metric: str) -> BySeed:
    """Least squares through the dense network, Σxy / Σx², for a tenth of the parameters; x the fraction removed."""
    dense = result.group(model, DENSE)
    points: dict[int, list[tuple[float, float]]] = {}
    for group in plain_groups(result, model) if dense is not None else ():
        gone, whole = (group.by_seed(name) for name in ("parameters_removed", "parameters"))
        assert dense is not None
        for seed, change in difference_by_seed(group, dense, metric).items():
            removed, total = gone[seed].number, whole[seed].number
            if change.number is not None and removed and total:
                points.setdefault(seed, []).append((removed / total, change.number))
    return {
        seed: Value(TENTH * sum(x * y for x, y in found) / sum(x * x for x, _ in found))
        for seed, found in sorted(points.items())
    }


def architectures(result: Stress) -> Answer:
    """By how much of its first probe loss a model has lost at the end: losses of two tokenizers are not the same."""
    if len(result.models) < 2:
        named = "".join(f" ({model})" for model in result.models)
        return Answer(ARCHITECTURES, f"One architecture{named}: nothing can be said.", {})
    changes = {model: _relative(result, model) for model in result.models}
    over = {model: over_seeds(seeds) for model, seeds in changes.items()}
    pairs = {
        (ours, theirs): over_seeds(_minus(changes[ours], changes[theirs]))
        for ours, theirs in combinations(result.models, 2)
    }
    verdicts = judge(pairs)
    numbers = {
        "relative_change_of_the_probe_loss": {model: one.entry for model, one in over.items()},
        "pairs": [
            {"ours": pair[0], "theirs": pair[1], **contrast_entry(one, verdicts.get(pair))}
            for pair, one in pairs.items()
        ],
    }
    n = seeds_in(pairs.values())
    each = "; ".join(f"{model} {_percent(one)}" for model, one in over.items())
    shown = [_wins(pair, one, pairs[pair]) for pair, one in verdicts.items() if one.side != "open"]
    lead = ("; ".join(shown) + ".") if shown else f"No difference shown (n = {n} seeds)."
    lead = lead if n > 1 else ONE_SEED if n else "Not known: the probe was not run in two models with one seed."
    caution = "Models differ in size and pre-training as well as in architecture."
    return Answer(ARCHITECTURES, f"{lead} Rise of the probe loss over all cycles, pruned: {each}. {caution}", numbers)


def _wins(pair: tuple[str, str], one: Judged, difference: Estimate) -> str:
    best, other = pair if one.side == LOWER else pair[::-1]
    return f"{best} keeps more than {other} ({pair[0]} − {pair[1]}: {_percent(difference)})"


def _percent(one: Estimate) -> str:
    if one.mean is None:
        return f"not known ({one.reason})"
    text = f"{100 * one.mean:+.1f} %"
    if one.low is not None and one.high is not None:
        text += f" (95 % CI {100 * one.low:+.1f} to {100 * one.high:+.1f}, n = {one.n} seeds)"
    return text.replace("-", "−")


def _relative(result: Stress, model: str) -> BySeed:
    """The change of the probe loss as a fraction of the first, mean over pruned groups."""
    parts = []
    for group in plain_groups(result, model):
        first, change = group.by_seed("probe_start"), group.by_seed("probe_change")
        parts.append({seed: ratio(one, first[seed].number or 1.0) for seed, one in change.items()})
    return mean_over(parts)


def _minus(ours: BySeed, theirs: BySeed) -> BySeed:
    return {seed: minus(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())}
