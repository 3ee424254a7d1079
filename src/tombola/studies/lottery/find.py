"""`find_ticket`: the lottery study from Python, in one call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tombola.data import DataConfig, DataSet
from tombola.data.arrays import to_store
from tombola.data.given import given_parts
from tombola.errors import ConfigError, ModelError, TombolaError
from tombola.models import ModelConfig
from tombola.models.factory import Factory, is_factory_name, own_function
from tombola.pruning import Masks
from tombola.runs.atomic import make_folder, remove, write_bytes
from tombola.runs.configs import validate
from tombola.runs.folder import RunFolder
from tombola.runs.rows import Row
from tombola.studies.base.life import run_study
from tombola.studies.base.study import Call
from tombola.studies.base.watching import SILENT, Watcher
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.networks import restored_ticket
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind
from tombola.studies.lottery.study import Lottery
from tombola.studies.lottery.tasks import holding
from tombola.studies.lottery.verdict import Verdict
from tombola.training import Recipe
from tombola.training.own import MakeOptimizer, own_functions
from tombola.training.recipe import Schedule
from tombola.training.task import Loss, Task
from tombola.training.tried import check_said

MakeTask = Callable[[], Task]

RECIPE = {"optimizer": "adam", "learning_rate": "1.2e-3", "batch_size": 60, "evaluate_every": "1ep"}
"""What a network is trained by where nothing is said; the length is an argument of its own."""


@dataclass(frozen=True, repr=False)
class Ticket:
    """What a search came to. `rows` is the table of all measurements, `folder` the run with its report."""

    result: Result

    @property
    def verdict(self) -> Verdict:
        """Whether it won, with the evidence; `print(ticket)` shows its sentence."""
        return self.result.verdict

    @property
    def rows(self) -> list[Row]:
        return self.result.rows

    @property
    def folder(self) -> Path:
        return self.result.folder.root

    @property
    def report(self) -> Path:
        """A page that opens in a browser."""
        return self.result.folder.report

    @property
    def density(self) -> float:
        """The fraction of weights that the ticket keeps."""
        return self.masks.density

    @property
    def masks(self) -> Masks:
        """Of the first replicate's ticket: the verdict's density where it won, else the last round's."""
        return self._restored()[1]

    def model(self) -> nn.Module:
        """The network that the ticket restarts from: initial weights (or where it was rewound to), removed ones 0."""
        return self._restored()[0]

    def _restored(self) -> tuple[nn.Module, Masks]:
        config, folder = self.result.config, self.result.folder
        mode = Rewind.parse(config.rewind[0])
        model, _, masks = restored_ticket(folder, mode, 0, self.result.ticket_round, config.model.factory)
        return model, masks

    def __repr__(self) -> str:
        return f"{self.verdict.sentence}\n{self.report}"


def find_ticket(
    model: str | Factory | ModelConfig,
    data: str | DataConfig | DataSet | Sequence[Any] | Task | MakeTask,
    *,
    density: float = 0.1,
    rounds: int = 5,
    replicates: int = 5,
    length: str = "10ep",
    recipe: Recipe | Mapping[str, Any] | None = None,
    optimizer: str | MakeOptimizer | None = None,
    loss: str | Loss | None = None,
    schedule: str | Schedule | None = None,
    criterion: str = "magnitude",
    distribution: str = "global",
    rewind: str | Sequence[str] = "init",
    controls: str | Sequence[str] = ("random", "reinit"),
    tolerance: float | None = None,
    seed: int = 0,
    name: str = "ticket",
    out: Path | str = "runs",
    workers: int = 1,
    watcher: Watcher = SILENT,
) -> Ticket:
    """Searches a winning ticket: trains, prunes and rewinds round by round, trains controls beside, and judges.

    The same call again continues a search that was stopped, or shows the one that is finished.

    Args:
        model: A name of the zoo, a function without arguments that makes your network (or its
            `package.module:function`), or a ModelConfig. A function has to be found by its name again: one of a module
            or of a notebook, not a lambda. Chance in it comes from torch, whose seed is set before it is called.
        data: What is learned. Of classes: the name of a data set, a DataConfig, a DataSet, or three parts (training,
            validation, test), each of them (inputs, targets), a torch data set or a loader; tensors are written beside
            the run, so that it can be continued. Of anything else: a function without arguments that makes a Task, its
            `package.module:function`, or the Task itself, which only this process has (`workers=1`): the same call
            with it continues the run.
        density: The fraction of weights that the last round keeps.
        rounds: How many times it is pruned, by the same fraction of what is left each time.
        replicates: Whole experiments, from different seeds; ask for more later to extend the search.
        length: Of each training: `10ep`, `5000it`.
        recipe: Everything else of the training; by default Adam at 1.2e-3, batches of 60.
        optimizer: What the recipe calls so: a name that it knows, or a function of yours (or its
            `package.module:function`) from named parameters and the learning rate to a `torch.optim.Optimizer`.
        loss: A function of yours, or its name, from logits and targets to the mean loss; of classes only.
        schedule: A name that the recipe knows, or a function of yours, or its name, from the iteration and how many
            there are to what the learning rate is multiplied by.
        criterion: What a weight is worth (`tombola list criteria`).
        distribution: How the density spreads over layers.
        rewind: What kept weights restart from: `init`, `step:500it`, `lr`, `finetune`, or several of them.
        controls: What the ticket is held against (`tombola list controls`).
        tolerance: How much a ticket may lose and still match the dense network, in points of accuracy (1 by default)
            or the unit of the task's measure, which has no default; choose it before you look.
        seed: Makes everything.
        name: Of the run's folder.
        out: Where run folders lie.
        workers: Processes; more than one need a function that other processes can import.
        watcher: Is told how far it is; `tombola.studies.base.watching.watching(console)` draws bars.

    Returns:
        Ticket: verdict, masks, model, rows, report and folder.

    Raises:
        TombolaError: in one line, for what does not fit together, and for a failed training.

    Examples:
        >>> import tempfile
        >>> network = ModelConfig(widths=(20, 10))  # or a function of yours
        >>> short = {"length": "20it", "recipe": {"evaluate_every": "10it"}, "out": tempfile.mkdtemp()}
        >>> ticket = find_ticket(network, "digits", density=0.5, rounds=1, replicates=1, **short)
        >>> ticket.verdict.outcome, round(ticket.density, 2)
        ('undecided', 0.5)
    """
    out = Path(out)
    file, learned = _learned(data, out)
    content = {
        "name": name,
        "seed": seed,
        "replicates": replicates,
        **learned,
        "model": _model(model),
        "training": {**RECIPE, "length": length, **_training(recipe, optimizer, loss, schedule)},
        "pruning": {
            "criterion": criterion,
            "distribution": distribution,
            "schedule": "geometric",
            "rounds": rounds,
            "target_density": density,
        },
        "rewind": rewind,
        "controls": [controls] if isinstance(controls, str) else controls,
        **({} if tolerance is None else {"tolerance": tolerance}),
    }
    config = validate(content, LotteryConfig, "find_ticket")
    if not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers={workers!r}: processes are counted from 1")
    if workers > 1:
        _check_importable(config, workers)
    with _stored(file, Lottery.place(config, out)), holding(data if isinstance(data, Task) else None):
        return Ticket(run_study(Lottery, config, Call(out, workers=workers, watcher=watcher)))


