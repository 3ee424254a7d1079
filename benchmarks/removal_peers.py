"""Half of all units removed, by Tombola, Torch-Pruning and torch-kirigami: what works, what is left, in how long.

    python benchmarks/removal_peers.py [--only LeNet-5] [--seconds 200] [--figure docs/images/removal-peers.png]

Each tool removes half of every group by magnitude from the same network, in a process of its own. Seconds are those of
the processor, so that a busy machine says the same; what imports cost is not counted. *works*: the smaller network has
fewer parameters, runs, and answers in the same shape. Whether it computes what the masked network does is checked by
Tombola alone, within its time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from removal_cases import CASES
from tombola import plan_removal, remove_units
from tombola.compression.removal.trace import call_of, tensors_in
from tombola.errors import one_line_by_name
from tombola.models.removed import parameters
from tombola.reports.chart import Chart, Series
from tombola.reports.intervals import estimate
from tombola.reports.printed import png
from tombola.reports.tables import Table
from tombola.runs.folder import machine

Made = tuple[nn.Module, str]
"""The smaller network, and what to know of it."""


def by_tombola(model: nn.Module, example: Any) -> Made:
    removed = remove_units(model, plan_removal(model, 0.5, example), example)
    return removed.model, f"as masked to {removed.error:.0e}"


def outputs_of(model: nn.Module) -> list[nn.Module]:
    """The last Linear layer or convolution: its outputs are the model's."""
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1:]


def by_torch_pruning(model: nn.Module, example: Any) -> Made:
    import torch_pruning

    heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=outputs_of(model),
        num_heads=heads,
        output_transform=lambda output: tensors_in(output)[0],
    )
    pruner.step()
    return model, ""


def by_kirigami(model: nn.Module, example: Any) -> Made:
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    arguments, keywords = call_of(example)
    given = {"args": arguments, **({"kwargs": keywords} if keywords else {})}
    graph = DependencyGraph.build(model.eval(), **given)
    pruner = Pruner(model, graph=graph)
    smaller, _ = pruner.prune(
        pruner.discover_candidates(), budget=ChannelRatio(0.5), strategy=Greedy(GroupMagnitude(p=2))
    )
    return smaller, ""


TOOLS: dict[str, Callable[[nn.Module, Any], Made]] = {
    "Tombola": by_tombola,
    "Torch-Pruning": by_torch_pruning,
    "torch-kirigami": by_kirigami,
}


def tried(case: str, tool: str, sender: Connection) -> None:
    """Sends what came of one tool on one network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    try:
        TOOLS[tool](plain, torch.randn(2, 4))  # imports, and what is made once
    except Exception as error:
        sender.send({"says": f"does not start: {one_line_by_name(error, 120)}"})
        return
    model, example = CASES[case]()
    model.eval()
    arguments, keywords = call_of(example)
    shapes = [tensor.shape for tensor in tensors_in(model(*arguments, **keywords))]
    before, start = parameters(model), time.process_time()
    try:
        smaller, says = TOOLS[tool](model, example)
        seconds = time.process_time() - start
        after = parameters(smaller)
        found = [tensor.shape for tensor in tensors_in(smaller(*arguments, **keywords))]
    except Exception as error:
        sender.send({"before": before, "says": f"fails: {one_line_by_name(error, 120)}"})
        return
    if after >= before:
        says = "nothing removed, and nothing said"
    elif shapes != found:
        says = f"gives {tuple(found[0])} for {tuple(shapes[0])}"
    else:
        says = f"works; {says}" if says else "works"
    sender.send({"before": before, "after": after, "seconds": seconds, "says": says})


def measure(case: str, tool: str, limit: float) -> dict[str, Any]:
    """One tool on one network, in a process of its own that ends with `limit` seconds."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=tried, args=(case, tool, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(limit) else {"says": f"not finished after {limit:.0f} s"}
    except EOFError:
        result = {"says": f"its process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return result


def figure(rows: Sequence[Sequence[str]]) -> Chart:
    """Processor seconds of each tool on the networks that it works on; `rows` are those of the table."""
    tools = list(dict.fromkeys(row[1] for row in rows))
    networks = [row[0] for row in rows if row[0]]
    series = []
    for index, tool in enumerate(tools):
        own = enumerate(row for row in rows if row[1] == tool)
        works = [(float(place), estimate([float(row[3])])) for place, row in own if row[4].startswith("works")]
        series.append(Series(tool, [x for x, _ in works], [y for _, y in works], index))
    return Chart("Network", "Processor seconds to remove half", series, factors=True, places=networks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), help="a network; repeatable")
    parser.add_argument("--seconds", type=float, default=200, help="the most that one removal may take, by the clock")
    parser.add_argument("--figure", type=Path, help="a PNG file for the seconds")
    chosen = parser.parse_args()
    rows = []
    for case in chosen.only or CASES:
        for tool in TOOLS:
            one = measure(case, tool, chosen.seconds)
            left = f"{one['before']:,} → {one['after']:,}" if "after" in one else f"{one.get('before', 0):,}"
            seconds = f"{one['seconds']:.2f}" if "seconds" in one else ""
            rows.append((case if tool == "Tombola" else "", tool, left, seconds, one["says"]))
            print(*rows[-1], sep=" | ", flush=True)
    print(Table(("Network", "Tool", "Parameters", "Processor seconds", "Outcome"), rows).to_markdown())
    if chosen.figure is not None:
        chosen.figure.write_bytes(png(figure(rows)))
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torch-pruning", "torch-kirigami"))
    print(f"\n{', '.join(versions)}; one thread; {machine()}")


if __name__ == "__main__":
    main()
