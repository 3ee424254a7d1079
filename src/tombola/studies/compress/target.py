"""What a compressed model is to be: so many parameters, bytes or FLOPs, so fast, so little memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from tombola.errors import ConfigError
from tombola.registry import suggest
from tombola.studies.base.numbers import whole_percent

Measure = Literal["params", "bytes", "flops", "latency", "memory"]
MEASURED: tuple[Measure, ...] = ("latency", "memory")
"""Measures that hang on the machine; the others are counted."""
TITLES: dict[Measure, str] = {
    "params": "parameters",
    "bytes": "bytes of the file",
    "flops": "FLOPs",
    "latency": "latency",
    "memory": "peak memory",
}
PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
EXAMPLES = "params=0.2, bytes=50k, flops=30%, latency=0.5, latency=2ms or memory=8M"


@dataclass(frozen=True)
class Target:
    """At most `value` of a measure: that fraction of the parent's, or so much (a number, bytes, FLOPs, seconds)."""

    measure: Measure
    value: float
    is_fraction: bool

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads `params=0.2`, `bytes=50k`, `latency=2ms`. Up to 1 and without a unit, a number is a fraction.

        Raises:
            ConfigError: for what is no such text, in one line that shows some.

        Examples:
            >>> Target.parse("bytes=50k")
            Target(measure='bytes', value=50000.0, is_fraction=False)
            >>> Target.parse("latency=50%").is_fraction
            True
        """
        name, equals, amount = text.strip().partition("=")
        measure = next((known for known in get_args(Measure) if known == name.strip()), None)
        if not equals:
            raise ConfigError(f"target {text!r}: write a measure and its most, such as {EXAMPLES}")
        if measure is None:
            raise ConfigError(f"target {text!r}: unknown measure{suggest(name, get_args(Measure))}")
        found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e-?[0-9]{1,2})?\s*(%|[a-zA-Zµ]*)", amount.strip())
        if found is None or (number := float(found[1] + (found[2] or ""))) == 0:
            raise ConfigError(f"target {text!r}: the most is a number above 0, such as {EXAMPLES}")
        unit = found[3]
        if unit == "%" or (not unit and number <= 1):
            fraction = number / 100 if unit else number
            if fraction > 1:
                raise ConfigError(f"target {text!r}: more than the model itself; ask for less than 100 %")
            return cls(measure, fraction, True)
        value = number * _scale(text, measure, unit)
        if measure != "latency" and value != round(value):
            raise ConfigError(
                f"target {text!r}: above 1 it is an amount, and whole; a fraction is at most 1, such as 0.5"
            )
        return cls(measure, value, False)

    def limit(self, parent: float) -> float:
        """The most, where the parent has `parent`."""
        return self.value * parent if self.is_fraction else self.value

    def __str__(self) -> str:
        return f"{TITLES[self.measure]} at most {self.most}"

    @property
    def most(self) -> str:
        """`20% of the model's`, `51,200 bytes`."""
        return f"{whole_percent(self.value)} of the model's" if self.is_fraction else shown(self.measure, self.value)


def shown(measure: Measure, value: float) -> str:
    """An amount of a measure for a person.

    Examples:
        >>> shown("latency", 0.00213), shown("bytes", 51200)
        ('2.13 ms', '51,200 bytes')
    """
    if measure == "latency":
        return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"
    unit = " bytes" if measure in ("bytes", "memory") else ""
    return f"{round(value):,}{unit}"


def _scale(text: str, measure: Measure, unit: str) -> float:
    """What a unit stands for; ConfigError where it belongs to another measure."""
    if measure == "latency":
        if unit.lower() in SECONDS:
            return SECONDS[unit.lower()]
        raise ConfigError(
            f"target {text!r}: a latency above 1 has a unit, such as latency=2ms; a fraction is at most 1"
        )
    ending = unit.lower()
    if measure in ("bytes", "memory"):
        ending = ending.removesuffix("b")
    if ending not in PREFIXES:
        raise ConfigError(
            f"target {text!r}: the unit {unit!r} is none of k, M, G (thousands, millions, thousand millions)"
        )
    return PREFIXES[ending]
