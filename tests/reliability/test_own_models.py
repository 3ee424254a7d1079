"""`tombola prune` on an odd model of somebody's own: a child, or one line and exit code 2; no internal error."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_models import invoke, one_line


@pytest.mark.parametrize("name", ["of_tuples", "of_mappings", "counting"])
def test_auxiliary_outputs_counted_passes_and_empty_layers_are_pruned_and_fine_tuned(name: str, tmp_path: Path) -> None:
    options = ("--data", "digits", "--sparsity", 0.5, "--finetune", "2it", "--out", tmp_path / "child")
    result = invoke("prune", f"own_models:{name}", *options)
    assert result.exit_code == 0, result.output


def test_outputs_that_are_no_logits_while_it_trains_are_said(tmp_path: Path) -> None:
    options = ("--data", "digits", "--sparsity", 0.5, "--finetune", "2it", "--out", tmp_path / "child")
    one_line(invoke("prune", "own_models:of_text", *options), "gives str for", "while it trains, not logits")
