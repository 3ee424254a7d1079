"""Rows of a stress study as it would write them, made up: plausible lives with a spread, every one to be altered."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Row = dict[str, Any]
TASKS = ("german", "names", "verse")
LOOKS, STEPS, TOKENS_A_STEP, ITEMS, HEADS, LAYERS = 4, 40, 1000, 200, 32, 4
PARAMETERS = 1_000_000
UNTRAINED, START, LEARNED = 6.2, 5.5, 3.2
"""Nats a token of an untrained network, of the dense one before it learns a task, and after."""


@dataclass(frozen=True)
class Asked:
    """What the study was asked for, and what is true of its made-up networks.

    `cost`: nats a token that a level of 1 costs a strategy, in scores and in the probe. `lost`: nats a token that the
    probe rises in a cycle. `forgets`: the fraction of what was learned that the phases of other tasks take.
    `helps`: nats a token that pruning of any strategy gains at a task.
    """

    models: Sequence[str] = ("tiny",)
    strategies: Sequence[str] = ("entropy", "random")
    levels: Sequence[float] = (0.1, 0.3, 0.5)
    remedies: Sequence[str] = ("none",)
    tasks: Sequence[str] = TASKS
    seeds: int = 3
    draws: int = 2
    cycles: int = 2
    prune_cycles: int = 1
    spread: float = 0.02
    cost: Mapping[str, float] = field(default_factory=dict)
    lost: float = 0.0
    forgets: float = 0.5
    helps: Mapping[str, float] = field(default_factory=dict)
    attention: float = 0.8
    """Nats a token that all heads together are worth."""
    dead: Sequence[str] = ()
    """Strategies whose networks are as untrained ones and learn nothing."""


def stress_rows(**asked: Any) -> list[Row]:
    """All rows of a finished study, by cells; see `Asked`."""
    study = Asked(**asked)
    rows: list[Row] = []
    for seed in range(study.seeds):
        for model in study.models:
            rows += _floors(study, model, seed)
            for remedy in study.remedies:
                rows += Cell(study, model, "dense", 0.0, 0, remedy, seed).rows()
            rows += Cell(study, model, "gradual", 0.0, 0, "none", seed).rows()
            for strategy in study.strategies:
                for level in study.levels:
                    for remedy in study.remedies:
                        for draw in range(study.draws if strategy == "random" else 1):
                            rows += Cell(study, model, strategy, level, draw, remedy, seed).rows()
    return rows


def altered(rows: Sequence[Row], change: Mapping[str, Any], **where: Any) -> list[Row]:
    """A copy of the rows with columns changed where others have these values; a number is set, a function applied."""
    made = []
    for row in rows:
        hit = all(row.get(column) == value for column, value in where.items())
        new = {c: (v(row[c]) if callable(v) else v) for c, v in change.items()} if hit else {}
        made.append(row | new)
    assert made != list(rows), "nothing was altered"
    return made


@dataclass
class Cell:
    """One network's life, told row by row."""

    study: Asked
    model: str
    strategy: str
    level: float
    draw: int
    remedy: str
    seed: int

    def __post_init__(self) -> None:
        name = repr((self.model, self.strategy, self.level, self.draw, self.remedy, self.seed))
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        shuffled = np.random.default_rng(self.seed).permutation(len(self.study.tasks))
        self.tasks = [self.study.tasks[index] for index in shuffled]
        self.dead = self.strategy in self.study.dead
        self.penalty = self.study.cost.get(self.strategy, 0.0) * self.level
        begin = UNTRAINED if self.dead else START + self.penalty
        self.start = dict.fromkeys(self.tasks, begin)
        self.loss = dict(self.start)
        self.unit = self.prune_cycle = self.cycle = self.phase = self.step = 0
        self.visits = dict.fromkeys(self.tasks, 0)

    def rows(self) -> list[Row]:
        """In order of time."""
        return list(self._life())

    def _life(self) -> Iterator[Row]:
        for prune_cycle in range(self.study.prune_cycles):
            self.prune_cycle = prune_cycle
            yield from self._pruned()
            for _ in range(self.study.cycles):
                self.cycle += 1
                for task in self.tasks:
                    yield from self._learned(task)
                yield from self._looked_at()

    def _row(self, kind: str, **columns: Any) -> Row:
        key = {name: getattr(self, name) for name in ("model", "strategy", "level", "draw", "remedy", "seed", "unit")}
        when = {name: getattr(self, name) for name in ("prune_cycle", "cycle", "phase", "step")}
        tokens = self.step * TOKENS_A_STEP
        return {"kind": kind, **key, **when, "tokens": tokens, "epochs": self.step / STEPS, **columns}

    def _pruned(self) -> Iterator[Row]:
        before = float(np.mean(list(self.loss.values())))
        if self.prune_cycle:
            self.loss = {task: loss + 0.3 * self.level for task, loss in self.loss.items()}
        removed = round(self.level * HEADS * (self.prune_cycle + 1) / self.study.prune_cycles)
        yield self._row(
            "pruned",
            units_total=HEADS,
            units_removed=removed,
            kept_by_layer=[(HEADS - removed) // LAYERS] * LAYERS,
            reached=removed / HEADS,
            parameters=PARAMETERS,
            parameters_removed=removed * 10_000,
            removal_error=2e-7 if removed else None,
            nats_before=before,
            nats_after=float(np.mean(list(self.loss.values()))),
            check_exact=True,
            check_changed=True if removed else None,
        )
        yield from self._scored(None)
        yield from self._beside(floors=self.prune_cycle == 0)
        yield self._probe("fresh", 4.6 + self.penalty)
        self.unit += 1

    def _scored(self, training: str | None, steps: int = 0) -> Iterator[Row]:
        for task in self.tasks:
            first = self.phase == 0
            yield self._row(
                "score",
                task=task,
                training=training,
                look="end",
                step_in_phase=steps,
                tokens_in_phase=steps * TOKENS_A_STEP,
                **self._score(self.loss[task]),
                items=ITEMS,
                few_nats=self.loss[task],
                change=None if first else self.start[task] - self.loss[task],
                change_se=None if first else 0.01,
            )

    def _score(self, nats: float) -> Row:
        return {"nats": nats, "accuracy": float(np.exp(-nats / 3))}

    def _learned(self, task: str) -> Iterator[Row]:
        self.phase += 1
        self.visits[task] += 1
        begin = dict(self.loss)
        best = LEARNED + self.penalty - (self.study.helps.get(task, 0.0) if self.level else 0.0)
        target = UNTRAINED if self.dead else best + self.rng.normal(0, self.study.spread)
        forgets = 0.0 if self.dead else self.study.forgets * (0.5 if self.strategy == "gradual" else 1.0)
        old = [name for name in self.tasks if self.visits[name] and name != task]
        ends = {name: begin[name] + forgets * (self.start[name] - begin[name]) for name in old} | {task: target}
        for look in range(1, LOOKS + 1):
            steps, done = STEPS * look // LOOKS, look / LOOKS
            self.step += STEPS // LOOKS
            for name, end in ends.items():
                dip = 0.1 if name != task and look == 1 and not self.dead else 0.0
                nats = begin[name] + (1 - (1 - done) ** 2) * (end - begin[name]) + dip
                yield self._row(
                    "score",
                    task=name,
                    training=task,
                    look="inside",
                    step_in_phase=steps,
                    tokens_in_phase=steps * TOKENS_A_STEP,
                    **self._score(nats),
                    items=16,
                    few_nats=None,
                    change=None,
                    change_se=None,
                )
        self.loss |= ends
        yield from self._scored(task, STEPS)
        yield self._row(
            "phase",
            training=task,
            visit=self.visits[task],
            steps=STEPS,
            phase_epochs=1.0,
            phase_tokens=STEPS * TOKENS_A_STEP,
            difficulty=None,
            seconds=1.5,
            check_held=True,
        )
        if self.visits[task] == 1:
            again = UNTRAINED if self.dead else target - 0.1
            yield self._row("alone", task=task, steps=STEPS, **self._score(again), items=ITEMS)
        self.unit += 1

    def _looked_at(self) -> Iterator[Row]:
        yield from self._beside(floors=False)
        self.unit += 1

    def _probe(self, of: str, nats: float) -> Row:
        return self._row(
            "probe",
            task="swedish",
            of=of,
            steps=20,
            nats=nats,
            nats_before=nats + 1.0,
            curve=[[0, nats + 1.0], [10, nats + 0.4], [20, nats]],
        )

    def _beside(self, floors: bool) -> Iterator[Row]:
        """State, function and probe, after a pruning or a cycle."""
        luck = float(self.rng.normal(0, self.study.spread))
        yield self._probe("network", 4.5 + self.penalty + self.study.lost * self.cycle + luck)
        yield self._row(
            "state",
            dormant=0.02 + 0.01 * self.cycle,
            effective_rank=40.0 - self.cycle + luck,
            weight_norm=100.0 + self.cycle,
            entropy=0.6 + 0.1 * self.level,
        )
        kl = 0.2 * self.level + 0.5 * self.cycle + abs(luck)
        yield self._function("network", kl)
        if floors:
            yield self._function("all_off", 0.9)
            yield self._function("independent", 2.5)

    def _function(self, of: str, kl: float) -> Row:
        return self._row(
            "function",
            task="all",
            of=of,
            kl=kl,
            js=kl / 4,
            top1=1 / (1 + kl),
            flips=kl / (2 + kl),
            cosine=1 - kl / 50,
            cka=1 - kl / 20,
            tokens=4000,
        )


def _floors(study: Asked, model: str, seed: int) -> Iterator[Row]:
    for of, nats in (("all_off", START + study.attention), ("untrained", UNTRAINED)):
        for task in study.tasks:
            yield {
                **{"kind": "floor", "model": model, "strategy": "dense", "level": 0.0, "draw": 0, "remedy": "none"},
                **{"seed": seed, "unit": 0, "prune_cycle": 0, "cycle": 0, "phase": 0, "step": 0, "tokens": 0},
                **{"epochs": 0.0, "of": of, "task": task, "nats": nats, "accuracy": 0.05, "items": ITEMS},
            }
