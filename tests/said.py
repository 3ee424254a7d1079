"""What a command says on stderr: progress, notes and warnings; and where it fails one line more, the error."""

from __future__ import annotations

ERROR = "error: "


def error_in(stderr: str) -> str:
    """The error that a command ended with: one line, the last one."""
    lines = stderr.splitlines()
    assert [line for line in lines if line.startswith(ERROR)] == lines[-1:], stderr
    return lines[-1]
