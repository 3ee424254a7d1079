"""What a control is: another start for the training that a ticket gets, and what a run gives it to make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tombola.registry import Registry, described
from tombola.studies.lottery.rewind import Rewind, Start
from tombola.training import Recipe

State = Mapping[str, Tensor]


HOST = "host"
"""The branch of the second dense network, and the name that its seeds are made of."""


@dataclass(frozen=True)
class Host:
    """A second dense network of the replicate, from initial weights of its own: `first` is what a ticket would restart
    from in it (W_0, or W_k where tickets are rewound to that), `trained` are its weights at the end, and `dense` those
    of the replicate's own dense network."""

    first: State
    trained: State
    dense: State


@dataclass(frozen=True)
class Situation:
    """A ticket about to be trained: its `ticket` start and `mode` of rewinding, W_0 (`initial`), the whole `recipe`.

    `chance` is this control's own seed in this round. `fresh(seed)` gives initial weights of the same network drawn
    anew, `host()` the replicate's second dense network, for controls that say `needs_host`. `model` is the network
    itself, to look at and not to change.
    """

    ticket: Start
    mode: Rewind
    recipe: Recipe
    initial: State
    chance: int
    model: nn.Module
    fresh: Callable[[int], State]
    host: Callable[[], Host]


@dataclass(frozen=True)
class Control:
    """A named control. Its start must have masks that keep as many weights as the ticket's.

    `title` is its name in figures. A ticket is called winning when it beats all that `decide`; the others are shown,
    and claim nothing. It `draws_anew` where its weights come from another seed. `check`, where there is one, raises
    ConfigError for networks that the control cannot be made of. The versions of its `libraries` decide what it is.
    """

    name: str
    title: str
    start: Callable[[Situation], Start]
    decides: bool
    draws_anew: bool
    needs_host: bool
    check: Callable[[nn.Module], object] | None
    libraries: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """What it is, in one line."""
        return described(self.start)


controls: Registry[Control] = Registry("control")


def control(
    name: str,
    title: str,
    decides: bool = False,
    draws_anew: bool = True,
    needs_host: bool = False,
    check: Callable[[nn.Module], object] | None = None,
    libraries: tuple[str, ...] = (),
) -> Callable[[Callable[[Situation], Start]], Callable[[Situation], Start]]:
    """Decorator that makes a function from a Situation to a Start a control, in the order of tables and figures."""

    def register(start: Callable[[Situation], Start]) -> Callable[[Situation], Start]:
        controls.register(name)(Control(name, title, start, decides, draws_anew, needs_host, check, libraries))
        return start

    return register


def deciding() -> tuple[str, ...]:
    """The controls that a ticket must beat to be called winning."""
    return tuple(name for name in controls if controls.get(name).decides)


def title_of(branch: str) -> str:
    """What a figure calls a branch: dense, ticket, a control or the host of one."""
    if branch == HOST:
        return "second dense network"
    return controls.get(branch).title if branch in controls else branch
