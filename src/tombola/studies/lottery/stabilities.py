"""What was measured of a run's stability, as it is read and shown; `stability` measures it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tombola.errors import StorageError
from tombola.reports.chart import Chart, Series
from tombola.reports.intervals import CONFIDENCE, Estimate, bounds_of
from tombola.reports.tables import plus_minus
from tombola.runs.folder import RunFolder
from tombola.runs.sealed import read_sealed
from tombola.studies.base.numbers import within
from tombola.studies.lottery.config import LotteryConfig

POINTS = 30
STABLE = 2.0
"""Points of error: an instability below this is called stable."""


@dataclass(frozen=True)
class StabilityResult:
    """Instability of one round's ticket over replicates, in points of test error.

    `path` is the mean error at each of the points from one copy (0) to the other (1), over pairs and
    replicates; `ends` the mean error of the copies, `dense` that of the dense network, `excess` their
    difference, paired by replicate. `tolerance` is the run's, in points, and `confidence` that of its one-sided
    comparison with dense; `fault` says which network learned nothing or diverged.
    """

    mode: str
    round: int
    density: float
    copies: int
    instability: Estimate
    ends: Estimate
    dense: Estimate
    excess: Estimate
    path: list[Estimate]
    tolerance: float
    confidence: float
    fault: str | None = None

    @property
    def stable(self) -> bool | None:
        """Whether instability is below 2 points; None where the 95 % interval does not tell."""
        return _below(self.instability, STABLE)

    @property
    def matching(self) -> bool | None:
        """Whether the error is within the tolerance of dense; None where its one-sided bounds do not tell."""
        if self.fault is not None or self.excess.sd is None:
            return None
        bounds = bounds_of(self.excess.mean, self.excess.sd, self.excess.n, self.confidence)
        assert bounds.lower is not None  # there is a standard deviation
        assert bounds.upper is not None
        return True if bounds.upper < self.tolerance else False if bounds.lower > self.tolerance else None

    @property
    def sentence(self) -> str:
        stable = {True: "Stable", False: "Unstable", None: "Undecided whether stable"}[self.stable]
        matching = {True: "matching", False: "not matching", None: "undecided whether matching"}[self.matching]
        return (
            f"{stable}: instability {plus_minus(self.instability)} points of error at {self.density:.1%} of the "
            f"weights; {matching} {within(self.tolerance)}: error {self.ends.mean:.2f} % against "
            f"{self.dense.mean:.2f} % dense (difference {plus_minus(self.excess)}; n = {self.instability.n})."
            + (f" Nothing is matched here: {self.fault}." if self.fault else "")
        )


def _below(value: Estimate, bound: float) -> bool | None:
    if value.low is None or value.high is None or value.low <= bound < value.high:
        return None
    return value.high <= bound


def stability_folder(root: Path) -> Path:
    """Where a run keeps what was measured of its stability."""
    return root / "stability"


def stored_stabilities(root: Path) -> list[StabilityResult]:
    """The stability results that a run has; StorageError when one is damaged."""
    paths = [path for path in sorted(stability_folder(root).glob("*-round-*.json")) if "replicate" not in path.name]
    if not paths:
        return []
    tolerance = RunFolder(root).read_config(LotteryConfig).tolerance
    return [_stored(path, tolerance) for path in paths]


def _stored(path: Path, tolerance: float) -> StabilityResult:
    """A stored result; one of a version that did not store them is read with the run's tolerance, at 95 %."""
    content = read_sealed(path, "delete it, or run tombola stability again")
    try:
        content = {"tolerance": tolerance, "confidence": CONFIDENCE} | content
        estimates = {name: Estimate(**content[name]) for name in ("instability", "ends", "dense", "excess")}
        return StabilityResult(**content | estimates | {"path": [Estimate(**point) for point in content["path"]]})
    except (KeyError, TypeError):
        raise StorageError(f"{path}: damaged; delete it, or run tombola stability again") from None


def stability_chart(result: StabilityResult) -> Chart:
    points = [point / (POINTS - 1) for point in range(POINTS)]
    series = [Series("interpolated", points, result.path, 0)]
    return Chart("Position between the copies", "Test error (%)", series, ("dense", result.dense.mean))


def stability_caption(result: StabilityResult) -> str:
    return (
        f"Error along the line between copies trained under different data orders; mean of {result.instability.n} "
        f"replicates, {result.copies} copies each, bands 95 % confidence intervals. {result.sentence}"
    )
