"""Applies a layer's tar to a tree, as hostile input (OCI image-spec layer.md).

The tree is the parent's whole, merged tree, so that every storage driver gives the same
result.  No path of the archive is ever given to the kernel as a path from outside: the
folder of an entry is opened beneath the root by openat2(2), the entry itself is made in
that folder by one name, which is never followed.

Where an archive leaves a choice:

- A folder over a folder merges, and over a link to a folder goes through the link, as rsync
  does with --keep-dirlinks.  Everything else replaces what was there; so the last of two
  entries of one name wins.
- A whiteout hides what the parent layers had, never what this layer made, wherever it
  stands in the archive.
- The time of a folder that is only changed inside is kept; missing folders are made with
  mode 0755, root's, at the epoch.
- Of extended attributes, security.capability and user.* are kept; what belongs to overlay,
  to labels of the machine that made the layer, or is not supported here, is dropped.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ctr import kernel
from ctr.errors import ImageError, StateError
from ctr.images.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    FIFO,
    FILE,
    FOLDER,
    LINK,
    SYMLINK,
    Entry,
    Limits,
    MalformedError,
    TarReader,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ctr.images.ingest import Readable

T = TypeVar("T")

_IN_ROOT = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
#: Failures that are not the archive's.
_MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
)
_DEVICES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_WHITEOUT = ".wh."
_AUFS = ".wh..wh."
_OPAQUE = ".wh..wh..opq"
_CACHED_FOLDERS = 64
_NEW_FOLDER_MODE = 0o755


class Applied(NamedTuple):
    """What was applied: the digest and size of the tar stream, the number of entries."""

    diff_id: str
    size: int
    entries: int


def apply(
    root_fd: int, stream: Readable, limits: Limits | None = None, *, name: str = "the layer"
) -> Applied:
    """Apply the uncompressed tar ``stream`` to the tree at ``root_fd``.  Needs root.

    Nothing outside of the tree is touched, whatever the archive says; inside it, a failure
    leaves a part of the layer.  Raises ImageError, which names the layer by ``name`` and
    the entry, and StateError when the machine fails (no space, …).
    """
    reader = TarReader(stream, limits or Limits())
    applier = _Applier(root_fd, limits or Limits())
    count = 0
    where = ""
    try:
        for entry in reader:
            count += 1
            where = f" entry {_quoted(entry.name)}:"
            applier.entry(entry, reader)
            where = f" after entry {_quoted(entry.name)}:"
        applier.finish()
    except MalformedError as error:
        raise ImageError(f"cannot apply {name}:{where} {error}") from None
    except ImageError as error:
        raise ImageError(f"cannot apply {name}:{where} {error.message}") from error
    except OSError as error:
        kind = StateError if error.errno in _MACHINE else ImageError
        raise kind(f"cannot apply {name}:{where} {error.strerror}") from error
    finally:
        applier.close()
    return Applied(reader.diff_id, reader.size, count)


def _quoted(name: bytes) -> str:
    """A name fit for a message: one line, no control characters, not too long."""
    text = os.fsdecode(name)
    return repr(text if len(text) <= 200 else f"{text[:100]}…{text[-99:]}")


class _Folder:
    """An open folder, and its path in the tree without any link.

    Closed when nothing uses it, or by ``_Applier.close``: ``opened`` holds what is still open.
    """

    def __init__(self, fd: int, prefix: int, opened: set[int]) -> None:
        self.fd = fd
        self._opened = opened
        opened.add(fd)
        # The kernel's own word for the path: the same folder by two links is one folder.
        self.path = os.readlink(f"/proc/self/fd/{fd}")[prefix:].strip("/")

    def __del__(self) -> None:
        if self.fd in self._opened:
            self._opened.remove(self.fd)
            os.close(self.fd)


class _Applier:
    def __init__(self, root_fd: int, limits: Limits) -> None:
        self._root = root_fd
        self._depth = limits.depth
        self._prefix = len(os.readlink(f"/proc/self/fd/{root_fd}"))
        self._opened: set[int] = set()
        self._folders: dict[str, _Folder] = {}
        #: Names that this layer made or went through, by the path of their folder.
        self._made: dict[str, set[str]] = {}
        #: Time of each folder that was made or changed inside.
        self._times: dict[str, int] = {}

    def close(self) -> None:
        """Close every folder, also those that an error on its way still refers to."""
        while self._opened:
            os.close(self._opened.pop())

    def entry(self, entry: Entry, reader: TarReader) -> None:
        """Apply one entry."""
        folder_name, _, name = os.fsdecode(entry.name).rpartition("/")
        if not name:
            self._apply_root(entry)
        elif name.startswith(_WHITEOUT):
            self._apply_whiteout(folder_name, name)
        elif f"/{_AUFS}" in f"/{folder_name}":
            pass  # book-keeping of aufs
        elif f"/{_WHITEOUT}" in f"/{folder_name}":
            raise MalformedError("a folder with the name of a whiteout")
        else:
            folder = self._folder(folder_name)
            if entry.type == FOLDER:
                self._apply_folder(folder, name, entry)
            elif entry.type == FILE:
                self._apply_file(folder, name, entry, reader.data())
            elif entry.type == LINK:
                self._apply_link(folder, name, entry)
            elif entry.type == SYMLINK:
                self._apply_symlink(folder, name, entry)
            else:
                self._apply_device(folder, name, entry)
            self._note(folder.path, name)

    def finish(self) -> None:
        """Set the folders' times, which making things in them has changed."""
        self._folders.clear()
        for path, time in self._times.items():
            try:
                fd = kernel.openat2(
                    self._root,
                    path or ".",
                    _OPEN_FOLDER | os.O_NOFOLLOW,
                    resolve=_IN_ROOT | kernel.RESOLVE_NO_SYMLINKS,
                )
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                continue  # a later entry replaced it
            try:
                os.utime(fd, ns=(time, time))
            finally:
                os.close(fd)

    # entries

    def _apply_root(self, entry: Entry) -> None:
        if entry.type != FOLDER:
            raise MalformedError("the root is not a folder")
        folder = self._folder("")
        _set_attributes(folder.fd, entry)
        self._times[""] = entry.mtime_ns

    def _apply_folder(self, folder: _Folder, name: str, entry: Entry) -> None:
        made = self._make_folder(folder, name)
        _set_attributes(made.fd, entry)
        self._times[made.path] = entry.mtime_ns

    def _apply_file(
        self, folder: _Folder, name: str, entry: Entry, data: Iterator[tuple[int, memoryview]]
    ) -> None:
        fd = self._make(folder, name, lambda: os.open(name, _OPEN_FILE, 0o600, dir_fd=folder.fd))
        try:
            for start, piece in data:
                offset, left = start, piece
                while left:
                    written = os.pwrite(fd, left, offset)
                    offset, left = offset + written, left[written:]
            if entry.fragments is not None:
                os.ftruncate(fd, entry.size)
            _set_attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _apply_link(self, folder: _Folder, name: str, entry: Entry) -> None:
        target_folder, _, target = os.fsdecode(entry.target).rpartition("/")
        source = self._existing_folder(target_folder)
        wanted = _status(source, target) if source else None
        if source is None or wanted is None:
            raise MalformedError(f"a hard link to {_quoted(entry.target)}, which is not there")
        there = _status(folder, name)
        if there and os.path.samestat(wanted, there):
            return  # removing it would remove what it links to
        self._remove(folder, name)
        os.link(target, name, src_dir_fd=source.fd, dst_dir_fd=folder.fd, follow_symlinks=False)

    def _apply_symlink(self, folder: _Folder, name: str, entry: Entry) -> None:
        target = os.fsdecode(entry.target)
        self._make(folder, name, lambda: os.symlink(target, name, dir_fd=folder.fd))
        _set_owner_and_time(folder, name, entry)

    def _apply_device(self, folder: _Folder, name: str, entry: Entry) -> None:
        device = os.makedev(entry.major, entry.minor)
        if entry.type == CHARACTER and device == 0:
            raise MalformedError("the device 0:0, which is a whiteout to overlay")
        mode = _DEVICES[entry.type] | 0o600
        self._make(folder, name, lambda: os.mknod(name, mode, device, dir_fd=folder.fd))
        _set_owner_and_time(folder, name, entry)
        os.chmod(name, entry.mode, dir_fd=folder.fd)  # not a link: it was made just now

    def _apply_whiteout(self, folder_name: str, name: str) -> None:
        hidden = name.removeprefix(_WHITEOUT)
        if name.startswith(_AUFS) and name != _OPAQUE:
            return  # book-keeping of aufs
        if hidden in ("", ".", ".."):
            raise MalformedError("a whiteout of nothing")
        folder = self._existing_folder(folder_name)
        if folder is None:
            return
        if name == _OPAQUE:
            self._hide_below(folder)
        elif hidden not in self._made.get(folder.path, ()):
            self._remove(folder, hidden)
        else:
            child = self._open_child(folder, hidden)
            if child is not None:
                self._hide_below(child)

    # folders

    def _folder(self, name: str) -> _Folder:
        """The folder ``name``, in which something is about to change; made where missing."""
        folder = self._existing_folder(name)
        if folder is None:
            above, _, base = name.rpartition("/")
            parent = self._folder(above)
            folder = self._make_folder(parent, base)
            self._note(parent.path, base)
        return folder

    def _existing_folder(self, name: str) -> _Folder | None:
        folder = self._folders.get(name)
        if folder is None:
            try:
                fd = kernel.openat2(self._root, name or ".", _OPEN_FOLDER, resolve=_IN_ROOT)
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                return None
            folder = self._opened_folder(fd)
            self._times.setdefault(folder.path, os.fstat(fd).st_mtime_ns)
            if len(self._folders) >= _CACHED_FOLDERS:
                self._folders.clear()
            self._folders[name] = folder
        return folder

    def _opened_folder(self, fd: int) -> _Folder:
        folder = _Folder(fd, self._prefix, self._opened)
        # Links make names shorter than paths are; `_remove_tree` needs a bound on these.
        if folder.path.count("/") >= self._depth:
            raise MalformedError(f"a path of more than {self._depth} folders")
        return folder

    def _make_folder(self, parent: _Folder, name: str) -> _Folder:
        """The folder that is there, also through a link; else a new one in the place of all."""
        child = self._open_child(parent, name) or self._open_link(parent, name)
        if child is None:
            self._make(parent, name, lambda: os.mkdir(name, 0o700, dir_fd=parent.fd))
            fd = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=parent.fd)
            child = self._opened_folder(fd)
            os.fchown(child.fd, 0, 0)
            os.fchmod(child.fd, _NEW_FOLDER_MODE)
            self._times[child.path] = 0
        return child

    def _open_child(self, parent: _Folder, name: str) -> _Folder | None:
        try:
            fd = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=parent.fd)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            return None
        return self._opened_folder(fd)

    def _open_link(self, parent: _Folder, name: str) -> _Folder | None:
        try:
            fd = kernel.openat2(
                self._root, f"{parent.path or '.'}/{name}", _OPEN_FOLDER, resolve=_IN_ROOT
            )
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            return None
        return self._opened_folder(fd)

    def _note(self, path: str, name: str) -> None:
        """Remember that this layer made ``name``, and so goes through each folder above."""
        names = self._made.get(path)
        if names is None:
            names = self._made[path] = set()
            if path:
                above, _, base = path.rpartition("/")
                self._note(above, base)
        names.add(name)

    # making room

    def _make(self, folder: _Folder, name: str, make: Callable[[], T]) -> T:
        """``make``, which fails where something is; that is removed then."""
        try:
            return make()
        except FileExistsError:
            self._remove(folder, name)
            return make()

    def _remove(self, folder: _Folder, name: str) -> None:
        """Remove a name and all below it; one that is not there is a success."""
        status = _status(folder, name)
        if status is None:
            return
        if not stat.S_ISREG(status.st_mode):
            self._folders.clear()  # some may have been reached through it
        _remove_tree(folder.fd, name)

    def _hide_below(self, folder: _Folder) -> None:
        """Remove from a folder what this layer did not make."""
        self._folders.clear()
        made = self._made.get(folder.path, set())
        for name in os.listdir(folder.fd):
            if name not in made:
                _remove_tree(folder.fd, name)
            else:
                child = self._open_child(folder, name)
                if child is not None:
                    self._hide_below(child)


def _status(folder: _Folder, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder.fd, follow_symlinks=False) if name else None
    except FileNotFoundError:
        return None


def _remove_tree(fd: int, name: str) -> None:
    """Remove ``name`` from the folder; as deep as ``Limits.depth`` lets a tree be."""
    try:
        os.unlink(name, dir_fd=fd)
    except IsADirectoryError:
        below = os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=fd)
        try:
            for child in os.listdir(below):
                _remove_tree(below, child)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=fd)


def _set_attributes(fd: int, entry: Entry) -> None:
    """Owner, mode and extended attributes, in the order in which none undoes another."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    for key, value in entry.xattrs.items():
        if b"\0" in key:
            raise MalformedError("an extended attribute with a NUL in its name")
        if key == b"security.capability":
            os.setxattr(fd, key, value)
        elif key.startswith(b"user.") and not key.startswith(b"user.overlay."):
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise


def _set_owner_and_time(folder: _Folder, name: str, entry: Entry) -> None:
    times = (entry.mtime_ns, entry.mtime_ns)
    os.chown(name, entry.uid, entry.gid, dir_fd=folder.fd, follow_symlinks=False)
    os.utime(name, ns=times, dir_fd=folder.fd, follow_symlinks=False)
