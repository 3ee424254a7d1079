"""What a reader of the answers must know beside them: whether attention matters here, what the dense network does,
which controls win, whether plasticity was lost at all, and what remedies and a search came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tombola.reports.significance import Judged
from tombola.studies.base.numbers import begun, counted, listed
from tombola.studies.stress.outcome.contrasts import (
    ONE_SEED,
    Answer,
    contrast_entry,
    is_better,
    judge,
    mean_over,
    of_model,
    over_levels,
    ratio,
    said,
    seeds_in,
)
from tombola.studies.stress.outcome.estimates import Estimate, minus, over_seeds
from tombola.studies.stress.outcome.groups import GRADUAL, RANDOM, UNTREATED, Group, difference_by_seed
from tombola.studies.stress.outcome.plasticity import after_correction
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.steering import steered

TINY = 0.05
"""Attention whose loss is below this fraction of what an untrained network lacks does not matter."""
MOST_NAMED = 5
"""Groups that a sentence names."""
LEARNED = 3.0
"""Standard deviations over seeds that a gain must exceed for the dense network to have learned a task."""
COMPARED = ("performance", "avg_recovery_rate", "learning_area", "probe_nats")
OF_SWITCHES = ("avg_forgetting_rate", "avg_recovery_rate", "stability_gap_before", "probe_change")


def remarks(result: Stress) -> list[Answer]:
    """Remarks by their topics, those that apply, in the order in which they are to be read.

    Args:
        result: What a study came to.
    """
    found: list[Answer] = []
    for topic, of in BY_MODEL.items():
        for model in result.models:
            for text, numbers in of(result, model):
                found.append(Answer(topic, of_model(result, text, model), {model: numbers}))
    return [*found, *steered(result)]


Said = Iterator[tuple[str, dict[str, Any]]]


def _attention(result: Stress, model: str) -> Said:
    """All heads off against dense, both just after (no) pruning, on the held-out items of all tasks."""
    dense, floors = result.dense(model), result.floor_values.get(model, {})
    if dense is None or not {"all_off", "untrained"} <= set(floors):
        return
    start = {seed: ratio(value, -1) for seed, value in dense.by_seed("performance_start").items()}
    lost, range_ = (
        {
            seed: minus(floors[of]["nats"][seed], start[seed])
            for seed in sorted(start.keys() & floors[of]["nats"].keys())
        }
        for of in ("all_off", "untrained")
    )
    worth, all_of_it = over_seeds(lost), over_seeds(range_)
    numbers = {"all_off_minus_dense": worth.entry, "untrained_minus_dense": all_of_it.entry}
    if worth.mean is None or all_of_it.mean is None:
        return
    cost = f"all heads off cost {said(worth, 'performance_nats', sign=False)}"
    if all_of_it.mean <= 0:
        yield f"{begun(cost)}; the dense network is no better than an untrained one before it learns.", numbers
        return
    fraction = worth.mean / all_of_it.mean
    numbers["fraction"] = fraction  # type: ignore[assignment]
    of = f"{100 * fraction:.0f} % of what an untrained network lacks"
    if fraction < TINY:
        yield f"Attention does not matter in this model: {cost}, {of}. Which heads go says little here.", numbers
    else:
        yield f"Attention matters: {cost}, {of}.", numbers


def _dense(result: Stress, model: str) -> Said:
    dense = result.dense(model)
    if dense is None:
        yield "The dense reference was not run.", {}
        return
    names = ("performance_nats", "performance_accuracy", "avg_forgetting_rate", "avg_recovery_rate", "recovery_alone")
    found = {name: dense.metrics[name] for name in (*names, "probe_nats")}
    parts = "; ".join(f"{QUANTITIES[name].title} {said(one, name, sign=False)}" for name, one in found.items())
    yield f"The dense network: {parts}.", {name: one.entry for name, one in found.items()}


def _learned(result: Stress, model: str) -> Said:
    """Whether the dense network learns every task by more than three standard deviations of its gain over seeds."""
    dense = result.dense(model)
    gains = {} if dense is None else {task: found["gain"] for task, found in dense.by_task.items() if "gain" in found}
    if not gains:
        return
    numbers = {task: one.entry | {"sd": one.sd} for task, one in gains.items()}
    if seeds_in(gains.values()) < 2:
        yield "Whether tasks are learned beyond the noise of seeds cannot be judged with one seed.", numbers
        return
    poor = [task for task, one in gains.items() if one.mean is None or one.mean <= LEARNED * (one.sd or 0.0)]
    if poor:
        yield (
            f"The dense network does not learn {listed(poor)} by more than {LEARNED:g} standard deviations over seeds: "
            "what is said of such a task is noise.",
            numbers,
        )
    else:
        yield f"The dense network learns every task by more than {LEARNED:g} standard deviations over seeds.", numbers


def _controls(result: Stress, model: str) -> Said:
    """Strategies against random pruning, and entropy against its opposite, mean over levels; one family."""
    pairs = [(name, RANDOM) for name in result.strategies if name != RANDOM and RANDOM in result.strategies]
    if {"entropy", "entropy_low"} <= set(result.strategies):
        pairs.append(("entropy", "entropy_low"))
    found = {
        (ours, theirs, metric): over_seeds(over_levels(result, model, ours, theirs, metric))
        for ours, theirs in pairs
        for metric in COMPARED
    }
    found = {name: one for name, one in found.items() if one.mean is not None}
    if not found:
        return
    verdicts = judge(found)
    numbers = {
        "comparisons": [
            {"ours": ours, "control": theirs, "metric": metric, **contrast_entry(one, verdicts[ours, theirs, metric])}
            for (ours, theirs, metric), one in found.items()
        ]
    }
    n = seeds_in(found.values())
    if n < 2:
        yield f"Strategies against their controls: {ONE_SEED[0].lower()}{ONE_SEED[1:]}", numbers
        return
    won: list[str] = []
    lost: list[str] = []
    for (ours, theirs, metric), verdict in verdicts.items():
        if verdict.side == "open":
            continue
        text = f"{QUANTITIES[metric].title}, {ours} − {theirs}: {said(found[ours, theirs, metric], metric)}"
        (won if is_better(metric, verdict.side) else lost).append(text)
    compared = f"{counted(len(found), 'comparison')} (n = {n} seeds)"
    parts = []
    if lost:
        parts.append(f"A control wins in {len(lost)} of {compared}, which is a finding: {'; '.join(lost)}.")
    if won:
        parts.append(f"A strategy beats its control in {len(won)} of {compared}: {'; '.join(won)}.")
    yield " ".join(parts) or f"No strategy differs from its control: no difference shown in {compared}.", numbers


def _switches(result: Stress, model: str) -> Said:
    """Tasks that change gradually against those that change at once, both dense."""
    dense, gradual = result.dense(model), result.group(model, GRADUAL)
    if dense is None or gradual is None:
        return
    found = {metric: over_seeds(difference_by_seed(gradual, dense, metric)) for metric in OF_SWITCHES}
    yield _judged_list("Gradual changes of tasks instead of abrupt ones, dense", found)


def _judged_list(lead: str, found: Mapping[str, Estimate]) -> tuple[str, dict[str, Any]]:
    verdicts = judge(found)
    parts = [
        f"{QUANTITIES[metric].title} {said(one, metric)}{_shown(verdicts.get(metric))}" for metric, one in found.items()
    ]
    return f"{lead}: {'; '.join(parts)}.", {
        metric: contrast_entry(one, verdicts.get(metric)) for metric, one in found.items()
    }


def _shown(verdict: Judged | None) -> str:
    if verdict is None or verdict.p is None:
        return ""
    return ", no difference shown" if verdict.side == "open" else ", shown"


def _plasticity(result: Stress, model: str) -> Said:
    """Each group is judged by itself, with Holm's correction over its own cycles."""
    groups = {result.name(key): group for key, group in result.groups.items() if key.model == model}
    onsets = {name: group.plasticity.onset for name, group in groups.items()}
    numbers = {name: onset.entry for name, onset in onsets.items()}
    reached = {name: onset for name, onset in onsets.items() if onset.reached}
    judged_ = [onset for onset in onsets.values() if onset.reached is not None]
    if not judged_:
        reasons = dict.fromkeys(onset.sentence for onset in onsets.values())
        yield f"Loss of plasticity: {'; '.join(reasons)}.", numbers
        return
    cycles = max(onset.cycles for onset in judged_)
    of = f"{len(reached)} of {counted(len(judged_), 'group')}"
    if not reached:
        counted_cycles = "this one cycle" if cycles == 1 else f"these {cycles} cycles"
        text = f"Loss of plasticity: onset not reached in {counted_cycles}, in any of {counted(len(judged_), 'group')}."
        yield f"{text} That is no proof that there is none: later cycles were not looked at.", numbers
        return
    named = "; ".join(f"{name}, {onset.sentence}" for name, onset in [*reached.items()][:MOST_NAMED])
    more = f"; and {len(reached) - MOST_NAMED} more" if len(reached) > MOST_NAMED else ""
    still = after_correction(onsets)
    beyond = listed(still) if still else "none"
    chance = "Each group is judged by itself, so that one in twenty is shown by chance alone; with Holm's correction "
    chance += f"over groups: {beyond}."
    yield f"Loss of plasticity is shown in {of}: {named}{more}. {chance}", numbers


