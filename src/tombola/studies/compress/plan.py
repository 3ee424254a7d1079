"""What a search will train, and how long it takes at most: estimated before it runs, nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from tombola.reports.terminal import say
from tombola.studies.base.numbers import counted, duration
from tombola.studies.base.output import Numbers
from tombola.studies.base.timing import recipe_seconds, sample_seconds
from tombola.studies.compress.config import CompressConfig
from tombola.studies.compress.forms import FORMS
from tombola.studies.compress.paths import LADDERS, most_candidates, paths_of
from tombola.studies.single.parents import Parent
from tombola.training.batches import iterations_per_epoch
from tombola.training.threads import one_thread


@dataclass(frozen=True)
class SearchPlan:
    """So many candidates at most, of which a path ends before, once one loses too much. Seconds as of dense ones."""

    config: CompressConfig
    candidates: int
    iterations: int
    seconds: float
    workers: int

    @property
    def line(self) -> str:
        paths = counted(len(paths_of(self.config)), "path")
        said = f"{paths}, at most {counted(self.candidates, 'candidate')}"
        if not self.iterations:
            return f"{said}, without fine-tuning; --dry-run shows more"
        return (
            f"{said}, each fine-tuned for {self.iterations:,} iterations: at most about {duration(self.seconds)} of "
            f"training with {counted(self.workers, 'worker')}; --dry-run shows more"
        )

    @property
    def numbers(self) -> Numbers:
        paths = [
            {"structure": path.structure, "distribution": path.distribution, "sparsities": LADDERS[path.structure]}
            for path in paths_of(self.config)
        ]
        whole = {"candidates": self.candidates, "iterations": self.iterations, "seconds": self.seconds}
        return Numbers(paths, whole, {"seconds": "s"})

    def show(self, console: Console) -> None:
        config = self.config
        for path in paths_of(config):
            ladder = ", ".join(f"{sparsity:.3g}" for sparsity in LADDERS[path.structure])
            files = " and ".join(form.file for form in FORMS if form.structure == path.structure)
            said = f"{path.structure}, {path.distribution}: {ladder}" if path.distribution else "the model as it is"
            say(console, f"{said}; shipped as {files}")
        say(
            console,
            f"A path ends where a candidate loses more than {100 * config.max_drop:g} points on validation; then "
            f"{config.refinements} more are tried before it. Wanted: {config.wanted}.",
        )
        say(console, self.line.removesuffix("; --dry-run shows more"))


def plan_search(config: CompressConfig, parent: Parent, workers: int, *, quick: bool) -> SearchPlan:
    """The plan of a search, from a few iterations of the parent that are timed."""
    recipe, candidates = config.fine_tuning, most_candidates(config)
    workers = min(workers, len(paths_of(config)))
    if recipe is None:
        return SearchPlan(config, candidates, 0, 0.0, workers)
    iterations = recipe.length.iterations(iterations_per_epoch(len(parent.data.train), recipe.batch_size))
    with one_thread():
        one = recipe_seconds(parent.model, parent.data, recipe, parent.masks, sample_seconds(quick=quick))
    return SearchPlan(config, candidates, iterations, candidates * one / workers, workers)
