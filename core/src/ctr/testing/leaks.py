"""What a test may not leave behind, read off the machine before and after it.

Only what belongs to this process's own namespaces (``ctr.testing.isolation``), or bears ctr's
name, is looked at, so that other programs on the machine don't matter.
"""

from __future__ import annotations

import gc
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that a container's tear-down may go on after the command that waited for it.
PATIENCE = 5.0

_SINGULAR = {
    "mounts": "mount",
    "links": "link",
    "rules": "nftables rule",
    "cgroups": "cgroup",
    "processes": "process",
    "descriptors": "descriptor",
    "devices": "device",
}


class Snapshot(NamedTuple):
    """Sets of one line each, by what they are."""

    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    descriptors: frozenset[str]
    devices: frozenset[str]

    @classmethod
    def take(cls, folder: str) -> Snapshot:
        """Read everything; loop devices count when their file lies below ``folder``."""
        gc.collect()  # descriptors of unreachable objects
        return cls(
            mounts=frozenset(_mounts()),
            links=frozenset(name for _, name in socket.if_nameindex()),
            rules=frozenset(_nft_rules()),
            cgroups=frozenset(_cgroups()),
            processes=frozenset(_processes()),
            descriptors=frozenset(_descriptors()),
            devices=frozenset(_devices(folder)),
        )

    def leaked_since(self, before: Snapshot) -> list[str]:
        """One line for each thing that is here and was not ``before``."""
        return [
            f"{_SINGULAR[kind]}: {entry}"
            for kind, now, then in zip(self._fields, self, before, strict=True)
            for entry in sorted(now - then)
        ]


def leaks(before: Snapshot, folder: str, patience: float = PATIENCE) -> list[str]:
    """What is left over against ``before``, once tear-downs had ``patience`` seconds to end."""
    deadline = time.monotonic() + patience
    while found := Snapshot.take(folder).leaked_since(before):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return found


def _mounts() -> Iterator[str]:
    """Mounts of this mount namespace (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            fstype, source = fields[fields.index("-") + 1 :][:2]
            yield f"{fstype} {source} ({fields[3]}) on {fields[4]}"


def _nft_rules() -> Iterator[str]:
    """The nftables rules of this network namespace; none where there is no nft."""
    import shutil
    import subprocess

    nft = shutil.which("nft")
    if nft is not None:
        listing = subprocess.run(
            [nft, "-s", "list", "ruleset"], capture_output=True, text=True, check=False
        )
        table = ""
        for line in listing.stdout.splitlines():
            if line.startswith("table"):
                table = line.removesuffix(" {")
            elif line.strip(" \t}"):
                yield f"{table}: {line.strip()}"


def _cgroups() -> Iterator[str]:
    """Groups below a ``ctr…`` folder at the root of any hierarchy, those folders excluded."""
    roots = {
        line.split()[4]
        for line in _lines("/proc/self/mountinfo")
        if " - cgroup" in line and line.split()[3] == "/"
    }
    for root in roots:
        for name in _names(root):
            if name.startswith("ctr"):
                for folder, _, _ in os.walk(os.path.join(root, name)):
                    if folder != os.path.join(root, name):
                        yield folder


def _processes() -> Iterator[str]:
    """Processes other than this one in its mount or network namespace, and what they began."""
    own = {kind: _link(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")}
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    ours: set[int] = set()
    for name in _names("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        status = "".join(_lines(f"/proc/{name}/stat"))
        if not status:
            continue
        command, _, rest = status.rpartition(") ")
        fields = rest.split()
        if fields[0] in "ZX":
            continue
        pid = int(name)
        parents[pid] = int(fields[1])
        lines[pid] = f"{pid} {command.partition('(')[2]} started at {fields[19]}"
        if any(_link(f"/proc/{name}/ns/{kind}") == link for kind, link in own.items()):
            ours.add(pid)
    for pid, line in lines.items():
        ancestor = pid
        while ancestor in parents and ancestor not in ours:
            ancestor = parents[ancestor]
        if ancestor in ours:
            yield line


def _descriptors() -> Iterator[str]:
    """This process's open files."""
    for name in _names("/proc/self/fd"):
        target = _link(f"/proc/self/fd/{name}")
        if target and target != f"/proc/{os.getpid()}/fd":
            yield f"{name} -> {target}"


def _devices(folder: str) -> Iterator[str]:
    """Loop devices on files below ``folder`` and device-mapper devices named ``ctr…``."""
    for name in _names("/sys/block"):
        for line in _lines(f"/sys/block/{name}/loop/backing_file"):
            if line.startswith(folder + "/"):
                yield f"{name} on {line.strip()}"
        for line in _lines(f"/sys/block/{name}/dm/name"):
            if line.startswith("ctr"):
                yield f"{name} {line.strip()}"


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return []
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError:  # the process or device went meanwhile
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
