"""The config that a command asks for: a file, or one that Tombola brings, and options that come before its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tombola.runs.configs import apply_override, read_content, validate
from tombola.runs.shipped import config_path
from tombola.studies.stress.config import StressConfig

QUICK = {"cycles": 2, "levels": [0.3]}
"""What a quick study has where nobody says."""


def stress_config(config: str | None, given: Mapping[str, Any], overrides: Sequence[str]) -> StressConfig:
    """The config of a command; ConfigError in one line where it is none."""
    content = {**({} if config is None else read_content(config_path(config))), **given}
    for override in overrides:
        apply_override(content, override)
    if content.get("quick"):
        content = {**QUICK, **content}
    return validate(content, StressConfig, "tombola stress" if config is None else config)
