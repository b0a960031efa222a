"""Who a container runs as: ``--user`` and ``--group-add`` resolved in the image's own files.

An id is only ever compared with ids and a name only with names: an image whose passwd calls
uid 0 "1000" gets nothing by it (CVE-2016-3697, CVE-2026-46680).  The files are hostile:
their size, their lines and the groups they name are bounded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ctr.errors import ImageError, InvalidError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The largest id that docker takes (moby/sys/user): the largest that fits a 32-bit int.
MAX_ID = 2**31 - 1
#: Bounds of /etc/passwd and /etc/group, in bytes, and of one line of them.
MAX_FILE = 4 << 20
MAX_LINE = 64 << 10
#: From linux/limits.h.
NGROUPS_MAX = 65536

# A sign makes it an id too, and out of range: "-1" must not be looked up as a name.
_ID = r"[+-]?[0-9]+"
_NAME = r"[^\s:,/\x00-\x1f\x7f]{1,256}"


class Identity(NamedTuple):
    """Whom to become; ``groups`` are the supplementary ones, the primary first."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class _Entry(NamedTuple):
    """A line of passwd (``members`` empty) or of group (``gid`` the id again)."""

    name: str
    id: int
    gid: int
    home: str
    members: tuple[str, ...]


def parse(text: str) -> tuple[int | str, int | str | None]:
    """Split ``USER[:GROUP]`` into id or name each; no group is None, no user is 0.

    Raises InvalidError for anything else.
    """
    user, colon, group = text.partition(":")
    if colon and not group:
        raise InvalidError(f"cannot use user {text!r}: the group after the colon is missing")
    return (
        _id_or_name(user, "user", text) if user else 0,
        _id_or_name(group, "group", text) if group else None,
    )


def resolve(user: str, passwd: bytes, group: bytes, extra_groups: Sequence[str]) -> Identity:
    """Who ``user`` is in an image with these /etc/passwd and /etc/group.

    As docker does: an empty ``user`` is uid 0; an unknown uid is taken with gid 0; without
    an explicit group the gid is passwd's and the supplementary groups are those that list
    the user as member, with one there are none.  ``extra_groups`` are names or ids.

    Raises InvalidError for a malformed user, NotFoundError for an unknown name, ImageError
    for a file past the bounds.
    """
    wanted, wanted_group = parse(user)
    entry = next((one for one in _passwd(passwd) if wanted in (one.id, one.name)), None)
    if entry is None and isinstance(wanted, str):
        raise NotFoundError(
            f"unable to find user {wanted}: no matching entries in passwd file",
            hint="use a numeric id, or a name that is in the image's /etc/passwd",
        )
    uid = wanted if isinstance(wanted, int) else entry.id if entry else 0
    gid = entry.gid if entry else 0
    members: list[int] = []
    if wanted_group is not None:
        gid = _group_id(wanted_group, group)
    elif entry is not None:
        members = [one.id for one in _groups(group) if entry.name in one.members]
    added = [_group_id(_id_or_name(text, "group", text), group) for text in extra_groups]
    groups = tuple(dict.fromkeys((gid, *members, *added)))
    if len(groups) > NGROUPS_MAX:
        raise ImageError(
            f"cannot use user {user or 0}: {len(groups)} groups are more than {NGROUPS_MAX}"
        )
    return Identity(uid, gid, groups, entry.home if entry else "/")


def _id_or_name(text: str, kind: str, whole: str) -> int | str:
    if re.fullmatch(_ID, text):
        # The length is checked first: int() of a very long text is slow.
        if text[0] in "+-" or len(text) > 20 or int(text) > MAX_ID:
            raise InvalidError(
                f"cannot use {kind} {whole!r}: ids must be in range 0-{MAX_ID}",
            )
        return int(text)
    if not re.fullmatch(_NAME, text):
        raise InvalidError(
            f"cannot use {kind} {whole!r}: it is neither an id nor a name",
            hint="the form is USER[:GROUP], each a name or a number",
        )
    return text


def _group_id(wanted: int | str, group: bytes) -> int:
    if isinstance(wanted, int):
        return wanted
    for one in _groups(group):
        if one.name == wanted:
            return one.id
    raise NotFoundError(
        f"unable to find group {wanted}: no matching entries in group file",
        hint="use a numeric id, or a name that is in the image's /etc/group",
    )


def _passwd(data: bytes) -> Iterator[_Entry]:
    """The good lines ``name:password:uid:gid:gecos:home:shell`` (passwd(5)).

    The last fields may be missing, as docker allows.
    """
    for fields in _lines(data, "passwd"):
        if len(fields) < 4:
            continue
        uid, gid = _field_id(fields[2]), _field_id(fields[3])
        if uid is None or gid is None:
            continue
        home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else "/"
        yield _Entry(fields[0], uid, gid, home, ())


def _groups(data: bytes) -> Iterator[_Entry]:
    """The good lines ``name:password:gid:member,…`` (group(5))."""
    for fields in _lines(data, "group"):
        gid = _field_id(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            yield _Entry(fields[0], gid, gid, "/", members)


def _lines(data: bytes, name: str) -> Iterator[list[str]]:
    if len(data) > MAX_FILE:
        raise ImageError(f"cannot read /etc/{name} of the image: more than {MAX_FILE} bytes")
    for line in data.split(b"\n"):
        if len(line) <= MAX_LINE and b"\0" not in line:
            fields = line.decode(errors="surrogateescape").strip().split(":")
            if fields[0] and not fields[0].startswith("#"):
                yield fields


def _field_id(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= MAX_ID:
        return int(text)
    return None
