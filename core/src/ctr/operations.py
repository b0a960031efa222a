"""The operations, in the order of the phases they usually run in.

A new operation gets a new opcode; a changed one too, so that a launcher that is older
than the program refuses it instead of guessing.  Names follow the system call, or the
kernel's word for the thing.
"""

from __future__ import annotations

from ctr.program import NO_SLOT, Create, Operation, Phase, Verify

# -- supervisor ---------------------------------------------------------------------------


class WatchOom(Operation, opcode=1, phase=Phase.WATCH):
    """Read ``path`` when PID 1 has ended: its line ``oom_kill N`` counts OOM kills.

    memory.oom_control (v1) and memory.events (v2) both have that line.
    """

    path: str

    def describe(self) -> str:
        return f"watch {self.path} for OOM kills"


# -- parent -------------------------------------------------------------------------------


class OpenPath(Operation, opcode=2, phase=Phase.PREPARE):
    """open(2) ``path`` with ``flags`` into ``slot``; fail with EBADF unless it verifies."""

    slot: int
    path: str
    flags: int
    verify: int = Verify.ANY
    major: int = 0
    minor: int = 0

    def describe(self) -> str:
        return f"open {self.path} as [{self.slot}]"


class OpenTree(Operation, opcode=3, phase=Phase.PREPARE):
    """open_tree(2) with OPEN_TREE_CLONE: a detached bind mount of ``path`` into ``slot``."""

    slot: int
    path: str
    recursive: int = 0

    def describe(self) -> str:
        return f"clone the mount{' tree' if self.recursive else ''} at {self.path} as [{self.slot}]"


class NewMount(Operation, opcode=4, phase=Phase.PREPARE):
    """fsopen, fsconfig, fsmount: a detached mount of ``fstype`` into ``slot``.

    ``options`` are ``key=value`` or ``key``, split at the first ``=``; ``descriptors`` are
    ``key=SLOT``, set before the options.  ``source`` is set first unless empty.
    """

    slot: int
    fstype: str
    source: str
    options: tuple[str, ...]
    attributes: int = 0
    descriptors: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"make {self.fstype} mount [{self.slot}]{_options(self.options)}"


class StageMount(Operation, opcode=5, phase=Phase.PREPARE):
    """mount(2) in a mount namespace of the parent's own, then open_tree into ``slot``.

    For kernels whose new mount API can't express it.  The first one unshares the mount
    namespace and makes it private.  The mount is made on ``directory``/merged with
    ``directory`` as the current directory, so that ``data`` may hold relative paths.
    """

    slot: int
    fstype: str
    directory: str
    data: str
    attributes: int = 0

    def describe(self) -> str:
        return f"stage {self.fstype} mount [{self.slot}] in {self.directory}: {self.data}"


class MountAttr(Operation, opcode=6, phase=Phase.PREPARE):
    """mount_setattr(2) on the detached mount in ``slot``; ``userns`` is a slot for idmaps."""

    slot: int
    set: int
    clear: int = 0
    propagation: int = 0
    userns: int = NO_SLOT
    recursive: int = 0

    def describe(self) -> str:
        return f"make mount [{self.slot}] {_attributes(self.set, self.clear, self.propagation)}"


class Unshare(Operation, opcode=7, phase=Phase.PREPARE):
    """unshare(2)."""

    flags: int

    def describe(self) -> str:
        return f"unshare {clone_names(self.flags)}"


class Setns(Operation, opcode=8, phase=Phase.PREPARE):
    """setns(2) to the namespace in ``slot``, which must be of type ``flag``."""

    slot: int
    flag: int

    def describe(self) -> str:
        return f"join {clone_names(self.flag)} namespace [{self.slot}]"


class WriteFile(Operation, opcode=9, phase=Phase.PREPARE):
    """open(O_WRONLY), verify, one write(2) of ``data``."""

    path: str
    data: bytes
    verify: int = Verify.ANY

    def describe(self) -> str:
        return f"write {self.data.decode(errors='replace').strip()!r} to {self.path}"


class Clone(Operation, opcode=10, phase=Phase.CLONE):
    """clone3(2) with ``flags`` | CLONE_PARENT; ``cgroup`` is a slot for CLONE_INTO_CGROUP."""

    flags: int
    cgroup: int = NO_SLOT

    def describe(self) -> str:
        into = f" into cgroup [{self.cgroup}]" if self.cgroup != NO_SLOT else ""
        return f"clone with new {clone_names(self.flags)}{into}"


class WriteIdMaps(Operation, opcode=11, phase=Phase.CLONED):
    """Write the child's uid_map and gid_map (user_namespaces(7))."""

    uid_map: str
    gid_map: str

    def describe(self) -> str:
        return f"map uids {self.uid_map.strip()!r}, gids {self.gid_map.strip()!r}"


class OomScore(Operation, opcode=12, phase=Phase.CLONED):
    """Write the child's oom_score_adj."""

    adjust: int

    def describe(self) -> str:
        return f"set oom_score_adj to {self.adjust}"


