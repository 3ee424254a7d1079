"""The head of a study's page and the foot of its document: what the run is, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tombola.reports.documents import fold_block
from tombola.reports.page import Header
from tombola.runs.configs import Config, dump_config
from tombola.runs.folder import DEVICE, PROCESSOR, RunFolder
from tombola.studies.base.numbers import counted


def run_header(title: str, verdict: str, folder: RunFolder, seed: int | None, replicates: int = 1) -> Header:
    """The head of the page of a run.

    Args:
        title: what kind of study, and its name.
        verdict: what came of it, in a sentence.
        folder: the run, whose manifest is read.
        seed: the root seed, None where the run draws nothing.
        replicates: how many experiments, each with a seed of its own that derives from the root.
    """
    manifest = folder.read_manifest()
    facts: Mapping[str, Any] = manifest["must_match"]
    versions: Mapping[str, str] = facts.get("versions", {})
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "tombola")
    found = {
        "Run": folder.root.resolve().name,
        "Begun": _date(manifest.get("created")),
        "Tombola": versions.get("tombola"),
        "Versions": others or None,
        "Machine": _machine(manifest.get("machine", {}), facts.get(DEVICE)),
        "Seeds": _seeds(seed, replicates),
        "Data": _data(facts.get("data")),
    }
    return Header(title, verdict, [(name, value) for name, value in found.items() if value])


def document_foot(
    manifest: Mapping[str, Any], config: Config, cell: str, *, seed: int | None = None, defaults: bool = True
) -> list[str]:
    """The last blocks of a document: seed, machine, versions and data; folded the config, perhaps without `defaults`.

    `cell` is what one thread computes.
    """
    facts = manifest["must_match"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    root = "" if seed is None else f"Root seed {seed}; "
    return [
        f"{root}{_machine(manifest['machine'], facts.get(DEVICE))}{_instructions(facts)}, one thread per {cell}; "
        f"{versions}; data {facts['data']['name']} ({facts['data']['checksum']}).",
        fold_block("Configuration", f"```yaml\n{dump_config(config, defaults=defaults).rstrip()}\n```") + "\n",
    ]


def _instructions(facts: Mapping[str, Any]) -> str:
    """The vector instructions that torch uses, where they were written down."""
    processor = facts.get(PROCESSOR)
    return f", {processor['torch']}" if isinstance(processor, dict) and processor.get("torch") else ""


def _date(created: str | None) -> str | None:
    if created is None:
        return None
    return f"{datetime.fromisoformat(created).astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0")


def _machine(machine: Mapping[str, Any], device: object) -> str:
    cores = machine.get("cores")
    devices = [str(one.get("name", one.get("type"))) for one in device] if isinstance(device, list) else []
    parts = [machine.get("cpu"), counted(cores, "core") if cores else None, machine.get("system"), *devices]
    return ", ".join(part for part in parts if part)


def _seeds(seed: int | None, replicates: int) -> str | None:
    if seed is None:
        return None
    return f"root seed {seed}" + (f", {replicates} replicates derived from it" if replicates > 1 else "")


def _data(data: object) -> str | None:
    if not isinstance(data, dict):
        return None
    checksum = data.get("checksum")
    return str(data.get("name", "own data")) + (f" ({str(checksum)[:16]}…)" if checksum else "")
