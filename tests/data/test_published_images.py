"""Published image sets of one file: accepted by checksum alone, and what they hold."""

from __future__ import annotations

import hashlib
import os
import urllib.error
from pathlib import Path

import pytest
import torch

from tombola.data import DataConfig, load_data, load_raw
from tombola.data import published as module
from tombola.data.home import known_file
from tombola.data.npz import npz
from tombola.errors import DataError

ROOT = Path(__file__).parent.parent.parent
HOME = Path(os.environ.get("TOMBOLA_DATA", ROOT.parent / "shared" / "data"))


def _needs(folder: str, file: str) -> Path:
    if not (HOME / folder / file).exists():
        pytest.skip(f"point TOMBOLA_DATA at a folder that holds {folder}/{file}")
    return HOME


def _checksum(content: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, content, usedforsecurity=False).hexdigest()}"


@pytest.mark.parametrize(
    ("name", "file"), [("plantvillage-apple", module.LEAVES), ("pneumoniamnist", module.PNEUMONIA)]
)
def test_a_missing_or_other_file_says_which_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError) as caught:
        load_data(DataConfig(name=name), seed=0, data_dir=tmp_path)
    for part in (tmp_path / name, file, "--data-dir", "$TOMBOLA_DATA", f"whose {name}/ has it"):
        assert str(part) in str(caught.value)
    assert "\n" not in str(caught.value)
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_bytes(b"other")
    with pytest.raises(DataError, match=f"not the {name} file") as caught:
        load_data(DataConfig(name=name), seed=0, data_dir=tmp_path)
    for part in (tmp_path / name / file, _checksum(b"other"), "expected", "as your own data"):
        assert str(part) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / name / file).read_bytes() == b"other"


def test_any_of_the_checksums_will_do(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    for right in (_checksum(b"right"), _checksum(b"right", "md5")):
        assert known_file(path, "toy", [_checksum(b"x"), right], None, "npz") == path
    with pytest.raises(DataError, match="not the toy file"):
        known_file(path, "toy", [_checksum(b"x"), _checksum(b"x", "md5")], None, "npz")


def test_a_download_is_kept_only_when_it_is_right(tmp_path: Path) -> None:
    (tmp_path / "served").write_bytes(b"right")
    source, path = (tmp_path / "served").as_uri(), tmp_path / "home" / "toy" / "file"
    with pytest.raises(DataError, match=r"not the toy file .* not kept") as caught:
        known_file(path, "toy", [_checksum(b"other")], source, "npz")
    assert "\n" not in str(caught.value)
    assert not path.parent.exists()
    assert known_file(path, "toy", [_checksum(b"right")], source, "npz").read_bytes() == b"right"


def test_pneumonia_of_medmnist() -> None:
    home = _needs("pneumoniamnist", module.PNEUMONIA)
    raw = load_raw(DataConfig(name="pneumoniamnist"), home)
    assert raw.checksum == npz(home / "pneumoniamnist").checksum
    assert (raw.name, len(raw.training), raw.test is not None and len(raw.test)) == ("pneumoniamnist", 5232, 624)
    large = load_raw(DataConfig(name="pneumoniamnist", size=32, channels=3), home)
    assert large.training.inputs.shape == (5232, 3, 32, 32)
    assert torch.equal(large.training.inputs[:, 0], large.training.inputs[:, 2])
    assert float((large.training.inputs.mean() - raw.training.inputs.mean()).abs()) < 2e-3
    assert torch.equal(large.training.targets, raw.training.targets)


def test_all_leaves() -> None:
    home = _needs("plantvillage-apple", module.LEAVES)
    config = DataConfig(name="plantvillage-apple", size=16, group_by=r".*___(.+)\d_final")
    raw = load_raw(config, home)
    assert raw.training.inputs.shape == (3171, 3, 16, 16)
    assert torch.bincount(raw.training.targets).tolist() == [630, 621, 275, 1645]  # as published
    assert (raw.name, raw.test, raw.skipped) == ("plantvillage-apple", None, ())
    assert raw.groups is not None
    assert (len(raw.groups.unique()), int(raw.groups.bincount().max())) == (427, 15)
    data = load_data(config, seed=0, data_dir=home)
    assert min(len(data.validation) - 318, len(data.test) - 635) >= 0
