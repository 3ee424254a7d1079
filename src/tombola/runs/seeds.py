"""One seed makes everything: every use of chance derives its own seed from what it is for."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a root seed and a path of names, such as `(0, "replicate", 3, "order", 7)`.

    SHA-256 keeps the streams independent: neighbouring replicates share no prefix of any stream.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
