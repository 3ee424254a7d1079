"""What stress studies of several protocols found, in sentences for the published page; `stress_results` puts it there.

Every number is of the rows, through the study's own answers and remarks. What is called shown is so after Holm's
correction within its question and protocol; where nothing is shown the sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stress_contrasts import (
    Entry,
    brief,
    controls_of,
    estimate_from,
    forgetting_of,
    in_full,
    in_short,
    interference_of,
    pairs_of,
    remark_of,
)
from tombola.studies.base.numbers import begun, counted, listed, whole_percent
from tombola.studies.stress.outcome import answers as asked
from tombola.studies.stress.outcome.contrasts import said
from tombola.studies.stress.outcome.estimates import Estimate
from tombola.studies.stress.outcome.quantities import QUANTITIES
from tombola.studies.stress.outcome.remarks import LEARNED, TINY
from tombola.studies.stress.outcome.result import Stress
from tombola.studies.stress.outcome.trade_offs import size
from tombola.studies.stress.shown.conclusions import plasticity_line

OfProtocol = Callable[[Stress], str]
FORGETTING = "avg_forgetting_rate"
ALONE = ("recovery_second", "recovery_alone", "recovery_minus_alone")


def by_protocol(results: Sequence[Stress], of: OfProtocol) -> list[str]:
    """What is said of each protocol; those of which the same is said together."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(of(result), []).append(result.config.protocol)
    return [f"{listed(names)}: {text}" for text, names in found.items()]


def headlines(results: Sequence[Stress]) -> list[str]:
    """What stands above the figure: of each question a few numbers."""
    questions: dict[str, OfProtocol] = {
        "Which strategies keep most plasticity?": strategies_in_short,
        "Do strategies beat random pruning, and entropy its opposite?": controls_in_short,
        "What do more removed heads cost?": levels_in_short,
        "Is plasticity lost over cycles?": onset,
        "Does attention matter?": attention,
    }
    lines = [f"**{title}** {begun('; '.join(by_protocol(results, of)))}." for title, of in questions.items()]
    return [
        *lines,
        f"**Does the dense model learn the tasks** by {LEARNED:g} × the noise of seeds? {learned(results)}",
    ]


def details(results: Sequence[Stress]) -> list[str]:
    """What stands below it: every difference that is shown, by question and protocol."""
    questions: dict[str, OfProtocol] = {
        "Which strategies keep most plasticity?** Probe loss, mean over levels, winner minus loser.": strategies,
        "Do strategies beat their controls?** Random pruning, and entropy its opposite; mean over levels.": controls,
        "What do more removed heads cost?** The highest level minus the lowest, mean over strategies.": levels,
        "Do smaller networks adapt worse?** For every 10 % of the parameters that are removed.": slopes,
        "Can pruning improve adaptation to certain tasks?** The score while one is first learned, minus dense.": tasks,
        "What is forgotten, and what recovers?** Recovery at the second visit of a task.": forgetting,
        "Do gradual changes of tasks help?** A control, the dense model: gradual minus abrupt.": gradual,
    }
    return ["\n".join([f"**{title}", *_indented(by_protocol(results, of))]) for title, of in questions.items()]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    - {begun(line)}." for line in lines]


def strategies_in_short(result: Stress) -> str:
    """How many pairs differ in the probe loss, and the clearest of them."""
    return in_short(pairs_of(result), "pair")


def controls_in_short(result: Stress) -> str:
    """How often a control wins, and how often a strategy."""
    return in_short(controls_of(result), "comparison")


def levels_in_short(result: Stress) -> str:
    """The probe loss between two levels."""
    found = asked.levels(result).numbers[result.models[0]]
    if not found:
        return "one level alone was run"
    one, metric = found["changes"]["probe_nats"], "probe_nats"
    if one["mean"] is None:
        return "not measured"
    verdict = "" if one["p_holm"] is None else ", shown" if one["shown"] else ", no difference shown"
    between = f"from {whole_percent(found['from'])} to {whole_percent(found['to'])}"
    return f"probe loss {brief(estimate_from(one), metric)} {between}{verdict}"


def strategies(result: Stress) -> str:
    """All pairs by the probe loss."""
    return in_full(pairs_of(result), "pair")


def controls(result: Stress) -> str:
    """Strategies and their controls, by four metrics."""
    return in_full(controls_of(result), "comparison")


def onset(result: Stress) -> str:
    """The verdict, and what the probe of the dense model does."""
    verdict = plasticity_line(result).removeprefix("Loss of plasticity").strip(":. ").removeprefix("is ")
    dense = result.dense(result.models[0])
    rises = None if dense is None else dense.metrics["probe_change"]
    return verdict if rises is None else f"{verdict}; dense {brief(rises, 'probe_change')} over all cycles"


def levels(result: Stress) -> str:
    """Four metrics between two levels."""
    found = asked.levels(result).numbers[result.models[0]]
    return _judged(found["changes"]) if found else "one level"


def slopes(result: Stress) -> str:
    """Two metrics for a tenth of the parameters."""
    return _judged(size(result).numbers[result.models[0]])


