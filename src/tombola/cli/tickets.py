"""The commands around ticket files: write, look into, unpack one; and what two networks differ in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tombola.cli.configs import refuse_configs
from tombola.cli.console import give, tell
from tombola.cli.errors import errors
from tombola.cli.options import DataDir, Debug, Factory, Json, RewindMode
from tombola.cli.single import data_keys

if TYPE_CHECKING:
    from tombola.compression.tickets.files import TicketFile
    from tombola.studies.base.output import Output

TicketArgument = Annotated[Path, typer.Argument(help="A ticket file.")]

NetworkArgument = Annotated[
    Path, typer.Argument(help="A model folder, a run of `tombola imp`, its results, or a ticket file.")
]


def pack(
    folder: Annotated[Path, typer.Argument(help="A model folder, a run of `tombola imp`, or its results.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; default the folder's name and .ticket.")
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="What learned values are stored as: float32 (exact, the default), float16, int8, none."),
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Store what it restarts from, too, where the seed does not give that.")
    ] = False,
    density: Annotated[
        float | None, typer.Option(help="Of a run: the round nearest to it; default the ticket of the verdict.")
    ] = None,
    replicate: Annotated[int | None, typer.Option(min=0, help="Of a run: whose ticket; default the first.")] = None,
    rewind: RewindMode = None,
    factory: Factory = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Pack a **ticket into one small file**: spec, mask, learned values, and what it restarts from.

    Masks lie as bits or gaps, values as rows of bytes, all packed by zstandard. A ticket that restarts from its seed's
    weights needs no values: `--values none` makes a file of kilobytes that trains to the same network.

    Example: `tombola pack runs/child -o child.ticket --values int8`
    """
    with errors(debug):
        from tombola.studies.lottery.packing import pack_folder

        refuse_configs(folder)
        file = pack_folder(
            folder,
            out or Path(f"{folder.resolve().name}.ticket"),
            values=values,
            with_start=start,
            density=density,
            replicate=replicate,
            mode=rewind,
            factory=factory,
        )
        give(json, lambda: _output(file), lambda console: tell(console, _sentence(file)))


def unpack(
    file: TicketArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The model folder to write; it must not hold a model yet.")],
    start: Annotated[
        bool, typer.Option("--start", help="The weights that it restarts from; default what it learned, if stored.")
    ] = False,
    factory: Factory = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the network of a **ticket file** as a model folder: spec.json, weights.safetensors, masks.safetensors.

    Example: `tombola unpack child.ticket -o child`
    """
    with errors(debug):
        from tombola.studies.base.output import output
        from tombola.studies.lottery.packing import unpack_to

        refuse_configs(file)
        masks = unpack_to(file, out, "start" if start else None, factory).masks
        said = f"{masks.kept:,} of {masks.total:,} weights ({masks.density:.1%})"
        give(
            json,
            lambda: output("model", outcome=said, folder=str(out.resolve())),
            lambda console: tell(console, f"{out}: {said}"),
        )


def info(file: TicketArgument, json: Json = False, debug: Debug = False) -> None:
    """Show what is in a **ticket file**: its network, each layer's mask, how its weights are stored, and the bytes.

    Example: `tombola info child.ticket`
    """
    with errors(debug):
        from tombola.compression.tickets.files import read_ticket
        from tombola.compression.tickets.shown import layers_table, lines
        from tombola.reports.terminal import drawn

        refuse_configs(file)
        ticket = read_ticket(file)

        def show(console: Any) -> None:
            tell(console, "\n".join(lines(ticket)))
            console.print(drawn(layers_table(ticket)))
            tell(console, _sentence(ticket))

        give(json, lambda: _output(ticket), show)


def diff(
    a: NetworkArgument,
    b: NetworkArgument,
    data: Annotated[
        str | None, typer.Option(help="Compare outputs on its test part, too: a data set, or its keys as YAML.")
    ] = None,
    density: Annotated[float | None, typer.Option(help="Of runs: the round nearest to it.")] = None,
    factory: Factory = None,
    data_dir: DataDir = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What **two networks** of the same layers differ in: masks, weights and, on data, what they answer.

    Per layer: what each keeps, the overlap of the masks (Jaccard) beside that of chance, how far kept weights moved
    (relative L2) and how many changed their sign.

    Example: `tombola diff runs/train-lenet5-1a2b3c4d runs/child --data mnist`
    """
    with errors(debug):
        from tombola.data import DataConfig
        from tombola.runs.configs import validate
        from tombola.studies import differing
        from tombola.studies.base.output import output

        refuse_configs(a, b)
        keys = data_keys(data, skip_bad=False)
        config = None if keys is None else validate(keys, DataConfig, "--data")
        found = differing.diff_of(a, b, config, data_dir=data_dir, density=density, factory=factory)
        give(
            json,
            lambda: output("difference", differing.numbers(found), outcome=differing.outcome(found)),
            lambda console: differing.show(console, found),
        )


def _sentence(file: TicketFile) -> str:
    from tombola.compression.tickets.shown import sentence

    return sentence(file)


def _output(file: TicketFile) -> Output:
    from tombola.compression.tickets.shown import UNITS, layers_in, totals
    from tombola.studies.base.output import Numbers, output

    return output(
        "ticket file",
        Numbers(layers_in(file), totals(file), UNITS),
        outcome=_sentence(file),
        paths={"ticket": file.path},
    )