# -- engine -------------------------------------------------------------------------------


class Sync(Operation, opcode=13, phase=Phase.CLONED):
    """Tell the engine that ``point`` (1 = A, 2 = B, 3 = C) is reached; wait for it.

    The first one ends the parent's part; the child has waited for it.
    """

    point: int

    def describe(self) -> str:
        return f"sync point {'?ABC'[self.point]}"


# -- child --------------------------------------------------------------------------------


class JoinCgroup(Operation, opcode=14, phase=Phase.JOIN):
    """Write ``0`` to the cgroup v1 ``tasks`` file in ``slot``.

    ``tasks`` with 0, not ``cgroup.procs`` with a PID: the caller is one thread, so the
    kernel need not wait for RCU (10 ms).
    """

    slot: int

    def describe(self) -> str:
        return f"join the cgroup behind [{self.slot}]"


class Propagation(Operation, opcode=15, phase=Phase.JOIN):
    """mount(2) with only propagation ``flags`` on ``/``."""

    flags: int

    def describe(self) -> str:
        return f"make the mounts below / {_attributes(0, 0, self.flags)}"


class AttachRoot(Operation, opcode=16, phase=Phase.JOIN):
    """move_mount(2) the detached mount in ``slot`` over ``/``: the container's root.

    Paths of later operations are resolved beneath it by openat2(2) with RESOLVE_IN_ROOT
    and RESOLVE_NO_MAGICLINKS.
    """

    slot: int

    def describe(self) -> str:
        return f"attach [{self.slot}] as the new root"


class MountAt(Operation, opcode=17, phase=Phase.SETUP):
    """fsopen, fsconfig, fsmount, move_mount: a new ``fstype`` mount on ``target``."""

    fstype: str
    target: str
    options: tuple[str, ...] = ()
    attributes: int = 0
    create: int = Create.DIRECTORY

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}{_options(self.options)}"


class MoveMount(Operation, opcode=18, phase=Phase.SETUP):
    """move_mount(2) the detached mount in ``slot`` to ``target``."""

    slot: int
    target: str
    create: int = Create.DIRECTORY

    def describe(self) -> str:
        return f"move mount [{self.slot}] to {self.target}"


class MakeDirectory(Operation, opcode=19, phase=Phase.SETUP):
    """mkdirat(2), parents included (0755, root's); one that exists is left as it is."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"make directory {self.path} (mode {self.mode:04o})"


class MakeNode(Operation, opcode=20, phase=Phase.SETUP):
    """mknodat(2): ``mode`` holds the type bits; a node that exists is an error."""

    path: str
    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"make device {self.path} ({self.major}:{self.minor})"


class Symlink(Operation, opcode=21, phase=Phase.SETUP):
    """symlinkat(2) ``path`` -> ``target``."""

    path: str
    target: str

    def describe(self) -> str:
        return f"link {self.path} -> {self.target}"


class MaskPath(Operation, opcode=22, phase=Phase.SETUP):
    """Cover ``path``: a folder by an empty read-only tmpfs, a file by ``null``.

    ``null`` is a slot with the host's verified /dev/null, opened by the child itself
    before pivot_root (CVE-2025-31133).  A path that does not exist is left out.
    """

    path: str
    null: int

    def describe(self) -> str:
        return f"mask {self.path}"


class ReadonlyPath(Operation, opcode=23, phase=Phase.SETUP):
    """Make ``path`` and all below it read-only by a bind mount; a missing one is left out."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"


class RootAttr(Operation, opcode=24, phase=Phase.SETUP):
    """mount_setattr(2) on the container's root mount alone."""

    set: int

    def describe(self) -> str:
        return f"make the root mount {_attributes(self.set, 0, 0)}"


class PivotRoot(Operation, opcode=25, phase=Phase.ROOT):
    """pivot_root(".", "."), detach the old root, chdir("/")."""

    def describe(self) -> str:
        return "pivot_root into the new root and detach the old one"


class Sysctl(Operation, opcode=26, phase=Phase.ROOT):
    """Write ``value`` to /proc/sys/``path``, verified to be procfs."""

    path: str
    value: str

    def describe(self) -> str:
        return f"set sysctl {self.path.replace('/', '.')} = {self.value}"


class Rlimit(Operation, opcode=27, phase=Phase.ROOT):
    """prlimit(2); -1 is RLIM_INFINITY."""

    resource: int
    soft: int
    hard: int

    def describe(self) -> str:
        return f"set rlimit {self.resource} to {self.soft}:{self.hard}"


class Hostname(Operation, opcode=28, phase=Phase.ROOT):
    """sethostname(2)."""

    name: str

    def describe(self) -> str:
        return f"set the hostname to {self.name}"


class Domainname(Operation, opcode=29, phase=Phase.ROOT):
    """setdomainname(2)."""

    name: str

    def describe(self) -> str:
        return f"set the domain name to {self.name}"


