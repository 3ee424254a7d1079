"""What a hybrid study requires and will run: all that is refused before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from tombola.compression.onnx_packages import required
from tombola.errors import RunFolderError, TombolaError
from tombola.models.exits import Exit, default_exits, find_exit
from tombola.reports.terminal import say
from tombola.runs.folder import run_folder
from tombola.studies.base.output import Numbers
from tombola.studies.hybrid.config import HybridConfig
from tombola.studies.hybrid.cuts import frozen_base
from tombola.studies.hybrid.units import PCA, PIXELS
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.forecast import Forecast, estimate_line
from tombola.studies.lottery.networks import outline
from tombola.studies.lottery.result import Result, base_facts, check_network, check_steps, data_facts, plan_of
from tombola.studies.lottery.start import start_facts, started
from tombola.training.batches import iterations_per_epoch

ONNX = ("onnx", "onnxruntime")
"""What keeps and runs the forests."""


@dataclass(frozen=True)
class HybridPlan:
    """The lotteries that are to run first, by role, with what they will cost; and how many forests are grown then."""

    lotteries: dict[str, Forecast]
    forests: int

    @property
    def line(self) -> str:
        forests = f"{self.forests} forests"
        return f"{estimate_line([*self.lotteries.values()])}; then {forests}" if self.lotteries else forests

    @property
    def numbers(self) -> Numbers:
        lotteries = [
            {"role": role, "lottery": plan.config.name, "trainings": plan.trainings, "seconds": plan.seconds}
            for role, plan in self.lotteries.items()
        ]
        return Numbers(lotteries, {"forests": self.forests}, {"seconds": "s"})

    def show(self, console: Console) -> None:
        """Lottery by lottery."""
        for role, plan in self.lotteries.items():
            say(console, f"{role}: the lottery {plan.config.name}", "bold")
            plan.show(console)
        say(console, f"{self.forests} forests, and gated early exits, after that")


def check_study(config: HybridConfig, data_dir: Path | None) -> dict[str, Any]:
    """What the study depends on, for its manifest.

    Raises TombolaError, in one line, for what would otherwise fail after hours: no ONNX, lotteries whose networks do
    not take the data, exits that the networks do not have (they are listed).
    """
    for name in ONNX:
        required(name)
    lotteries = {role: started(lottery) for role, lottery in config.lotteries().items()}
    facts = data_facts(lotteries["cnn"], data_dir)
    with _named("head"):
        base = frozen_base(config, data_dir)
    for role, lottery in lotteries.items():
        shape = base.output_shape if base is not None and role == "head" else facts["input_shape"]
        with _named(role):
            plan_of(lottery, shape, facts["classes"])
            check_steps(lottery, iterations_per_epoch(facts["training_examples"], lottery.training.batch_size))
            check_network(lottery, shape, facts["classes"])
            start_facts(lottery, tuple(shape), facts["classes"])
    _exits_of_all(config, lotteries["cnn"], facts, data_dir)
    versions = {name: version(name) for name in ONNX}
    return {"data": facts, **({} if base is None else {"base": base_facts(base)}), "onnx": versions}


def plan_hybrid(
    config: HybridConfig,
    facts: Mapping[str, Any],
    out: Path,
    workers: int,
    data_dir: Path | None,
    cost: Callable[[LotteryConfig, int, Path | None], Forecast],
) -> HybridPlan:
    """What a study that `check_study` let pass with `facts` will run below `out`.

    Lotteries that have begun there already are left out.
    """
    lotteries = {role: started(lottery) for role, lottery in config.lotteries().items()}
    left = {
        role: lottery
        for role, lottery in lotteries.items()
        if not run_folder(out, lottery.study, lottery.name, lottery).manifest.exists()
    }
    exits = _exits_of_all(config, lotteries["cnn"], facts["data"], data_dir)
    forests = len((PIXELS, PCA)) + len(config.features) * sum(map(len, exits))
    return HybridPlan(
        {role: cost(lottery, workers, data_dir) for role, lottery in left.items()},
        forests * lotteries["cnn"].replicates,
    )


def check_lotteries(facts: Mapping[str, Any], lotteries: Mapping[str, Result]) -> None:
    """RunFolderError where a lottery that was finished before has learned from other data or another base."""
    for role, lottery in lotteries.items():
        key = "base" if role == "head" else "data"
        recorded = lottery.data.get("base") if role == "head" else lottery.data
        if recorded != facts[key]:
            raise RunFolderError(
                f"{lottery.folder.root}: the {role} was trained with another {key} than is there now; restore it, or "
                "start afresh with another --out"
            )


def asked_exits(config: HybridConfig, network: nn.Module) -> list[Exit]:
    """The exits of a network that are asked for, the gated one among them. ConfigError for one that it has not."""
    with _named("exits"):
        exits = [find_exit(network, name) for name in config.exits or default_exits(network)]
    with _named("gate_exit"):
        gated = find_exit(network, config.gate_exit)
    return exits if gated in exits else [*exits, gated]


def _exits_of_all(
    config: HybridConfig, cnn: LotteryConfig, facts: Mapping[str, Any], data_dir: Path | None
) -> Sequence[list[Exit]]:
    """The exits of every network that is cut: the base, the dense cnn, its ticket."""
    base = frozen_base(config, data_dir)
    with _named("cnn"):
        network = asked_exits(config, outline(cnn, facts["input_shape"], facts["classes"]))
    with _named("the frozen base of the head"):
        return [*([] if base is None else [asked_exits(config, base.network)]), network, network]


@contextmanager
def _named(owner: str) -> Iterator[None]:
    """Says whose an error is."""
    try:
        yield
    except TombolaError as error:
        raise type(error)(f"{owner}: {error}") from None
