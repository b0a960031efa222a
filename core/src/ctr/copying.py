"""Copy a file tree with all that a file system keeps of it.

Owner, mode, times in nanoseconds, extended attributes (and with them ACLs and file
capabilities), hard links, holes, devices, fifos and sockets.  By descriptors, and "..": no
link is followed, and depth costs nothing.  The source must not change meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from ctr.trees import step

if TYPE_CHECKING:
    from ctr.idmap import IdMapper

_FICLONE = 0x40049409  # from linux/fs.h
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24
# What a file system answers that can't share blocks between these two files.
_NO_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)


def copy_tree(source: str, target: str, mapper: IdMapper) -> None:
    """Copy the folder ``source`` to ``target``, which must not exist, with mapped owners."""
    os.mkdir(target, 0o700)
    with contextlib.closing(_Copier(source, target, mapper)) as copier:
        copier.run()


class _Copier:
    """Goes down both trees at once; each folder gets its attributes on the way back up."""

    def __init__(self, source: str, target: str, mapper: IdMapper) -> None:
        self._mapper = mapper
        self._clones = True
        self._source = os.open(source, _FOLDER)
        self._target = os.open(target, _FOLDER)
        # A copy that will get further links has a name here meanwhile: the first one's folder
        # may be deeper than any path reaches.
        self._links = os.open(os.path.dirname(target), _FOLDER)
        #: Those names, by the source's inode.
        self._copied: dict[tuple[int, int], str] = {}

    def close(self) -> None:
        for name in self._copied.values():
            os.unlink(name, dir_fd=self._links)
        for descriptor in (self._source, self._target, self._links):
            os.close(descriptor)

    def run(self) -> None:
        todo = [self._copy_entries()]
        names = ["/"]
        while todo:
            if todo[-1]:
                name = todo[-1].pop()
                names.append(name)
                self._source = step(self._source, name)
                self._target = step(self._target, name)
                todo.append(self._copy_entries())
                continue
            self._set_attributes(self._source, self._target, os.fstat(self._source), names.pop())
            todo.pop()
            if todo:
                self._source = step(self._source, "..")
                self._target = step(self._target, "..")

    def _copy_entries(self) -> list[str]:
        """Copy all but folders, which are only made; return their names."""
        folders = []
        for name in os.listdir(self._source):
            status = os.stat(name, dir_fd=self._source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=self._target)
                folders.append(name)
            elif status.st_nlink > 1:
                self._copy_linked(name, status)
            else:
                self._copy_entry(name, status)
        return folders

    def _copy_linked(self, name: str, status: os.stat_result) -> None:
        """Copy the first of several names, link the others to it."""
        inode = (status.st_dev, status.st_ino)
        first = self._copied.get(inode)
        if first is None:
            self._copy_entry(name, status)
            first = f"link.{len(self._copied)}"
            self._link(name, self._target, first, self._links)
            self._copied[inode] = first
        else:
            self._link(first, self._links, name, self._target)

    def _link(self, name: str, folder: int, new: str, new_folder: int) -> None:
        os.link(name, new, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)

    def _copy_entry(self, name: str, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._copy_file(name, status)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=self._source), name, dir_fd=self._target)
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=self._target)
        self._set_attributes(
            f"/proc/self/fd/{self._source}/{name}",
            f"/proc/self/fd/{self._target}/{name}",
            status,
            name,
        )

    def _copy_file(self, name: str, status: os.stat_result) -> None:
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(name, os.O_RDONLY | os.O_NOATIME | flags, dir_fd=self._source)
        try:
            target = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=self._target
            )
            try:
                if status.st_size:
                    self._copy_content(source, target, status)
                self._set_attributes(source, target, status, name)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copy_content(self, source: int, target: int, status: os.stat_result) -> None:
        if self._clones:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                self._clones = False
            else:
                return
        if status.st_blocks * 512 >= status.st_size:
            _copy_range(source, target, 0, status.st_size)
            return
        os.ftruncate(target, status.st_size)
        end = 0
        while end < status.st_size:
            try:
                start = os.lseek(source, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    break
                raise
            end = os.lseek(source, start, os.SEEK_HOLE)
            _copy_range(source, target, start, end)

    def _set_attributes(
        self, source: int | str, target: int | str, status: os.stat_result, name: str
    ) -> None:
        """Owner first: chown takes set-id bits and file capabilities away."""
        follow = isinstance(target, int)
        owner = self._mapper.owner(status.st_uid, status.st_gid, name)
        os.chown(target, *owner, follow_symlinks=follow)
        for attribute in os.listxattr(source, follow_symlinks=follow):
            value = os.getxattr(source, attribute, follow_symlinks=follow)
            os.setxattr(target, attribute, value, follow_symlinks=follow)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=follow)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy bytes ``start`` to ``end``, in the kernel where it can."""
    position = start
    while position < end:
        try:
            count = os.copy_file_range(source, target, end - position, position, position)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            count = os.pwrite(
                target, os.pread(source, min(_CHUNK, end - position), position), position
            )
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        position += count
