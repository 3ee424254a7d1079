"""Sparse inference against the best dense engine, on one thread, on masks that `tombola imp` found.

    python benchmarks/sparse_inference.py runs/lottery-speed-* [--seconds 20] [--json speed.json] > speed.md
    python benchmarks/sparse_inference.py --quick

`make results-speed` makes the runs (configs speed-*) and the page. What is measured are the cases of the runs that
are given. For each case and batch size all engines take turns in short blocks within one run, so that a noisy machine
disturbs all alike:

* dense, float32: torch eager, torch.compile, ONNX Runtime, OpenVINO; the fastest is what ours is compared with;
* dense, bfloat16: OpenVINO and torch eager, shown beside, since they do not give float32's outputs;
* ours: `sparsify` with the mask that was found, and with a random one that keeps as many weights in each layer.

The dense engines run the ticket nearest to 90 %: what they take does not depend on how many weights are 0. Every
output is compared with torch's in float32 on the same weights. --quick measures only torch eager and ours, on a tiny
network with random masks, and needs no runs and no other engines.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from speed_cases import BATCHES, CASES, QUICK, Case, Source, Variant, from_run, quick_source, variants
from speed_report import TYPICAL, Measured, Timing, section, speed_chart
from tombola.compression.engines.engine import Call, Engine, Job, largest_error, module_calls, network_of
from tombola.compression.engines.rivals import DENSE, EAGER, versions
from tombola.compression.plans import Form
from tombola.compression.runtime import sparsify
from tombola.compression.sparse_modules import SparseModel
from tombola.compression.turns import warm_turns
from tombola.errors import TombolaError
from tombola.kernels.target import host
from tombola.reports.printed import png
from tombola.runs.folder import machine

EXAMPLES = 64
"""Inputs that `sparsify` is shown."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Prepared:
    """A way that is ready to run, and the kernels of ours: (layer, kernel) pairs."""

    calls: list[Call]
    kernels: list[tuple[str, str]] = field(default_factory=list)


class Turns:
    """The ways of one case: each is prepared, checked and kept until all take turns."""

    def __init__(self) -> None:
        self.timings: dict[str, Timing] = {}
        self.calls: dict[str, Callable[[], object]] = {}

    def add(self, timing: Timing, prepare: Callable[[], Prepared], expected: Sequence[Tensor]) -> None:
        """Keeps a way, with its largest error; one that fails is kept with the reason."""
        try:
            with torch.inference_mode():
                ready = prepare()
                error = largest_error([call.result() for call in ready.calls], expected)
        except Exception as failure:
            reason = " ".join(str(failure).split())[:160]
            self.timings[timing.way] = replace(timing, failed=f"{type(failure).__name__}: {reason}")
            return
        self.timings[timing.way] = replace(timing, error=error, kernels=ready.kernels)
        turn = itertools.cycle([call.run for call in ready.calls])
        self.calls[timing.way] = lambda: next(turn)()

    def take(self, seconds: float, blocks: int) -> list[Timing]:
        """Every way's timing, the failed ones too, in the order in which they were added."""
        with torch.inference_mode():
            times = warm_turns(self.calls, seconds, blocks)
        seconds = {way: one.seconds for way, one in times.items()}
        return [replace(timing, seconds=seconds.get(way, [])) for way, timing in self.timings.items()]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", type=Path, nargs="*", help="run folders of `tombola imp` of the configs speed-*")
    arguments.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="only these batch sizes")
    arguments.add_argument("--seconds", type=float, default=20, help="how long the ways of a case take turns")
    arguments.add_argument("--json", type=Path, help="write every measured block to this file")
    arguments.add_argument("--images", type=Path, help="draw the page's figures into this folder")
    arguments.add_argument("--quick", action="store_true", help="a tiny network, torch eager and ours only")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        seconds = min(options.seconds, 0.3)
        results = [measured(QUICK, quick_source(), batch, [EAGER], seconds) for batch in QUICK.batches]
    elif options.runs:
        require_packages()
        try:
            results = measured_runs(options.runs, options.batches, options.seconds)
        except TombolaError as error:
            raise SystemExit(str(error)) from None
    else:
        arguments.error("name the run folders of the configs speed-*, or give --quick; see --help")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if options.images:
        for batch in dict.fromkeys(result.batch for result in results):
            (options.images / f"speed-batch-{batch}.png").write_bytes(png(speed_chart(results, batch)))
    print(section(results, machine_line()))


