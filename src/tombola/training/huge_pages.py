"""Large pages of memory, for data that is read here and there.

Examples of a batch lie scattered over all of memory, and where each of them is takes the processor a look-up that large
pages mostly save: a twentieth of a sparse step at 5 % density.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

from torch import Tensor

LARGE_PAGE = 2 << 20
WORTHWHILE = 4 * LARGE_PAGE
"""Bytes below which the processor knows all pages anyway."""
COLLAPSE = 25
"""Linux's number for turning small pages into large ones, whatever they hold (6.1 and later; an error before)."""


def prefer_large_pages(tensor: Tensor) -> None:
    """Moves a tensor's memory to large pages where the system can. Neither its address nor its content changes."""
    if not sys.platform.startswith("linux") or tensor.nbytes < WORTHWHILE:
        return
    begin = -(-tensor.data_ptr() // LARGE_PAGE) * LARGE_PAGE
    end = (tensor.data_ptr() + tensor.nbytes) // LARGE_PAGE * LARGE_PAGE
    with contextlib.suppress(OSError, AttributeError):  # a C library without the call
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), COLLAPSE)
