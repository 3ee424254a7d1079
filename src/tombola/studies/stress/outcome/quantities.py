"""Every metric by its key in the results: what it is called, its unit, which direction is good, and its formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["more", "less", "neither"]


@dataclass(frozen=True)
class Quantity:
    """A metric for readers; `meaning` is its formula in words and its source."""

    key: str
    title: str
    unit: str
    better: Better
    meaning: str


NATS = "nats a token"
_ALL = (
    Quantity(
        "performance", "performance", NATS, "more", "ACC: mean over tasks of a = −nats a target token, at the end"
    ),
    Quantity("performance_nats", "loss", NATS, "less", "mean over tasks of nats a target token, at the end"),
    Quantity(
        "performance_accuracy", "accuracy", "of tokens", "more", "mean over tasks of the fraction of target tokens"
    ),
    Quantity("performance_start", "performance after pruning", NATS, "more", "ACC just after the first pruning"),
    Quantity(
        "performance_start_accuracy", "accuracy after pruning", "of tokens", "more", "just after the first pruning"
    ),
    Quantity("gain", "learned gain", NATS, "more", "mean over tasks of a after the first visit minus a after pruning"),
    Quantity("bwt", "backward transfer", NATS, "more", "mean of a[P,j] − a[last visit of j, j] (Lopez-Paz 2017)"),
    Quantity("bwt_accuracy", "backward transfer (accuracy)", "of tokens", "more", "the same of accuracy"),
    Quantity("fwt", "forward transfer", NATS, "more", "mean of a before the first visit − an untrained network's"),
    Quantity("fwt_accuracy", "forward transfer (accuracy)", "of tokens", "more", "the same of accuracy"),
    Quantity(
        "fwt_start", "forward transfer from pruning on", NATS, "more", "mean of a before the first visit − a[0,j]"
    ),
    Quantity("forgetting", "forgetting", NATS, "less", "mean of max a[l,j] − a[P,j], signed (Chaudhry 2018)"),
    Quantity("forgetting_accuracy", "forgetting (accuracy)", "of tokens", "less", "the same of accuracy"),
    Quantity(
        "avg_forgetting_rate",
        "forgetting rate",
        "of the learned gain",
        "less",
        "(a_after − a_later) / (a_after − a_pruned), mean over visits; later: just before the next visit or a pruning",
    ),
    Quantity(
        "avg_recovery_rate",
        "recovery rate",
        "of what was lost",
        "more",
        "(a_relearned − a_before) / (a_peak − a_before), not clipped, mean over visits from the second on",
    ),
    Quantity(
        "recovery_second",
        "recovery at the second visit",
        "of what was lost",
        "more",
        "the same of second visits alone, to be held against the control without interference",
    ),
    Quantity(
        "recovery_alone",
        "recovery without interference",
        "of what was lost",
        "neither",
        "control: the task learned a second time at once; (a_alone − a_before) / (a_peak − a_before) at visit 2",
    ),
    Quantity(
        "recovery_minus_alone",
        "recovery minus that without interference",
        "of what was lost",
        "more",
        "visit by visit, at visit 2; below 0 is what the other tasks cost",
    ),
    Quantity("savings", "savings", "of the steps", "more", "1 − steps to relearn / steps to learn first (halfway)"),
    Quantity(
        "adaptation_steps",
        "steps to the target",
        "steps",
        "less",
        "steps of a first visit to halfway between the dense network's scores before and after its first visit",
    ),
    Quantity("adaptation_tokens", "tokens to the target", "tokens", "less", "the same in tokens"),
    Quantity("target_reached", "targets reached", "of tasks", "more", "of first visits"),
    Quantity("learning_area", "score while learning", NATS, "more", "mean a over the steps of a phase (trapezoid)"),
    Quantity(
        "learning_area_vs_dense",
        "score while learning, minus dense",
        NATS,
        "more",
        "area under the learning curve minus that of the dense network at the same visit",
    ),
    Quantity(
        "stability_gap", "stability gap", NATS, "less", "a of old tasks at the end of a phase − worst look inside"
    ),
    Quantity(
        "stability_gap_before", "gap to before", NATS, "less", "a of old tasks before a phase − worst look inside"
    ),
    Quantity("probe_nats", "probe loss", NATS, "less", "after k steps on a held-out language, after the last cycle"),
    Quantity("probe_start", "probe loss after pruning", NATS, "less", "the same just after the first pruning"),
    Quantity("probe_change", "change of the probe loss", NATS, "less", "after the last cycle − after the last pruning"),
    Quantity("probe_minus_fresh", "probe loss minus fresh", NATS, "less", "− a fresh network's under the same mask"),
    Quantity("dormant", "dormant units", "of neurons", "less", "FFN neurons with normalised activation ≤ 0.025"),
    Quantity("effective_rank", "effective rank", "", "more", "of the representation, after the last cycle"),
    Quantity("weight_norm", "weight norm", "", "neither", "after the last cycle"),
    Quantity("entropy", "entropy of attention", "of its maximum", "neither", "mean over heads kept, of H / log t"),
    Quantity("kl", "KL from unpruned", NATS, "less", "token mean, after the last cycle"),
    Quantity("js", "Jensen-Shannon from unpruned", NATS, "less", "token mean, after the last cycle"),
    Quantity("top1", "top-1 agreement", "of tokens", "more", "with the unpruned model"),
    Quantity("flips", "flips", "of tokens", "less", "1 − agreement among tokens that the unpruned model has right"),
    Quantity("cosine", "cosine of logits", "", "more", "per token, with the unpruned model"),
    Quantity("cka", "linear CKA", "", "more", "with the unpruned model; never to be read alone"),
    Quantity("kl_start", "KL after pruning", NATS, "less", "just after the first pruning"),
    Quantity("top1_start", "top-1 agreement after pruning", "of tokens", "more", "just after the first pruning"),
    Quantity("reached", "units removed", "of units", "neither", "of heads (or neurons), after the last pruning"),
    Quantity("parameters", "parameters", "", "neither", "as the rows say, at the last pruning"),
    Quantity("parameters_removed", "parameters removed", "", "neither", "really, by physical removal"),
    Quantity("removal_error", "error of removal", "", "less", "largest difference of outputs, masked to removed"),
)
QUANTITIES: dict[str, Quantity] = {one.key: one for one in _ALL}
"""In the order in which results list them."""
