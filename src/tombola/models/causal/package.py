"""transformers (the extra `transformers`), loaded where it is used: quiet, and without telemetry."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from tombola.errors import ModelError

NO_TELEMETRY = {"HF_HUB_DISABLE_TELEMETRY": "1"}


def transformers() -> Any:
    """The package; ModelError with the way to it where it is not installed."""
    os.environ.update(NO_TELEMETRY)
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise ModelError(
            "transformers is not installed: pip install 'tombola[transformers]', which reads language models"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block transformers shows neither progress nor notes; what is wrong is raised."""
    transformers()
    said = importlib.import_module("transformers.utils.logging")
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    said.set_verbosity(logging.CRITICAL)
    said.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        said.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            said.enable_progress_bar()
