"""The packages of the extra `onnx`, loaded in this one place: onnxruntime without its telemetry.

As soon as it is loaded, onnxruntime 1.31 writes a device id below the user's cache and looks up a host, and
`disable_telemetry_events()` comes too late to stop it: the environment variable must be set before the import. Nobody
else imports onnxruntime, and `tests/reliability/test_quiet.py` holds us to it.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from tombola.errors import ModelError

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}


def required(name: str) -> Any:
    """The module `name` of the extra `onnx`, such as `onnx` or `onnxruntime`.

    Sets `ORT_DISABLE_TELEMETRY` for this process and those it starts, whatever it was. Raises ModelError with the way
    to the package where it is not installed.
    """
    os.environ.update(NO_TELEMETRY)
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModelError(f"{name} is not installed: pip install 'tombola[onnx]', which writes and runs ONNX") from None
