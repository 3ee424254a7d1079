"""Arrays between pages that nobody may touch.

An array lies flush with the page before it or the page after it, so that the first number read or written beyond that
side ends the test process with a segmentation fault, whose traceback names the test. Behind its other side are NaN
(-1 or 65535 for integers), which spoil the result when read and are looked at afterwards. What a kernel only reads is
write-protected.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tombola.kernels.packing import Block, Pattern, pack

PAGE = mmap.PAGESIZE
POISON = 0xFF
NO_ACCESS = 0

_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@dataclass
class Fences:
    """Makes fenced arrays, and keeps them alive."""

    at_end: bool
    kept: list[np.ndarray] = field(default_factory=list, repr=False)
    rooms: list[tuple[np.ndarray, slice]] = field(default_factory=list, repr=False)

    def given(self, numbers: np.ndarray) -> np.ndarray:
        """A copy to read."""
        pages, place = self._pages(numbers.nbytes)
        array = pages[place].view(numbers.dtype).reshape(numbers.shape)
        array[...] = numbers
        self._protect(pages, slice(PAGE, len(pages) - PAGE), mmap.PROT_READ)
        return array

    def room(self, shape: int | Sequence[int], dtype: type = np.float32) -> np.ndarray:
        """An array to write, of NaN."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pages, place = self._pages(size)
        self.rooms.append((pages, place))
        return pages[place].view(dtype).reshape(shape)

    def packed(self, keep: np.ndarray, block: int) -> Pattern:
        """The pattern of a mask in arrays to read."""
        pattern = pack(keep, block)
        return Pattern(pattern.shape, tuple(self._fenced(own) for own in pattern.blocks))

    def check(self) -> None:
        """Nothing was written around the rooms."""
        for pages, place in self.rooms:
            assert (pages[PAGE : place.start] == POISON).all(), "the kernel wrote before an array"
            assert (pages[place.stop : -PAGE] == POISON).all(), "the kernel wrote behind an array"

    def _fenced(self, block: Block) -> Block:
        return replace(block, starts=self.given(block.starts), columns=self.given(block.columns))

    def _pages(self, size: int) -> tuple[np.ndarray, slice]:
        inner = -(-size // PAGE) * PAGE or PAGE
        pages = np.frombuffer(mmap.mmap(-1, inner + 2 * PAGE), dtype=np.uint8)
        pages[PAGE:-PAGE] = POISON
        self.kept.append(pages)  # kernels see addresses only
        for start in (0, PAGE + inner):
            self._protect(pages, slice(start, start + PAGE), NO_ACCESS)
        start = PAGE + (inner - size if self.at_end else 0)
        return pages, slice(start, start + size)

    @staticmethod
    def _protect(pages: np.ndarray, place: slice, access: int) -> None:
        assert _protect(pages.ctypes.data + place.start, place.stop - place.start, access) == 0


def address(array: np.ndarray, offset: int = 0) -> int:
    """Of array[offset], counted in numbers."""
    return array.ctypes.data + offset * array.itemsize
