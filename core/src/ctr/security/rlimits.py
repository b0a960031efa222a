"""Resource limits: ``--ulimit``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ctr.errors import InvalidError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNLIMITED = -1

#: Docker's names and the kernel's numbers (asm-generic/resource.h).  ``as`` is missing
#: there too: it would bind the runtime before it binds the container.
RESOURCES = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}

# Compiled on use: a run without such a flag does not pay for it.
_ULIMIT = r"([a-z]+)=(-1|[0-9]{1,19})(?::(-1|[0-9]{1,19}))?"
_CAP_SYS_RESOURCE = 24  # from linux/capability.h


class Ulimit(NamedTuple):
    """One limit; ``soft`` and ``hard`` are -1 for unlimited."""

    name: str
    resource: int
    soft: int
    hard: int


def parse_ulimit(text: str) -> Ulimit:
    """Parse ``NAME=SOFT[:HARD]``; without HARD it is SOFT.  Raises InvalidError."""
    match = re.fullmatch(_ULIMIT, text)
    if not match:
        raise InvalidError(
            f"cannot use ulimit {text!r}: it is not NAME=SOFT[:HARD]",
            hint="for example --ulimit nofile=1024:2048; -1 is unlimited",
        )
    name = match[1]
    if name not in RESOURCES:
        raise InvalidError(
            f"cannot use ulimit {name!r}: there is no such limit",
            hint=f"one of {', '.join(sorted(RESOURCES))}",
        )
    soft = int(match[2])
    hard = int(match[3]) if match[3] else soft
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise InvalidError(
            f"cannot use ulimit {text!r}: the soft limit is above the hard limit",
        )
    return Ulimit(name, RESOURCES[name], soft, hard)


def check(limits: Sequence[Ulimit], own: int) -> None:
    """Raise PrivilegeError for a hard limit that a holder of ``own`` can't set.

    ``own`` is ctr's capability mask, 0 for a container with a user namespace: without
    CAP_SYS_RESOURCE in the initial one a hard limit can only be lowered (setrlimit(2)).
    """
    if not limits or own >> _CAP_SYS_RESOURCE & 1:
        return
    from resource import getrlimit

    for limit in limits:
        hard = getrlimit(limit.resource)[1]
        if hard != UNLIMITED and (limit.hard == UNLIMITED or limit.hard > hard):
            wanted = "unlimited" if limit.hard == UNLIMITED else limit.hard
            raise PrivilegeError(
                f"cannot set ulimit {limit.name} to {wanted}: the hard limit of ctr is {hard}"
                " and it lacks CAP_SYS_RESOURCE",
                hint=f"use at most {limit.name}={hard}, or raise the limit of ctr itself",
            )
