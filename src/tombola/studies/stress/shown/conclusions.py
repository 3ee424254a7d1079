"""What a stress study came to in a sentence or two, what it checked of itself, and how it was run, in words."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.runs.rows import Row, rows_of
from tombola.studies.base.numbers import begun, counted, listed
from tombola.studies.stress.outcome.answers import strategies
from tombola.studies.stress.outcome.plasticity import after_correction
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.trade_offs import architectures

ONLY_ONE = (
    "One seed: what differs may be chance, so that strategies cannot be compared nor loss of plasticity be judged. "
    "The same command with --seeds 3 adds two."
)
LONGEST_LEAD = 450
"""Characters of a sentence that stands at the head of a page."""


def lead(result: Stress) -> str:
    """The verdict on plasticity, and the first sentence on which strategies preserve most of it, or which models."""
    if not result.strategies:
        return plasticity_line(result)
    if _could_have_more_seeds(result):
        return ONLY_ONE
    whole = _compared(result)
    compared = whole if len(whole) <= LONGEST_LEAD else f"{_without_numbers(whole)}; more below."
    return f"{plasticity_line(result)} {compared}"


def verdict(result: Stress) -> str:
    """On plasticity alone; of one seed what it is good for."""
    return ONLY_ONE if _could_have_more_seeds(result) else plasticity_line(result)


def _could_have_more_seeds(result: Stress) -> bool:
    """Whether there is one, and no search that draws its own."""
    return len(result.seeds) == 1 and getattr(result.config, "search", None) is None


def in_short(result: Stress) -> str:
    """The same for a list, without numbers in brackets."""
    if not result.strategies:
        return plasticity_line(result)
    if _could_have_more_seeds(result):
        return ONLY_ONE
    if len(result.strategies) == len(result.models) == 1:
        return plasticity_line(result)
    return f"{plasticity_line(result)} {_without_numbers(_compared(result))}."


def _compared(result: Stress) -> str:
    """The first sentence on strategies, or on models where there are several."""
    several = len(result.models) > 1
    return _first(architectures(result).sentence) if several else begun(_first(strategies(result).sentence))


def _without_numbers(sentence: str) -> str:
    """What comes before the first bracket."""
    return sentence.split(" (")[0].rstrip(".")


def plasticity_line(result: Stress) -> str:
    """Whether plasticity is lost: in how many groups, or why that is not known."""
    onsets = {result.name(key): group.plasticity.onset for key, group in result.groups.items()}
    judged = [one for one in onsets.values() if one.reached is not None]
    if not judged:
        reasons = list(dict.fromkeys(one.sentence for one in onsets.values()))
        return f"Loss of plasticity: {listed(reasons, 'or')}." if reasons else "Nothing was measured."
    reached = {name: one for name, one in onsets.items() if one.reached}
    cycles = max(one.cycles for one in judged)
    if not reached:
        these = "this one cycle" if cycles == 1 else f"these {cycles} cycles"
        return f"Loss of plasticity: onset not reached in {these}, in any of {counted(len(judged), 'group')}."
    shown = f"Loss of plasticity is shown in {len(reached)} of {counted(len(judged), 'group')}, each judged by itself"
    beyond = f"{len(after_correction(onsets))} with a correction over groups"
    return f"{shown} ({beyond}), from cycle {min(one.cycle or 0 for one in reached.values())} on."


def _first(text: str) -> str:
    """The first sentence."""
    return text.split(". ")[0].rstrip(".") + "."


def check_lines(rows: Sequence[Row]) -> list[str]:
    """What the run checked of itself, a line for each kind; one that failed begins with saying so."""
    prunings = [row for row in rows_of(rows, kind="pruned") if row["units_removed"]]
    phases = rows_of(rows, kind="phase")
    lines = [
        _checked(prunings, "check_exact", "pruning", "removed exactly as many units as asked"),
        _checked(prunings, "check_changed", "pruning", "changed the outputs"),
        _checked(phases, "check_held", "phase", "ended with removed units giving exactly nothing"),
    ]
    errors = [row["removal_error"] for row in prunings if row["removal_error"] is not None]
    if errors:
        by = (
            f"differ from the masked network's by at most {max(errors):.1e}" if any(errors) else "equal the masked ones"
        )
        lines.append(f"Physical removal: outputs {by} in {counted(len(errors), 'pruning')}.")
    return [line for line in lines if line]


def _checked(rows: Sequence[Row], column: str, thing: str, meaning: str) -> str:
    """`12 of 12 prunings changed the outputs.`; nothing where there is nothing to check."""
    held = sum(row[column] is True for row in rows)
    failed = "" if held == len(rows) else "Check failed: "
    return f"{failed}{held} of {counted(len(rows), thing)} {meaning}." if rows else ""


def how_lines(result: Stress) -> list[str]:
    """Seeds, cycles, steps, epochs and tokens of a life."""
    lives = [life for life in result.lives if life.phases]
    if not lives:
        return []
    life = lives[0]
    last = life.rows["phase"][-1]
    return [
        f"{counted(len(result.lives), 'network')}: {counted(len(result.seeds), 'seed')}, each with its own order of "
        "tasks, the same for all strategies; draws of random pruning are averaged within a seed.",
        f"A network's life: {counted(len(life.phases), 'phase')} on {counted(len(life.tasks), 'task')} "
        f"({', '.join(sorted(life.tasks))}), {last['step']:,} optimizer steps, {last['epochs']:.3g} epochs, "
        f"{last['tokens']:,} tokens (of {life.key.strategy}, seed {life.key.seed}).",
        "Intervals are 95 % (Student t) over seeds, each by itself; what is called shown is so after Holm's correction "
        "within its question. No difference shown is no proof of none.",
    ]
