"""How much of a network's function is left: its outputs on held-out text beside those of the unpruned model.

The measures are taken together: linear CKA alone can be high where predictions differ, and can be manipulated
(Davari et al. 2023, arXiv 2210.16156).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.pruning.modes import evaluation_mode
from tombola.runs.rows import Row
from tombola.training.completions import Completions
from tombola.training.device import device_of

ITEMS, BATCH = 24, 8
"""Held-out items of each task, and how many go through both networks at once."""
WHY_NULL = {
    "flips": "the unpruned model has no token right",
    "cka": "one of both networks has the same hidden state at every token",
}
MEASURES = ("kl", "js", "top1", "flips", "cosine", "cka")


def preserved(reference: nn.Module, network: nn.Module, tasks: Sequence[Completions]) -> Row:
    """What is left of a function, over all tokens of the first held-out items of every task.

    Returns:
        `kl`: KL(reference || network) and `js`: Jensen-Shannon divergence, nats a token; `top1`: the fraction of tokens
        whose likeliest next token is the same; `flips`: of the tokens that the reference has right, the fraction that
        the network has wrong, null where it has none right; `cosine`: of centred logits, mean over tokens; `cka`:
        linear centred kernel alignment of the last hidden states (Kornblith et al. 2019, arXiv 1905.00414).
    """
    sums = dict.fromkeys(("tokens", "kl", "js", "same", "cosine", "right", "flipped"), 0.0)
    alignment = _Alignment()
    with evaluation_mode(reference), evaluation_mode(network), torch.no_grad():
        for task in tasks:
            items = task.first(ITEMS).held_out
            ids, counted = items.ids, items.counted
            for some, where in zip(ids.split(BATCH), counted.split(BATCH), strict=True):
                before, after = _outputs(reference, some, where), _outputs(network, some, where)
                _add(sums, before[0], after[0], some[:, 1:].to(where.device)[where].to(before[0].device))
                alignment.add(before[1], after[1])
    tokens = sums["tokens"]
    found: Row = {
        "tokens": int(tokens),
        "kl": max(0.0, sums["kl"] / tokens),
        "js": max(0.0, sums["js"] / tokens),
        "top1": sums["same"] / tokens,
        "flips": sums["flipped"] / sums["right"] if sums["right"] else None,
        "cosine": sums["cosine"] / tokens,
        "cka": alignment.value,
    }
    return found | {f"{name}_reason": why for name, why in WHY_NULL.items() if found[name] is None}


def _outputs(network: nn.Module, ids: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and last hidden states of the tokens that count, (tokens, vocabulary) and (tokens, width)."""
    device = device_of(network)
    found: Any = network(input_ids=ids[:, :-1].to(device), output_hidden_states=True)
    where = where.to(device)
    return found.logits[where].float(), found.hidden_states[-1][where].cpu().double()


def _add(sums: dict[str, float], before: Tensor, after: Tensor, targets: Tensor) -> None:
    log_p, log_q = before.log_softmax(1), after.log_softmax(1)
    middle = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
    first, second = before.argmax(1), after.argmax(1)
    ours, theirs = (logits - logits.mean(1, keepdim=True) for logits in (before, after))
    sums["tokens"] += len(targets)
    sums["kl"] += float((log_p.exp() * (log_p - log_q)).sum())
    sums["js"] += float((log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)).sum()) / 2
    sums["same"] += int((first == second).sum())
    sums["right"] += int((first == targets).sum())
    sums["flipped"] += int(((first == targets) & (second != targets)).sum())
    sums["cosine"] += float(functional.cosine_similarity(ours, theirs, dim=1).sum())


class _Alignment:
    """Linear CKA from sums over tokens, so that no features are kept."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        self.count += len(x)
        found = [x.sum(0), y.sum(0), x.T @ x, y.T @ y, x.T @ y]
        self.sums = found if not self.sums else [a + b for a, b in zip(self.sums, found, strict=True)]

    @property
    def value(self) -> float | None:
        """None where one of both says the same of all tokens."""
        sum_x, sum_y, xx, yy, xy = self.sums
        n = self.count
        xx, yy, xy = xx - sum_x.outer(sum_x) / n, yy - sum_y.outer(sum_y) / n, xy - sum_x.outer(sum_y) / n
        scale = float(xx.norm() * yy.norm())
        return float(xy.norm() ** 2) / scale if scale > 0 else None
