"""VGG16's published ImageNet weights: which files they are, and how a missing one gets into the user's cache."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tombola.errors import ModelError
from tombola.models.pretrained import PUBLISHED_MD5
from tombola.runs import limits
from tombola.runs.atomic import make_folder, write_bytes
from tombola.runs.cache import cache_folder

SIZE_LIMIT = limits.GIB
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Published:
    """A file, where its makers have it, and the checksum they give: a hash function, and how its digits begin."""

    url: str
    algorithm: str
    digits: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def is_it(self, content: bytes) -> bool:
        return hashlib.new(self.algorithm, content, usedforsecurity=False).hexdigest().startswith(self.digits)


_KERAS = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
PUBLISHED = {
    # torch's hub puts the first digits of the SHA-256 into the name.
    "torchvision": Published("https://download.pytorch.org/models/vgg16-397923af.pth", "sha256", "397923af"),
    "keras": Published(
        f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{_KERAS}", "md5", PUBLISHED_MD5[_KERAS]
    ),
}


def published_path(name: str) -> Path:
    """Where the published weights `name` are kept, whether they are there or not."""
    return cache_folder("weights") / PUBLISHED[name].name


def published_weights(name: str) -> Path:
    """The file of the published weights `name`, fetched into the cache if it is not there.

    A file that is there is returned as it is: `pretrained.read_base` holds it against the checksum of its name. Raises
    ModelError where it cannot be had, or what came is another file than its checksum says.
    """
    wanted, path = PUBLISHED[name], published_path(name)
    if not path.exists():
        content = _fetched(wanted, path)
        if not wanted.is_it(content):
            raise ModelError(
                f"{wanted.url}: what came is not the published file, whose {wanted.algorithm} begins with "
                f"{wanted.digits}; put the right one in {path.parent}, or name a file of your own with "
                "data.base.weights"
            )
        make_folder(path.parent)
        write_bytes(path, content)
    return path


def _fetched(wanted: Published, path: Path) -> bytes:
    try:
        with urllib.request.urlopen(wanted.url, timeout=TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read(SIZE_LIMIT + 1)
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        raise ModelError(
            f"{wanted.name} is not in {path.parent} and cannot be downloaded ({getattr(error, 'reason', error)}); put "
            "it there, or name a file of your own with data.base.weights"
        ) from None
    if len(content) > SIZE_LIMIT:
        raise ModelError(f"{wanted.url}: larger than {SIZE_LIMIT:,} bytes, not downloaded")
    return content
