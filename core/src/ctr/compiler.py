"""Puts what the drivers contribute into one launch program, in one fixed order.

The order is a security property.  What it guards, from the top:

1. Mounts of host paths become detached descriptors while the parent still is what it was,
   so the state folders stay 0700 and no path is resolved twice.
2. The namespaces a container joins are entered after that, a user namespace last, and before
   those of its own are made.
3. The cgroup is joined before anything of the image is touched.
4. /proc, /sys and /dev are no links of the image, else a mount could change where the masks
   find them (CVE-2023-27561, CVE-2026-41579).  Mounts go parents before children; masks and
   read-only paths come after every mount, so that no volume can uncover them; the root is
   made read-only last, for mount points are made in it.
5. Sysctls are written in the new root, through a procfs that was just mounted.
6. Identity, capabilities and seccomp come last, and nothing but exec follows them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.operations import (
    AttachRoot,
    Chdir,
    Clone,
    CloseDescriptors,
    Exec,
    Init,
    MountAt,
    MountAttr,
    MoveMount,
    NewMount,
    OomScore,
    OpenPath,
    OpenTree,
    PivotRoot,
    Rlimit,
    RootAttr,
    SessionKeyring,
    Setns,
    StageMount,
    Stdio,
    Sync,
    Sysctl,
    Umask,
)
from ctr.program import NO_SLOT, Create, Operation, Phase, Slots, Verify
from ctr.security import operations as security

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ctr.drivers import CgroupDriver, NamespaceDriver
    from ctr.models import Mount
    from ctr.mountspec import MountSpec
    from ctr.security.seccomp import Filter
    from ctr.security.users import Identity
    from ctr.spec import ContainerSpec

# from linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
_PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}

# from linux/sched.h
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000

#: The files of a container's own that are mounted over the image's.
FILES = ("resolv.conf", "hostname", "hosts")


class Inputs(NamedTuple):
    """What the compiler puts together besides the specification.

    ``root_mounts`` come from the storage driver; ``sources`` give for each of the
    specification's mounts the host path to bind ('' for tmpfs); ``files`` are host paths of
    resolv.conf, hostname and hosts by name.  Plugins are named by ``*_plugin``.
    """

    spec: ContainerSpec
    root_mounts: Sequence[Mount]
    sources: Sequence[str]
    files: dict[str, str]
    identity: Identity
    seccomp: Filter | None
    namespaces: Sequence[tuple[str, NamespaceDriver, Any]]
    cgroup: CgroupDriver
    storage_plugin: str
    cgroup_plugin: str


class Program(NamedTuple):
    """A compiled program and the names of its slots."""

    operations: list[Operation]
    slots: tuple[str, ...]


def compile_program(inputs: Inputs) -> Program:
    """Return the launch program of a container.  Pure, given the drivers' answers."""
    return _Compiler(inputs).compile()


