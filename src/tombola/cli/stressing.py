"""The command that prunes a language model's heads and makes it switch tasks: stress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tombola.cli.configs import config_argument, read_config
from tombola.cli.errors import errors
from tombola.cli.options import Debug, Json, Quiet, Workers
from tombola.cli.running import run_or_plan


def stress(
    config: Annotated[str | None, config_argument("stress-tiny")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="tiny (trained here once, needs no network), a name on the hub, or a folder. Several: a,b,c. "
            "Default distilgpt2."
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(help="Of entropy, entropy_low, magnitude, random, gradient, oracle. Default entropy,random."),
    ] = None,
    levels: Annotated[str | None, typer.Option(help="Fractions of heads removed. Default 0.1,0.3,0.5.")] = None,
    structure: Annotated[str | None, typer.Option(help="What is removed: head (default) or neuron.")] = None,
    equal: Annotated[bool, typer.Option("--equal", help="As many of every layer.")] = False,
    protocol: Annotated[str | None, typer.Option(help="diverse (default), memory or conflict.")] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(help='Your own tasks in its place: lines {"task": "", "prompt": "", "completion": ""}.'),
    ] = None,
    cycles: Annotated[int | None, typer.Option(help="How often all tasks are learned in turn. Default 3.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of a task, each time it is learned. Default 1.")] = None,
    prune_cycles: Annotated[
        int | None, typer.Option("--prune_cycles", help="Prune in so many steps, all cycles after each. Default 1.")
    ] = None,
    remedies: Annotated[
        str | None,
        typer.Option(help="To compare: none, shrink_and_perturb, reset_dormant; commas between. Default none."),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Tasks become harder and easier with how well they are learned.")
    ] = False,
    search: Annotated[
        int | None, typer.Option(help="A bandit spends so many networks where plasticity is best, beside chance.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Replicates; more can be added later. Default 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes all chance. Default 42.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A smaller tiny model, fewer shipped examples, 2 cycles, level 0.3."),
    ] = False,
    no_entropy: Annotated[bool, typer.Option("--no_entropy", help="Keep no journal of the heads' entropies.")] = False,
    no_function: Annotated[bool, typer.Option("--no_function", help="Do not compare outputs.")] = False,
    save_models: Annotated[
        bool, typer.Option("--save_models", help="Leave every pruned network, really smaller, in a folder.")
    ] = False,
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="The folder of this run; the same command goes on there.")
    ] = Path("outputs/pruning_stress_eval"),
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda or mps.")] = None,
    workers: Workers = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override any key, e.g. learning_rate=1e-4. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the networks and the estimated time; run nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """**Stress** a language model: prune its heads, make it switch tasks, and see what recovers.

    Every strategy × level × seed is a network of its own, beside the dense one and one whose tasks change gradually.
    Measured are recovery, forgetting, savings, stability, how well a held-out language is still learned (plasticity),
    the entropy of every head at every step, and how much of the model's function is left. Ends with a table, a page
    and the files in `--output_dir`. The same command again continues or shows it.

    Example: `tombola stress --model tiny --quick`
    """
    with errors(debug, runs=True):
        from tombola.studies.stress.asked import stress_config
        from tombola.studies.stress.config import StressConfig

        if config is not None:
            read_config(config, StressConfig, ())  # refuses one of another command
        asked = {
            "model": _listed(model),
            "strategies": _listed(strategies),
            "levels": _listed(levels),
            "structure": structure,
            "equal": equal or None,
            "protocol": protocol,
            "tasks": None if tasks is None else str(tasks),
            "cycles": cycles,
            "epochs": epochs,
            "prune_cycles": prune_cycles,
            "remedies": _listed(remedies),
            "adaptive": adaptive or None,
            "search": search,
            "replicates": seeds,
            "seed": seed,
            "quick": quick or None,
            "entropy": False if no_entropy else None,
            "function": False if no_function else None,
            "save_models": save_models or None,
        }
        given = {key: value for key, value in asked.items() if value is not None}
        run_or_plan(
            "stress",
            stress_config(config, given, set_ or ()),
            output_dir,
            None,
            device=device,
            workers=workers,
            dry_run=dry_run,
            quiet=quiet,
            as_json=json,
        )


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
