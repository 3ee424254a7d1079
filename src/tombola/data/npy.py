"""One NumPy array out of bytes, as .npy files and the members of .npz files hold it; nothing is ever unpickled."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tombola.errors import DataError, one_line


def parse_npy(content: bytes, where: str) -> NDArray[Any]:
    """The array in `content`, which it shares; its header is believed only as far as there are bytes.

    Raises DataError that begins with `where`.
    """
    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = header(file)
    except Exception as error:  # numpy reads a header as Python source: each kind of nonsense has an error of its own
        raise DataError(f"{where}: damaged or cut short ({one_line(error)}); get the file again") from None
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never unpickled; save plain numbers")
    data = memoryview(content)[file.tell() :]
    if min(shape, default=0) < 0 or len(data) != math.prod(shape) * dtype.itemsize or not dtype.itemsize:
        raise DataError(f"{where}: its header says {shape} of {dtype}, which its {len(data):,} bytes are not")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
