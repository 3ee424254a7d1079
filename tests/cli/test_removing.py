"""`tombola remove`: smaller model folders, and what can be done with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from small_models import CONVOLUTIONAL, contents, invoke, make_child, make_parent, one_line
from tombola.models import load_model, read_spec
from tombola.models.removed import parameters


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = {"length": "20it", "evaluate_every": "20it", "learning_rate": "1e-2"}
    return make_parent(tmp_path_factory.mktemp("parent"), **CONVOLUTIONAL, training=training).folder


@pytest.fixture(scope="module")
def child(parent: Path) -> Path:
    return make_child(parent, parent.with_name("child"), {"sparsity": 0.5, "structure": "filter"}).folder


def removed(*arguments: object) -> dict[str, Any]:
    result = invoke("remove", *arguments, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_masks_leave_without_effect_goes_and_accuracy_stays(child: Path, tmp_path: Path) -> None:
    before = contents(child)
    said = removed(child, "--out", tmp_path / "small")
    assert contents(child) == before
    old, new = said["table"]
    assert old["test_accuracy"] == new["test_accuracy"]
    assert said["verdict"]["parameters_after"] == new["parameters"] < old["parameters"]
    assert said["verdict"]["difference"] < 1e-5
    model, spec, masks = load_model(tmp_path / "small")
    whole, _, its_masks = load_model(child)
    assert its_masks is not None
    assert masks is None or masks.density > its_masks.density
    assert spec.removed is not None
    assert parameters(model) == new["parameters"]
    inputs = torch.rand(4, *spec.input_shape)
    its_masks.apply_(whole)
    torch.testing.assert_close(model.eval()(inputs), whole.eval()(inputs), rtol=1e-4, atol=1e-5)


def test_a_smaller_folder_is_packed_and_exported(child: Path, tmp_path: Path) -> None:
    removed(child, "--out", tmp_path / "small")
    for command in (
        ("pack", tmp_path / "small", "--out", tmp_path / "small.ticket"),
        ("unpack", tmp_path / "small.ticket", "--out", tmp_path / "again"),
        ("export", tmp_path / "small", "--to", "pt2", "--out", tmp_path / "small.pt2"),
    ):
        assert invoke(*command).exit_code == 0
    one, other = load_model(tmp_path / "small"), load_model(tmp_path / "again")
    assert one[1].removed == other[1].removed
    assert all(torch.equal(a, b) for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True))


def test_a_smaller_folder_is_pruned_and_made_smaller_again(child: Path, tmp_path: Path) -> None:
    first = removed(child, "--out", tmp_path / "small")
    pruned = make_child(tmp_path / "small", tmp_path / "pruned", {"sparsity": 0.5}).folder
    second = removed(pruned, "--sparsity", 0.5, "--round-to", 2, "--finetune", "10it", "--out", tmp_path / "tiny")
    assert [stage["stage"] for stage in second["table"]] == ["before", "smaller", "fine-tuned"]
    assert second["verdict"]["parameters_before"] == first["verdict"]["parameters_after"]
    assert all(group["after"] % 2 == 0 or group["after"] == group["before"] for group in second["verdict"]["groups"])
    model, _, masks = load_model(tmp_path / "tiny")
    assert masks is not None
    assert masks.removed_nonzeros(model) == 0
    assert read_spec(tmp_path / "tiny")[1]["removal"]["sparsity"] == 0.5


def test_for_a_person(parent: Path, tmp_path: Path) -> None:
    result = invoke(
        "remove", parent, "--sparsity", "0.5", "--ranking", "global", "--criterion", "taylor", "--out", tmp_path / "a"
    )
    assert result.exit_code == 0, result.output
    assert "units gone" in result.stdout
    assert "conv_1" in result.stdout


def test_the_same_command_shows_it_and_another_is_refused(parent: Path, tmp_path: Path) -> None:
    asked = ("remove", parent, "--sparsity", "0.5", "--finetune", "10it", "--distill", "--distill-weight", "1")
    made = invoke(*asked, "--out", tmp_path / "a")
    assert made.exit_code == 0, made.output
    assert "fine-tuned" in made.stdout
    before = contents(tmp_path / "a")
    again, shown = invoke(*asked, "--out", tmp_path / "a"), invoke("show", tmp_path / "a")
    assert again.stdout == shown.stdout == made.stdout
    assert contents(tmp_path / "a") == before
    assert not (tmp_path / "a" / "checkpoints").exists()
    history = read_spec(tmp_path / "a")[1]
    assert history["distillation"] == {"temperature": 4.0, "weight": 1.0}
    one_line(invoke(*asked[:-2], "--out", tmp_path / "a"), "begun with distillation.weight 1.0, now 0.5")
    assert "Units of coupled layers" in (tmp_path / "a" / "report.html").read_text()
    plan = json.loads(invoke(*asked, "--out", tmp_path / "b", "--dry-run", "--json").stdout)
    assert plan["outcome"].startswith("a smaller model: 1 training of at most 10 iterations")
    assert not (tmp_path / "b").exists()


def test_whole_layers(tmp_path: Path) -> None:
    named = ("--layers", "stage_1.block_1,stage_2.block_2", "--data", "{name: digits}", "--out", tmp_path / "named")
    assert removed("resnet20", *named)["verdict"]["layers"] == ["stage_1.block_1", "stage_2.block_2"]
    assert read_spec(tmp_path / "named")[0].removed.bypassed == ("stage_1.block_1", "stage_2.block_2")


def test_errors_are_one_line(parent: Path, child: Path, tmp_path: Path) -> None:
    one_line(invoke("remove", parent, "--out", tmp_path / "a"), "no unit can go", "--structure filter")
    one_line(invoke("remove", child, "--out", parent), "holds a run of another kind")
    one_line(invoke("remove", child, "--out", child / "checkpoints"), "lies in the parent's folder")
    one_line(invoke("remove", child, "--distill", "--out", tmp_path / "b"), "distillation belongs to the fine-tuning")
    one_line(invoke("remove", child, "--temperature", "2", "--out", tmp_path / "b"), "belong to --distill")
    one_line(invoke("remove", child, "--sparsity", "2", "--out", tmp_path / "b"), "in [0, 1)")
    one_line(invoke("remove", child, "--sparsity", "0.5", "--ranking", "all", "--out", tmp_path / "b"), "ranking")
    one_line(invoke("remove", child, "--layers", "1", "--sparsity", "0.5", "--out", tmp_path / "b"), "--layers")
    one_line(invoke("remove", child, "--layers", "conv_9", "--out", tmp_path / "b"), "conv_9", "conv_2")
    one_line(invoke("remove", child, "--protect", "nothing", "--out", tmp_path / "b"), "nothing")
    one_line(invoke("remove", tmp_path / "none", "--sparsity", "0.5"), "no folder")
    assert not any(tmp_path.iterdir())


def test_a_record_that_is_not_of_its_network_is_refused(child: Path, tmp_path: Path) -> None:
    removed(child, "--out", tmp_path / "small")
    path = tmp_path / "small" / "spec.json"
    content = json.loads(path.read_text())
    content = {key: value for key, value in content.items() if key not in ("format", "sha256")}
    for change in ({"indices": "0-99999999", "of": 100_000_000}, {"places": ["nowhere.weight/0"]}, {"indices": "1,0"}):
        altered = json.loads(json.dumps(content))
        altered["model"]["removed"]["kept"][0] |= change
        path.write_text(json.dumps(altered))
        one_line(invoke("remove", tmp_path / "small", "--sparsity", "0.5", "--out", tmp_path / "b"))
