"""Ticket files made to take as much memory as they can; run as a script it reads each in a process of its own.

Each has at most 1 MiB and a right checksum, and claims as much as the limits let through.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

MEMORY, LARGEST, SECONDS = 1 << 30, 1 << 20, 60
"""What reading one may take beyond the interpreter with torch; the size of a file; seconds of the processor."""
FIRST = {"sha256": "0" * 64, "restart": "init", "stored": []}
"""A start that the seed is said to give, and does not."""


def _packed(tensors: dict[str, Any], kept: int = 0, shape: tuple[int, int] = (2, 2), **facts: Any) -> bytes:
    """A network of a first layer of `shape`, of which `kept` weights are kept, a second to one unit, and an output."""
    import torch

    from tombola.compression.tickets.blocks import packed
    from tombola.models import ModelSpec

    outputs, inputs = shape
    spec = ModelSpec(architecture="lenet-300-100", widths=(outputs, 1), input_shape=(inputs,), classes=2, seed=0)
    layers = [
        {"name": f"{name}.weight", "shape": shape, "kept": 0, "code": "gaps between kept"}
        for name, shape in {"fc1": shape, "fc2": (1, outputs), "output": (2, 1)}.items()
    ]
    layers[0] |= {"kept": kept, "code": "bits" if "mask/0" in tensors else layers[0]["code"]}
    said = {"kind": "tombola ticket", "format": 1, "tombola": "0", "model": spec.model_dump(mode="json")}
    none = {f"mask/{place}": torch.zeros(0, dtype=torch.uint8) for place in range(3)}
    return packed(none | tensors, said | {"history": {}, "layers": layers, "start": FIRST, "trained": None} | facts)


def _square() -> tuple[int, int]:
    """As many weights as a file may have."""
    from tombola.runs import limits

    return (int(limits.ticket_weights(0) ** 0.5) - 1,) * 2


def _biases() -> bytes:
    """As many weights as a file may have, and a bias for every second, all of the seed's."""
    from tombola.runs import limits

    return _packed({}, shape=(limits.ticket_weights(0) // 2 - 4, 1))


def _values(kind: str) -> bytes:
    """As many kept values as a file may unpack to, amid as many weights as it may have; biases alone are missing."""
    import torch

    from tombola.runs import limits

    width, (side, _) = {"int8": 1, "float32": 4}[kind], _square()
    bits = torch.zeros((side * side + 7) // 8, dtype=torch.uint8)
    count = (limits.ticket(0) - len(bits) - limits.MIB) // width // 8 * 8
    bits[: count // 8] = 255
    rows = {"mask/0": bits}
    for place, kept in enumerate((count, 0, 0)):
        rows |= {f"trained/{place}/{number}": torch.zeros(kept, dtype=torch.uint8) for number in range(width)}
    if kind == "int8":
        rows |= {f"trained/{at}/steps": torch.ones(n, dtype=torch.int8) for at, n in enumerate((side, 1, 2))}
    return _packed(rows, count, (side, side), trained={"values": kind}, start=None)


def _removed(indices: str, of: int, left: int) -> bytes:
    """A network of `of` units that lost some, with an index of its own for every dimension."""
    from tombola.models import ModelSpec

    kept = [{"indices": indices, "of": of, "places": [at]} for at in ("fc1.weight/0", "fc1.bias/0", "fc2.weight/1")]
    spec = ModelSpec(architecture="lenet-300-100", widths=(of, 1), input_shape=(1,), classes=2, seed=0)
    return _packed({}, shape=(left, 1), model=spec.model_dump(mode="json") | {"removed": {"kept": kept}})


def _nearly_whole() -> bytes:
    """Of a network as large as one may have been a single unit is gone."""
    from tombola.runs import limits

    units = limits.ticket_whole(0) // 3 - 10
    return _removed(f"0-{units - 2}", units, units - 1)


def _one_by_one() -> bytes:
    """Units that are named one by one, as many as JSON has room for."""
    return _removed(",".join(str(number) for number in range(0, 100_000, 2)), 100_000, 50_000)


def _booleans() -> bytes:
    """Booleans that lie as bits and become as much as a file may unpack to."""
    import torch

    from tombola.runs import limits

    return _packed({"start/rest/x": torch.zeros(limits.ticket(0) * 7 // 8, dtype=torch.bool)})


def _said(**facts: Any) -> bytes:
    """As much JSON as a file may hold."""
    return _packed({}, **facts)


def _header(text: bytes) -> bytes:
    """The header of a file that is no ticket's."""
    import zstandard

    return zstandard.compress(len(text).to_bytes(8, "little") + text)


def _tensors() -> bytes:
    """Tensors of nothing, as many as a header has room for."""
    import torch

    return _packed({f"trained/{number}/0": torch.zeros(0, dtype=torch.uint8) for number in range(45_000)})


FILES: dict[str, Callable[[], bytes]] = {
    "none kept": lambda: _packed({}, shape=_square()),
    "as many biases as weights": _biases,
    "values in int8": partial(_values, "int8"),
    "values in float32": partial(_values, "float32"),
    "a unit removed": _nearly_whole,
    "units named one by one": _one_by_one,
    "booleans": _booleans,
    "a history of lists": lambda: _said(history={"x": [[]] * 1_040_000}),
    "unknown keys": lambda: _said(**{f"k{number:x}": 0 for number in range(220_000)}),
    "layers without names": lambda: _said(layers=[{}] * 99_999),
    "means that are none": lambda: _said(model={"normalisation": {"mean": [[]] * 260_000}}),
    "means without end": lambda: _said(model={"normalisation": {"mean": [[]] * 1_040_000}}),
    "a header of lists": lambda: _header(b"[" + b"[]," * 1_300_000 + b"0]"),
    "a longer header of lists": lambda: _header(b"[" + b"[]," * 20_000_000 + b"0]"),
    "tensors of nothing": _tensors,
}
TESTED = frozenset(("as many biases as weights", "values in int8", "units named one by one", "means without end"))
"""Of each kind the worst; the others come when the script is run."""


def _read(path: Path, size: int) -> list[Any]:
    """What reading it said, and the memory that it took."""
    from tombola import unpack
    from tombola.errors import TombolaError

    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    try:
        unpack(path)
        said = "read"
    except TombolaError as error:
        said = f"refused: {error}"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    return [said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before]


def work(folder: Path, names: list[str]) -> None:
    """Makes and reads each of those called `names` in a child; a JSON line for each: name, outcome, bytes, seconds."""
    import tombola.compression.tickets.writing  # noqa: F401, what reading needs is there before

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for number, name in enumerate(names):
        path = folder / f"{number}.ticket"
        if (child := os.fork()) == 0:
            path.write_bytes(FILES[name]())
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, name
        assert path.stat().st_size <= LARGEST, f"{name}: {path.stat().st_size:,} bytes"
        receiving, sending = os.pipe()
        if (child := os.fork()) == 0:
            os.write(sending, json.dumps(_read(path, size)).encode())
            os._exit(0)
        os.close(sending)
        with os.fdopen(receiving, "rb") as answer:
            said = answer.read().decode()
        _, status, usage = os.wait4(child, 0)
        found = [f"ended with {status}", 0] if status else json.loads(said)
        print(json.dumps([name, *found, usage.ru_utime + usage.ru_stime]), flush=True)


def read_all(folder: Path) -> dict[str, tuple[str, int]]:
    """What reading the tested ones said, `refused: ` and the error where all is well, and the memory that it took."""
    done = subprocess.run([sys.executable, __file__, str(folder), *TESTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: (said, taken) for name, said, taken, _ in lines}


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2:] or list(FILES))
