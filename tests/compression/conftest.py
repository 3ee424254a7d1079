"""The fences around arrays that the tests of kernels have, for whole networks, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "kernels"))
