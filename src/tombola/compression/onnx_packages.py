"""The packages that write and run ONNX (extras `onnx` and `bench`), loaded in this one place, without their telemetry.

As soon as it is loaded, onnxruntime 1.31 writes a device id below the user's cache and looks up a host, and
`disable_telemetry_events()` comes too late to stop it: the environment variable must be set before the import. OpenVINO
2026 writes a client id below the user's home and sends an event as soon as it is imported, unless its package for that
is missing: to OpenVINO it is. Nobody else imports either, and `tests/reliability/test_quiet.py` holds us to it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tombola.errors import ModelError

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
SENDER = "openvino_telemetry"
"""What OpenVINO sends with, where it is there."""
EXTRAS = {"openvino": "bench"}
"""The extra that brings a package; the others come with `onnx`."""


def required(name: str) -> Any:
    """The module `name` of the extras `onnx` and `bench`, such as `onnx`, `onnxruntime` or `openvino`.

    Sets `ORT_DISABLE_TELEMETRY` for this process and those it starts, whatever it was. Raises ModelError with the way
    to the package where it is not installed.
    """
    os.environ.update(NO_TELEMETRY)
    loaded: dict[str, Any] = sys.modules
    loaded.setdefault(SENDER, None)  # which is what cannot be imported
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ModelError(
            f"{package} is not installed: pip install 'tombola[{EXTRAS.get(package, 'onnx')}]', which writes and runs "
            "ONNX"
        ) from None
