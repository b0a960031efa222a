"""Linux system calls that Python's ``os`` lacks: one small function each, all of one shape.

Arguments and order are the manual page's.  Each raises OSError with the errno and, where
there is one, the path.  Every descriptor returned is close-on-exec.  ``AT_FDCWD`` stands
for the current directory.  Numbers are for x86_64 and for the generic table (aarch64,
riscv64); from 424 on all architectures agree.

``Kernel`` gathers the calls as methods, so that a test can put a double in their place;
``mount_detached`` makes the mount that a storage driver describes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import (
    Structure,
    byref,
    c_char,
    c_char_p,
    c_int,
    c_long,
    c_size_t,
    c_uint,
    c_uint16,
    c_uint32,
    c_uint64,
    c_ulong,
    c_void_p,
)
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctr.models import Mount

# from linux/fcntl.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# from linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# from linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# from linux/sched.h
CLONE_NEWTIME = 0x80
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# from linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# from linux/magic.h
PROC_SUPER_MAGIC = 0x9FA0
NSFS_MAGIC = 0x6E736673
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

CLOSE_RANGE_CLOEXEC = 4  # from linux/close_range.h

_KEYCTL_JOIN_SESSION_KEYRING = 1  # from linux/keyctl.h
_SECCOMP_SET_MODE_FILTER = 1  # from linux/seccomp.h
_CAPABILITY_VERSION_3 = 0x20080522  # from linux/capability.h

# from linux/sockios.h and linux/if.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFNAMSIZ = 16

#: How often openat2 tries again after EAGAIN; see there.
_OPENAT2_TRIES = 128

_libc = ctypes.CDLL(None, use_errno=True)

# from asm/unistd.h: (x86_64, generic)
_column = 0 if os.uname().machine == "x86_64" else 1
_NR_pivot_root = (155, 41)[_column]
_NR_keyctl = (250, 219)[_column]
_NR_seccomp = (317, 277)[_column]
_NR_rt_sigaction = (13, 134)[_column]
_NR_open_tree = 428
_NR_move_mount = 429
_NR_fsopen = 430
_NR_fsconfig = 431
_NR_fsmount = 432
_NR_clone3 = 435
_NR_close_range = 436
_NR_openat2 = 437
_NR_mount_setattr = 442


class _OpenHow(Structure):
    _fields_ = [("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64)]


class _MountAttr(Structure):
    _fields_ = [
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    ]


class _CloneArgs(Structure):
    _fields_ = [
        (name, c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    ]


class _CapHeader(Structure):
    _fields_ = [("version", c_uint32), ("pid", c_int)]


class _CapData(Structure):
    _fields_ = [("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32)]


class _SockFprog(Structure):
    _fields_ = [("len", c_uint16), ("filter", c_char_p)]


class _RLimit(Structure):
    _fields_ = [("soft", c_uint64), ("hard", c_uint64)]


class _SigAction(Structure):
    # the kernel's: handler, flags, restorer, mask
    _fields_ = [("words", c_uint64 * 4)]


class _IfReq(Structure):
    _fields_ = [("name", c_char * _IFNAMSIZ), ("flags", c_uint16), ("rest", c_char * 22)]


class _StatFs(Structure):
    # f_type is the first word on every architecture; the rest only has to be large enough.
    _fields_ = [("f_type", c_long), ("rest", c_long * 32)]


def _function(name: str, *argtypes: Any) -> Callable[..., int]:
    """A function of the C library, by its own prototype."""
    function = _libc[name]
    function.argtypes = argtypes
    return function


def _syscall(number: int, *argtypes: Any) -> Callable[..., int]:
    """syscall(2) with ``number``, by the system call's own prototype."""
    function = _libc["syscall"]  # indexing makes a new function object each time
    function.argtypes = (c_long, *argtypes)
    function.restype = c_long
    return lambda *arguments: int(function(number, *arguments))


