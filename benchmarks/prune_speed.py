"""prune() on 100 million weights against one torch.sort of as many numbers: time, memory, exactness under ties.

    python benchmarks/prune_speed.py [--weights 100000000] [--rounds 3]

Everything runs on one thread, each measurement in a process of its own, sort and prune in turn; memory is the
process's peak less what it held just before (Linux only). The limits are those of the design: half the time of a sort,
twice the memory of the weights.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.pruning import prune
from tombola.reports.tables import Table
from tombola.runs.folder import machine

SPARSITY = 0.9
LIMIT_TIME, LIMIT_MEMORY = 0.5, 2.0


def network(weights: int, tied: bool) -> nn.Module:
    """Four Linear layers of different sizes; `tied`: weights of 16 distinct magnitudes only."""
    torch.manual_seed(0)
    side = round((weights / 4) ** 0.5)
    layers = [
        nn.Linear(side, rows, bias=False) for rows in (side, 2 * side, side // 2, weights // side - side * 7 // 2)
    ]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.randn_like(layer.weight))
            if tied:
                layer.weight.mul_(5).round_().clamp_(-16, 16)
    return nn.ModuleList(layers)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def present_bytes() -> int:
    """What the process holds now; its peak so far may be higher, and would hide what comes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(what: str, weights: int) -> dict[str, Any]:
    """Time and added peak memory of one sort or one pruning, in this process."""
    torch.set_num_threads(1)
    if what == "sort":
        numbers = torch.cat([p.detach().reshape(-1) for p in network(weights, tied=False).parameters()])
        torch.sort(numbers[:1000])
        began = time.perf_counter()
        torch.sort(numbers)
        return {"seconds": time.perf_counter() - began}
    model = network(weights, tied=what == "ties")
    total = sum(p.numel() for p in model.parameters())
    prune(nn.Linear(10, 10), SPARSITY)
    before = present_bytes()
    began = time.perf_counter()
    masks = prune(model, SPARSITY)
    seconds = time.perf_counter() - began
    exact = masks.total - masks.kept == round(SPARSITY * total)
    return {"seconds": seconds, "memory": (peak_bytes() - before) / (4 * total), "exact": exact, "weights": total}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--weights", type=int, default=100_000_000)
    arguments.add_argument("--rounds", type=int, default=3, help="measurements of each, in turn")
    options = arguments.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"sort": [], "prune": [], "ties": []}
    context = multiprocessing.get_context("spawn")
    for _ in range(options.rounds):
        for what, results in found.items():
            with context.Pool(1) as pool:
                results.append(pool.apply(measure, (what, options.weights)))
    print(page(found))


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    sort = statistics.median(result["seconds"] for result in found["sort"])
    rows = [("torch.sort", f"{sort:.2f}", "1.00", "", "")]
    for what, name in (("prune", "prune(model, 0.9)"), ("ties", "the same, 17 distinct magnitudes")):
        seconds = statistics.median(result["seconds"] for result in found[what])
        memory = max(result["memory"] for result in found[what])
        exact = "yes" if all(result["exact"] for result in found[what]) else "NO"
        rows.append((name, f"{seconds:.2f}", f"{seconds / sort:.3f}", f"{memory:.2f}", exact))
    kept_to = all(float(row[2]) <= LIMIT_TIME and float(row[3]) <= LIMIT_MEMORY and row[4] == "yes" for row in rows[1:])
    host, weights = machine(), found["prune"][0]["weights"]
    table = Table(("What", "Seconds (median)", "× sort", "Memory on top, × weights", "Count exact"), rows)
    return "\n\n".join(
        [
            "# The speed of prune()",
            f"**prune() of {weights:,} weights takes {rows[1][2]} × the time of one sort of as many numbers, and "
            f"{rows[1][3]} × their memory on top.**",
            f"{weights:,} float32 weights, global distribution, magnitude, one thread, "
            f"{len(found['sort'])} rounds in turn, each in a process of its own. "
            f"Limits: {LIMIT_TIME} × one sort, {LIMIT_MEMORY:.0f} × the weights' memory: "
            f"**{'kept' if kept_to else 'NOT kept'}**.",
            table.to_markdown(),
            f"Made by `make benchmark-prune`. {host['cpu']}, {host['cores']} cores, torch {torch.__version__}.",
        ]
    )


if __name__ == "__main__":
    main()
