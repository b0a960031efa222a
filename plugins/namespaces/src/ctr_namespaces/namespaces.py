"""The eight types of namespace (namespaces(7)), each one small driver.

``private`` is a namespace of the container's own, ``host`` is ctr's, ``path`` is the one
behind a file such as /proc/PID/ns/net: the engine turns ``container:NAME`` into that.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, ClassVar

from ctr.drivers import NamespaceParts, check_idmap
from ctr.errors import InvalidError
from ctr.operations import (
    Domainname,
    Hostname,
    Identity,
    LinkUp,
    OpenPath,
    Propagation,
    Setns,
    Unshare,
    WriteFile,
    WriteIdMaps,
)
from ctr.program import Phase, Verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.drivers import NamespaceDriver
    from ctr.models import IdMap, NamespaceRequest
    from ctr.program import Operation, Slots

# from linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# from linux/mount.h
_MS_REC = 1 << 14
_MS_PRIVATE = 1 << 18

_MAX_ID_LINES = 340  # user_namespaces(7)
_MAX_ID = 2**32 - 2  # the last one means "no id"
_MAX_UTS_NAME = 64  # bytes, from linux/utsname.h
_UTS_NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_SECOND = 10**9  # nanoseconds


class Namespace:
    """What the types share: private is a clone flag, host is nothing, path is a setns(2).

    A type that needs more overrides ``private``; one whose options are its own overrides
    ``check``.
    """

    flag: int
    proc_name: str
    modes: frozenset[str] = frozenset({"private", "host", "path"})
    name: ClassVar[str]

    def parts(self, request: NamespaceRequest, slots: Slots) -> NamespaceParts:
        """What the launch needs for this mode.  Pure; raises InvalidError for a wrong option."""
        if request.mode not in self.modes:
            raise InvalidError(
                f"cannot use {self.name} namespace mode {request.mode!r}: there is none of that"
                " name",
                hint=f"one of {', '.join(sorted(self.modes))}",
            )
        self.check(request)
        if request.mode == "private":
            return self.private(request)
        if request.mode == "path":
            return NamespaceParts(0, self.join(request, slots))
        return NamespaceParts()

    def check(self, request: NamespaceRequest) -> None:
        """Raise InvalidError unless the request's options fit the type and the mode."""

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """A namespace of the container's own."""
        return NamespaceParts(self.flag)

    def join(self, request: NamespaceRequest, slots: Slots) -> tuple[Operation, ...]:
        """The namespace behind ``request.path``, which must be one and of this type."""
        if not os.path.isabs(request.path) or "\0" in request.path:
            raise InvalidError(
                f"cannot join {self.name} namespace {request.path!r}: the path must be absolute"
            )
        slot = slots.new(f"{self.name} namespace")
        flags = os.O_RDONLY | os.O_CLOEXEC
        return (
            OpenPath(slot, request.path, flags, Verify.NSFS),
            Setns(slot, self.flag),
        )


class User(Namespace):
    """User and group ids, and with them capabilities (user_namespaces(7)).

    The child becomes the namespace's root first thing: the ids it was cloned with need not
    be mapped, and nothing can be made by an unmapped id.
    """

    flag = CLONE_NEWUSER
    proc_name = "user"
    name = "user"

    def check(self, request: NamespaceRequest) -> None:
        """Maps are for a private namespace, where they must cover root."""
        if request.mode != "private":
            if request.uid_map or request.gid_map:
                raise InvalidError(
                    "cannot use an id map: the user namespace is not the container's own",
                    hint="use --userns private",
                )
            return
        for maps, kind in ((request.uid_map, "uid"), (request.gid_map, "gid")):
            check_idmap(maps)
            if any(max(entry.inside, entry.outside) + entry.size - 1 > _MAX_ID for entry in maps):
                raise InvalidError(f"cannot use the {kind} map: ids end at {_MAX_ID}")
            if len(maps) > _MAX_ID_LINES:
                raise InvalidError(f"cannot use the {kind} map: more than {_MAX_ID_LINES} ranges")
            if not any(entry.inside == 0 for entry in maps):
                raise InvalidError(
                    f"cannot use the {kind} map: it does not map {kind} 0 of the container",
                    hint=f"for example --{kind}map 0:100000:65536",
                )

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """The maps are written by the parent."""
        maps = WriteIdMaps(_lines(request.uid_map), _lines(request.gid_map))
        return NamespaceParts(self.flag, (maps, self._become_root()))

    def join(self, request: NamespaceRequest, slots: Slots) -> tuple[Operation, ...]:
        """As everywhere, and root there."""
        return (*super().join(request, slots), self._become_root())

    def _become_root(self) -> Operation:
        return Identity(0, 0, ()).at(Phase.JOIN)