_capget = _function("capget", c_void_p, c_void_p)
_capset = _function("capset", c_void_p, c_void_p)
_execve = _function("execve", c_char_p, c_void_p, c_void_p)
_fstatfs = _function("fstatfs", c_int, c_void_p)
_ioctl = _function("ioctl", c_int, c_ulong, c_void_p)
_mount = _function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_prctl = _function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_prlimit = _function("prlimit", c_int, c_int, c_void_p, c_void_p)
_setdomainname = _function("setdomainname", c_char_p, c_size_t)
_sethostname = _function("sethostname", c_char_p, c_size_t)
_setns = _function("setns", c_int, c_int)
_umount2 = _function("umount2", c_char_p, c_int)
_unshare = _function("unshare", c_int)
_close_range = _syscall(_NR_close_range, c_uint, c_uint, c_uint)
_fsconfig = _syscall(_NR_fsconfig, c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = _syscall(_NR_fsmount, c_int, c_uint, c_uint)
_fsopen = _syscall(_NR_fsopen, c_char_p, c_uint)
_keyctl = _syscall(_NR_keyctl, c_int, c_char_p)
_mount_setattr = _syscall(_NR_mount_setattr, c_int, c_char_p, c_uint, c_void_p, c_size_t)
_move_mount = _syscall(_NR_move_mount, c_int, c_char_p, c_int, c_char_p, c_uint)
_open_tree = _syscall(_NR_open_tree, c_int, c_char_p, c_uint)
_openat2 = _syscall(_NR_openat2, c_int, c_char_p, c_void_p, c_size_t)
_pivot_root = _syscall(_NR_pivot_root, c_char_p, c_char_p)
_rt_sigaction = _syscall(_NR_rt_sigaction, c_int, c_void_p, c_void_p, c_size_t)
_seccomp = _syscall(_NR_seccomp, c_uint, c_uint, c_void_p)


def _check(result: int, filename: str | None = None) -> int:
    """Return ``result``; raise OSError with the thread's errno when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), filename)
    return result


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2).  Return the descriptor."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_OPENAT2_TRIES):
        fd = _openat2(dirfd, os.fsencode(path), byref(how), ctypes.sizeof(how))
        # With RESOLVE_IN_ROOT or RESOLVE_BENEATH any rename or mount on the machine, at
        # the moment a ".." is walked, gives EAGAIN: the manual says to try again.
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check(fd, path)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2).  Return the descriptor."""
    return _check(_open_tree(dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC), path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int = 0) -> None:
    """move_mount(2)."""
    result = _move_mount(from_fd, os.fsencode(from_path), to_fd, os.fsencode(to_path), flags)
    _check(result, to_path or None)


def fsopen(fstype: str) -> int:
    """fsopen(2).  Return the descriptor of a file-system context."""
    return _check(_fsopen(fstype.encode(), FSOPEN_CLOEXEC), fstype)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """fsconfig(2) FSCONFIG_SET_STRING.  The kernel takes at most 255 bytes."""
    arguments = (fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
    _check(_fsconfig(*arguments), f"{key}={value}")


def fsconfig_flag(fd: int, key: str) -> None:
    """fsconfig(2) FSCONFIG_SET_FLAG."""
    _check(_fsconfig(fd, FSCONFIG_SET_FLAG, key.encode(), None, 0), key)


def fsconfig_fd(fd: int, key: str, value: int) -> None:
    """fsconfig(2) FSCONFIG_SET_FD."""
    _check(_fsconfig(fd, FSCONFIG_SET_FD, key.encode(), None, value), key)


def fsconfig_create(fd: int) -> None:
    """fsconfig(2) FSCONFIG_CMD_CREATE."""
    _check(_fsconfig(fd, FSCONFIG_CMD_CREATE, None, None, 0))


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2).  Return the descriptor of a detached mount."""
    return _check(_fsmount(fd, FSMOUNT_CLOEXEC, attributes))


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns: int = 0,
) -> None:
    """mount_setattr(2).  ``userns`` counts only with MOUNT_ATTR_IDMAP in ``attr_set``."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns)
    result = _mount_setattr(dirfd, os.fsencode(path), flags, byref(attr), ctypes.sizeof(attr))
    _check(result, path or None)


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    words = (os.fsencode(source), os.fsencode(target), fstype.encode() or None)
    _check(_mount(*words, flags, os.fsencode(data) or None), target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_unshare(flags))


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2), for the calling thread."""
    _check(_setns(fd, nstype))


def clone3(flags: int, exit_signal: int, cgroup: int = 0) -> int:
    """clone3(2) without a stack of its own: as fork(2) in a process of one thread.

    Return the child's PID, and 0 in the child.  ``cgroup`` counts only with
    CLONE_INTO_CGROUP.  The interpreter's own preparations for a fork are run around it.
    """
    arguments = _CloneArgs(flags=flags, exit_signal=exit_signal, cgroup=cgroup)
    # PyDLL keeps the interpreter lock: in the child nobody else could ever release it.
    syscall = ctypes.PyDLL(None, use_errno=True)["syscall"]
    syscall.argtypes = (c_long, c_void_p, c_size_t)
    syscall.restype = c_long
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = syscall(_NR_clone3, byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    return _check(_prctl(option, arg2, arg3, arg4, arg5))


class CapabilitySets(NamedTuple):
    """A thread's capabilities as bit masks."""

    effective: int
    permitted: int
    inheritable: int


