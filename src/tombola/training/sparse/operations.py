"""What a step is made of: steps of native programs, and calls of torch between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tombola.kernels.program import Program, Step

Operation = Step | Callable[[], None]


class Operations:
    """Operations in order; those of native code that follow one another are one call.

    Called with three addresses, which `Place.INPUT`, `OUTPUT` and `WORKSPACE` stand for.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._parts: list[Callable[[int, int, int], None]] = []
        native: list[Step] = []
        for operation in operations:
            if isinstance(operation, Step):
                native.append(operation)
                continue
            self._add_native(native)
            native = []
            self._parts.append(_ignoring_addresses(operation))
        self._add_native(native)

    def _add_native(self, steps: list[Step]) -> None:
        if steps:
            self._parts.append(Program(steps).run)

    def __call__(self, x: int, y: int, workspace: int) -> None:
        for part in self._parts:
            part(x, y, workspace)


def _ignoring_addresses(call: Callable[[], None]) -> Callable[[int, int, int], None]:
    def part(x: int, y: int, workspace: int) -> None:
        call()

    return part