class SessionKeyring(Operation, opcode=30, phase=Phase.ROOT):
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a new one.  ENOSYS is a success."""

    name: str

    def describe(self) -> str:
        return f"join a new session keyring {self.name}"


class LinkUp(Operation, opcode=31, phase=Phase.ROOT):
    """ioctl(2) SIOCSIFFLAGS: set the interface up."""

    interface: str

    def describe(self) -> str:
        return f"set interface {self.interface} up"


class Umask(Operation, opcode=32, phase=Phase.ROOT):
    """umask(2)."""

    mask: int

    def describe(self) -> str:
        return f"set the umask to {self.mask:04o}"


class Stdio(Operation, opcode=33, phase=Phase.ROOT):
    """setsid(2), the supervisor's pipes as descriptors 0, 1, 2, owned by ``uid``:``gid``."""

    uid: int
    gid: int

    def describe(self) -> str:
        return f"start a session; connect standard input, output and error for uid {self.uid}"


class Chdir(Operation, opcode=34, phase=Phase.LAST):
    """chdir(2); fail with ENOENT unless getcwd(2) lies inside the root (CVE-2024-21626).

    ``create``: a missing folder is made first, owned by ``uid``:``gid``.
    """

    path: str
    create: int = 0
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"change the working directory to {self.path}"


class NoNewPrivileges(Operation, opcode=35, phase=Phase.LAST):
    """prctl(2) PR_SET_NO_NEW_PRIVS."""

    def describe(self) -> str:
        return "set no_new_privs"


class Seccomp(Operation, opcode=36, phase=Phase.LAST):
    """seccomp(2) SECCOMP_SET_MODE_FILTER; ``filter`` is an array of struct sock_filter."""

    filter: bytes
    flags: int = 0

    def describe(self) -> str:
        return f"load a seccomp filter of {len(self.filter) // 8} instructions"


class BoundingSet(Operation, opcode=37, phase=Phase.LAST):
    """prctl(2) PR_CAPBSET_DROP for every capability that is not in ``mask``."""

    mask: int

    def describe(self) -> str:
        return f"limit the bounding set to {self.mask:#x}"


class Identity(Operation, opcode=38, phase=Phase.LAST):
    """setgroups, setresgid, setresuid with PR_SET_KEEPCAPS."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def describe(self) -> str:
        return f"become uid {self.uid}, gid {self.gid}, groups {list(self.groups)}"


class Capabilities(Operation, opcode=39, phase=Phase.LAST):
    """capset(2) and the ambient set, read back and compared."""

    effective: int
    permitted: int
    inheritable: int = 0
    ambient: int = 0

    def describe(self) -> str:
        return f"set capabilities to {self.effective:#x}"


class Init(Operation, opcode=40, phase=Phase.LAST):
    """fork(2): the child goes on; PID 1 forwards signals to it and reaps (``--init``)."""

    def describe(self) -> str:
        return "stay as PID 1 and go on as its child"


class CloseDescriptors(Operation, opcode=41, phase=Phase.LAST):
    """close_range(2) with CLOSE_RANGE_CLOEXEC from 3 on."""

    def describe(self) -> str:
        return "mark every descriptor from 3 on close-on-exec"


class Exec(Operation, opcode=42, phase=Phase.LAST):
    """execve(2) ``argv`` with ``environment``; a name without ``/`` is looked up in ``path``."""

    argv: tuple[str, ...]
    environment: tuple[str, ...]
    path: str

    def describe(self) -> str:
        return f"execute {' '.join(self.argv)}"


_CLONE_NAMES = (
    # from linux/sched.h
    (0x00020000, "mount"),
    (0x02000000, "cgroup"),
    (0x04000000, "uts"),
    (0x08000000, "ipc"),
    (0x10000000, "user"),
    (0x20000000, "pid"),
    (0x40000000, "network"),
    (0x00000080, "time"),
)


def clone_names(flags: int) -> str:
    """The namespaces in ``flags`` by name."""
    return ", ".join(name for bit, name in _CLONE_NAMES if flags & bit) or "no namespace"


#: From linux/mount.h: MOUNT_ATTR_… and the propagation flags of mount(2).
_ATTRIBUTES = ((0x1, "read-only"), (0x2, "nosuid"), (0x4, "nodev"), (0x8, "noexec"))
_PROPAGATIONS = ((1 << 18, "private"), (1 << 19, "slave"), (1 << 20, "shared"))


def _attributes(added: int, cleared: int, propagation: int) -> str:
    words = [name for bit, name in _PROPAGATIONS if propagation & bit]
    words += [name for bit, name in _ATTRIBUTES if added & bit]
    words += [f"not {name}" for bit, name in _ATTRIBUTES if cleared & bit]
    return ", ".join(words) or f"{added:#x}"


def _options(options: tuple[str, ...]) -> str:
    return f" ({', '.join(options)})" if options else ""