def gradual(result: Stress) -> str:
    """Gradual minus abrupt."""
    found = remark_of(result, "Abrupt and gradual changes")
    return "not measured" if found is None else _judged(found)


def _judged(found: Mapping[str, Entry]) -> str:
    """Those that are shown with their numbers; the others by name."""
    shown = [_named(metric, estimate_from(one)) for metric, one in found.items() if one["shown"]]
    unknown = [QUANTITIES[metric].title for metric, one in found.items() if one["p_holm"] is None]
    others = [
        QUANTITIES[metric].title for metric, one in found.items() if one["p_holm"] is not None and not one["shown"]
    ]
    n = max((one["n"] for one in found.values()), default=0)
    parts = shown + ([f"no difference shown in {listed(others)} (n = {n} seeds)"] if others else [])
    return ", ".join([*parts, *([f"not to be judged: {listed(unknown)}"] if unknown else [])])


def _named(metric: str, one: Estimate, sign: bool = True) -> str:
    return f"{QUANTITIES[metric].title} {said(one, metric, sign)}"


def attention(result: Stress) -> str:
    """What all heads are worth."""
    found = remark_of(result, "Does attention matter?")
    if found is None:
        return "not measured"
    cost = f"all heads off cost {brief(estimate_from(found['all_off_minus_dense']), 'performance_nats', sign=False)}"
    if "fraction" not in found:
        return f"{cost}, but the dense model is no better than an untrained one"
    verdict = "no" if found["fraction"] < TINY else "yes"
    return f"{verdict}, {cost}, {100 * found['fraction']:.0f} % of what an untrained network lacks"


def gains(result: Stress) -> dict[str, Estimate]:
    """What the dense model gains at the first visit of each task, nats a token."""
    dense = result.dense(result.models[0])
    return {} if dense is None else {task: of["gain"] for task, of in dense.by_task.items() if "gain" in of}


def is_learned(gain: Estimate) -> bool | None:
    """Whether a gain is above `LEARNED` standard deviations over seeds; None with one seed."""
    if gain.mean is None or gain.sd is None:
        return None
    return gain.mean > LEARNED * gain.sd


def learned(results: Sequence[Stress]) -> str:
    """How many tasks of all protocols are, and which are not."""
    found = {(result.config.protocol, task): one for result in results for task, one in gains(result).items()}
    verdicts = {name: is_learned(one) for name, one in found.items()}
    judged_ = [name for name, verdict in verdicts.items() if verdict is not None]
    if not judged_:
        return "Cannot be judged with one seed."
    good = sum(bool(verdicts[name]) for name in judged_)
    if good == len(judged_):
        return f"All {good} are."
    poor = [f"{task} ({protocol})" for protocol, task in judged_ if not verdicts[protocol, task]]
    return f"{good} of {len(judged_)}; not {listed(poor)}: what is said of these alone is noise."


def forgetting(result: Stress) -> str:
    """Rates of the dense model, recovery beside the control without interference, and what pruning changes."""
    dense = result.dense(result.models[0])
    if dense is None:
        return "the dense model was not run"
    rate = dense.metrics[FORGETTING]
    worse = ", above 1: the task is left worse than before it was learned" if (rate.low or 0.0) > 1 else ""
    parts = [_named(name, dense.metrics[name], sign=False) for name in ALONE[:2]]
    cost = interference_of(result)
    verdict = {"above": ", shown", "below": ", shown", None: ", no difference shown"}[cost["shown"]]
    cost_of = f"{_named(ALONE[2], estimate_from(cost))}{verdict if cost['p_holm'] is not None else ''}"
    return f"dense {_named(FORGETTING, rate, sign=False)}{worse}; {', '.join(parts)}; {cost_of}; {_pruned(result)}"


def _pruned(result: Stress) -> str:
    """Forgetting minus dense, by strategy."""
    found = forgetting_of(result)
    tested = {name: one for name, one in found.items() if one["p_holm"] is not None}
    shown = [f"{name} {brief(estimate_from(one), FORGETTING)}" for name, one in tested.items() if one["shown"]]
    others = [name for name, one in tested.items() if not one["shown"]]
    parts = shown + ([f"no difference shown for {listed(others)}"] if others else [])
    return f"forgetting rate minus dense, mean over levels: {', '.join(parts) or 'not to be judged'}"


def tasks(result: Stress) -> str:
    """First visits of pruned networks minus the dense one's, task by task."""
    found = asked.tasks(result).numbers.get("comparisons", [])
    tested = [one for one in found if one["p_holm"] is not None]
    if not tested:
        return "cannot be concluded with one seed"
    better, worse = ([one for one in tested if one["shown"] == side] for side in ("above", "below"))
    compared = f"{counted(len(tested), 'comparison')} with dense"
    n = max(one["n"] for one in tested)
    gained = f"a gain is shown in {len(better)} of {compared}" if better else f"no gain shown in {compared}"
    most = max(better or tested, key=lambda one: one["mean"])
    metric = "learning_area_vs_dense"
    largest = f"largest: {most['task']} with {most['network']}, {said(estimate_from(most), metric)}"
    lost = f"a loss in {len(worse)}" if worse else f"no loss either (n = {n} seeds)"
    return f"{gained}, {lost} ({largest})"
