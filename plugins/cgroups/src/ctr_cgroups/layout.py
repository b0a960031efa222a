"""Where this machine's control groups are mounted: a pure function of a mountinfo file."""

from __future__ import annotations

import os
from typing import NamedTuple

from ctr.drivers import Probe

MOUNTINFO = "/proc/self/mountinfo"
ROOT = "/sys/fs/cgroup"

#: Every controller that v1 ever had; v1 gets no new ones.  (The other words among a v1
#: mount's options are options.)
V1_CONTROLLERS = frozenset(
    [
        "cpuset",
        "cpu",
        "cpuacct",
        "blkio",
        "memory",
        "devices",
        "freezer",
        "net_cls",
        "perf_event",
        "net_prio",
        "hugetlb",
        "pids",
        "rdma",
        "misc",
    ]
)

#: v2 is worth choosing where at least one of these is its.
_V2_USEFUL = frozenset({"cpu", "io", "memory", "pids"})


class Hierarchy(NamedTuple):
    """One mounted v1 hierarchy.

    ``options`` are the mount options that name it (``cpu``, ``cpuacct``, ``name=systemd``);
    ``controllers`` those of them that are controllers.
    """

    path: str
    options: tuple[str, ...]

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(option for option in self.options if option in V1_CONTROLLERS)

    @property
    def folder(self) -> str:
        """The name it has below ``/sys/fs/cgroup`` by custom: ``cpu,cpuacct``, ``systemd``."""
        return ",".join(option.removeprefix("name=") for option in self.options)


class Layout(NamedTuple):
    """What is mounted.  ``unified`` is the v2 mount point or empty."""

    hierarchies: tuple[Hierarchy, ...] = ()
    unified: str = ""
    unified_controllers: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """``v1``, ``v2``, ``hybrid`` (v1 controllers beside a v2 mount) or ``none``."""
        if any(hierarchy.controllers for hierarchy in self.hierarchies):
            return "hybrid" if self.unified else "v1"
        return "v2" if self.unified else "none"


def detect(mountinfo: str = MOUNTINFO, root: str = ROOT) -> Layout:
    """Return the layout that ``mountinfo`` tells (proc_pid_mountinfo(5)).

    A hierarchy that is mounted at several places is taken where it lies below ``root``,
    else at the first place; a mount point that a later mount hides does not count.
    Without a readable file the layout is empty.
    """
    mounts = _mounts(mountinfo)
    found: dict[tuple[str, ...], Hierarchy] = {}
    unified = ""
    for mount in mounts:
        if mount.kind == "cgroup2":
            if _better(mount.point, unified, root) and _visible(mount, mounts):
                unified = mount.point
        elif mount.kind == "cgroup":
            options = mount.options.split(",")
            names = tuple(o for o in options if o in V1_CONTROLLERS or o.startswith("name="))
            taken = found[names].path if names in found else ""
            if _better(mount.point, taken, root) and _visible(mount, mounts):
                found[names] = Hierarchy(mount.point, names)
    controllers = tuple(_read(f"{unified}/cgroup.controllers").split()) if unified else ()
    return Layout(tuple(found.values()), unified, controllers)


def probe_v1(layout: Layout) -> Probe:
    """Whether the v1 driver can work with ``layout``."""
    usable = [h for h in layout.hierarchies if h.controllers]
    if usable:
        return _writable(usable[0].path)
    if layout.unified:
        return Probe(False, "no cgroup v1 controller is mounted", "use --cgroups v2")
    return _nothing()


def probe_v2(layout: Layout) -> Probe:
    """Whether the v2 driver can work with ``layout``."""
    if not layout.unified:
        if layout.mode == "v1":
            return Probe(False, "cgroup v2 is not mounted", "use --cgroups v1")
        return _nothing()
    if _V2_USEFUL.isdisjoint(layout.unified_controllers):
        names = ", ".join(layout.unified_controllers)
        reason = f"its only controllers are: {names}" if names else "it has no controllers"
        hint = "use --cgroups v1" if layout.mode == "hybrid" else ""
        return Probe(False, f"cgroup v2 is mounted, but {reason}", hint)
    return _writable(layout.unified)


def _nothing() -> Probe:
    return Probe(
        False,
        "no cgroup file system is mounted",
        f"mount one, for example: mount -t cgroup2 none {ROOT}",
    )


def _writable(path: str) -> Probe:
    if os.access(path, os.W_OK):
        return Probe(True)
    return Probe(False, f"{path} is not writable", "run as root, with the cgroups mounted writable")


class _Mount(NamedTuple):
    id: str
    parent: str
    point: str
    kind: str
    options: str


def _mounts(mountinfo: str) -> list[_Mount]:
    mounts = []
    for line in _read(mountinfo).splitlines():
        front, _, back = line.partition(" - ")
        id_, parent, _, _, point, _ = front.split(" ", 5)
        kind, _, options = back.split(" ", 2)
        mounts.append(_Mount(id_, parent, _unescape(point), kind, options))
    return mounts


def _read(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _unescape(point: str) -> str:
    if "\\" in point:
        for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(code, plain)
    return point


def _visible(mount: _Mount, mounts: list[_Mount]) -> bool:
    """Whether neither ``mount`` nor one that it stands on is covered by another mount.

    The order of the file does not tell: a root that was moved to ``/`` comes late in it.
    """
    if any(other.parent == mount.id and other.point == mount.point for other in mounts):
        return False
    on: _Mount | None = mount
    while on:
        for other in mounts:
            if other.parent == on.parent and other is not on and _below(on.point, other.point):
                return False
        on = next((m for m in mounts if m.id == on.parent and m is not on), None)
    return True


def _below(point: str, folder: str) -> bool:
    return f"{point}/".startswith(f"{folder.rstrip('/')}/")


def _better(point: str, taken: str, root: str) -> bool:
    return not taken or (_below(point, root) and not _below(taken, root))
