"""An image's accounts, kept from unpacking it, so that ``ctr run`` need not mount to read them."""

from __future__ import annotations

import json
import os


def accounts(state_root: str, chain_id: str) -> tuple[bytes, bytes]:
    """``/etc/passwd`` and ``/etc/group`` of an unpacked tree, empty where it has none.

    Raises FileNotFoundError when the tree was never unpacked.
    """
    with open(accounts_path(state_root, chain_id), "rb") as file:
        saved = json.load(file)
    return saved["passwd"].encode("latin-1"), saved["group"].encode("latin-1")


def accounts_path(state_root: str, chain_id: str) -> str:
    """Where they are kept: a JSON object, each byte a character."""
    return os.path.join(state_root, "accounts", f"{chain_id.removeprefix('sha256:')}.json")
