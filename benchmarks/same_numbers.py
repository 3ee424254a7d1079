"""Do two versions of Tombola come to the same numbers? Holds the runs of one against those of the other.

    python benchmarks/same_numbers.py BASE NEW

BASE and NEW hold run folders of the same configs, made by two versions on one machine. Compared are rows and the
documents of `results/`, without what a clock gave, and every tensor, mask and forest, to the bit. Folders are matched
by their names without the hash, which changes when a key of the config is renamed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from kill_runs import BYTES, timeless
from tombola.models.tensors import content_sha256, load_tensors

RENAMED = {"budget": "distribution", "flops_live": "flops_without_dead"}
"""Columns and keys by their names in earlier versions."""
ADDED = ("units", "units_dead", "flops_without_dead", "dead_reason")
"""What tickets' rows and summaries have since dead units are counted."""


def numbers(run: Path) -> dict[str, Any]:
    """All that must agree, by the names of files; rows sorted, for workers end in any order."""
    rows = [timeless(json.loads(row)) for row in (run / "rows.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"rows": sorted(json.dumps(_named_now(row), sort_keys=True) for row in rows)}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors":
            found[name] = content_sha256(load_tensors(path)[0])
        elif path.suffix in BYTES:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".json" and path.parent.name == "results":
            document = _named_now(timeless(json.loads(path.read_text())))
            found[name] = json.dumps(document, sort_keys=True).replace(run.name, _title(run))
    return found


def _named_now(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = {"run", "sha256", *(ADDED if "units_dead" in value else ())}
        return {RENAMED.get(key, key): _named_now(part) for key, part in value.items() if key not in left_out}
    return [_named_now(part) for part in value] if isinstance(value, list) else value


def _title(run: Path) -> str:
    return re.sub(r"-[0-9a-f]{8}$", "", run.name)


def runs_in(out: Path) -> dict[str, Path]:
    return {_title(path.parent): path.parent for path in sorted(out.glob("*/rows.jsonl"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("new", type=Path)
    asked = parser.parse_args()
    base, new = runs_in(asked.base), runs_in(asked.new)
    differences = [f"{title}: in one of the two only" for title in base.keys() ^ new.keys()]
    compared = 0
    for title in base.keys() & new.keys():
        ours, theirs = numbers(base[title]), numbers(new[title])
        compared += len(ours["rows"]) + len(ours) - 1
        differences += [
            f"{title}: {name}" for name in sorted(ours.keys() | theirs) if ours.get(name) != theirs.get(name)
        ]
    for difference in differences or [f"the same: {compared} rows and files of {len(base)} runs"]:
        print(difference)
    return 1 if differences or not base else 0


if __name__ == "__main__":
    sys.exit(main())