def capget() -> CapabilitySets:
    """capget(2) of the calling thread."""
    data = (_CapData * 2)()
    _check(_capget(byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), byref(data)))
    low, high = data
    return CapabilitySets(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread."""
    masks = (effective, permitted, inheritable)
    low = _CapData(*(mask & 0xFFFFFFFF for mask in masks))
    high = _CapData(*(mask >> 32 for mask in masks))
    data = (_CapData * 2)(low, high)
    _check(_capset(byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), byref(data)))


def join_session_keyring(name: str) -> None:
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: make or join the session keyring ``name``."""
    _check(_keyctl(_KEYCTL_JOIN_SESSION_KEYRING, name.encode()))


def seccomp(flags: int, program: bytes) -> None:
    """seccomp(2) SECCOMP_SET_MODE_FILTER; ``program`` is an array of struct sock_filter."""
    fprog = _SockFprog(len(program) // 8, program)
    _check(_seccomp(_SECCOMP_SET_MODE_FILTER, flags, byref(fprog)))


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    _check(_sethostname(raw, len(raw)), name)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    raw = name.encode()
    _check(_setdomainname(raw, len(raw)), name)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2); both ends are included."""
    _check(_close_range(first, last, flags))


def reset_signals() -> None:
    """rt_sigaction(2): the default action for every signal.

    Python and the C library hide 32 and 33, which posix_spawn(3) leaves ignored.
    """
    default = _SigAction()
    for number in range(1, 65):
        _rt_sigaction(number, byref(default), None, 8)  # EINVAL for SIGKILL and SIGSTOP


def prlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """prlimit(2): set; -1 is RLIM_INFINITY.  (resource.prlimit turns EPERM into ValueError.)"""
    limit = _RLimit(soft, hard)
    _check(_prlimit(pid, resource, byref(limit), None))


def execve(path: str, argv: Sequence[str], environment: Sequence[str]) -> None:
    """execve(2) with the environment as it is: os.execve takes a mapping, without duplicates."""
    arguments = (c_char_p * (len(argv) + 1))(*map(os.fsencode, argv))
    variables = (c_char_p * (len(environment) + 1))(*map(os.fsencode, environment))
    _check(_execve(os.fsencode(path), arguments, variables), path)


def link_up(interface: str) -> None:
    """ioctl(2) SIOCSIFFLAGS: add IFF_UP to the flags of a network interface (netdevice(7))."""
    import socket

    name = interface.encode()
    if len(name) >= _IFNAMSIZ:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), interface)
    request = _IfReq(name, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _check(_ioctl(sock.fileno(), _SIOCGIFFLAGS, byref(request)), interface)
        request.flags |= _IFF_UP
        _check(_ioctl(sock.fileno(), _SIOCSIFFLAGS, byref(request)), interface)


def fstype_magic(fd: int) -> int:
    """fstatfs(2): the file system's magic number."""
    buffer = _StatFs()
    _check(_fstatfs(fd, byref(buffer)))
    return int(buffer.f_type)


def sealed_memfd(name: str, data: bytes) -> int:
    """Return a memfd that holds ``data`` and that nobody can change any more."""
    import fcntl

    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def fs_messages(fd: int) -> str:
    """Return what the kernel logged in a file-system context, the newest last."""
    messages = []
    try:
        while message := os.read(fd, 1024):
            messages.append(message.decode(errors="replace").strip())
    except OSError:  # ENODATA: no further message
        pass
    # "e overlay: No changes allowed": a letter for error, warning or info, a blank
    return "; ".join(message[2:] for message in messages)


def mount_detached(mount: Mount) -> int:
    """Return the descriptor of the detached mount that ``mount`` describes.

    An O_PATH descriptor, good for the calls that take a ``dir_fd``.  The mount is in no mount
    table and goes with its last descriptor.  Raises OSError.
    """
    kernel = Kernel()
    if mount.staging:
        return _mount_staged(kernel, mount)
    if mount.type == "bind":
        fd = kernel.open_tree(AT_FDCWD, mount.source, OPEN_TREE_CLONE)
        try:
            if mount.attributes:
                kernel.mount_setattr(fd, "", AT_EMPTY_PATH, attr_set=mount.attributes)
        except BaseException:
            os.close(fd)
            raise
        return fd
    return kernel.new_mount(mount.type, mount.source, mount.options, mount.attributes)


def _mount_staged(kernel: Kernel, mount: Mount) -> int:
    """Mount in a process of its own, whose mount namespace goes with it; take the descriptor."""
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            try:
                data = ",".join(mount.options)
                kernel.unshare(CLONE_NEWNS)
                kernel.mount("none", "/", "", MS_REC | MS_PRIVATE)
                fd = kernel.stage_mount(
                    mount.type, mount.source, mount.staging, data, mount.attributes
                )
                socket.send_fds(theirs, [b"0"], [fd])
            except OSError as error:
                theirs.send(str(error.errno).encode())
            finally:
                os._exit(0)
        theirs.close()
        try:
            message, descriptors, _, _ = socket.recv_fds(ours, 64, 1)
        finally:
            os.waitpid(pid, 0)
    if not descriptors:
        number = int(message or errno.ECHILD)
        raise OSError(number, os.strerror(number), mount.staging)
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


class Kernel:
    """The system calls as methods: what an executor is given, so that a test can double it."""

    # this module's
    openat2 = staticmethod(openat2)
    open_tree = staticmethod(open_tree)
    move_mount = staticmethod(move_mount)
    fsopen = staticmethod(fsopen)
    fsconfig_string = staticmethod(fsconfig_string)
    fsconfig_flag = staticmethod(fsconfig_flag)
    fsconfig_fd = staticmethod(fsconfig_fd)
    fsconfig_create = staticmethod(fsconfig_create)
    fsmount = staticmethod(fsmount)
    fs_messages = staticmethod(fs_messages)
    fstype_magic = staticmethod(fstype_magic)
    mount_setattr = staticmethod(mount_setattr)
    mount = staticmethod(mount)
    umount2 = staticmethod(umount2)
    pivot_root = staticmethod(pivot_root)
    unshare = staticmethod(unshare)
    setns = staticmethod(setns)
    clone3 = staticmethod(clone3)
    prctl = staticmethod(prctl)
    capget = staticmethod(capget)
    capset = staticmethod(capset)
    join_session_keyring = staticmethod(join_session_keyring)
    seccomp = staticmethod(seccomp)
    sethostname = staticmethod(sethostname)
    setdomainname = staticmethod(setdomainname)
    close_range = staticmethod(close_range)
    prlimit = staticmethod(prlimit)

    execve = staticmethod(execve)
    link_up = staticmethod(link_up)

    # the standard library's
    open = staticmethod(os.open)
    close = staticmethod(os.close)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    stat = staticmethod(os.stat)
    fstat = staticmethod(os.fstat)
    chdir = staticmethod(os.chdir)
    fchdir = staticmethod(os.fchdir)
    getcwd = staticmethod(os.getcwd)
    mkdir = staticmethod(os.mkdir)
    mknod = staticmethod(os.mknod)
    symlink = staticmethod(os.symlink)
    readlink = staticmethod(os.readlink)
    chown = staticmethod(os.chown)
    fchown = staticmethod(os.fchown)
    dup2 = staticmethod(os.dup2)
    umask = staticmethod(os.umask)
    setsid = staticmethod(os.setsid)
    setgroups = staticmethod(os.setgroups)
    setresgid = staticmethod(os.setresgid)
    setresuid = staticmethod(os.setresuid)

    def new_mount(
        self,
        fstype: str,
        source: str,
        options: Sequence[str],
        attributes: int,
        descriptors: Sequence[tuple[str, int]] = (),
    ) -> int:
        """fsopen, fsconfig, fsmount.  Return the descriptor of the detached mount.

        ``options`` are ``key=value`` or ``key``; ``descriptors`` are set before them.  What
        the kernel logged about a failure becomes the OSError's text.
        """
        fd = self.fsopen(fstype)
        try:
            if source:
                self.fsconfig_string(fd, "source", source)
            for key, value in descriptors:
                self.fsconfig_fd(fd, key, value)
            for option in options:
                name, equals, text = option.partition("=")
                if equals:
                    self.fsconfig_string(fd, name, text)
                else:
                    self.fsconfig_flag(fd, name)
            self.fsconfig_create(fd)
            return self.fsmount(fd, attributes)
        except OSError as error:
            detail = self.fs_messages(fd) or error.strerror
            raise OSError(error.errno, detail, error.filename or fstype) from error
        finally:
            self.close(fd)

    def stage_mount(
        self, fstype: str, source: str, directory: str, data: str, attributes: int
    ) -> int:
        """mount(2) on ``directory``/merged, from inside ``directory``, then open_tree(2).

        Return the descriptor of the detached mount.  For a mount namespace of its own: the
        current directory stays in ``directory`` and the mount stays in the namespace.
        """
        self.chdir(directory)
        self.mount(source or fstype, "merged", fstype, 0, data)
        fd = self.open_tree(AT_FDCWD, "merged", OPEN_TREE_CLONE)
        if attributes:
            self.mount_setattr(fd, "", AT_EMPTY_PATH, attr_set=attributes)
        return fd
