"""SHA-256 digests as OCI writes them: ``sha256:HEX``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

# hashlib loads OpenSSL, 3 ms of every `ctr run`, which is worth it for layers only; the
# manifest and the configuration are a few kilobytes.
try:
    from _sha2 import sha256 as _small  # type: ignore[import-not-found]  # Python 3.12
except ImportError:
    try:
        from _sha256 import sha256 as _small  # type: ignore[import-not-found]  # Python 3.11
    except ImportError:  # another Python than CPython
        from hashlib import sha256 as _small

_DIGEST = "sha256:[0-9a-f]{64}"


class Hash(Protocol):
    """What hashlib's objects are."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def is_digest(text: object) -> TypeGuard[str]:
    """Whether ``text`` is the digest of a blob that the store can hold."""
    return isinstance(text, str) and re.fullmatch(_DIGEST, text) is not None


def of_bytes(data: bytes) -> str:
    """The digest of a small document."""
    return f"sha256:{_small(data).hexdigest()}"


def hasher() -> Hash:
    """A hash for large data, with the processor's instructions for it."""
    from hashlib import sha256

    return sha256()


#: What stands for the chain ID of an image without layers: the digest of nothing.
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The chain ID of each layer, lowest first (OCI image-spec config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of_bytes(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
