"""Watches a Python process and all it starts: what it writes and whom it asks for, native code included.

`watched_environment` gives the environment for it. Two means that need no rights and no tools: Python's audit hooks
write every connection, look-up and file opened for writing to a log; on Linux a seccomp filter kills the process, by
SIGSYS, where anything in it, C++ too, opens an internet socket.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

SITE = """
import json, os, socket, sys

LOG = os.open(os.environ["WATCHED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ADDRESSED = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
BY_NAME = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request")


def note(kind, what):
    os.write(LOG, (json.dumps([kind, str(what)]) + "\\n").encode())


def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, (str, bytes)) and ((flags or 0) & WRITES or any(c in (mode or "") for c in "wax+")):
            note("write", os.path.abspath(os.fsdecode(path)))
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink"):
        path = arguments[0] if event == "os.mkdir" else arguments[1]
        if isinstance(path, (str, bytes)):
            note("write", os.path.abspath(os.fsdecode(path)))
    elif event in ADDRESSED:
        note("address", arguments[1][0] if isinstance(arguments[1], tuple) else "unix")
    elif event in BY_NAME:
        note("address", arguments[0])


sys.addaudithook(hook)
"""

FILTER = """
import ctypes, faulthandler, platform, signal, socket, struct

# urllib3, which keras loads where it is installed, binds to ::1 to learn whether this machine has IPv6. That stays on
# the machine, but the filter sees no addresses: where Python has no IPv6, nobody asks.
socket.has_ipv6 = False

NUMBERS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # the architecture, and its call `socket`
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD+W+ABS, BPF_JMP+JEQ+K, BPF_RET+K (linux/filter.h)
ALLOW, TRAP = 0x7FFF0000, 0x00030000  # SECCOMP_RET_ALLOW, SECCOMP_RET_TRAP (linux/seccomp.h)
architecture, call = NUMBERS[platform.machine()]
steps = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 6, architecture),
    (LOAD, 0, 0, 0), (EQUAL, 0, 4, call),
    (LOAD, 0, 0, 16), (EQUAL, 1, 0, 2), (EQUAL, 0, 1, 10),  # AF_INET, AF_INET6
    (RETURN, 0, 0, TRAP), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


faulthandler.register(signal.SIGSYS, chain=True)  # says who it was, then the process ends
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(steps), ctypes.addressof(code))
NO_NEW_PRIVILEGES, SECCOMP, FILTERED = 38, 22, 2  # linux/prctl.h
one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
if libc.prctl(NO_NEW_PRIVILEGES, one, none, none, none) or libc.prctl(
    SECCOMP, ctypes.c_ulong(FILTERED), ctypes.byref(program), none, none
):
    raise OSError(ctypes.get_errno(), "this system takes no seccomp filter")
"""


def watched_environment(folder: Path, natively: bool) -> dict[str, str]:
    """The environment of a process that is watched: a home, temporary files and a log of its own below `folder`.

    `natively` adds the filter, for Linux on x86-64 and ARM.
    """
    site = folder / "site"
    for part in (site, folder / "home", folder / "tmp"):
        part.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE + (FILTER if natively else ""))
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "TOMBOLA_DATA", "SYSTEMROOT")
    found = [str(site), *(path for path in sys.path if path)]
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(found),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder / "home"),
        "USERPROFILE": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "WATCHED_LOG": str(folder / "watched.log"),
    }


def noted(folder: Path, kind: str) -> list[Any]:
    """What the log has of a kind, `write` or `address`, each once."""
    lines = (folder / "watched.log").read_text().splitlines()
    return sorted({what for found, what in map(json.loads, lines) if found == kind})
