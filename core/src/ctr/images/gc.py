"""Removes blobs that nothing refers to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ctr.errors import DigestError
from ctr.images import digest as digests
from ctr.images.files import Lock
from ctr.images.ingest import sweep
from ctr.images.manifest import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.images.store import ContentStore


def collect(store: ContentStore, leases: Iterable[str]) -> list[str]:
    """``ContentStore.gc``."""
    store.make_folders()
    with Lock(os.path.join(store.root, "index.lock")):
        sweep(store.root)
        needed: set[str] = set()
        for digest in (*(entry.manifest.digest for entry in store.entries()), *leases):
            _mark(store, digest, needed)
        removed = [
            digest
            for name in sorted(os.listdir(os.path.join(store.root, "blobs", "sha256")))
            if digests.is_digest(digest := f"sha256:{name}") and digest not in needed
        ]
        for digest in removed:
            os.unlink(store.path(digest))
    return removed


def _mark(store: ContentStore, digest: str, needed: set[str]) -> None:
    """Add a blob and what it refers to."""
    if digest in needed:
        return
    needed.add(digest)
    path = store.path(digest)
    if not os.path.exists(path) or os.stat(path).st_size > MAX_DOCUMENT:
        return  # a layer
    try:
        document = json.loads(store.read(digest))
    except (DigestError, ValueError, RecursionError):
        return  # a small layer, or damage, which is for `resolve` to tell
    for child in _children(document):
        _mark(store, child, needed)


def _children(document: object) -> list[str]:
    """The digests that a manifest or an index refers to."""
    if not isinstance(document, dict):
        return []
    items = [document.get("config")]
    for key in ("manifests", "layers"):
        value = document.get(key)
        items += value if isinstance(value, list) else []
    found = [item.get("digest") for item in items if isinstance(item, dict)]
    return [digest for digest in found if digests.is_digest(digest)]
