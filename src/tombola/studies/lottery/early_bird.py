"""Early-bird tickets: the mask settles long before the training ends (You et al. 2020, arXiv 1909.11957).

At every evaluation the mask that would be pruned now is compared with those of the evaluations before. When
the largest distance within the last few is below a bound, the search could stop: that mask is the early bird.
The training itself goes on, because its row needs a whole training; what stopping would save is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from tombola.models.tensors import load_tensors, save_tensors
from tombola.pruning import Masks
from tombola.runs.configs import Config


class EarlyBirdConfig(Config):
    """Stop when the masks of the last `window` evaluations differ by less than `distance` from the newest."""

    distance: float = Field(0.1, gt=0, lt=1, description="share of the weights whose mask differs")
    window: int = Field(5, ge=1, description="evaluations that the newest mask is compared with")


def mask_distance(a: Masks, b: Masks) -> float:
    """Share of all weights whose masks differ: the normalised Hamming distance."""
    differing = sum(int((mask.keep ^ b[name].keep).sum()) for name, mask in a.items())
    return differing / a.total


class EarlyBird:
    """Watches one training. Candidate masks go to `folder`, so that a killed training goes on watching."""

    def __init__(self, config: EarlyBirdConfig, candidate: Callable[[], Masks], folder: Path) -> None:
        self.config = config
        self.candidate = candidate
        self.folder = folder

    def look(self, evaluation: int, iteration: int) -> None:
        """Called after evaluation number `evaluation` (from 0); keeps the mask, and says so when it settled."""
        if self.iteration is not None:
            return
        masks = self.candidate()
        save_tensors(self._path(evaluation), masks.to_tensors())
        earlier = range(evaluation - self.config.window, evaluation)
        if earlier.start >= 0 and all(
            mask_distance(masks, self._read(number)) < self.config.distance for number in earlier
        ):
            save_tensors(self.folder / "early_bird.safetensors", masks.to_tensors(), {"iteration": iteration})
        for stale in (self._path(evaluation - self.config.window - 1),):
            stale.unlink(missing_ok=True)

    @property
    def iteration(self) -> int | None:
        """The iteration at which the mask had settled; None while it has not."""
        path = self.folder / "early_bird.safetensors"
        return load_tensors(path)[1]["iteration"] if path.exists() else None

    @property
    def masks(self) -> Masks | None:
        path = self.folder / "early_bird.safetensors"
        return Masks.from_tensors(load_tensors(path)[0]) if path.exists() else None

    def _path(self, evaluation: int) -> Path:
        return self.folder / f"candidate-{evaluation:05d}.safetensors"

    def _read(self, evaluation: int) -> Masks:
        return Masks.from_tensors(load_tensors(self._path(evaluation))[0])
