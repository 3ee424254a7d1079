"""Where data lie, how a missing file gets there, and what is never accepted."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import urllib.error
from pathlib import Path

import pytest

from tombola.data import DataConfig, load_data
from tombola.data.home import data_home, idx_files
from tombola.data.idx import FILES
from tombola.data.sources import mnist
from tombola.errors import DataError

CONTENT = {stem: f"the content of {stem}".encode() for stem in FILES.values()}
CHECKSUMS = {stem: hashlib.md5(content, usedforsecurity=False).hexdigest() for stem, content in CONTENT.items()}


def _serve(folder: Path, content: dict[str, bytes] = CONTENT) -> str:
    """A folder of packed files, as the URL that they can be downloaded from."""
    folder.mkdir()
    for stem, data in content.items():
        (folder / f"{stem}.gz").write_bytes(gzip.compress(data))
    return folder.as_uri()


def test_an_option_comes_before_the_variable_and_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_home(tmp_path / "option") == tmp_path / "option"
    assert data_home() == tmp_path / "variable"
    monkeypatch.setenv("TOMBOLA_DATA", "")
    assert data_home() == tmp_path / "cache" / "tombola" / "data"
    monkeypatch.delenv("TOMBOLA_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    assert data_home() == tmp_path / "person" / ".cache" / "tombola" / "data"


def test_missing_files_are_downloaded_once(tmp_path: Path) -> None:
    source, folder = _serve(tmp_path / "server"), tmp_path / "home" / "toy"
    assert idx_files(folder, "toy", source, CHECKSUMS) == folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{stem}.gz" for stem in FILES.values())
    shutil.rmtree(tmp_path / "server")
    idx_files(folder, "toy", source, CHECKSUMS)


def test_files_that_are_there_plain_are_taken(tmp_path: Path) -> None:
    for stem, data in CONTENT.items():
        (tmp_path / stem).write_bytes(data)
    idx_files(tmp_path, "toy", "file:///nowhere", CHECKSUMS)


@pytest.mark.parametrize(
    "wrong", [gzip.compress(b"other"), b"<html>please log in</html>", b""], ids=["other", "page", "empty"]
)
def test_a_download_with_another_checksum_is_not_kept(tmp_path: Path, wrong: bytes) -> None:
    source, folder = _serve(tmp_path / "server"), tmp_path / "home"
    stem = FILES["training labels"]
    (tmp_path / "server" / f"{stem}.gz").write_bytes(wrong)
    with pytest.raises(DataError, match=stem) as caught:
        idx_files(folder, "toy", source, CHECKSUMS)
    assert "\n" not in str(caught.value)
    assert not (folder / f"{stem}.gz").exists()
    (tmp_path / "server" / f"{stem}.gz").write_bytes(gzip.compress(CONTENT[stem]))
    idx_files(folder, "toy", source, CHECKSUMS)  # the next run tries again


def test_a_file_with_another_checksum_is_refused_and_left_alone(tmp_path: Path) -> None:
    source, folder = _serve(tmp_path / "server"), tmp_path / "home"
    idx_files(folder, "toy", source, CHECKSUMS)
    path = folder / f"{FILES['test images']}.gz"
    path.write_bytes(gzip.compress(b"other"))
    before = path.read_bytes()
    with pytest.raises(DataError, match="not the toy file") as caught:
        idx_files(folder, "toy", source, CHECKSUMS)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "problem",
    [urllib.error.URLError("no network"), TimeoutError("timed out"), http.client.IncompleteRead(b"half")],
    ids=lambda problem: type(problem).__name__,
)
def test_without_a_network_the_error_says_which_files_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError) as caught:
        load_data(DataConfig(name="mnist"), seed=0, data_dir=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (tmp_path / "mnist", "--data-dir", "$TOMBOLA_DATA", *(f"{stem}.gz" for stem in FILES.values())):
        assert str(part) in message
    assert list(tmp_path.iterdir()) == []


def test_mnist_that_is_not_mnist_is_refused(tmp_path: Path, data_home_with_mnist: Path) -> None:
    for path in (data_home_with_mnist / "mnist").glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    labels = tmp_path / f"{FILES['training labels']}.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[1_000] = (content[1_000] + 1) % 10
    labels.unlink()
    labels.write_bytes(gzip.compress(content, 1))
    with pytest.raises(DataError, match="not the mnist file") as caught:
        mnist(tmp_path)
    assert str(labels) in str(caught.value)
