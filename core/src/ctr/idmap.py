"""Ids of a user namespace, seen from outside, for drivers that write them to the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.models import IdMap


class IdMapper:
    """Translates owners by ``uid_map`` and ``gid_map``; an empty map changes nothing."""

    def __init__(self, uid_map: Sequence[IdMap], gid_map: Sequence[IdMap]) -> None:
        self._uids = uid_map
        self._gids = gid_map

    def owner(self, uid: int, gid: int, path: str) -> tuple[int, int]:
        """The outside uid and gid.  Raises InvalidError naming ``path`` for an unmapped one."""
        return (
            _outside(self._uids, uid, "uid", path),
            _outside(self._gids, gid, "gid", path),
        )


def _outside(maps: Sequence[IdMap], inside: int, kind: str, path: str) -> int:
    if not maps:
        return inside
    for entry in maps:
        if entry.inside <= inside < entry.inside + entry.size:
            return entry.outside + inside - entry.inside
    raise InvalidError(
        f"cannot map {kind} {inside} of {path!r}: the user namespace has no such id",
        hint=f"give a longer --{kind}map, or an image without that id",
    )
