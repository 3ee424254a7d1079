"""Early-bird tickets: the mask settles long before the training ends (You et al. 2020, arXiv 1909.11957).

At every evaluation the mask that would be pruned now is compared with those of the evaluations before. When
all of them are near, the search could stop: that mask is the early bird, and the next round takes it. The
training itself goes on, because its row needs a whole training; what stopping would save is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from tombola.models.tensors import load_own, save_tensors
from tombola.pruning import Masks
from tombola.runs.configs import Config

FOUND = "early-bird.safetensors"


class EarlyBirdConfig(Config):
    """The mask has settled when it differs from each of the `window` before it by less than `distance`."""

    distance: float = Field(0.1, gt=0, lt=1, description="fraction of the open weights whose masks differ")
    window: int = Field(4, ge=1, description="earlier evaluations that the newest mask is compared with")


def mask_distance(a: Masks, b: Masks, within: Masks) -> float:
    """Fraction of the weights kept by `within` whose masks differ: the normalised Hamming distance.

    Only these are open to pruning: over all weights, late rounds would be near to each other whatever they
    keep. In the first round, where the authors prune, the two are the same.
    """
    differing = sum(int((mask.keep ^ b[name].keep).sum()) for name, mask in a.items())
    return differing / within.kept


class EarlyBird:
    """Watches one training. Candidate masks go to `folder`, so that a killed training goes on watching."""

    def __init__(self, config: EarlyBirdConfig, within: Masks, candidate: Callable[[], Masks], folder: Path) -> None:
        self.config = config
        self.within = within
        self.candidate = candidate
        self.folder = folder

    def look(self, iteration: int) -> None:
        """Called after each evaluation: keeps the mask of this iteration, and says so when it has settled."""
        if (self.folder / FOUND).exists():
            return
        masks = self.candidate()
        # Those of later iterations are from before a kill and will be made again.
        earlier = [path for path in candidates(self.folder) if path.name < _name(iteration)][-self.config.window :]
        distances = [mask_distance(masks, Masks.from_tensors(load_own(path)[0]), self.within) for path in earlier]
        save_tensors(self.folder / _name(iteration), masks.to_tensors())
        if len(distances) == self.config.window and max(distances) < self.config.distance:
            save_tensors(self.folder / FOUND, masks.to_tensors(), {"iteration": iteration})


def candidates(folder: Path) -> list[Path]:
    """The masks looked at so far, by iteration; they are of no use once the training's rows are stored."""
    return sorted(folder.glob("candidate-*.safetensors"))


def settled(folder: Path) -> tuple[Masks, int] | None:
    """The early bird of the training in `folder` and the iteration at which it settled; None without one."""
    if not (folder / FOUND).exists():
        return None
    tensors, facts = load_own(folder / FOUND)
    return Masks.from_tensors(tensors), int(facts["iteration"])


def _name(iteration: int) -> str:
    return f"candidate-{iteration:012d}.safetensors"
