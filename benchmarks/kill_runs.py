"""Every command, killed and stopped at random moments, ends as if it had never been: the same bits.

    python benchmarks/kill_runs.py [COMMAND ...] [--kills 30] [--stops 20] [--fresh 0.2] [--seed 0]

Each command runs once to its end. Then it is begun again and again in another folder and ended at a random moment of
its length: by SIGKILL (alone, or with its workers), or by Ctrl-C or SIGTERM. A life that comes to its end is compared
with the first run and another folder begun; so is the last one, which nobody disturbs. Compared are all files: rows and
documents without what a clock gave, tensors, masks, forests, the names of the others. Of a signal three times are
taken: until it is acknowledged on stderr, until the process has ended, and until nothing of its group is left.

A fraction `--fresh` of the lives are processes of their own with two workers, as a person starts them; the others are
forks of this one, which has imported everything, with one: their random moments lie in the work and not in imports.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kill_lives import Command, Life
from tombola.models.tensors import content_sha256, load_tensors

CLOCK = re.compile(r"seconds|created|speed_up|quartiles|latency|measured|faster|machine|fraction_of_dense_iteration")
"""Keys of what a clock or a machine gave."""
OF_SPEED = "at batch"
"""What every sentence has that says how fast something is."""
BYTES = (".npy", ".onnx", ".pgm")
LONGEST = 5.0
"""Seconds within which a stopped command must have ended, its workers included."""
PATIENCE = 300.0
AT_ONCE = 0.1
"""Seconds in which a process ends that a signal met before our first line ran, after the last, or after its end."""
IN_MEMORY = Path("/dev/shm")
"""Where there is one: a busy disk would take most of the time."""


def content(folder: Path) -> dict[str, Any]:
    """All that two runs must have alike, by the names of files."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = content_sha256(load_tensors(path)[0])
        elif path.name == "rows.jsonl":
            found[name] = sorted(json.dumps(timeless(json.loads(row))) for row in path.read_text().splitlines())
        elif path.name == "finished.json":
            found[name] = sorted(json.loads(path.read_text())["files"])  # their checksums cover a clock's values
        elif path.suffix == ".json":
            document = json.loads(path.read_text())
            if isinstance(document, dict):
                document.pop("sha256", None)  # that of the whole document, a clock's values included
            found[name] = timeless(document)
        elif path.suffix in BYTES:
            found[name] = path.read_bytes()
        else:
            found[name] = "there"
    return found


def timeless(value: Any) -> Any:
    """A document without what a clock gave; of a row of latency its key alone."""
    if isinstance(value, dict):
        if value.get("kind") == "latency":
            return {key: value[key] for key in value if key in ("kind", "replicate", "round", "stage", "batch", "unit")}
        return {key: timeless(part) for key, part in value.items() if not CLOCK.search(key)}
    if isinstance(value, str) and OF_SPEED in value:
        return OF_SPEED
    return [timeless(part) for part in value] if isinstance(value, list) else value


@dataclass
class Tally:
    """What became of a command's lives."""

    killed: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    wrong: list[str] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=lambda: {"said": [], "ended": [], "gone": []})

    def line(self, name: str) -> str:
        said, ended, gone = (
            f"{statistics.median(found):.2f} / {max(found):.2f} s" if found else "-" for found in self.times.values()
        )
        counts = ", ".join(f"{count} {way}" for way, count in sorted(self.killed.items()))
        verdict = "the same bits" if not self.wrong else f"{len(self.wrong)} WRONG"
        return (
            f"{name}: {counts}; {self.ended} lives to their end: {verdict}; median / longest until "
            f"acknowledged {said}, ended {ended}, all gone {gone}"
        )


def torment(command: Command, place: Path, kills: int, stops: int, fresh: float, chance: random.Random) -> Tally:
    """Kills and stops one command so many times, and compares every end."""
    tally = Tally()
    first = Life.begin(command, command.folder(place / "whole"), fresh=False)
    length = first.wait(PATIENCE, lambda: not first.alive())
    if length is None or first.code:
        raise SystemExit(f"{command.name} does not run: {first.errors.read_text()}")
    expected = content(place / "whole")
    out = command.folder(place / "out")
    plan = ["kill"] * kills + ["stop"] * stops
    chance.shuffle(plan)
    for number in itertools.count():
        if number % 10 == 0:
            print(f"life {number}: {tally.line(command.name)}", *tally.wrong, sep="\n  ", file=sys.stderr, flush=True)
        new = chance.random() < fresh
        last = not plan
        life = Life.begin(command, out, new)
        if not last:
            left = life.wait(chance.uniform(0, length + (2.5 if new else 0)), lambda life=life: not life.alive())
            if left is None:
                (_kill if plan.pop() == "kill" else _stop)(life, chance, tally, f"{command.name}, life {number}")
                continue
        if life.wait(PATIENCE, lambda life=life: not life.alive()) is None or life.code:
            tally.wrong.append(
                f"{command.name}, life {number}: exit code {life.code}: {life.errors.read_text()[-300:]}"
            )
        differing = _differing(content(out), expected)
        tally.ended += 1
        if differing:
            tally.wrong.append(f"{command.name}, life {number}: differs in {', '.join(differing[:6])}")
        if last:
            return tally
        out = command.folder(out)
    raise AssertionError("unreachable")


