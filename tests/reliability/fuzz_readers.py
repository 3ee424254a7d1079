"""Damages good files of every kind in many ways and reads them: a result, or an error of ours, and nothing else.

`python tests/reliability/fuzz_readers.py 100000` (`make fuzz`) prints a line a reader and ends with 1 where one failed.
Files are read in a process of its own, so that a crash, a hang or a bomb is reported with the file that made it.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

SECONDS, MEMORY = 30, 2 << 30
"""The most that reading one file may take: of time, and of memory beyond what the process has."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, -0.5, "", "x", "x" * 2000, "\x1b[31m\n"),
    *([], {}, [None], [[[]]], {"a": {}}, [0] * 50, [2**40, 2**40], {"shape": [2**62]}),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """`content` with bits flipped, bytes cut out, doubled, overwritten, or the whole cut short."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at, kind = chance.randrange(len(data) + 1), chance.randrange(7)
        end = at + chance.randrange(1, 64)
        if kind <= 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2 and at < len(data):
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 3:
            del data[at:end]
        elif kind == 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        elif kind == 5:
            data[at : at + 8] = chance.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)).to_bytes(8, "little")
        elif kind == 6 and chance.random() < 0.3:
            del data[at:]
    return bytes(data)


def odd_json(value: Any, chance: random.Random) -> Any:
    """`value` with one of its parts replaced by something odd, left out, or there under another name."""
    value = copy.deepcopy(value)
    place, key = [value], 0
    holder: Any = place
    while isinstance(holder[key], dict | list) and holder[key] and (holder is place or chance.random() < 0.85):
        holder = holder[key]
        key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    what = chance.randrange(8)
    if what == 0 and holder is not place:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[chance.choice(("x", "", "__metadata__", "shape"))] = holder.pop(key)
    elif what == 2 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * chance.choice((-1, 2, 1000, 2**40)) + chance.choice((0, 1))
    else:
        holder[key] = copy.deepcopy(chance.choice(ODD))
    return place[0]


def odd_fields(name: str, content: bytes, chance: random.Random) -> bytes:
    """Where a file has JSON inside, one field of it is made odd and all around it fits; other files as by `mutated`."""
    if name.endswith((".json", ".jsonl")):
        return json.dumps(odd_json(json.loads(content), chance)).encode()
    if name.endswith(".safetensors") and chance.random() < 0.5:
        length = int.from_bytes(content[:8], "little")
        header = json.dumps(odd_json(json.loads(content[8 : 8 + length]), chance)).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    if name.endswith(".safetensors"):
        return _signed_again(content, chance)
    if name.endswith(".ticket"):
        return zstandard.compress(odd_fields("f.safetensors", zstandard.decompress(content), chance))
    if name.endswith(".keras"):
        return _packed_again(content, chance)
    return mutated(content, chance)


def _signed_again(content: bytes, chance: random.Random) -> bytes:
    """Facts or tensors of a file of ours made odd, under a checksum that is right."""
    from tombola.models.tensors import load_tensors, save_tensors

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f")
        path.write_bytes(content)
        tensors, facts = load_tensors(path)
        if chance.random() < 0.7 and facts:
            facts = odd_json(facts, chance)
        else:
            name = chance.choice(sorted(tensors))
            odd = tensors[name].reshape(-1)[: chance.randrange(1 + tensors[name].numel())]
            tensors[name] = chance.choice((odd, odd.double(), odd.bool(), odd.reshape(1, -1), odd + 1))
        save_tensors(path, tensors, facts)
        return path.read_bytes()


def _packed_again(content: bytes, chance: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = chance.choice(("config.json", "config.json", "metadata.json", "model.weights.h5"))
        for name in old.namelist():
            inner = old.read(name)
            new.writestr(name, odd_fields(name, inner, chance) if name == chosen else inner)
    return buffer.getvalue()


def work(count: int, seed: int, only: str, folder: Path) -> None:
    """Reads `count` damaged files, each reader's in a child of this process; prints one JSON line a reader."""
    from fuzz_seeds import readers

    warnings.simplefilter("ignore")
    os.environ["XDG_CACHE_HOME"] = str(folder / "now")
    kinds = [reader for reader in readers(folder / "seeds") if only in reader.name]
    for reader in kinds:  # with everything imported and compiled, memory is that of the files
        _write(folder / "now", reader.files)
        reader.read(folder / "now")
    shares = sum(reader.share for reader in kinds)
    for reader in kinds:
        if (child := os.fork()) == 0:
            _damage(reader, max(round(count * reader.share / shares), 1), seed, folder / "now")
        _, status, _ = os.wait4(child, 0)
        if status:
            kept = Path(tempfile.mkdtemp(prefix="tombola-fuzz-"))
            shutil.copytree(folder / "now", kept, dirs_exist_ok=True)
            ended = f"{reader.name}: exit {os.waitstatus_to_exitcode(status)} (a signal if negative); files in {kept}"
            print(json.dumps({"problem": f"{ended}\n{(folder / 'said').read_text('utf-8', 'replace')}"}), flush=True)


def _damage(reader: Any, runs: int, seed: int, now: Path) -> None:
    """Ends this process with 0 where `reader` read or refused `runs` damaged files in bounds; they lie in `now`."""
    with (now.parent / "said").open("wb") as said:
        os.dup2(said.fileno(), 2)
    before = _peak()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    chance, read, start = random.Random(f"{seed} {reader.name}"), 0, time.process_time()
    for _ in range(runs):
        name = chance.choice(sorted(reader.files))
        change = odd_fields if chance.random() < 0.4 else lambda _, content, chance: mutated(content, chance)
        _write(now, reader.files | {name: change(name, reader.files[name], chance)})
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: a busy machine is no fault
        signal.alarm(10 * SECONDS)  # for what waits for ever
        try:
            read += _is_read(reader, now)
            if os.fstat(2).st_size and "tiff" not in reader.name:  # libtiff prints, and Pillow lets it
                raise RuntimeError("a library printed to stderr")
        except BaseException:
            print(json.dumps({"problem": traceback.format_exc()[-1500:]}), flush=True)
            os._exit(1)  # whatever is left in memory
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    taken = {"reader": reader.name, "mutations": runs, "read": read, "seconds": time.process_time() - start}
    print(json.dumps(taken | {"memory": _peak() - before}), flush=True)
    if _peak() - before > MEMORY:
        print(json.dumps({"problem": f"{reader.name} took {_peak() - before:,} bytes"}), flush=True)
    os._exit(0)


def _is_read(reader: Any, folder: Path) -> bool:
    from tombola.errors import TombolaError

    try:
        reader.read(folder)
    except TombolaError as error:
        if not str(error).isprintable():
            raise RuntimeError(f"not one printable line: {error!r}") from None
        return False
    return True


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


Told = Callable[[dict[str, Any]], None]


def fuzz(count: int, seed: int = 0, only: str = "", tell: Told = lambda line: None) -> tuple[list[dict[str, Any]], str]:
    """What each reader did with its damaged files, told as it is known, and what went wrong: "" if nothing did."""
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(count), "--seed", str(seed), "--only", only, "--worker", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if line.startswith("{"):
                    lines.append(json.loads(line))
                    tell(lines[-1])
    problems = [line["problem"] for line in lines if "problem" in line]
    if worker.returncode:
        problems.append(f"the worker ended with {worker.returncode}")
    return [line for line in lines if "reader" in line], "\n".join(problems)


def told(line: dict[str, Any]) -> None:
    """Prints what one reader did."""
    if "reader" in line:
        taken = f"{line['seconds']:6.1f} s, {line['memory'] >> 20:5,} MiB"
        print(f"{line['reader']:24} {line['mutations']:8,} damaged, {line['read']:7,} read, {taken}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--worker", type=Path)
    given = parser.parse_args()
    if given.worker:
        work(given.count, given.seed, given.only, given.worker)
        return
    lines, problem = fuzz(given.count, given.seed, given.only, told)
    print(f"{sum(line['mutations'] for line in lines):,} mutations of {len(lines)} kinds of file")
    if problem:
        sys.exit(problem)


if __name__ == "__main__":
    main()
