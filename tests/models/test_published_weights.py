"""Published weights: fetched once, believed only with their checksum, and one line where they cannot be had."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tombola.errors import ModelError, StorageError
from tombola.models import published as module
from tombola.models.pretrained import PUBLISHED_MD5, read_base
from tombola.models.published import PUBLISHED, Published, published_weights
from tombola.runs import cache

CONTENT = b"thirteen convolutions" * 1000


class Maker(BaseHTTPRequestHandler):
    """Has one file, and counts who asks for it."""

    content = CONTENT
    promised: int | None = None
    asked = 0

    def do_GET(self) -> None:
        Maker.asked += 1
        if self.path != "/vgg16.pth":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.promised or len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Maker]]:
    """A server on this machine that has the file of the weights called `own`."""
    server = HTTPServer(("127.0.0.1", 0), Maker)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Maker, "content", CONTENT)
    monkeypatch.setattr(Maker, "promised", None)
    monkeypatch.setattr(Maker, "asked", 0)
    own = Published(f"http://127.0.0.1:{server.server_port}/vgg16.pth", "sha256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(PUBLISHED, "own", own)
    yield Maker
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's weights are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tombola" / "weights"


def refused(*says: object) -> None:
    with pytest.raises(ModelError) as caught:
        published_weights("own")
    assert "\n" not in str(caught.value)
    for part in says:
        assert str(part) in str(caught.value)


def test_the_file_comes_once(maker: type[Maker], weights: Path) -> None:
    path = published_weights("own")
    assert path == weights / "vgg16.pth"
    assert path.read_bytes() == CONTENT
    assert published_weights("own") == path
    assert maker.asked == 1


def test_another_file_is_not_kept(maker: type[Maker], weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maker, "content", CONTENT[:-1] + b"?")
    refused(PUBLISHED["own"].url, "not the published file", PUBLISHED["own"].digits, weights, "data.base.weights")
    assert not weights.exists()


def test_half_a_file_is_not_kept(maker: type[Maker], weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maker, "promised", len(CONTENT))
    monkeypatch.setattr(Maker, "content", CONTENT[:9000])
    refused(PUBLISHED["own"].url, "not the published file")
    assert not weights.exists()


def test_a_file_that_is_too_large_is_not_read(
    maker: type[Maker], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIZE_LIMIT", 1000)
    refused("larger than 1,000 bytes, not downloaded")
    assert not weights.exists()


def test_without_a_network_it_says_where_to_put_the_file(
    maker: type[Maker], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PUBLISHED["own"]
    gone = Published(own.url.replace("vgg16.pth", "other.pth"), own.algorithm, own.digits)
    monkeypatch.setitem(PUBLISHED, "own", gone)
    refused("other.pth is not in", weights, "cannot be downloaded", "Not Found", "data.base.weights")
    nobody = Published("http://127.0.0.1:9/vgg16.pth", own.algorithm, own.digits)
    monkeypatch.setitem(PUBLISHED, "own", nobody)
    refused("vgg16.pth is not in", weights, "cannot be downloaded", "refused")


@pytest.mark.parametrize("name", ["torchvision", "keras"])
def test_a_file_that_somebody_put_there_is_held_against_its_name(name: str, weights: Path) -> None:
    """By the reader, whoever named it."""
    weights.mkdir(parents=True)
    (weights / PUBLISHED[name].name).write_bytes(CONTENT)
    path = published_weights(name)
    with pytest.raises(ModelError, match=f"{path.name}.*{PUBLISHED[name].digits}"):
        read_base(path)


def test_checksums_are_the_makers() -> None:
    """torchvision's is in the name; Keras's is the one that files of users are held against."""
    assert PUBLISHED["torchvision"].digits in PUBLISHED["torchvision"].name
    assert PUBLISHED["keras"].digits == PUBLISHED_MD5[PUBLISHED["keras"].name]
    for published in PUBLISHED.values():
        assert published.url.startswith("https://")
        assert not published.is_it(CONTENT)


def test_a_user_without_a_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", nobody)
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        published_weights("keras")