class Mount(Namespace):
    """Mount points (mount_namespaces(7)).

    Private only: the launcher puts the container's root over ``/`` of this namespace, which
    must be neither the host's nor another container's.
    """

    flag = CLONE_NEWNS
    proc_name = "mnt"
    name = "mount"
    modes = frozenset({"private"})

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """Nothing mounted inside reaches the host, nor the other way round."""
        return NamespaceParts(self.flag, (Propagation(_MS_REC | _MS_PRIVATE),))


class Pid(Namespace):
    """Process ids (pid_namespaces(7)): joined by the parent, entered by the child it clones."""

    flag = CLONE_NEWPID
    proc_name = "pid"
    name = "pid"


class Network(Namespace):
    """Interfaces, addresses, routes, ports (network_namespaces(7))."""

    flag = CLONE_NEWNET
    proc_name = "net"
    name = "network"

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """With the loopback interface up; the rest is the network driver's."""
        return NamespaceParts(self.flag, (LinkUp("lo"),))


class Ipc(Namespace):
    """System V IPC and POSIX message queues (ipc_namespaces(7))."""

    flag = CLONE_NEWIPC
    proc_name = "ipc"
    name = "ipc"


class Uts(Namespace):
    """Hostname and domain name (uts_namespaces(7))."""

    flag = CLONE_NEWUTS
    proc_name = "uts"
    name = "uts"

    def check(self, request: NamespaceRequest) -> None:
        """Names are for a private namespace."""
        for value, kind in ((request.hostname, "hostname"), (request.domainname, "domainname")):
            if not value:
                continue
            if request.mode != "private":
                raise InvalidError(
                    f"conflicting options: {kind} and the UTS mode",
                    hint=f"leave out --{kind}, or use --uts private",
                )
            if len(value) > _MAX_UTS_NAME or not re.fullmatch(_UTS_NAME, value):
                raise InvalidError(
                    f"cannot use {kind} {value!r}: it is not a host name of at most"
                    f" {_MAX_UTS_NAME} characters"
                )

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """With the names that were asked for."""
        operations: list[Operation] = []
        if request.hostname:
            operations.append(Hostname(request.hostname))
        if request.domainname:
            operations.append(Domainname(request.domainname))
        return NamespaceParts(self.flag, tuple(operations))


class Cgroup(Namespace):
    """The view of the control groups (cgroup_namespaces(7)).

    Private adds nothing here: the group that a process is in at that moment becomes the
    namespace's root, so the cgroup driver makes it, after the join on cgroup v1 and with
    the clone on v2.
    """

    flag = CLONE_NEWCGROUP
    proc_name = "cgroup"
    name = "cgroup"

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """Left to the cgroup driver."""
        return NamespaceParts()


class Time(Namespace):
    """Offsets of the monotonic and boot-time clocks (time_namespaces(7)).

    Unshared by the parent and entered by the child it clones: offsets can only be written
    while the namespace is empty, which after a clone into it is too late.
    """

    flag = CLONE_NEWTIME
    proc_name = "time"
    name = "time"

    def check(self, request: NamespaceRequest) -> None:
        """Offsets are for a private namespace."""
        if request.mode != "private" and (request.monotonic_ns or request.boottime_ns):
            raise InvalidError(
                "cannot use a time offset: the time namespace is not the container's own",
                hint="use a private time namespace",
            )

    def private(self, request: NamespaceRequest) -> NamespaceParts:
        """With the offsets that were asked for."""
        operations: list[Operation] = [Unshare(self.flag)]
        clocks = (("monotonic", request.monotonic_ns), ("boottime", request.boottime_ns))
        lines = [
            f"{clock} {offset // _SECOND} {offset % _SECOND}\n"
            for clock, offset in clocks
            if offset
        ]
        if lines:
            data = "".join(lines).encode()
            operations.append(WriteFile("/proc/self/timens_offsets", data, Verify.PROCFS))
        return NamespaceParts(0, tuple(operations))


_TYPES: dict[str, type[Namespace]] = {
    driver.name: driver for driver in (User, Mount, Pid, Network, Ipc, Uts, Cgroup, Time)
}


def open_driver(name: str) -> NamespaceDriver:
    """The driver of the type ``name``, one of the eight."""
    return _TYPES[name]()


def _lines(maps: Sequence[IdMap]) -> str:
    """The map as the kernel reads it."""
    return "".join(f"{entry.inside} {entry.outside} {entry.size}\n" for entry in maps)
