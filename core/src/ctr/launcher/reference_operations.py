"""What each operation does, one function each, for the reference launcher.

They raise OSError; the executor says which operation it was.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from ctr import kernel as linux
from ctr import operations as ops
from ctr.launcher.reference_run import BENEATH, Run, check_ids, failure
from ctr.program import NO_SLOT, Create, Operation, Side, Verify

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a masked folder is covered with takes nothing and gives nothing.
_COVER = (
    linux.MOUNT_ATTR_RDONLY
    | linux.MOUNT_ATTR_NOSUID
    | linux.MOUNT_ATTR_NODEV
    | linux.MOUNT_ATTR_NOEXEC
)
_MAX_CAPABILITY = 64
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS, from linux/bpf_common.h
_INSTRUCTION = 8  # bytes of a struct sock_filter


# -- parent -------------------------------------------------------------------------------


def open_path(run: Run, op: ops.OpenPath) -> None:
    fd = run.open(op.path, op.flags)
    run.verify(fd, op.verify, os.makedev(op.major, op.minor))
    run.fill(op.slot, fd)


def open_tree(run: Run, op: ops.OpenTree) -> None:
    flags = linux.OPEN_TREE_CLONE | linux.AT_EMPTY_PATH
    with run.closing(run.open(op.path, os.O_PATH)) as fd:
        recursive = linux.AT_RECURSIVE if op.recursive else 0
        run.fill(op.slot, run.kernel.open_tree(fd, "", flags | recursive))


def new_mount(run: Run, op: ops.NewMount) -> None:
    pairs = [text.partition("=") for text in op.descriptors]
    descriptors = [(key, run.slot(int(slot))) for key, _, slot in pairs]
    fd = run.kernel.new_mount(op.fstype, op.source, op.options, op.attributes, descriptors)
    run.fill(op.slot, fd)


def stage_mount(run: Run, op: ops.StageMount) -> None:
    if not run.staging:
        run.kernel.unshare(linux.CLONE_NEWNS)
        run.kernel.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        run.staging = True
    fd = run.kernel.stage_mount(op.fstype, "", op.directory, op.data, op.attributes)
    # Else the container would begin with a copy of it.
    run.kernel.umount2("merged", linux.MNT_DETACH)
    run.kernel.chdir("/")
    run.fill(op.slot, fd)


def mount_attr(run: Run, op: ops.MountAttr) -> None:
    idmapped = op.userns != NO_SLOT
    run.kernel.mount_setattr(
        run.slot(op.slot),
        "",
        linux.AT_EMPTY_PATH | (linux.AT_RECURSIVE if op.recursive else 0),
        attr_set=op.set | (linux.MOUNT_ATTR_IDMAP if idmapped else 0),
        attr_clr=op.clear,
        propagation=op.propagation,
        userns=run.slot(op.userns) if idmapped else 0,
    )


def unshare(run: Run, op: ops.Unshare) -> None:
    run.kernel.unshare(op.flags)


def write_file(run: Run, op: ops.WriteFile) -> None:
    run.write_path(op.path, op.data, op.verify)


def clone(run: Run, op: ops.Clone) -> None:
    # CLONE_PARENT: the child is the supervisor's, which is why no exit signal is named.
    if op.cgroup == NO_SLOT:
        run.child = run.kernel.clone3(op.flags | linux.CLONE_PARENT, 0)
    else:
        flags = op.flags | linux.CLONE_PARENT | linux.CLONE_INTO_CGROUP
        run.child = run.kernel.clone3(flags, 0, run.slot(op.cgroup))


def write_id_maps(run: Run, op: ops.WriteIdMaps) -> None:
    run.write_path(f"/proc/{run.child}/uid_map", op.uid_map.encode(), Verify.PROCFS)
    run.write_path(f"/proc/{run.child}/gid_map", op.gid_map.encode(), Verify.PROCFS)
    # The pipes are the host's root's, whom the namespace does not know; any owner whom it
    # knows will do for Stdio to give them to the right one.
    uid, gid = (int(text.split()[1]) for text in (op.uid_map, op.gid_map))
    for fd in run.stdio:
        run.kernel.fchown(fd, uid, gid)


def oom_score(run: Run, op: ops.OomScore) -> None:
    path = f"/proc/{run.child}/oom_score_adj"
    run.write_path(path, str(op.adjust).encode(), Verify.PROCFS)


# -- child, the host's root still visible -------------------------------------------------


def join_cgroup(run: Run, op: ops.JoinCgroup) -> None:
    run.write(run.slot(op.slot), b"0")


def propagation(run: Run, op: ops.Propagation) -> None:
    run.kernel.mount("none", "/", "", op.flags)


def attach_root(run: Run, op: ops.AttachRoot) -> None:
    # On top of "/": this process's root stays the old one below it, because a lookup starts
    # at the root's dentry and does not cross what is mounted there.  So the host's paths
    # still mean the host's files, and the container's are reached by the descriptor alone.
    fd = run.take(op.slot)
    run.kernel.move_mount(fd, "", linux.AT_FDCWD, "/", linux.MOVE_MOUNT_F_EMPTY_PATH)
    run.root = fd


def mount_at(run: Run, op: ops.MountAt) -> None:
    fd = run.kernel.new_mount(op.fstype, "", op.options, op.attributes)
    with run.closing(fd), run.target(op.target, op.create) as target:
        run.place(fd, target)
        if op.fstype == "proc":
            flags = linux.OPEN_TREE_CLONE | linux.AT_EMPTY_PATH
            run.proc = run.kernel.open_tree(fd, "", flags)


def move_mount(run: Run, op: ops.MoveMount) -> None:
    with run.target(op.target, op.create) as target:
        run.place(run.slot(op.slot), target)


def make_directory(run: Run, op: ops.MakeDirectory) -> None:
    check_ids(op.uid, op.gid)
    there = run.find(op.path)
    if there is not None:
        with run.closing(there):
            if not stat.S_ISDIR(run.kernel.fstat(there).st_mode):
                raise failure(errno.EEXIST, "it is no directory")
        return
    with run.parent(op.path) as (parent, name):
        with run.exact_modes():
            run.kernel.mkdir(name, op.mode, dir_fd=parent)
        run.kernel.chown(name, op.uid, op.gid, dir_fd=parent, follow_symlinks=False)


def make_node(run: Run, op: ops.MakeNode) -> None:
    check_ids(op.uid, op.gid)
    device = os.makedev(op.major, op.minor)
    with run.parent(op.path) as (parent, name):
        with run.exact_modes():
            run.kernel.mknod(name, op.mode, device, dir_fd=parent)
        run.kernel.chown(name, op.uid, op.gid, dir_fd=parent, follow_symlinks=False)


def symlink(run: Run, op: ops.Symlink) -> None:
    with run.parent(op.path) as (parent, name):
        run.kernel.symlink(op.target, name, dir_fd=parent)


def mask_path(run: Run, op: ops.MaskPath) -> None:
    target = run.find(op.path)
    if target is None:
        return
    with run.closing(target):
        if stat.S_ISDIR(run.kernel.fstat(target).st_mode):
            cover = run.kernel.new_mount("tmpfs", "", (), _COVER)
        else:
            flags = linux.OPEN_TREE_CLONE | linux.AT_EMPTY_PATH
            cover = run.kernel.open_tree(run.slot(op.null), "", flags)
            # Root in the container owns the host's /dev/null, and could change its mode.
            read_only = linux.MOUNT_ATTR_RDONLY
            run.kernel.mount_setattr(cover, "", linux.AT_EMPTY_PATH, attr_set=read_only)
        with run.closing(cover):
            run.attach(cover, target)


def readonly_path(run: Run, op: ops.ReadonlyPath) -> None:
    target = run.find(op.path)
    if target is None:
        return
    tree = linux.AT_EMPTY_PATH | linux.AT_RECURSIVE
    with run.closing(target):
        copy = run.kernel.open_tree(target, "", linux.OPEN_TREE_CLONE | tree)
        with run.closing(copy):
            run.kernel.mount_setattr(copy, "", tree, attr_set=linux.MOUNT_ATTR_RDONLY)
            run.attach(copy, target)


def root_attr(run: Run, op: ops.RootAttr) -> None:
    if run.root < 0:
        raise failure(errno.EBADF, "no root is attached")
    run.kernel.mount_setattr(run.root, "", linux.AT_EMPTY_PATH, attr_set=op.set)


# -- child, in the new root ---------------------------------------------------------------


def pivot_root(run: Run, _: ops.PivotRoot) -> None:
    if run.root < 0:
        raise failure(errno.EBADF, "no root is attached")
    # pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one.
    run.kernel.fchdir(run.root)
    run.kernel.pivot_root(".", ".")
    run.kernel.umount2(".", linux.MNT_DETACH)
    run.pivoted = True
    run.kernel.chdir("/")


def sysctl(run: Run, op: ops.Sysctl) -> None:
    # Through a copy of the procfs that MountAt made: what was mounted over /proc/sys since,
    # to make it read-only or by a hostile volume, is not on it.
    with run.closing(_open_sysctls(run)) as folder:
        with run.closing(run.kernel.openat2(folder, op.path, os.O_WRONLY, resolve=BENEATH)) as fd:
            run.verify(fd, Verify.PROCFS)
            run.write(fd, op.value.encode())


def _open_sysctls(run: Run) -> int:
    if run.proc < 0:
        return run.beneath("/proc/sys", os.O_PATH)
    return run.kernel.openat2(run.proc, "sys", os.O_PATH, resolve=BENEATH)


def rlimit(run: Run, op: ops.Rlimit) -> None:
    run.kernel.prlimit(0, op.resource, op.soft, op.hard)


def hostname(run: Run, op: ops.Hostname) -> None:
    run.kernel.sethostname(op.name)


def domainname(run: Run, op: ops.Domainname) -> None:
    run.kernel.setdomainname(op.name)


def session_keyring(run: Run, op: ops.SessionKeyring) -> None:
    try:
        run.kernel.join_session_keyring(op.name)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel built without keys has none to share
            raise


def link_up(run: Run, op: ops.LinkUp) -> None:
    run.kernel.link_up(op.interface)


def umask(run: Run, op: ops.Umask) -> None:
    run.kernel.umask(op.mask)


def stdio(run: Run, op: ops.Stdio) -> None:
    check_ids(op.uid, op.gid)
    run.kernel.setsid()
    for number, fd in enumerate(run.stdio):
        run.kernel.fchown(fd, op.uid, op.gid)
        run.kernel.dup2(fd, number)


# -- child, last --------------------------------------------------------------------------


def chdir(run: Run, op: ops.Chdir) -> None:
    check_ids(op.uid, op.gid)
    fd, made = run.make(op.path, Create.DIRECTORY if op.create else Create.NOTHING)
    with run.closing(fd):
        run.kernel.fchdir(fd)
        if made:
            run.kernel.chown(".", op.uid, op.gid)
    # The kernel answers "(unreachable)…" for a place outside of the root.
    if not run.kernel.getcwd().startswith("/"):
        raise failure(errno.ENOENT, "it lies outside of the container's root")


def no_new_privileges(run: Run, _: ops.NoNewPrivileges) -> None:
    run.kernel.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def seccomp(run: Run, op: ops.Seccomp) -> None:
    count, rest = divmod(len(op.filter), _INSTRUCTION)
    if rest or not 0 < count <= _MAX_INSTRUCTIONS:
        raise failure(errno.EINVAL, "the filter's size is wrong")
    run.kernel.seccomp(op.flags, op.filter)


def bounding_set(run: Run, op: ops.BoundingSet) -> None:
    for capability in _members(lambda number: run.kernel.prctl(linux.PR_CAPBSET_READ, number)):
        if not op.mask >> capability & 1:
            run.kernel.prctl(linux.PR_CAPBSET_DROP, capability)


def identity(run: Run, op: ops.Identity) -> None:
    check_ids(op.uid, op.gid, *op.groups)
    run.kernel.prctl(linux.PR_SET_KEEPCAPS, 1)
    try:
        run.kernel.setgroups(op.groups)
    except PermissionError:
        if op.groups or not _groups_denied(run):
            raise
    run.kernel.setresgid(op.gid, op.gid, op.gid)
    run.kernel.setresuid(op.uid, op.uid, op.uid)
    run.guard()


def _groups_denied(run: Run) -> bool:
    """Whether the user namespace was made such that nobody in it can have groups."""
    with run.closing(run.open("/proc/self/setgroups", os.O_RDONLY)) as fd:
        run.verify(fd, Verify.PROCFS)
        return run.kernel.read(fd, 8).startswith(b"deny")


def capabilities(run: Run, op: ops.Capabilities) -> None:
    run.kernel.capset(op.effective, op.permitted, op.inheritable)
    run.kernel.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_MAX_CAPABILITY):
        if op.ambient >> capability & 1:
            run.kernel.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_RAISE, capability)
    members = _members(
        lambda number: run.kernel.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_IS_SET, number)
    )
    got = (*run.kernel.capget(), sum(1 << capability for capability in members))
    if got != (op.effective, op.permitted, op.inheritable, op.ambient):
        raise failure(errno.EPERM, "the sets read back differ")
    run.guard()


def _members(held: Callable[[int], int]) -> list[int]:
    """The capabilities of a set, which prctl(2) tells one by one."""
    members = []
    for capability in range(_MAX_CAPABILITY):
        try:
            if held(capability):
                members.append(capability)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # this kernel's last capability was the one before
    return members


def close_descriptors(run: Run, _: ops.CloseDescriptors) -> None:
    run.kernel.close_range(3, 0xFFFFFFFF, linux.CLOSE_RANGE_CLOEXEC)


def execute(run: Run, op: ops.Exec) -> None:
    name = op.argv[0] if op.argv else ""
    if not name:
        raise failure(errno.ENOENT, "the command is empty")
    if "/" in name:
        run.kernel.execve(name, op.argv, op.environment)
        return
    # As execvp(3) searches: a file that may not be executed is remembered, a folder is not.
    denied = False
    for folder in op.path.split(":"):
        path = os.path.join(folder or ".", name)
        try:
            run.kernel.execve(path, op.argv, op.environment)
        except PermissionError:
            denied |= not stat.S_ISDIR(run.kernel.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        else:
            return
    raise failure(errno.EACCES if denied else errno.ENOENT, name)


_ANYWHERE: dict[type[Operation], Callable[[Run, Any], None]] = {
    ops.OpenPath: open_path,
    ops.OpenTree: open_tree,
    ops.NewMount: new_mount,
    ops.MountAttr: mount_attr,
    ops.Unshare: unshare,
    ops.WriteFile: write_file,
    ops.JoinCgroup: join_cgroup,
}

#: What each side can do.  Sync is the executor's own.
ACTIONS: dict[Side, dict[type[Operation], Callable[[Run, Any], None]]] = {
    Side.PARENT: _ANYWHERE
    | {
        ops.StageMount: stage_mount,
        ops.Clone: clone,
        ops.WriteIdMaps: write_id_maps,
        ops.OomScore: oom_score,
    },
    Side.CHILD: _ANYWHERE
    | {
        ops.Propagation: propagation,
        ops.AttachRoot: attach_root,
        ops.MountAt: mount_at,
        ops.MoveMount: move_mount,
        ops.MakeDirectory: make_directory,
        ops.MakeNode: make_node,
        ops.Symlink: symlink,
        ops.MaskPath: mask_path,
        ops.ReadonlyPath: readonly_path,
        ops.RootAttr: root_attr,
        ops.PivotRoot: pivot_root,
        ops.Sysctl: sysctl,
        ops.Rlimit: rlimit,
        ops.Hostname: hostname,
        ops.Domainname: domainname,
        ops.SessionKeyring: session_keyring,
        ops.LinkUp: link_up,
        ops.Umask: umask,
        ops.Stdio: stdio,
        ops.Chdir: chdir,
        ops.NoNewPrivileges: no_new_privileges,
        ops.Seccomp: seccomp,
        ops.BoundingSet: bounding_set,
        ops.Identity: identity,
        ops.Capabilities: capabilities,
        ops.CloseDescriptors: close_descriptors,
        ops.Exec: execute,
    },
}
