"""The driver ``v2``: one group in the unified hierarchy (admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ctr.errors import UnsupportedError
from ctr.operations import (
    Clone,
    MountAt,
    MountAttr,
    MoveMount,
    OpenPath,
    OpenTree,
    WatchOom,
)
from ctr.program import Verify
from ctr_cgroups import tree
from ctr_cgroups.layout import ROOT
from ctr_cgroups.limits import v2_limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ctr.models import DeviceRule, Resources
    from ctr.program import Operation, Slots
    from ctr_cgroups.layout import Layout
    from ctr_cgroups.limits import Limit

CLONE_NEWCGROUP = 0x02000000  # from linux/sched.h
# from linux/mount.h, MOUNT_ATTR_…
_RDONLY = 0x01
_NOSUID_NODEV_NOEXEC = 0x0E


class V2:
    """CgroupDriver on the v2 hierarchy of ``layout``."""

    def __init__(self, layout: Layout) -> None:
        self._root = layout.unified
        self._controllers = layout.unified_controllers

    def create(self, group: str, resources: Resources) -> None:
        tree.check_group(group)
        limits = self._limits(resources)
        made = tree.make(self._root, group)
        # From the top: a group can hand down only what it was handed.
        for path in (self._root, *made[:-1]):
            self._enable(path)
        self._write(made[-1], limits, resources.devices)

    def update(self, group: str, resources: Resources) -> None:
        tree.check_group(group)
        path = self._root + group
        quota = "max"
        if resources.cpu_period and not resources.cpu_quota:
            quota = tree.read(f"{path}/cpu.max").split()[0]
        self._write(path, self._limits(resources, quota), resources.devices)

    def remove(self, group: str) -> None:
        tree.check_group(group)
        path = self._root + group
        if not tree.remove_empty(path):
            tree.empty([path], lambda: _kill(path))

    def launch(
        self, group: str, resources: Resources, slots: Slots, *, private: bool
    ) -> list[Operation]:
        tree.check_group(group)
        slot = slots.new("cgroup")
        path = self._root + group
        operations: list[Operation] = [
            OpenPath(slot, path, os.O_RDONLY | os.O_DIRECTORY, Verify.CGROUP),
            # Born inside: no wait for RCU, and the new namespace's root is the group.
            Clone(CLONE_NEWCGROUP if private else 0, slot),
        ]
        if "memory" in self._controllers:
            events = f"{path}/memory.events"
            # A group that exists without it was not handed the controller: ctr runs inside a
            # group that holds processes, and without a limit there is no OOM kill to tell of.
            if os.path.exists(events) or not os.path.exists(path):
                operations.insert(0, WatchOom(events))
        return operations

    def mounts(self, group: str, slots: Slots, *, private: bool, writable: bool) -> list[Operation]:
        tree.check_group(group)
        readonly = 0 if writable else _RDONLY
        if private:
            return [MountAt("cgroup2", ROOT, (), _NOSUID_NODEV_NOEXEC | readonly)]
        slot = slots.new("cgroup folder")
        return [
            OpenTree(slot, self._root + group),
            MountAttr(slot, _NOSUID_NODEV_NOEXEC | readonly),
            MoveMount(slot, ROOT),
        ]

    def processes(self, group: str) -> list[int]:
        tree.check_group(group)
        return sorted(tree.processes(self._root + group))

    def walk(self) -> Iterator[str]:
        for name in sorted(tree.children(self._root + tree.PARENT)):
            yield f"{tree.PARENT}/{name}"

    def gc(self, valid: frozenset[str]) -> list[str]:
        return tree.remove_stale(list(self.walk()), valid, lambda group: [self._root + group])

    def _limits(self, resources: Resources, current_quota: str = "max") -> list[Limit]:
        """The lines to write, once every controller they need is known to be here."""
        limits = v2_limits(resources, current_quota=current_quota)
        for limit in limits:
            if limit.controller not in self._controllers:
                known = ", ".join(self._controllers) or "none"
                raise UnsupportedError(
                    f"cannot set {limit.file}: "
                    f"this machine has no {limit.controller} controller of cgroup v2",
                    hint=f"available are: {known}",
                )
        return limits

    def _enable(self, path: str) -> None:
        """Hand every controller down to the groups below ``path``, as far as it will.

        None where processes live: memory and io can't be had there (EBUSY), and cpu or pids
        alone would make it the root of a threaded subtree, where nothing can be cloned into
        a group (EOPNOTSUPP; cgroup-v2.rst, "Threads").  Whoever asks for a limit gets the
        error.
        """
        file = f"{path}/cgroup.subtree_control"
        missing = set(self._controllers).difference(tree.read(file).split())
        if not missing or _holds_processes(path):
            return
        try:
            tree.write(file, " ".join(f"+{name}" for name in sorted(missing)))
        except OSError:
            # One that can't be had (ENOENT: it was not handed to ``path``; EINVAL: cpu while
            # there are realtime processes) must not take the others along.
            for name in sorted(missing):
                try:
                    tree.write(file, f"+{name}")
                except OSError:
                    continue

    def _write(self, path: str, limits: list[Limit], devices: Sequence[DeviceRule] | None) -> None:
        for name in dict.fromkeys(limit.controller for limit in limits):
            self._check_enabled(path, name)
        tree.write_limits(limits, lambda limit: path)
        if devices is not None:
            from ctr_cgroups.bpf import replace_device_program
            from ctr_cgroups.devices import program

            group = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                replace_device_program(group, program(devices))
            finally:
                os.close(group)

    def _check_enabled(self, path: str, controller: str) -> None:
        if controller not in tree.read(f"{path}/cgroup.controllers").split():
            parent = os.path.dirname(path)
            raise UnsupportedError(
                f"cannot limit {controller} in {path}: {parent} does not hand the controller down",
                hint=f"move the processes of {parent} and of those above into groups of their own",
            )


def _holds_processes(path: str) -> bool:
    """Whether processes are in the group itself, where that counts: not in the real root."""
    if not os.path.exists(f"{path}/cgroup.type"):  # the real root has none
        return False
    try:
        return bool(tree.read(f"{path}/cgroup.procs"))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a threaded group has only threads
            raise
        return True


def _kill(path: str) -> None:
    """SIGKILL everything inside, at once (Linux 5.14)."""
    try:
        tree.write(f"{path}/cgroup.kill", "1")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # a threaded group
            tree.kill_all(tree.processes(path))
        elif error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
