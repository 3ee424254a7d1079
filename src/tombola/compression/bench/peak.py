"""What loading and running a network takes of memory on one engine, measured in a process of its own.

The process loads its libraries, notes what it has, and then loads the network and runs it: the peak less that is the
network's. `python -m tombola.compression.bench.peak FOLDER ENGINE THREADS` is that process; it prints one number.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tombola.compression.engines.engine import Engine, Job, Network
from tombola.compression.engines.rivals import COMPILED, ENGINES, SPARSE
from tombola.compression.export.pt2_files import run_pt2, write_pt2
from tombola.compression.onnx_packages import required
from tombola.compression.sparse_files import load_sparse
from tombola.compression.sparse_modules import SparseChain
from tombola.errors import KernelError, ModelError
from tombola.pruning import Masks

SECONDS = 300
"""The most that a process may take: torch.compile takes minutes, and more on large networks."""
INPUTS, WARM = "inputs.npy", "warm.pt2"
CALLS = 3
STATUS = Path("/proc/self/status")


def peak_memory(engine: Engine, network: Network, batch: Tensor, threads: int) -> int:
    """Bytes. ModelError, with the reason, where the engine does not run in time, or the system does not tell."""
    if not STATUS.exists():
        raise ModelError("this system does not tell a process's peak memory (Linux does, in /proc)")
    if engine is SPARSE and not isinstance(network.sparse.network, SparseChain):
        raise ModelError("parts of it stay with torch, and only its own code, which no other process has, joins them")
    if engine.file is not None:
        engine.file(network)
    else:
        _ = network.pt2
        write_pt2(network.folder / WARM, nn.Linear(1, 1), torch.zeros(2, 1))
    np.save(network.folder / INPUTS, batch.numpy())
    command = [sys.executable, "-m", __name__, str(network.folder), engine.name, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"not ready within {SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise ModelError(said[-1][:300])
    return int(done.stdout.split()[-1])


def _of_this_process(key: str) -> int:
    """`VmRSS` (what is in memory now) or `VmHWM` (the most there ever was), in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def _measured(folder: Path, engine: Engine, threads: int) -> int:
    torch.set_num_threads(threads)
    inputs = torch.from_numpy(np.load(folder / INPUTS, allow_pickle=False))
    if engine.package is not None:
        required(engine.package)
    if engine.file is None:  # loading has libraries of its own
        run_pt2(folder / WARM)(torch.zeros(2, 1))
    before = _of_this_process("VmRSS")
    model = torch.export.load(folder / "float32.pt2").module() if engine.file is None else nn.Identity()
    network = Network(model, Masks({}), inputs, (len(inputs),), folder)
    if engine is SPARSE:
        vars(network)["sparse"] = load_sparse(folder / "sparse.safetensors")
    with torch.inference_mode(engine is not COMPILED), torch.no_grad():
        (call,) = engine.prepare(Job(network, [inputs], threads))
        for _ in range(CALLS):
            call.run()
    return _of_this_process("VmHWM") - before


if __name__ == "__main__":
    folder, name, threads = sys.argv[1:]
    try:
        print(_measured(Path(folder), next(e for e in ENGINES if e.name == name), int(threads)))
    except (ModelError, KernelError) as error:
        raise SystemExit(str(error)) from None