def _remedies(result: Stress, model: str) -> Said:
    """Against the same networks without a remedy, mean over all strategies and levels, dense among them."""
    for remedy in result.remedies:
        if remedy == UNTREATED:
            continue
        pairs = [
            (group, untreated)
            for key, group in result.groups.items()
            if (key.model, key.remedy) == (model, remedy)
            and (untreated := result.group(model, key.strategy, key.level)) is not None
        ]
        if pairs:
            found = {metric: over_seeds(_over_pairs(pairs, metric)) for metric in COMPARED}
            text, numbers = _judged_list(
                f"The remedy {remedy} instead of none, mean over {counted(len(pairs), 'group')}", found
            )
            yield text, {"remedy": remedy} | numbers


def _over_pairs(pairs: list[tuple[Group, Group]], metric: str) -> Any:
    return mean_over(difference_by_seed(ours, theirs, metric) for ours, theirs in pairs)


def _dead(result: Stress, model: str) -> Said:
    dead = {
        result.name(key): f"{group.dead} of {len(group.lives)}"
        for key, group in result.groups.items()
        if key.model == model and group.dead
    }
    if dead:
        named = "; ".join(f"{name} ({count} networks)" for name, count in dead.items())
        yield f"Dead after pruning, without rates of recovery or forgetting: {named}.", dead


BY_MODEL = {
    "Does attention matter?": _attention,
    "The dense reference": _dense,
    "Are the tasks learned?": _learned,
    "Is plasticity lost?": _plasticity,
    "Controls": _controls,
    "Abrupt and gradual changes": _switches,
    "Remedies": _remedies,
    "Dead networks": _dead,
}
