"""Which tasks a protocol goes through, and the language that probes plasticity. Their items are made in `data/text`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from tombola.data.text import TextTask
from tombola.data.text.generated import LEVELS, arithmetic, continued, long_context, recall, reversed_runs
from tombola.data.text.idioms import readings
from tombola.data.text.written import ABOUT, sentiment, written
from tombola.errors import ConfigError
from tombola.registry import suggest

Protocol = Literal["diverse", "memory", "conflict"]
PROTOCOLS: dict[Protocol, tuple[str, ...]] = {
    "diverse": ("german", "verse", "names", "arithmetic", "code", "sentiment"),
    "memory": ("recall", "long-context", "french", "names"),
    "conflict": ("sentiment", "sentiment-flipped", "continued", "reversed", "literal", "idiomatic"),
}
"""What each one is for: skills that differ; holding on to what was read; answers that contradict each other."""
PROBE = "swedish"
"""The language that neither pre-training nor a protocol has."""

Make = Callable[[int, int, int], TextTask]
"""(seed, items to train on, items held out) -> the task."""
_MAKERS: dict[str, Make] = {
    **{kind: functools.partial(written, kind) for kind in ABOUT},
    "sentiment": sentiment,
    "sentiment-flipped": functools.partial(sentiment, flipped=True),
    "arithmetic": arithmetic,
    "recall": recall,
    "long-context": long_context,
    "continued": continued,
    "reversed": reversed_runs,
    "literal": functools.partial(readings, "literal"),
    "idiomatic": functools.partial(readings, "idiomatic"),
}
_LEVELLED: dict[str, Callable[..., TextTask]] = {name: _MAKERS[name] for name in LEVELS}


def protocol_tasks(protocol: Protocol, seed: int, train: int = 320, held_out: int = 256) -> list[TextTask]:
    """The tasks of a protocol in its own order, with so many items; a pure function of the arguments.

    Raises ConfigError for an unknown protocol, DataError where a text has fewer items.

    Examples:
        >>> [task.name for task in protocol_tasks("memory", seed=0, train=8, held_out=8)]
        ['recall', 'long-context', 'french', 'names']
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {protocol!r}{suggest(protocol, PROTOCOLS)}")
    return [_MAKERS[name](seed, train, held_out) for name in PROTOCOLS[protocol]]


def probe_task(seed: int, train: int = 320, held_out: int = 256) -> TextTask:
    """The held-out language: how well it is still learned is the plasticity of a network."""
    return _MAKERS[PROBE](seed, train, held_out)


def harder(task_name: str, difficulty: int, seed: int, train: int = 320, held_out: int = 256) -> TextTask:
    """A task at another level of difficulty, from 1; ConfigError for a task that has no levels, or not this one."""
    if task_name not in _LEVELLED:
        raise ConfigError(f"the task {task_name!r} has no levels; those that do: {', '.join(sorted(_LEVELLED))}")
    return _LEVELLED[task_name](seed, train, held_out, difficulty=difficulty)
