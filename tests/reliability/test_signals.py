"""Ctrl-C and SIGTERM are acknowledged at once and end a command, whatever it is doing and however often they come."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tombola.cli import guard
from tombola.cli.guard import LONGEST, SAME
from tombola.cli.signals import BEGINS_ANEW, CONTINUES, GRACE, STOPPED, STOPPING
from tombola.runs import stopping
from tombola.runs.atomic import write_bytes
from tombola.runs.rows import RowTable

NATIVE = "import hashlib\nprint('computing', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)"
"""Minutes in one native call, which no exception ends."""
PATIENCE = 60
BOTH = f"{STOPPING}\n{STOPPED}\n"
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


LEAVING = (
    "try: os.kill(os.getpid(), signal.SIGINT), time.sleep(60)\n"
    "except KeyboardInterrupt: print('leaving', flush=True), time.sleep({seconds}), print('left', flush=True)"
)
"""A command that takes a while to end after a signal."""


def begin(
    body: str, *, grace: float = GRACE, longest: float = LONGEST, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A process that says `ready` and goes on with `body` while signals are attended to; after `grace` seconds its
    thread ends it, after the `longest` its guard."""
    lines = "\n    ".join(body.splitlines())
    code = (
        "import os, signal, sys, time\n"
        "from tombola.cli.signals import attended\n"
        "from tombola.cli import guard, signals\n"
        "from tombola.runs import stopping\n"
        f"signals.GRACE, guard.LONGEST = {grace}, {longest}\n"
        f"with attended():\n    print('ready', flush=True)\n    {lines}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def command(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the command line, after some preparation."""
    code = f"import os, signal, sys\n{before}\nfrom tombola.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_long_native_call_is_ended(number: int, code: int) -> None:
    process = begin(NATIVE, grace=0.5)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "computing\n"
    time.sleep(0.2)
    process.send_signal(number)
    assert process.stderr.readline() == f"{STOPPING}\n"  # while it still runs
    assert process.wait(PATIENCE) == code
    assert process.stderr.read() == f"{STOPPED}\n"


ITSELF = (
    "try: print('computing', flush=True), time.sleep(600)\n"
    "except KeyboardInterrupt: signals.acknowledge(), signals.say_stopped(), signals.leave(143)"
)


@pytest.mark.parametrize("ends", ["itself", "its thread", "its guard"])
def test_it_ends_though_nobody_reads_standard_error(ends: str) -> None:
    """Where a pipe is full, whoever writes to it waits until somebody reads."""
    reader, full = os.pipe()
    os.set_blocking(full, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(full, b"x" * size)
    os.set_blocking(full, True)
    process = {
        "itself": lambda: begin(ITSELF, grace=60, longest=60, stderr=full),
        "its thread": lambda: begin(NATIVE, grace=0.5, longest=60, stderr=full),
        "its guard": lambda: begin(STUCK.format(before="print('computing', flush=True)"), longest=0.5, stderr=full),
    }[ends]()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == (-signal.SIGKILL if ends == "its guard" else 143)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the guard is of its group
        os.close(full)
        os.close(reader)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_now(second: int) -> None:
    """Whatever the command still does on its way out, and long before it would have been ended anyway."""
    process = begin(LEAVING.format(seconds=60), grace=60, longest=60)
    assert process.stdout is not None
    assert process.stdout.readline() == "leaving\n"
    time.sleep(2 * SAME)
    process.send_signal(second)
    began = time.monotonic()
    out, errors = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - began < 30
    assert (process.returncode, out, errors) == (130, "", BOTH)


@pytest.mark.parametrize(("seconds", "passed_on"), [(0.0, 1), (SAME / 2, 1), (2 * SAME, 2)])
def test_signals_at_once_are_one(
    seconds: float, passed_on: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`timeout` sends its signal to the command and to its group: that is nobody who cannot wait."""
    received, taken = os.pipe()
    passed, passing = os.pipe()
    reads = 0

    def read(descriptor: int) -> bytes:
        nonlocal reads
        reads += 1
        return os.read(descriptor, 1)

    monkeypatch.setattr(guard, "_read", read)
    monkeypatch.setattr(guard, "_now", lambda: seconds * (reads > 2))
    os.write(taken, bytes([signal.SIGURG, signal.SIGINT, signal.SIGTERM]))
    os.close(taken)
    guard._guard(os.getpid(), received, passing, b"said")
    os.close(passing)
    assert len(os.read(passed, 64)) == passed_on
    assert capfd.readouterr().err == "said"


def test_a_second_signal_ends_native_code_that_holds_pythons_lock() -> None:
    process = begin(STUCK.format(before="print('computing', flush=True)"), grace=60, longest=60)
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    process.send_signal(signal.SIGINT)
    time.sleep(2 * SAME)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert time.monotonic() - began < 30


def test_nobody_else_can_nudge() -> None:
    """The signal with which the main thread is reached again means nothing while nobody asked to stop."""
    process = begin("os.kill(os.getpid(), signal.SIGURG)\nprint('goes on', flush=True)")
    assert process.stdout is not None
    assert process.stderr is not None
    assert (process.stdout.read(), process.stderr.read(), process.wait(PATIENCE)) == ("goes on\n", "", 0)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_second_signal_disturbs_not_even_pythons_own_end(number: int, code: int) -> None:
    """Python gives signals back their defaults as it shuts down, before it takes the last objects down."""
    process = begin(
        "class Last:\n"
        f"        def __del__(self, kill=os.kill, process=os.getpid()): kill(process, {number:d})\n"
        "    last = Last()\n"
        "    try: print('waiting', flush=True); time.sleep(60)\n"
        f"    except KeyboardInterrupt: sys.exit({code})".replace("\n    ", "\n")
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (code, f"{STOPPING}\n")


LOST = {
    "a destructor": "class Last:\n    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.01)\nLast()",
    "a weak reference": (
        "import weakref\nclass Any: pass\nany = Any()\n"
        "end = weakref.finalize(any, lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.01)))\ndel any"
    ),
    "a start of processes": "with stopping.held_back():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.2)",
}


@pytest.mark.parametrize("where", LOST)
def test_a_signal_is_not_lost_where_python_drops_exceptions(where: str) -> None:
    """As in the first second of a command, in which imports do such things: it once went on as if nothing had come."""
    process = begin(f"try:\n    {LOST[where]}\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(7)".replace(
        LOST[where], LOST[where].replace("\n", "\n    ")))  # fmt: skip
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (7, f"{STOPPING}\n")


FINDER = """
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            {happens}
sys.meta_path.insert(0, Interrupting())
"""
KILL = "os.kill(os.getpid(), signal.{signal})"
SWALLOWED = (
    f"try: {KILL}; import time; time.sleep(0.1)\n            except BaseException: raise ImportError('what now')"
)


@pytest.mark.parametrize("module", ["tombola.cli.commands", "typer", "tombola.cli.listing"])
@pytest.mark.parametrize("happens", [KILL, SWALLOWED])
@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_imports_load(module: str, happens: str, number: signal.Signals, code: int) -> None:
    """Also where an import takes the exception for a failure of its own."""
    happens = happens.format(signal=number.name)
    done = command(FINDER.format(module=module, happens=happens), "list", "criteria")
    assert done.returncode == code, done.stderr
    known = BOTH.replace(STOPPED, f"{STOPPED}; {BEGINS_ANEW}")  # where the command's own lines had begun
    assert done.stderr in (BOTH, BOTH.replace(STOPPED, f"Aborted!\n{STOPPED}"), known)
    assert "Traceback" not in done.stderr


STOPPED_IN = {
    "train": ("tombola.studies.single.config", CONTINUES),
    "export": ("tombola.compression.export.exporting", BEGINS_ANEW),
}


@pytest.mark.parametrize("name", STOPPED_IN)
def test_a_command_says_what_calling_it_again_does(name: str) -> None:
    """Where the command is known, after the first of its own lines."""
    module, said = STOPPED_IN[name]
    done = command(FINDER.format(module=module, happens=KILL.format(signal="SIGINT")), name, "nothing")
    assert (done.returncode, done.stderr) == (130, f"{STOPPING}\n{STOPPED}; {said}\n")


def test_nothing_is_written_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was interrupted may be taken for a failure and noted as one: a latency that could not be measured."""
    table = RowTable(tmp_path / "rows.jsonl", ("kind",))
    monkeypatch.setattr(stopping, "_raised", False)
    monkeypatch.setattr(stopping, "_signal", None)
    stopping.request(signal.SIGTERM)
    with pytest.raises(stopping.Stopped):
        table.append_unit([{"kind": "latency", "reason": "interrupted"}])
    with pytest.raises(stopping.Stopped):
        write_bytes(tmp_path / "file", b"wrong")
    assert [path for path in tmp_path.iterdir() if path.stat().st_size] == []


STUCK = (
    "import ctypes\n"
    "c, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)\n"
    "c.pthread_mutex_init(mutex, None), c.pthread_mutex_lock(mutex)\n"
    "while True:\n"
    "    try: {before}; c.pthread_mutex_lock(mutex)\n"
    "    except KeyboardInterrupt: pass"  # where the signal was quicker
)
"""For ever in native code that holds Python's lock, as a large import does for moments: no thread of Python's runs."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_native_code_that_holds_pythons_lock_is_ended(number: int) -> None:
    process = begin(STUCK.format(before="print('computing', flush=True)"), longest=0.5)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "computing\n"
    process.send_signal(number)
    assert process.stderr.readline() == f"{STOPPING}\n"  # while nothing of Python's runs
    assert process.wait(PATIENCE) == -signal.SIGKILL


def test_a_command_that_shuts_down_is_ended() -> None:
    """Its work is done, and no thread is left that could see a signal."""
    stuck = STUCK.format(before="print('leaving', flush=True)").replace("\n", "\n    ")
    code = (
        "import atexit\nfrom tombola.cli.signals import attended\n"
        f"def leave():\n    {stuck}\n"
        "atexit.register(leave)\nwith attended():\n    pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == -signal.SIGINT


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("way", ["as it ends", "killed"])
def test_the_guard_ends_with_its_command(way: str) -> None:
    process = begin("from pathlib import Path\nprint(*Path('/proc/self/task').glob('*/children'))\nsys.stdin.read()")
    children = [
        child for path in Path(f"/proc/{process.pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    assert len(children) == 1
    process.kill() if way == "killed" else process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{children[0]}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_to_a_fork_is_none_to_the_command() -> None:
    """As multiprocessing sends one to each process of a pool that it ends; nor does the guard wait for a fork."""
    process = begin(
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n    print(pool.apply(abs, (-3,)), flush=True)\n"
        "if not os.fork():\n    time.sleep(600)\n"
        "print('done', flush=True)"
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["3\n", "done\n"]
    try:
        assert process.wait(PATIENCE) == 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.communicate()[1] == ""


def test_what_was_ignored_stays_ignored() -> None:
    """As in `tombola imp CONFIG &`: a shell lets its background ignore Ctrl-C."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from tombola.cli.signals import attended\n"
        "with attended():\n    os.kill(os.getpid(), signal.SIGINT)\n    print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")
