"""The driver ``v1``: one group in each mounted v1 hierarchy, named ones included.

A hybrid layout's v2 mount is left alone: what is left for it there (hugetlb) no flag asks
for, and each container would pay for one more group to make, join and remove.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ctr.errors import UnsupportedError
from ctr.operations import (
    JoinCgroup,
    MountAt,
    MountAttr,
    MoveMount,
    NewMount,
    OpenPath,
    OpenTree,
    Symlink,
    Unshare,
    WatchOom,
)
from ctr.program import Phase, Verify
from ctr_cgroups import tree
from ctr_cgroups.layout import ROOT
from ctr_cgroups.limits import Limit, v1_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.models import Resources
    from ctr.program import Operation, Slots
    from ctr_cgroups.layout import Layout

CLONE_NEWCGROUP = 0x02000000  # from linux/sched.h
# from linux/mount.h, MOUNT_ATTR_…
_RDONLY = 0x01
_NOSUID_NODEV_NOEXEC = 0x0E


class V1:
    """CgroupDriver on the v1 hierarchies of ``layout``."""

    def __init__(self, layout: Layout) -> None:
        self._hierarchies = layout.hierarchies
        self._roots = [hierarchy.path for hierarchy in layout.hierarchies]
        self._controllers = {
            controller: hierarchy.path
            for hierarchy in layout.hierarchies
            for controller in hierarchy.controllers
        }

    def create(self, group: str, resources: Resources) -> None:
        tree.check_group(group)
        limits, devices = self._plan(resources)
        cpuset = self._controllers.get("cpuset")
        for root in self._roots:
            made = tree.make(root, group)
            if root == cpuset:
                for file in ("cpuset.cpus", "cpuset.mems"):
                    _fill_cpuset([root, *made], file)
        self._write(group, limits, devices)

    def update(self, group: str, resources: Resources) -> None:
        tree.check_group(group)
        self._write(group, *self._plan(resources))

    def remove(self, group: str) -> None:
        tree.check_group(group)
        left = [path for path in self._paths(group) if not tree.remove_empty(path)]
        if left:
            tree.empty(left, lambda: self._kill(group))

    def launch(
        self, group: str, resources: Resources, slots: Slots, *, private: bool
    ) -> list[Operation]:
        tree.check_group(group)
        operations: list[Operation] = []
        if memory := self._controllers.get("memory"):
            operations.append(WatchOom(f"{memory}{group}/memory.oom_control"))
        joins: list[Operation] = []
        for hierarchy in self._hierarchies:
            slot = slots.new(f"cgroup {hierarchy.folder}")
            path = f"{hierarchy.path}{group}/tasks"
            operations.append(OpenPath(slot, path, os.O_WRONLY, Verify.CGROUP))
            joins.append(JoinCgroup(slot))
        operations += joins
        if private:
            # After joining: the namespace's root is the group one is in.
            operations.append(Unshare(CLONE_NEWCGROUP).at(Phase.JOIN))
        return operations

    def mounts(self, group: str, slots: Slots, *, private: bool, writable: bool) -> list[Operation]:
        tree.check_group(group)
        base = slots.new("cgroup folders")
        operations: list[Operation] = [
            # Made by the child: in a user namespace its root must own what it writes.
            NewMount(base, "tmpfs", "", ("mode=755", "size=64k"), _NOSUID_NODEV_NOEXEC).at(
                Phase.SETUP
            ),
            MoveMount(base, ROOT),
        ]
        for hierarchy in self._hierarchies:
            target = f"{ROOT}/{hierarchy.folder}"
            if private:
                mount = MountAt("cgroup", target, hierarchy.options, _NOSUID_NODEV_NOEXEC)
                operations.append(mount)
            else:
                slot = slots.new(f"cgroup {hierarchy.folder} folder")
                operations.append(OpenTree(slot, f"{hierarchy.path}{group}"))
                operations.append(MoveMount(slot, target))
            if len(hierarchy.controllers) > 1:
                operations += [
                    Symlink(f"{ROOT}/{controller}", hierarchy.folder)
                    for controller in hierarchy.controllers
                ]
        if not writable:
            operations.append(MountAttr(base, _RDONLY, recursive=1).at(Phase.SETUP))
        return operations

    def processes(self, group: str) -> list[int]:
        tree.check_group(group)
        return sorted(set().union(*map(tree.processes, self._paths(group))))

    def walk(self) -> Iterator[str]:
        names = set().union(*(tree.children(root + tree.PARENT) for root in self._roots))
        for name in sorted(names):
            yield f"{tree.PARENT}/{name}"

    def gc(self, valid: frozenset[str]) -> list[str]:
        return tree.remove_stale(list(self.walk()), valid, self._paths)

    def _paths(self, group: str) -> list[str]:
        return [root + group for root in self._roots]

    def _plan(self, resources: Resources) -> tuple[list[Limit], list[Limit]]:
        """The lines to write, those of the device list apart: their order is their meaning.

        Every controller that they need is known to be here.
        """
        limits = v1_limits(resources)
        for limit in limits:
            self._root(limit.controller, limit.file)
        if resources.devices is None:
            return limits, []
        from ctr_cgroups.devices import v1_lines

        self._root("devices", "the device allow-list")
        return limits, [Limit("devices", file, line) for file, line in v1_lines(resources.devices)]

    def _root(self, controller: str, what: str) -> str:
        root = self._controllers.get(controller)
        if root is None:
            known = ", ".join(self._controllers)
            raise UnsupportedError(
                f"cannot set {what}: this machine has no {controller} controller of cgroup v1",
                hint=f"mounted are: {known}",
            )
        return root

    def _write(self, group: str, limits: list[Limit], devices: list[Limit]) -> None:
        for lines in (limits, devices):
            tree.write_limits(lines, lambda limit: self._controllers[limit.controller] + group)

    def _kill(self, group: str) -> None:
        """SIGKILL everything inside; frozen first, so that nothing forks meanwhile."""
        freezer = self._controllers.get("freezer")
        if freezer:
            _freeze(f"{freezer}{group}/freezer.state", "FROZEN")
        try:
            tree.kill_all(self.processes(group))
        finally:
            if freezer:
                # The inner ones too: a group that was frozen by itself stays frozen, and
                # its processes die only when they are thawed.
                for parent, name in tree.below(freezer + group):
                    _freeze(f"{name}/freezer.state", "THAWED", dir_fd=parent)


def _freeze(path: str, state: str, *, dir_fd: int | None = None) -> None:
    with suppress(FileNotFoundError):  # the group is gone
        tree.write(path, state, dir_fd=dir_fd)


def _fill_cpuset(groups: list[str], file: str) -> str:
    """Give the last of ``groups`` its parent's CPUs or memory nodes; return them.

    Nothing can join a group before.  A parent that has none gets its own parent's first.
    """
    *parents, path = groups
    value = tree.read(f"{parents[-1]}/{file}")
    if not value:
        value = _fill_cpuset(parents, file)
    tree.write(f"{path}/{file}", value)
    return value
