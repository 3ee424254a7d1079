"""What a reader may take from the published stress page, and what not; read off the rows like its findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from stress_contrasts import Entry, forgetting_of, interference_of, remark_of
from stress_findings import gains, is_learned
from tombola.reports.significance import Judged
from tombola.runs.rows import rows_of
from tombola.studies.base.numbers import counted, listed
from tombola.studies.stress.outcome.answers import answers
from tombola.studies.stress.outcome.contrasts import judge, number, over_levels
from tombola.studies.stress.outcome.estimates import over_seeds
from tombola.studies.stress.outcome.remarks import TINY, remarks
from tombola.studies.stress.outcome.result import Stress


def conclusions(results: Sequence[Stress]) -> list[str]:
    """Sentences, each with its condition: those that do not apply are left out."""
    cannot = [power(results), generality(results), phases(results), onsets(results), attention(results), noise(results)]
    return [f"**Can be concluded**: {shown(results)}", *(f"**Cannot be concluded**: {one}" for one in cannot if one)]


def shown(results: Sequence[Stress]) -> str:
    """How much of what was looked at is shown."""
    tests = [one for result in results for one in _tests(result)]
    if not tests:
        return "nothing yet. With one seed nothing is known of chance."
    found = sum(one["shown"] is not None for one in tests)
    return (
        f"what is called shown, of this model, these tasks and phases of this length: {found} of "
        f"{counted(len(tests), 'difference')} that the questions look at. Each question has its own correction (Holm, "
        "5 %) in each protocol: of many questions a few are answered by chance."
    )


def power(results: Sequence[Stress]) -> str:
    """What such a study finds."""
    known = [one.detectable for result in results for one in _pairs(result).values() if one.detectable is not None]
    if not known:
        return ""
    low, high = (number(bound, "probe_nats") for bound in (min(known), max(known)))
    return (
        f"small differences. Between two strategies a true difference of the probe loss of {low} to {high} nats a "
        "token, by pair, would be found in 80 % of such studies, a smaller one less often. No difference shown is no "
        "proof of none."
    )


def generality(results: Sequence[Stress]) -> str:
    """What was not varied."""
    seeds = max(len(result.seeds) for result in results)
    return (
        f"anything of other models. Between seeds ({seeds}) the order of tasks, the examples and random draws differ; "
        "the pre-trained model is one, and small."
    )


def phases(results: Sequence[Stress]) -> str:
    """How long a task is learned."""
    rows = [row for result in results for row in rows_of(result.rows, kind="phase")]
    steps, epochs = (_span({row[name] for row in rows}) for name in ("steps", "phase_epochs"))
    cycles = _span({result.config.cycles for result in results})
    return (
        f"what long training does. Optimizer steps in a phase: {steps}, epochs: {epochs}, cycles in a life: {cycles}. "
        "Loss of plasticity may begin later."
    )


def _span(values: set[float]) -> str:
    return f"{min(values):g}" if len(values) == 1 else f"{min(values):g} to {max(values):g}"


def onsets(results: Sequence[Stress]) -> str:
    """What chance alone may have shown of plasticity."""
    found = [group.plasticity.onset for result in results for group in result.groups.values()]
    reached = sum(bool(one.reached) for one in found)
    if not reached:
        return ""
    return (
        f"that every group in which loss of plasticity is shown has lost it. Each of the {len(found)} is judged by "
        f"itself, so that about {0.05 * len(found):.0f} would be shown by chance; {reached} {are(reached)}."
    )


def are(count: int) -> str:
    """The verb."""
    return "is" if count == 1 else "are"


def attention(results: Sequence[Stress]) -> str:
    """Where heads hardly matter."""
    found = {result.config.protocol: remark_of(result, "Does attention matter?") for result in results}
    little = [protocol for protocol, one in found.items() if one is not None and one.get("fraction", 1.0) < TINY]
    return f"which heads should go, in {listed(little)}: attention does not matter there." if little else ""


def noise(results: Sequence[Stress]) -> str:
    """Tasks that are not learned."""
    poor = [
        f"{task} ({result.config.protocol})"
        for result in results
        for task, gain in gains(result).items()
        if is_learned(gain) is False
    ]
    return (
        f"anything of {listed(poor)}, which the dense model does not learn beyond the noise of seeds." if poor else ""
    )


def _pairs(result: Stress) -> dict[tuple[str, str], Judged]:
    """The family of the first question."""
    pairs = combinations(result.strategies, 2)
    return judge({pair: over_seeds(over_levels(result, result.models[0], *pair, "probe_nats")) for pair in pairs})


def _tests(result: Stress) -> Iterator[Entry]:
    """Every difference with a p value in answers, remarks and what this page adds."""
    added = [forgetting_of(result), {"interference": interference_of(result)}]
    for numbers in (*(one.numbers for one in (*answers(result), *remarks(result))), *added):
        yield from _within(numbers)


def _within(found: Any) -> Iterator[Entry]:
    if isinstance(found, Mapping):
        if isinstance(found.get("p_holm"), float):
            yield found
        for part in found.values():
            yield from _within(part)
    elif isinstance(found, list):
        for part in found:
            yield from _within(part)