def _check_importable(config: LotteryConfig, workers: int) -> None:
    """Raises ConfigError for what other processes do not have."""
    if config.task is not None and config.task.held is not None:
        raise ConfigError(
            f"workers={workers}: other processes do not have your Task; give the function that makes it, or use 1"
        )
    named = [config.model.factory, None if config.task is None else config.task.factory, *own_functions(config)]
    if any(str(name).startswith("__main__:") for name in named):
        raise ConfigError(
            f"workers={workers}: other processes cannot import a function of __main__; put it into a module, or use 1"
        )


def _model(model: str | Factory | ModelConfig) -> dict[str, Any]:
    if isinstance(model, ModelConfig):
        return model.model_dump()
    if isinstance(model, nn.Module):
        raise ConfigError(
            "model: give the function that makes the network and not a network, since every replicate begins with "
            "initial weights of its own"
        )
    if callable(model):
        return {"factory": _name_of(model, "model")}
    if is_factory_name(str(model)):
        return {"factory": model}
    return {"architecture": model}


def _name_of(function: Callable[..., Any], role: str) -> str:
    """By which it is found again, in this process and in others."""
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', '')}"
    if not is_factory_name(name) or not _leads_to(name, function):
        shown = name if is_factory_name(name) else getattr(function, "__qualname__", type(function).__name__)
        raise ConfigError(
            f"{role}: {shown} cannot be found by its name again; define the function at the top of a module or notebook"
        )
    return name


def _leads_to(name: str, function: Callable[..., Any]) -> bool:
    try:
        return own_function(name) is function
    except ModelError:
        return False


def _training(
    recipe: Recipe | Mapping[str, Any] | None,
    optimizer: str | MakeOptimizer | None,
    loss: str | Loss | None,
    schedule: str | Schedule | None,
) -> dict[str, Any]:
    """The recipe's keys, with functions by their names."""
    content = _recipe(recipe)
    for role, given in {"optimizer": optimizer, "loss": loss, "schedule": schedule}.items():
        if given is None:
            continue
        if content.get(role) is not None:
            raise ConfigError(f"{role}: is an argument and a key of the recipe; give it once")
        if not isinstance(given, str) and not callable(given):
            raise ConfigError(f"{role}: a function or its package.module:function, not {given!r}")
        content[role] = given if isinstance(given, str) else _name_of(given, role)
    return content


def _recipe(recipe: Recipe | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(recipe, Recipe):
        return recipe.model_dump(mode="json", exclude_unset=True)
    if recipe is not None and not isinstance(recipe, Mapping):
        raise ConfigError(f"recipe: a Recipe or its keys and values, not {recipe!r}")
    return dict(recipe or {})


File = tuple[Path, bytes]


def _learned(
    data: str | DataConfig | DataSet | Sequence[Any] | Task | MakeTask, out: Path
) -> tuple[File | None, dict[str, Any]]:
    """The data of a config, or its task; before it, what is to be stored for it."""
    if isinstance(data, Task):
        check_said(data)
        return None, {"task": {"held": data.name}}
    if isinstance(data, str) and is_factory_name(data):
        return None, {"task": {"factory": data}}
    if isinstance(data, str):
        return None, {"data": {"name": data}}
    if isinstance(data, DataConfig):
        return None, {"data": data.model_dump()}
    if callable(data):
        return None, {"task": {"factory": _name_of(data, "data")}}
    path, content = to_store(out, given_parts(data))
    return (path, content), {"data": {"name": "arrays", "folder": str(path)}}


@contextlib.contextmanager
def _stored(file: File | None, run: RunFolder) -> Iterator[None]:
    """Within the block the file is there; a run that is refused before it began takes away what this call wrote."""
    if file is None or file[0].exists():
        yield
        return
    path, content = file
    new_folder = not path.parent.exists()
    make_folder(path.parent)
    write_bytes(path, content)
    try:
        yield
    except TombolaError:
        if not run.manifest.exists():
            remove(path)
            if new_folder and not any(path.parent.iterdir()):
                path.parent.rmdir()
        raise
