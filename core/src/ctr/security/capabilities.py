"""Capabilities: names, docker's default set, and what ``--cap-add`` and ``--cap-drop`` mean.

A set is an int, the mask that the kernel uses: bit N is capability N (capabilities(7)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.errors import InvalidError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Every capability in the kernel's order (linux/capability.h); the index is the bit.
NAMES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)

#: All of them: what a process in a fresh user namespace has there.
ALL = (1 << len(NAMES)) - 1

_BITS = {name: bit for bit, name in enumerate(NAMES)}


def _bit(name: str) -> int:
    bit = _BITS.get(name.upper().removeprefix("CAP_"))
    if bit is None:
        from difflib import get_close_matches

        near = get_close_matches(name.upper().removeprefix("CAP_"), NAMES, 1, 0.5)
        raise InvalidError(
            f"cannot use capability {name!r}: the kernel has none of that name",
            hint=f"did you mean {near[0]}?" if near else "capabilities(7) lists them",
        )
    return bit


def mask_of(names: Iterable[str]) -> int:
    """The mask of ``names``, in any case, with or without ``CAP_``.

    Raises InvalidError, with the nearest name, for one that the kernel does not know.
    """
    mask = 0
    for name in names:
        mask |= 1 << _bit(name)
    return mask


def names_of(mask: int) -> tuple[str, ...]:
    """The capabilities in ``mask`` as ``CAP_…``, in the kernel's order."""
    return tuple(f"CAP_{name}" for bit, name in enumerate(NAMES) if mask >> bit & 1)


#: What docker and moby v28 give a container (oci/caps/defaults.go).
DEFAULT = mask_of(
    (
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    )
)


def own_capabilities(status: str = "/proc/self/status") -> int:
    """What this process can hand on: its effective set within its bounding set."""
    effective = bounding = 0
    with open(status, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                effective = int(line[7:], 16)
            elif line.startswith("CapBnd:"):
                bounding = int(line[7:], 16)
    return effective & bounding


def resolve(add: Iterable[str], drop: Iterable[str], *, privileged: bool, own: int) -> int:
    """The container's capabilities, by docker's rules.

    ``own`` is ``own_capabilities()``, or ``ALL`` for a container with a user namespace.

    ``--privileged`` gives all of ``own`` whatever else is said.  ``ALL`` among ``add`` gives
    all of ``own`` but those dropped by name; else ``ALL`` among ``drop`` leaves only those
    added; else the default set, less the dropped, plus the added, so that one both dropped
    and added is there.  What of the default set ``own`` lacks is left out in silence.

    Raises InvalidError for an unknown name, PrivilegeError for a capability that is added
    by name and not in ``own``.
    """
    all_added, added = _parse(add)
    all_dropped, dropped = _parse(drop)
    if missing := added & ~own:
        raise PrivilegeError(
            f"cannot add capability {', '.join(names_of(missing))}: ctr does not have it itself",
            hint="`grep Cap /proc/self/status` shows the sets; --cap-add ALL gives what ctr has",
        )
    if privileged:
        return own & ALL
    if all_added:
        return own & ALL & ~dropped
    if all_dropped:
        return added
    return (DEFAULT & own & ~dropped) | added


def _parse(names: Iterable[str]) -> tuple[bool, int]:
    """Whether ALL is among ``names``, and the mask of the others."""
    every = False
    mask = 0
    for name in names:
        if name.upper() in ("ALL", "CAP_ALL"):
            every = True
        else:
            mask |= 1 << _bit(name)
    return every, mask
