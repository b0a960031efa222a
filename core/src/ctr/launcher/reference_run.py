"""What the reference launcher's operations share: system calls, slots, the container's root."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from ctr import kernel as linux
from ctr.program import Create, Verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.kernel import Kernel

#: How paths of an image or a container are resolved: never out of its root.
IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS

#: How paths are resolved where no link has a place.
BENEATH = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS

_MAX_LINKS = 40  # dangling links followed while a target is made; the kernel's own limit
_NO_ID = 0xFFFFFFFF  # the calls that change ids take it, and -1, for "leave it as it is"


class Run:
    """One side's state while it runs the program.

    ``root`` is the container's root, once attached; ``proc`` a copy of the procfs that
    MountAt made, free of what is mounted over parts of it later.
    """

    def __init__(self, kernel: Kernel, stdio: tuple[int, int, int]) -> None:
        self.kernel = kernel
        self.stdio = stdio
        self.child = 0
        self.root = -1
        self.proc = -1
        self.staging = False
        self.pivoted = False
        self._slots: dict[int, int] = {}

    # -- slots ----------------------------------------------------------------------------

    def slot(self, number: int) -> int:
        """The descriptor in a slot.  Raises EBADF where there is none."""
        try:
            return self._slots[number]
        except KeyError:
            raise failure(errno.EBADF, f"slot [{number}] is empty") from None

    def fill(self, number: int, fd: int) -> None:
        """Put a descriptor into a slot."""
        self._slots[number] = fd

    def take(self, number: int) -> int:
        """The descriptor in a slot, which is empty afterwards."""
        fd = self.slot(number)
        del self._slots[number]
        return fd

    # -- paths ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def closing(self, fd: int) -> Iterator[int]:
        """Close ``fd`` at the end."""
        try:
            yield fd
        finally:
            self.kernel.close(fd)

    def open(self, path: str, flags: int) -> int:
        """open(2) of a path of the host; after pivot_root of one in the container's root."""
        if self.pivoted:
            return self.beneath(path, flags)
        return self.kernel.open(path, flags)

    def beneath(self, path: str, flags: int, resolve: int = IN_ROOT) -> int:
        """Open ``path`` in the container's root; before one is attached, in the host's."""
        if self.root >= 0:
            return self.kernel.openat2(self.root, path, flags, resolve=resolve)
        with self.closing(self.kernel.open("/", os.O_PATH | os.O_DIRECTORY)) as root:
            return self.kernel.openat2(root, path, flags, resolve=resolve)

    def find(self, path: str) -> int | None:
        """An O_PATH descriptor of ``path`` in the root; None where nothing is there."""
        try:
            return self.beneath(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextlib.contextmanager
    def target(self, path: str, create: int = Create.NOTHING) -> Iterator[int]:
        """An O_PATH descriptor of ``path`` in the root, made first if asked for."""
        with self.closing(self.make(path, create)[0]) as fd:
            yield fd

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder that holds ``path``, made if missing, and the last name in it."""
        head, name = _split(path)
        with self.target(head, Create.DIRECTORY) as fd:
            yield fd, name

    def make(self, path: str, create: int, links: int = _MAX_LINKS) -> tuple[int, bool]:
        """An O_PATH descriptor of ``path`` in the root, and whether it had to be made.

        What is missing is made one component at a time, each through the descriptor of its
        folder (CVE-2024-45310).
        """
        plain = create == Create.PLAIN_DIRECTORY
        resolve = IN_ROOT | linux.RESOLVE_NO_SYMLINKS if plain else IN_ROOT
        try:
            return self.beneath(path, os.O_PATH, resolve), False
        except FileNotFoundError:
            if create == Create.NOTHING:
                raise
        head, name = _split(path)
        folder, _ = self.make(head, create if plain else Create.DIRECTORY, links)
        with self.closing(folder):
            try:
                if create != Create.FILE:
                    self.kernel.mkdir(name, 0o755, dir_fd=folder)
                else:
                    self.kernel.mknod(name, stat.S_IFREG | 0o644, dir_fd=folder)
            except FileExistsError:
                # A link that dangles: what it names is made, still inside the root.
                if not links:
                    raise failure(errno.ELOOP, path) from None
                link = self.kernel.readlink(name, dir_fd=folder)
                return self.make(os.path.join(head, link), create, links - 1)
            return self.kernel.openat2(folder, name, os.O_PATH, resolve=BENEATH), True

    @contextlib.contextmanager
    def exact_modes(self) -> Iterator[None]:
        """No umask."""
        mask = self.kernel.umask(0)
        try:
            yield
        finally:
            self.kernel.umask(mask)

    # -- what several operations do -------------------------------------------------------

    def guard(self) -> None:
        """Die with the supervisor; be closed to ptrace(2) and /proc/PID (CVE-2016-9962).

        The kernel forgets both whenever credentials change.
        """
        self.kernel.prctl(linux.PR_SET_PDEATHSIG, 9)
        self.kernel.prctl(linux.PR_SET_DUMPABLE, 0)

    def place(self, mount: int, target: int) -> None:
        """Mount what came from outside: anywhere but on procfs, where it would hide what
        masks are for (CVE-2019-16884), whatever name it came by.
        """
        if self.kernel.fstype_magic(target) == linux.PROC_SUPER_MAGIC:
            raise failure(errno.EPERM, "mounts on procfs are refused")
        self.attach(mount, target)

    def attach(self, mount: int, target: int) -> None:
        """move_mount between two descriptors: no path to swap (CVE-2021-30465)."""
        both = linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_EMPTY_PATH
        self.kernel.move_mount(mount, "", target, "", both)

    def write(self, fd: int, data: bytes) -> None:
        """One write(2): kernel files take a value whole or not at all."""
        if self.kernel.write(fd, data) != len(data):
            raise failure(errno.EIO, "a part was written")

    def write_path(self, path: str, data: bytes, verify: int) -> None:
        """Open, verify, write."""
        with self.closing(self.open(path, os.O_WRONLY)) as fd:
            self.verify(fd, verify)
            self.write(fd, data)

    def verify(self, fd: int, what: int, device: int = 0) -> None:
        """Raise EBADF unless ``fd`` is ``what`` it must be."""
        if what == Verify.CHAR_DEVICE:
            status = self.kernel.fstat(fd)
            good = stat.S_ISCHR(status.st_mode) and status.st_rdev == device
        elif what == Verify.DIRECTORY:
            good = stat.S_ISDIR(self.kernel.fstat(fd).st_mode)
        elif what in _MAGIC:
            good = self.kernel.fstype_magic(fd) in _MAGIC[Verify(what)]
        else:
            good = what == Verify.ANY
        if not good:
            raise failure(errno.EBADF, "it is not what it should be")


_MAGIC = {
    Verify.PROCFS: (linux.PROC_SUPER_MAGIC,),
    Verify.NSFS: (linux.NSFS_MAGIC,),
    Verify.CGROUP: (linux.CGROUP_SUPER_MAGIC, linux.CGROUP2_SUPER_MAGIC),
}


def check_ids(*ids: int) -> None:
    """Raise EINVAL for a uid or gid by which the kernel would leave root's in place."""
    if any(not 0 <= number < _NO_ID for number in ids):
        raise failure(errno.EINVAL, "uid or gid out of range")


def failure(number: int, detail: str) -> OSError:
    """An OSError that says more than its number."""
    return OSError(number, detail)


def _split(path: str) -> tuple[str, str]:
    """The folder and the last name of ``path``, which ``..`` may not be."""
    head, name = os.path.split(path.rstrip("/"))
    if name in {"", ".", ".."}:
        raise failure(errno.EINVAL, path)
    return head or "/", name
