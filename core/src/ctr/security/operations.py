"""Security as operations of the launch program.

The order inside ``finish`` and the place of each call in the program are a security
property; the compiler keeps both.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ctr.operations import (
    BoundingSet,
    Capabilities,
    Identity,
    MakeNode,
    MaskPath,
    MountAt,
    MoveMount,
    NoNewPrivileges,
    OpenPath,
    OpenTree,
    ReadonlyPath,
    Seccomp,
    Symlink,
)
from ctr.program import Create, Operation, Phase, Verify
from ctr.security import devices, paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.models import IdMap
    from ctr.program import Slots
    from ctr.security.devices import Device
    from ctr.security.seccomp import Filter
    from ctr.security.users import Identity as User

# from linux/mount.h
_NOSUID = 0x2
_NODEV = 0x4
_NOEXEC = 0x8
_STRICTATIME = 0x20

# from asm-generic/fcntl.h
_O_PATH = 0o10000000
_O_CLOEXEC = 0o2000000

_TTY_GID = 5  # group tty, by every distribution's convention
_KIND = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}

DEFAULT_SHM_SIZE = 64 << 20  # bytes; docker's


def dev(
    slots: Slots,
    *,
    extra: Sequence[Device] = (),
    user_namespace: bool = False,
    gid_map: Sequence[IdMap] = (),
    host_ipc: bool = False,
    shm_size: int = DEFAULT_SHM_SIZE,
) -> list[Operation]:
    """A /dev of the container's own, with the default nodes and links and ``extra``.

    In a user namespace mknod(2) is EPERM, so the host's nodes are bound instead.  With the
    host's IPC namespace its /dev/shm is bound, as docker does; with another container's (a path) the caller replaces /dev/shm.  Of two devices with one path
    the later wins.
    """
    operations: list[Operation] = [
        MountAt(
            "tmpfs",
            "/dev",
            ("mode=0755", "size=65536k"),
            _NOSUID | _STRICTATIME,
            Create.PLAIN_DIRECTORY,
        )
    ]
    wanted = {device.path: device for device in (*devices.NODES, *extra)}
    for device in wanted.values():
        operations += _bound(device, slots) if user_namespace else [_made(device)]
    operations += [Symlink(path, target) for path, target in devices.LINKS if path not in wanted]
    pts = ["newinstance", "ptmxmode=0666", "mode=0620"]
    if not user_namespace or any(
        entry.inside <= _TTY_GID < entry.inside + entry.size for entry in gid_map
    ):
        pts.append(f"gid={_TTY_GID}")  # an unmapped gid would be EINVAL
    operations.append(MountAt("devpts", "/dev/pts", tuple(pts), _NOSUID | _NOEXEC))
    flags = _NOSUID | _NODEV | _NOEXEC
    if host_ipc:
        slot = slots.new("host's /dev/shm")
        operations += [OpenTree(slot, "/dev/shm"), MoveMount(slot, "/dev/shm")]
    else:
        options = ("mode=1777", f"size={shm_size}")
        operations.append(MountAt("tmpfs", "/dev/shm", options, flags))
    if not (host_ipc and user_namespace):  # who does not own the queues can't mount them
        operations.append(MountAt("mqueue", "/dev/mqueue", (), flags))
    return operations


def masks(
    slots: Slots, masked: Sequence[str] | None = None, readonly: Sequence[str] = paths.READONLY
) -> list[Operation]:
    """Cover ``masked`` (None: the default list) and make ``readonly`` read-only.

    They run after every mount, so that none of them can uncover a path again.  What covers
    is the host's /dev/null, verified, never the container's (CVE-2025-31133).
    """
    null = slots.new("host's /dev/null")
    return [
        OpenPath(null, "/dev/null", _O_PATH | _O_CLOEXEC, Verify.CHAR_DEVICE, 1, 3).at(Phase.SETUP),
        *(MaskPath(path, null) for path in (paths.masked() if masked is None else masked)),
        *(ReadonlyPath(path) for path in readonly),
    ]


def finish(
    user: User, capabilities: int, *, seccomp: Filter | None = None, no_new_privileges: bool = False
) -> list[Operation]:
    """Give up what the launcher has and the container must not: the last before ``Exec``.

    An ``Init`` belongs between the two, so that PID 1 is as confined as its child.

    Loading a filter takes CAP_SYS_ADMIN or no-new-privileges: without the latter it comes
    before the capabilities go, with it it comes last, so that it need not allow what
    dropping them takes.  As docker does, a user other than root starts with no capability
    but keeps the bounding set, for its set-user-ID programs; nothing is inheritable or
    ambient (CVE-2022-24769, CVE-2022-29162).
    """
    held = capabilities if user.uid == 0 else 0
    filters: list[Operation] = [Seccomp(*seccomp)] if seccomp else []
    drop: list[Operation] = [
        BoundingSet(capabilities),
        Identity(user.uid, user.gid, user.groups),
        Capabilities(held, held),
    ]
    if no_new_privileges:
        return [NoNewPrivileges(), *drop, *filters]
    return [*filters, *drop]


def _made(device: Device) -> Operation:
    mode = _KIND[device.type] | device.mode
    return MakeNode(device.path, mode, device.major, device.minor, device.uid, device.gid)


def _bound(device: Device, slots: Slots) -> list[Operation]:
    slot = slots.new(f"host's {device.host_path}")
    return [OpenTree(slot, device.host_path), MoveMount(slot, device.path, Create.FILE)]
