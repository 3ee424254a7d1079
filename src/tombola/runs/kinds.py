"""What a file is by its first bytes: for messages that say "this is a zip archive" rather than "damaged"."""

from __future__ import annotations

BEGINNINGS: dict[bytes, str] = {
    b"PK\x03\x04": "a zip archive, as .pt, .keras and .npz files are",
    b"PK\x05\x06": "an empty zip archive",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\x89HDF\r\n\x1a\n": "HDF5, as .h5 files are",
    b"\x93NUMPY": "a single NumPy array, as .npy files are",
    b"\x1f\x8b": "packed by gzip",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ\x00": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by zstandard",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
    b"version https://git-lfs": "a pointer of Git LFS to a file that was not fetched (git lfs pull)",
    b"<?xml": "XML",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
SAFETENSORS = "safetensors"
TAR, TAR_AT = b"ustar", 257
LONGEST = TAR_AT + len(TAR)
"""As many bytes as `kind_of` looks at."""


def kind_of(head: bytes) -> str | None:
    """What a file that begins with `head` is, in words that follow "this is"; None where nobody knows."""
    if not head:
        return "an empty file"
    start = head.lstrip() if head[:1].isspace() else head
    for beginning, kind in BEGINNINGS.items():
        if start.lower().startswith(beginning.lower()):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[TAR_AT : TAR_AT + len(TAR)] == TAR:
        return "a tar archive"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return SAFETENSORS
    return "JSON or text" if start[:1] in (b"{", b"[") else None


def other_kind(head: bytes, *wanted: str) -> str:
    """ "; this is ..." for a file that is of another kind than the `wanted` ones, by words of it; else ""."""
    kind = kind_of(head)
    return f"this is {kind}" if kind and not any(word in kind for word in wanted) else ""
