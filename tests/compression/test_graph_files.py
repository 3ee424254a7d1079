"""Convolutional networks on disk: what is read back is what was written, and nothing is taken at its word."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tombola import load_sparse, prune, save_sparse, sparsify
from tombola.compression.sparse_modules import SparseModel
from tombola.errors import ModelError, TombolaError
from tombola.models import ModelSpec, build
from tombola.models.tensors import load_tensors, save_tensors

Facts = dict[str, Any]


def network() -> nn.Module:
    """A ResNet-20 with every kind of node but pools and sums apart; narrow."""
    model = build(ModelSpec(architecture="resnet20", input_shape=(3, 12, 12), classes=5, seed=0, widths=(4, 4, 6)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    return model.eval()


def pooled() -> nn.Module:
    """Pools and a norm that no convolution takes in."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.running_mean.normal_()
    return nn.Sequential(
        *(norm, nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1)),
        *(nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(64, 5)),
    ).eval()


def sparse_of(model: nn.Module) -> SparseModel:
    return sparsify(model, prune(model, 0.6, distribution="uniform"), torch.randn(20, 3, 12, 12), (1, 20))


def written(make: Callable[[], nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "net.safetensors"
    save_sparse(path, sparse_of(make()))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `network()`, not to be changed."""
    return written(network, tmp_path_factory)


@pytest.fixture(scope="module")
def whole_pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `pooled()`, not to be changed."""
    return written(pooled, tmp_path_factory)


@pytest.mark.usefixtures("same_plans")
@pytest.mark.parametrize("make", [network, pooled])
def test_what_is_read_is_what_was_written(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    sparse = sparse_of(make())
    save_sparse(tmp_path / "net", sparse)
    loaded = load_sparse(tmp_path / "net")
    for count in (1, 3, 16, 20, 37):
        x = torch.randn(count, 3, 12, 12)
        assert torch.equal(loaded(x), sparse(x))
    assert str(loaded) == str(sparse)


@pytest.mark.usefixtures("same_plans")
def test_a_part_of_a_model_finds_its_place_again(tmp_path: Path) -> None:
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(nn.Sequential(*body), nn.GELU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(45, 2)).eval()
    sparse = sparse_of(model)
    save_sparse(tmp_path / "net", sparse)
    skeleton, x = copy.deepcopy(model), torch.randn(9, 3, 12, 12)
    for parameter in skeleton.parameters():
        parameter.data.fill_(1)
    assert torch.equal(load_sparse(tmp_path / "net", model=skeleton)(x), sparse(x))
    other = copy.deepcopy(model)
    other[0][1] = nn.Identity()
    wider = copy.deepcopy(model)
    wider[2] = nn.Conv2d(4, 5, 1)
    for wrong in (other, wider, model[0]):
        with pytest.raises(ModelError, match="not a sparse model that can be loaded") as caught:
            load_sparse(tmp_path / "net", model=wrong)
        assert "\n" not in str(caught.value)


def test_rows_that_are_no_whole_vectors_here_are_run_another_way(tmp_path: Path) -> None:
    """A file from a machine with shorter vectors may name a kernel that cannot run on this one."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()  # 10 outputs a row, which are filled up to 12
    sparse = sparsify(model, prune(model, 0.5), torch.randn(1, 1, 12, 12), (1,))
    save_sparse(tmp_path / "net", sparse)
    tensors, facts = load_tensors(tmp_path / "net")
    (plan,) = facts["graphs"][0]["plans"]
    plan["form"], plan["choices"][0] = "vectors", {"kernel": "shifted rows", "block": 1, "seconds": None}
    save_tensors(tmp_path / "net", tensors, facts)
    x = torch.randn(1, 1, 12, 12)
    assert torch.allclose(load_sparse(tmp_path / "net")(x), sparse(x), atol=1e-5)


def node(facts: Facts, kind: str) -> Facts:
    found: Facts = next(node for node in facts["graphs"][0]["nodes"] if node["kind"] == kind)
    return found


def summed(facts: Facts) -> Facts:
    found: Facts = next(node for node in facts["graphs"][0]["nodes"] if len(node["inputs"]) == 2)
    return found


Change = Callable[[dict[str, Tensor], Facts], object]
HOSTILE: dict[str, Change] = {
    "a wider window": lambda tensors, facts: node(facts, "convolution")["window"].update(kernel=[5, 5]),
    "no padding": lambda tensors, facts: node(facts, "convolution")["window"].update(padding=[0, 0]),
    "a negative padding": lambda tensors, facts: node(facts, "convolution")["window"].update(padding=[-1, 1]),
    "another stride": lambda tensors, facts: node(facts, "convolution")["window"].update(stride=[2, 2]),
    "a stride of nothing": lambda tensors, facts: node(facts, "convolution")["window"].update(stride=[0, 1]),
    "a pool that is not there": lambda tensors, facts: node(facts, "convolution")["window"].update(pool=2),
    "a pool of nine": lambda tensors, facts: node(facts, "convolution")["window"].update(pool=3),
    "groups": lambda tensors, facts: node(facts, "convolution").update(groups=3),
    "another shape": lambda tensors, facts: node(facts, "convolution").update(shape=[4, 12, 13]),
    "a later value": lambda tensors, facts: node(facts, "convolution").update(inputs=[9]),
    "another input": lambda tensors, facts: facts["graphs"][0].update(shape=[3, 12, 13]),
    "a huge input": lambda tensors, facts: facts["graphs"][0].update(shape=[3, 1 << 20, 1 << 20]),
    "a node of no kind": lambda tensors, facts: node(facts, "mean").update(kind="median"),
    "a node with fields of another": lambda tensors, facts: node(facts, "mean").update(groups=1),
    "channels behind the last": lambda tensors, facts: node(facts, "shortcut").update(before=5),
    "another step": lambda tensors, facts: node(facts, "shortcut").update(step=3),
    "a sum with another shape": lambda tensors, facts: summed(facts).update(inputs=[summed(facts)["inputs"][0], 0]),
    "a border around nothing": lambda tensors, facts: node(facts, "convolution")["window"].update(
        padding=[4096, 4096], stride=[4096, 4096]
    ),
    "no plan": lambda tensors, facts: facts["graphs"][0].update(plans=[]),
    "no nodes": lambda tensors, facts: facts["graphs"][0].update(nodes=[]),
    "a kernel of vectors in panels": lambda tensors, facts: facts["graphs"][0]["plans"][0].update(
        form="panels", choices=[{"kernel": "rows", "block": 1, "seconds": None}] * 20
    ),
    "a plan without kernels": lambda tensors, facts: facts["graphs"][0]["plans"][0].update(choices=[]),
    "an endless panel": lambda tensors, facts: facts["graphs"][0]["plans"][0].update(panel=1 << 40),
    "no values": lambda tensors, facts: tensors.pop("graph-0/0/values"),
    "values too few": lambda tensors, facts: tensors.update({"graph-0/0/values": tensors["graph-0/0/values"][:-1]}),
    "a bias of another shape": lambda tensors, facts: tensors.update({"graph-0/0/bias": torch.zeros(3)}),
    "numbers of no node": lambda tensors, facts: tensors.update({"graph-1/0/bias": torch.zeros(3)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(whole: Path, tmp_path: Path, name: str) -> None:
    tensors, facts = load_tensors(whole)
    HOSTILE[name](tensors, facts)
    save_tensors(tmp_path / "net.safetensors", tensors, facts)
    with pytest.raises(TombolaError, match=r"net\.safetensors") as caught:
        load_sparse(tmp_path / "net.safetensors")
    assert isinstance(caught.value, ModelError)
    assert "\n" not in str(caught.value)


def test_a_file_of_the_format_without_graphs_is_read(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    sparse = sparsify(model, prune(model, 0.5), torch.randn(4, 8))
    save_sparse(tmp_path / "net", sparse)
    tensors, facts = load_tensors(tmp_path / "net")
    assert facts["format"] == 2
    facts["format"] = 1
    del facts["graphs"]
    for plan in facts["chains"][0]["plans"]:
        del plan["panel"]
    save_tensors(tmp_path / "net", tensors, facts)
    x = torch.randn(5, 8)
    assert torch.equal(load_sparse(tmp_path / "net")(x), sparse(x))


OF_POOLS: dict[str, Callable[[Facts], object]] = {
    "a dilated pool": lambda facts: node(facts, "pool")["window"].update(dilation=[2, 2]),
    "a pool of a pool": lambda facts: node(facts, "pool")["window"].update(pool=2),
    "a border wider than half of its window": lambda facts: node(facts, "pool")["window"].update(padding=[2, 2]),
    "a sum of an image with another": lambda facts: node(facts, "combine").update(inputs=[0, 2]),
    "a window of all": lambda facts: node(facts, "pool")["window"].update(kernel=[4096, 4096], padding=[2048, 2048]),
    "relu where there is none": lambda facts: node(facts, "pool").update(relu=True),
}


@pytest.mark.parametrize("name", OF_POOLS)
def test_hostile_pools_and_sums_are_one_line(whole_pooled: Path, tmp_path: Path, name: str) -> None:
    tensors, facts = load_tensors(whole_pooled)
    OF_POOLS[name](facts)
    save_tensors(tmp_path / "net.safetensors", tensors, facts)
    with pytest.raises(ModelError, match=r"net\.safetensors") as caught:
        load_sparse(tmp_path / "net.safetensors")
    assert "\n" not in str(caught.value)


def test_a_value_too_large_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()).eval()
    save_sparse(tmp_path / "net", sparsify(model, prune(model, 0), torch.randn(1, 1, 8, 8), (1,)))
    tensors, facts = load_tensors(tmp_path / "net")
    facts["graphs"][0]["shape"] = facts["graphs"][0]["nodes"][0]["shape"] = [1, 1 << 14, 1 << 14]
    save_tensors(tmp_path / "net", tensors, facts)
    with pytest.raises(ModelError, match="does not give"):
        load_sparse(tmp_path / "net")


@pytest.mark.parametrize("form", ["vectors", "panels"])
def test_blocks_from_elsewhere_are_made_to_fit(tmp_path: Path, form: str) -> None:
    """With vectors of other machines a block of channels may have more columns than are counted in 16 bits."""
    model = nn.Sequential(nn.Conv2d(40, 2, 3, padding=1), nn.ReLU()).eval()
    sparse = sparsify(model, prune(model, 0.9), torch.randn(4, 40, 48, 48), (4,))
    save_sparse(tmp_path / "net", sparse)
    tensors, facts = load_tensors(tmp_path / "net")
    kernel = "shifted rows" if form == "vectors" else "panel"
    (plan,) = facts["graphs"][0]["plans"]
    plan |= {"form": form, "panel": 16, "choices": [{"kernel": kernel, "block": 65536, "seconds": None}]}
    facts["graphs"][0]["plans"] = [plan]
    save_tensors(tmp_path / "net", tensors, facts)
    x = torch.randn(4, 40, 48, 48)
    assert torch.allclose(load_sparse(tmp_path / "net")(x), sparse(x), atol=1e-5)
