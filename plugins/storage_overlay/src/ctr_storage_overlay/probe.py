"""Whether overlayfs can be used here, without mounting anything."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ctr.drivers import Probe

if TYPE_CHECKING:
    from collections.abc import Iterable

# File systems that overlayfs refuses as an upper layer, or on which whiteouts or trusted
# attributes can't be written.
_REFUSED = frozenset(
    {
        *("9p", "afs", "aufs", "ceph", "cifs", "ecryptfs", "exfat", "fuse", "fuseblk"),
        *("gfs2", "hfs", "hfsplus", "msdos", "nfs", "nfs4", "ntfs3", "ocfs2", "overlay"),
        *("prl_fs", "smb3", "squashfs", "v9fs", "vboxsf", "vfat", "vmhgfs"),
    }
)
_VFS = "use `--storage vfs`, or put --root on ext4, xfs, btrfs or tmpfs"
_DT_UNKNOWN = 0  # from dirent.h


def probe(root: str) -> Probe:
    """Never raises and writes nothing; the kernel may load its module."""
    try:
        if os.geteuid() != 0:
            return Probe(False, "mounting needs root", "run ctr as root")
        with open("/proc/self/uid_map", encoding="ascii") as file:
            if file.read().split() != ["0", "0", "4294967295"]:
                return Probe(False, "trusted attributes need the first user namespace", _VFS)
        if not _kernel_has_overlay():
            return Probe(False, "the kernel has no overlayfs", "modprobe overlay")
        problem = file_system_problem(root)
    except OSError as error:
        return Probe(False, f"{error.filename or root}: {error.strerror}")
    return Probe(False, problem, _VFS) if problem else Probe(True)


def check_file_system(root: str) -> None:
    """Raise UnsupportedError when overlayfs can't work in the folder ``root``."""
    from ctr.errors import UnsupportedError

    problem = file_system_problem(root)
    if problem:
        raise UnsupportedError(f"cannot use storage driver overlay in {root}: {problem}", hint=_VFS)


def file_system_problem(root: str) -> str:
    """Say what the file system of ``root`` (or of where it will be) lacks; empty: nothing."""
    path = os.path.realpath(root)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fstype = file_system_type(path, file)
    if fstype in _REFUSED or fstype.startswith("fuse."):
        return f"overlayfs can't write on {fstype}"
    try:
        os.getxattr(path, "trusted.overlay.opaque")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return f"{fstype} has no trusted extended attributes"
        if error.errno != errno.ENODATA:
            raise
    if not _tells_types(path):
        return f"{fstype} does not tell file types in folders (d_type; xfs: ftype=1)"
    return ""


def file_system_type(path: str, mountinfo: Iterable[str]) -> str:
    """The type of the file system at the real path ``path``, by the lines of mountinfo."""
    best, fstype = "", ""
    for line in mountinfo:
        fields, _, rest = line.partition(" - ")
        point = _unescape(fields.split()[4])
        # a later mount on the same point covers an earlier one
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, fstype = point, rest.split()[0]
    return fstype


def _unescape(text: str) -> str:
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        text = text.replace("\\" + code, character)
    return text


def _kernel_has_overlay() -> bool:
    from ctr.kernel import fsopen

    try:
        os.close(fsopen("overlay"))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return False
    return True


def _tells_types(path: str) -> bool:
    """getdents64(2): the type byte of the entry ``.``."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    number = 217 if os.uname().machine == "x86_64" else 61  # from asm/unistd.h
    buffer = ctypes.create_string_buffer(4096)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        size = libc.syscall(number, descriptor, buffer, ctypes.c_size_t(len(buffer)))
    finally:
        os.close(descriptor)
    return size > 18 and buffer.raw[18] != _DT_UNKNOWN  # struct linux_dirent64
