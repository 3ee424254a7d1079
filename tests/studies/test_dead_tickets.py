"""A run says how many units of each ticket are dead; one of an earlier version is read without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import no_time
from small_study import SMALL_STUDY, run_lottery
from tombola.compression.dead import units_of_chain
from tombola.pruning import Masks, prune
from tombola.runs.configs import validate
from tombola.runs.rows import rows_of
from tombola.studies.lottery import dead_tickets
from tombola.studies.lottery.config import LotteryConfig
from tombola.studies.lottery.dead_tickets import dead_columns, dead_lines
from tombola.studies.lottery.networks import trained_network
from tombola.studies.lottery.over_replicates import summarise
from tombola.studies.lottery.result import Result
from tombola.studies.lottery.rewind import Rewind
from tombola.studies.lottery.search_costs import speed_notes

pytestmark = pytest.mark.filterwarnings("ignore::tombola.pruning.emptied.NearlyEmptyLayerWarning")


@pytest.fixture(scope="module", autouse=True)
def _counted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dead_tickets, "dead_units", no_time.DEAD_UNITS)
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    torch.set_num_threads(1)
    study = {**SMALL_STUDY, "controls": [], "pruning": {"densities": [0.1, 0.02]}}
    return run_lottery(validate(study, LotteryConfig, "dead"), tmp_path_factory.mktemp("runs"))


def test_each_ticket_has_its_count(result: Result) -> None:
    tickets = rows_of(result.rows, kind="training", branch="ticket")
    assert len(tickets) == 4
    for row in tickets:
        network, _, masks = trained_network(result.folder, Rewind("init"), row["replicate"], row["round"])
        found = units_of_chain(network, masks)
        assert found is not None
        assert (row["units"], row["units_dead"], row["flops_without_dead"]) == (30, found.dead, 2 * found.weights)
    assert tickets[-1]["units_dead"] > 0
    assert not [row for row in result.rows if "units" in row and row["branch"] != "ticket"]
    (last,) = [s for s in result.summaries if s.branch == "ticket" and s.round == 2]
    assert last.units_dead is not None
    assert last.entry["units_dead"]["mean"] == last.units_dead.mean
    said = " ".join(dead_lines(result.rows))
    assert "of 30, mean over replicates" in said
    assert f"{last.units_dead.mean:.4g} with 2.0% of the weights. Without them the last needs" in said
    assert said in " ".join(speed_notes(result.summaries, result.rows))


def test_a_run_counts_those_of_convolutions(tmp_path: Path) -> None:
    study = {**SMALL_STUDY, "controls": [], "replicates": 1, "pruning": {"densities": [0.05]}}
    model = {"architecture": "conv2", "widths": [4, 4, 8, 6]}
    training = SMALL_STUDY["training"] | {"length": "4it", "evaluate_every": "4it"}
    asked = validate({**study, "model": model, "training": training}, LotteryConfig, "dead")
    (row,) = rows_of(run_lottery(asked, tmp_path).rows, kind="training", branch="ticket")
    assert row["units"] == 4 + 4 + 8 + 6
    assert 0 < row["units_dead"] < row["units"]
    assert 0 < row["flops_without_dead"] < row["flops_effective"]


def test_tables_of_earlier_versions_and_of_strangers(result: Result) -> None:
    keys = ("units", "units_dead", "flops_without_dead")
    earlier = [{key: value for key, value in row.items() if key not in keys} for row in result.rows]
    assert dead_lines(earlier) == dead_lines([*earlier[:-1], *result.rows]) == []  # extended by this version
    assert all(s.units_dead is s.flops_without_dead is None for s in summarise(earlier))
    for odd in ("x", -1, 1.5, None, [], True):
        rows = [row | {"units_dead": odd, "flops_without_dead": odd} for row in result.rows]
        assert dead_lines(rows) == []
        assert all(s.units_dead is None for s in summarise(rows))
    none = [row | {"units_dead": 0} for row in rows_of(result.rows, branch="ticket")]
    assert dead_lines(none) == ["No ticket has dead units."]


class Asking(nn.Module):
    """Looks at numbers, so that no tracer follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) if float(inputs.sum()) >= 0 else self.layer(-inputs)


def test_of_networks_that_are_no_chains() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 3))
    row = dead_columns(model, prune(model, 0.97), torch.zeros(2, 1, 8, 8))
    assert row["units"] == 8
    assert row["units_dead"] > 0
    assert row["flops_without_dead"] > 0
    for example, reason in ((torch.zeros(2, 4), "cannot be traced"), (None, "no tensors of one shape")):
        row = dead_columns(Asking(), Masks.full(Asking()), example)
        assert row["units_dead"] is None
        assert reason in row["dead_reason"]
        table = [{"kind": "training", "branch": "ticket", "round": 1, "density": 0.5, **row}]
        assert dead_lines(table) == [f"Dead units are not counted: {row['dead_reason'].removesuffix('.')}."]