def _differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return [f"{name}{_where(found.get(name), expected.get(name))}" for name in names]


def _where(one: Any, other: Any, path: str = "") -> str:
    """Where two documents first differ, and in what."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        key = next(key for key in one if one[key] != other[key])
        return _where(one[key], other[key], f"{path}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        index = next(index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        return _where(one[index], other[index], f"{path}[{index}]")
    return f"{path} ({str(one)[:200]!r} for {str(other)[:200]!r})"


def _kill(life: Life, chance: random.Random, tally: Tally, what: str) -> None:
    """SIGKILL to the parent alone or to its group."""
    alone = chance.random() < 0.5
    with contextlib.suppress(ProcessLookupError):
        (os.kill if alone else os.killpg)(life.pid, signal.SIGKILL)
    life.wait(PATIENCE, lambda: not life.alive())
    tally.killed["SIGKILL alone" if alone else "SIGKILL to the group"] += 1
    if life.wait(2 * LONGEST, life.group_gone) is None:
        tally.wrong.append(f"{what}: orphans are left")


def _stop(life: Life, chance: random.Random, tally: Tally, what: str) -> None:
    """Ctrl-C or SIGTERM, once or twice, to the group or to the parent alone."""
    number, code = chance.choice([(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    send = os.killpg if chance.random() < 0.5 else os.kill
    began = time.monotonic()
    send(life.pid, number)
    said = life.wait(LONGEST, lambda: b"stopping: " in life.errors.read_bytes() or not life.alive())
    twice = chance.random() < 0.3
    if twice:  # a second one is harmless
        time.sleep(chance.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):
            send(life.pid, number)
    ended = life.wait(PATIENCE, lambda: not life.alive())
    all_ended = time.monotonic() - began
    life.wait(PATIENCE, life.group_gone)
    gone = time.monotonic() - began
    tally.killed[signal.Signals(number).name] += 1
    errors = life.errors.read_text()
    outside = life.code in (-number, 0) and not errors and said is not None and said < AT_ONCE
    tally.killed["of these before our first line ran or after the last"] += outside
    if not outside and (life.code != code or "stopping: " not in errors):
        how = f"{signal.Signals(number).name} by {send.__name__}{', twice' if twice else ''}"
        tally.wrong.append(f"{what}: {how}: exit code {life.code}: {errors[-600:]}")
    if "Traceback" in errors:
        tally.wrong.append(f"{what}: {signal.Signals(number).name}: a traceback: {errors[-900:]}")
    if ended is None or gone > LONGEST:
        tally.wrong.append(f"{what}: ended after {all_ended:.1f} s, all after {gone:.1f} s")
    for name, seconds in (("said", said), ("ended", all_ended), ("gone", gone)):
        if seconds is not None and not outside:
            tally.times[name].append(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--fresh", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    import kill_commands

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores

    for module in ("cli.commands", "studies.lottery.study", "studies.single.compare", "studies.hybrid.study"):
        importlib.import_module(f"tombola.{module}")

    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        wrong = run_all(kill_commands.prepared_commands(Path(folder), asked.commands), Path(folder), asked)
    raise SystemExit(1 if wrong else 0)


def run_all(commands: Sequence[Command], place: Path, asked: argparse.Namespace) -> list[str]:
    """Torments the commands one after the other and says what came of each."""
    wrong: list[str] = []
    for command in commands:
        chance = random.Random(f"{asked.seed} {command.name}")
        here = place / f"kill-{command.name}"
        here.mkdir()
        tally = torment(command, here, asked.kills, asked.stops, asked.fresh, chance)
        print(tally.line(command.name), *tally.wrong, sep="\n  ", flush=True)
        wrong += tally.wrong
    return wrong


if __name__ == "__main__":
    main()
