"""How sure a verdict is: levels of its look, new examples, and what so many replicates could have found."""

from __future__ import annotations

from tombola.studies.lottery.verdict import Verdict


def verdict_notes(verdict: Verdict) -> list[str]:
    """How sure the verdict is, what it is of, and what this many replicates could have found."""
    return [levels_line(verdict), new_examples_line(verdict), power_line(verdict)]


def levels_line(verdict: Verdict) -> str:
    """The levels of this look, and which look it is."""
    if not verdict.replicates or not verdict.dense_confidence:
        return "No level: nothing was judged."
    if verdict.first_look is None:
        look = f"No earlier look is recorded, so {verdict.replicates} replicates are judged as if there may be some"
    elif verdict.first_look == verdict.replicates:
        look = f"First look, at {verdict.replicates} replicates"
    else:
        look = f"A later look, at {verdict.replicates} replicates after a first one at {verdict.first_look}"
    dense, controls = (f"{100 * c:.6g} %" for c in (verdict.dense_confidence, verdict.control_confidence))
    levels = dense if dense == controls else f"{dense} against dense and {controls} against the controls"
    return (
        f"{look}: one-sided bounds at {levels}. The levels are such that all looks at this verdict together claim "
        "something false in at most 5 % of studies."
    )


def new_examples_line(verdict: Verdict) -> str:
    """What the bounds are over, and whether more is known."""
    here = "The verdict is over replicates on this data set's test examples"
    if not verdict.new_examples:
        return f"{here}."
    reasons = list(dict.fromkeys(found.reason for found in verdict.new_examples.values() if found.reason))
    if reasons:
        return f"{here}; what holds for new examples is not known: {', '.join(reasons)}."
    return f"{here}; the bounds for new examples take the choice of test examples into account as well."


def power_line(verdict: Verdict) -> str:
    """What this many replicates could have found."""
    if verdict.power is None:
        return "Power against the controls: unknown, one replicate has no spread."
    scale = verdict.scale
    return (
        f"Power: with {verdict.replicates} replicates and the spread seen, a ticket that is truly "
        f"{scale.amount(verdict.tolerance)} better than a control, as many as the tolerance, would be told from it in "
        f"{verdict.power:.0%} of such studies, and one that is {verdict.detectable:.{scale.places}f}{scale.unit} "
        "better in 80%."
    )