class _Compiler:
    """Collects operations by phase; within a phase the order of the calls below counts."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.spec = inputs.spec
        self.slots = Slots()
        self.phases: dict[Phase, list[Operation]] = {phase: [] for phase in Phase}
        self.clone_flags = 0
        self.clone_cgroup = NO_SLOT

    def compile(self) -> Program:
        self.namespaces()
        self.root()
        self.cgroups()
        self.attach_root()
        self.kernel_file_systems()
        self.devices()
        self.mounts()
        self.protect()
        self.settle()
        self.finish()
        self.add("core", [Clone(self.clone_flags, self.clone_cgroup), Sync(1)])
        if self.spec.oom_score_adj is not None:
            self.phases[Phase.CLONED].insert(-1, OomScore(self.spec.oom_score_adj).asked_by("core"))
        self.join_last()
        operations = [operation for phase in Phase for operation in self.phases[phase]]
        return Program(operations, self.slots.names)

    def add(self, by: str, operations: Iterable[Operation]) -> None:
        """File operations under their phases; Clone operations are merged into one."""
        for operation in operations:
            if isinstance(operation, Clone) and by != "core":
                self.clone_flags |= operation.flags
                if operation.cgroup != NO_SLOT:
                    self.clone_cgroup = operation.cgroup
            else:
                phase = self.phases[operation.phase]
                phase.append(operation.asked_by(by))
                if isinstance(operation, OpenTree):
                    # A clone of a shared mount is its peer: what the container mounted in it
                    # would appear on the host.
                    attr = MountAttr(operation.slot, 0, propagation=MS_PRIVATE, recursive=1)
                    phase.append(attr.at(operation.phase).asked_by("core"))

    # -- in the order of the program ------------------------------------------------------

    def namespaces(self) -> None:
        for plugin, driver, request in self.inputs.namespaces:
            parts = driver.parts(request, self.slots)
            self.clone_flags |= parts.clone_flags
            self.add(plugin, parts.operations)

    def root(self) -> None:
        (mount,) = self.inputs.root_mounts
        self.root_slot = self.slots.new("root")
        self.add(self.inputs.storage_plugin, mount_operations(mount, self.root_slot))

    def join_last(self) -> None:
        """Enter the namespaces of others after all else, the user namespace at the end.

        What is opened and mounted before still has the host's rights over the host's files.
        """
        prepare = self.phases[Phase.PREPARE]
        joins = [
            operation
            for operation in prepare
            if isinstance(operation, Setns) and operation.flag != CLONE_NEWNS
        ]
        joins.sort(key=lambda operation: operation.flag == CLONE_NEWUSER)
        rest = [operation for operation in prepare if operation not in joins]
        self.phases[Phase.PREPARE] = [*rest, *joins]

    def cgroups(self) -> None:
        private = self.spec.private("cgroup")
        self.add(
            self.inputs.cgroup_plugin,
            self.inputs.cgroup.launch(
                self.spec.cgroup_group, self.spec.resources, self.slots, private=private
            ),
        )

    def attach_root(self) -> None:
        self.add("core", [AttachRoot(self.root_slot)])

    def kernel_file_systems(self) -> None:
        spec = self.spec
        readonly = 0 if spec.privileged else RDONLY
        flags = NOSUID | NODEV | NOEXEC
        userns = spec.private("user")
        # In a user namespace the kernel mounts proc and sysfs only for one who owns the pid
        # and the network namespace; of the host's namespaces only a bind is to be had.
        plain = Create.PLAIN_DIRECTORY
        if userns and not spec.private("pid"):
            self.bind("/proc", "/proc", flags, create=plain)
        else:
            self.add("core", [MountAt("proc", "/proc", (), flags, plain)])
        if userns and not spec.private("network"):
            self.bind("/sys", "/sys", flags | readonly, create=plain)
        else:
            self.add("core", [MountAt("sysfs", "/sys", (), flags | readonly, plain)])
        self.add(
            self.inputs.cgroup_plugin,
            self.inputs.cgroup.mounts(
                spec.cgroup_group,
                self.slots,
                private=spec.private("cgroup"),
                writable=spec.privileged,
            ),
        )

    def devices(self) -> None:
        spec = self.spec
        mode, path = spec.namespaces["ipc"]
        self.add(
            "core",
            security.dev(
                self.slots,
                extra=spec.devices,
                user_namespace=spec.private("user"),
                gid_map=spec.gid_map,
                host_ipc=mode == "host",
                shm_size=spec.shm_size,
            ),
        )
        if mode == "path":
            self.shared_memory(os.path.join(os.path.dirname(path), "mnt"))

    def shared_memory(self, mount_namespace: str) -> None:
        """Show the /dev/shm of the container whose IPC namespace is joined.

        Only in its own mount namespace can a mount be cloned.  First of all in PREPARE: the
        parent must hold nothing yet that a link planted there could lead to.
        """
        own, theirs, shm = map(self.slots.new, ("own mounts", "the owner's mounts", "its /dev/shm"))
        flags = os.O_RDONLY | os.O_CLOEXEC
        before = self.phases[Phase.PREPARE][:]
        self.phases[Phase.PREPARE].clear()
        self.add(
            "core",
            [
                OpenPath(own, "/proc/self/ns/mnt", flags, Verify.NSFS),
                OpenPath(theirs, mount_namespace, flags, Verify.NSFS),
                Setns(theirs, CLONE_NEWNS),
                OpenTree(shm, "/dev/shm"),
                Setns(own, CLONE_NEWNS),
                MoveMount(shm, "/dev/shm"),
            ],
        )
        self.phases[Phase.PREPARE] += before

    def mounts(self) -> None:
        taken = {mount.target for mount in self.spec.mounts}
        for name, path in self.inputs.files.items():
            if f"/etc/{name}" not in taken:
                self.bind(path, f"/etc/{name}", 0, create=Create.FILE)
        for mount, source in zip(self.spec.mounts, self.inputs.sources, strict=True):
            if mount.kind == "tmpfs":
                self.tmpfs(mount)
            else:
                self.volume(mount, source)

    def tmpfs(self, mount: MountSpec) -> None:
        options = [f"size={mount.size}"] if mount.size else []
        options.append(f"mode={mount.mode if mount.mode >= 0 else 0o1777:o}")
        attributes = (
            NOSUID | NODEV | (0 if mount.exec else NOEXEC) | (RDONLY if mount.readonly else 0)
        )
        self.add("core", [MountAt("tmpfs", mount.target, tuple(options), attributes)])

    def volume(self, mount: MountSpec, source: str) -> None:
        create = (
            Create.DIRECTORY if os.path.isdir(source) or not os.path.exists(source) else Create.FILE
        )
        self.bind(
            source,
            mount.target,
            RDONLY if mount.readonly else 0,
            recursive=mount.recursive,
            create=create,
            propagation=_PROPAGATION[mount.propagation.removeprefix("r")],
        )

    def protect(self) -> None:
        if not self.spec.privileged:
            self.add("core", security.masks(self.slots))
        if self.spec.read_only:
            self.add("core", [RootAttr(RDONLY)])
        self.add("core", [Sync(2).at(Phase.SETUP)])

    def settle(self) -> None:
        spec = self.spec
        later = list(self.phases[Phase.ROOT])  # of the namespace drivers
        self.phases[Phase.ROOT].clear()
        self.add("core", [PivotRoot()])
        self.phases[Phase.ROOT] += later
        self.add("core", [Sysctl(path, value) for path, value in spec.sysctls])
        self.add("core", [Rlimit(limit.resource, limit.soft, limit.hard) for limit in spec.ulimits])
        user = self.inputs.identity
        self.add(
            "core",
            [
                SessionKeyring(f"_ses.{spec.id}"),
                Umask(0o022),
                Stdio(user.uid, user.gid),
                Sync(3).at(Phase.ROOT),
            ],
        )

    def finish(self) -> None:
        spec = self.spec
        user = self.inputs.identity
        self.add(
            "core",
            [
                # As root, before identity changes: docker makes a missing one, root's.
                Chdir(spec.workdir, create=1),
                CloseDescriptors(),
                *security.finish(
                    user,
                    spec.capabilities,
                    seccomp=self.inputs.seccomp,
                    no_new_privileges=spec.no_new_privileges,
                ),
                # After giving up privileges: the init must not keep what the command lost.
                *([Init()] if spec.init else []),
                Exec(spec.argv, spec.environment, _path(spec.environment)),
            ],
        )

    # -- pieces ---------------------------------------------------------------------------

    def bind(
        self,
        source: str,
        target: str,
        attributes: int,
        *,
        recursive: bool = True,
        create: Create = Create.DIRECTORY,
        propagation: int = MS_PRIVATE,
    ) -> None:
        slot = self.slots.new(source)
        operations: list[Operation] = [OpenTree(slot, source, int(recursive))]
        if attributes or propagation != MS_PRIVATE:
            operations.append(
                MountAttr(slot, attributes, propagation=propagation, recursive=int(recursive))
            )
        operations.append(MoveMount(slot, target, create))
        self.add("core", operations)


def mount_operations(mount: Mount, slot: int) -> list[Operation]:
    """A driver's mount as operations that leave it detached in ``slot``."""
    if mount.type == "bind":
        operations: list[Operation] = [OpenTree(slot, mount.source, 1)]
        if mount.attributes:
            operations.append(MountAttr(slot, mount.attributes, recursive=1))
        return operations
    if mount.staging:
        data = ",".join(mount.options)
        return [StageMount(slot, mount.type, mount.staging, data, mount.attributes)]
    return [NewMount(slot, mount.type, mount.source, mount.options, mount.attributes)]


def _path(environment: Sequence[str]) -> str:
    for entry in environment:
        if entry.startswith("PATH="):
            return entry[5:]
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
