"""What a hybrid study asserts of itself, and the facts of its split, as lines from its rows."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.errors import counted
from tombola.runs.rows import Row, rows_of


def check_lines(rows: Sequence[Row]) -> list[str]:
    """Whether the forests' ONNX files say what scikit-learn's forests say; one that does not has ended the run."""
    forests = rows_of(rows, kind="forest")
    if not forests:
        return ["No forest was grown."]
    recorded = [row for row in forests if row.get("onnx_equal") is not None]
    worst, examples = max(row["onnx_error"] for row in forests), min(row["onnx_checked"] for row in forests)
    lines = [f"largest difference of their probabilities: {worst:.2g}"]
    if recorded:
        same = sum(row["onnx_equal"] == row["onnx_checked"] for row in recorded)
        lines.insert(
            0,
            f"labels of the ONNX forest equal to scikit-learn's on {examples:,} training examples or more: {same} of "
            f"{len(recorded)} forests",
        )
    if left := len(forests) - len(recorded):
        lines.insert(0, f"{left} of {len(forests)} forests are of a version that did not record their equal labels")
    return lines


def facts_lines(rows: Sequence[Row]) -> list[str]:
    """Replicates, examples and trees."""
    forests = rows_of(rows, kind="forest")
    if not forests:
        return []
    counts = {
        column: " or ".join(f"{n:,}" for n in sorted({row[column] for row in forests}))
        for column in ("train_examples", "test_examples", "trees")
    }
    replicates = len({row["replicate"] for row in forests})
    return [
        f"{counted(replicates, 'replicate')}, each with a split of its own; forests of {counts['trees']} trees learn "
        f"from {counts['train_examples']} examples and are tested on {counts['test_examples']}."
    ]
