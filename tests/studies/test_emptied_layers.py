"""Layers left nearly empty are marked in the tables of every study and named below them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tombola.pruning import Mask, Masks
from tombola.studies.lottery.round_results import emptied_lines
from tombola.studies.single.comparison_report import emptied
from tombola.studies.single.metrics import emptied_layers, layer_rows
from tombola.studies.single.stages import layers_note, layers_table


def rows_of_a_child(kept: int) -> list[dict[str, Any]]:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 40))
    keep = torch.arange(320).view(40, 8) < kept
    masks = Masks({"0.weight": Mask.full((8, 8)), "1.weight": Mask(keep)})
    assert emptied_layers(model, masks) == (["1.weight"] if kept < 32 else [])
    return layer_rows("child", model, masks)


def test_a_childs_table_marks_them_and_a_line_says_what_helps() -> None:
    rows = rows_of_a_child(1)
    assert [row[-1] for row in layers_table(rows).rows] == ["0.00%", "99.69% !"]
    assert layers_note(rows).startswith("! Nearly empty: 1. Hardly anything passes")
    assert "the distribution erk" in layers_note(rows)
    rows = rows_of_a_child(200)
    assert layers_note(rows) == ""
    assert not any("!" in cell for row in layers_table(rows).rows for cell in row)


def test_rows_of_earlier_versions_say_nothing() -> None:
    rows = rows_of_a_child(1)
    for row in rows:
        del row["nearly_empty"]
    assert layers_note(rows) == ""


def test_a_comparison_names_the_ways_that_leave_them() -> None:
    way = {"kind": "way", "criterion": "magnitude", "structure": "weight", "distribution": "global", "sparsity": 0.9}
    rows = [
        way | {"replicate": 0, "nearly_empty": ["conv1.weight"]},
        way | {"replicate": 1, "nearly_empty": ["conv1.weight", "conv2.weight"]},
        way | {"replicate": 0, "distribution": "erk", "nearly_empty": []},
        way | {"replicate": 0, "distribution": "uniform", "refused": "no"},
    ]
    assert emptied(rows) == ["magnitude on weight, global, 90% leaves nearly empty: conv1, conv2."]


def test_a_lottery_says_from_which_round_on() -> None:
    row = {"kind": "layer", "branch": "ticket", "layer": "fc1.weight"}
    rows = [row | {"round": number, "nearly_empty": number > 4} for number in range(1, 8)]
    rows += [row | {"round": 6, "layer": "fc2.weight", "nearly_empty": True}]
    rows += [row | {"round": 1, "branch": "random", "nearly_empty": True}]
    (line,) = emptied_lines(rows)
    assert "nearly empty" in line
    assert "fc1 from round 5, fc2 from round 6 (the distribution erk" in line
    assert emptied_lines(rows[:4]) == []