def require_packages() -> None:
    """Ends the program, in one line, where an engine is not installed: a missing rival would flatter us."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not installed; install the rivals with: pip install 'tombola[bench]'")


def measured_runs(roots: Sequence[Path], batches: Sequence[int], seconds: float) -> list[Measured]:
    """All cases whose run is among `roots`, in the order of CASES; a run that no case knows is refused."""
    sources = dict(from_run(root) for root in roots)
    if len(sources) < len(roots):
        raise SystemExit("two of the runs have the same name; give the one that is to be measured")
    known = list(dict.fromkeys(case.run for case in CASES))
    if odd := sorted(set(sources) - set(known)):
        raise SystemExit(f"no case is measured on a run named {odd[0]}; known: {', '.join(known)}")
    results = []
    asked = itertools.product((case for case in CASES if case.run in sources), batches)
    for case, batch in ((case, batch) for case, batch in asked if batch in case.batches):
        print(f"{case.title}, batch {batch} ...", file=sys.stderr, flush=True)
        results.append(measured(case, sources[case.run], batch, DENSE, seconds))
    return results


def measured(case: Case, source: Source, batch: int, engines: Sequence[Engine], seconds: float) -> Measured:
    """Prepares every way of a case at one batch size, checks its outputs, and lets all take turns."""
    sparse, typical = Turns(), None
    for variant in variants(case, source, batch):
        timing = Timing(f"ours, {variant.sparsity:.2%}, {variant.mask}", sparsity=variant.sparsity, mask=variant.mask)
        sparse.add(timing, partial(on_kernels, variant), outputs(variant))
        typical = variant if typical is None else min(typical, variant, key=distance)
    examples = torch.cat(typical.batches)
    with network_of(typical.part, typical.masks, examples, (batch,)) as network:
        job = Job(network, typical.batches)
        dense, expected = Turns(), outputs(typical)
        for engine in engines:
            timing = Timing(engine.name, fp32=engine.exact)
            dense.add(timing, lambda engine=engine: Prepared(engine.prepare(job)), expected)
        together = Turns()
        for turns in (dense, sparse):
            together.timings |= turns.timings
            together.calls |= turns.calls
        timings = together.take(seconds, case.blocks)
    zeros = float(torch.cat(typical.batches).eq(0).double().mean())
    wanted = dict(case.wanted.get(batch, {}))
    shown = len(dense.timings)
    return Measured(case.title, batch, zeros, wanted, timings[:shown], timings[shown:])


def on_kernels(variant: Variant) -> Prepared:
    """Kernels are chosen on several inputs at batch 1, too: one alone may have more zeros than most."""
    examples = torch.cat(variant.batches)[:EXAMPLES]
    sparse = sparsify(variant.part, variant.masks, examples, batch_sizes=(len(variant.batches[0]),))
    return Prepared(module_calls(sparse, variant.batches), kernels_of(sparse))


def kernels_of(sparse: SparseModel) -> list[tuple[str, str]]:
    """Every layer with what it runs on, for the one batch size for which kernels were chosen."""
    chosen = []
    for chain in sparse.chains:
        (plan,) = chain.plans
        on_torch = plan.form == Form.TORCH
        for layer, choice in zip(chain.chain.layers, plan.choices, strict=True):
            chosen.append((layer.name, "torch" if on_torch else str(choice)))
    return chosen + [(name, "torch") for name in sparse.unsupported]


def distance(variant: Variant) -> tuple[float, bool]:
    """How far a ticket is from the typical one; of two masks of one sparsity the found one is nearer."""
    return round(abs(variant.sparsity - TYPICAL), 3), variant.mask == "random"


@torch.inference_mode()
def outputs(variant: Variant) -> list[Tensor]:
    """What torch makes of the variant's batches in float32."""
    return [variant.part(batch) for batch in variant.batches]


def machine_line() -> str:
    target = host()
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine()['cpu']}, {target.cpu}, {target.lanes} float32 lanes; {packages}"


if __name__ == "__main__":
    main()
