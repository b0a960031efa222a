"""Files of the content store: locks and replacement that survive a crash."""

from __future__ import annotations

import fcntl
import os
from typing import Self

from ctr.errors import StateError


class Lock:
    """A file lock (flock) on ``path``, made where missing; waits for it.

    Lock files are never unlinked: a process that waits for one would then hold a lock on
    nothing.  Raises StateError.
    """

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self._path = path
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd = -1

    def __enter__(self) -> Self:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._path, flags, 0o600)
            fcntl.flock(self._fd, self._operation)
        except OSError as error:
            self.__exit__()
            raise StateError(f"cannot lock {self._path}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def replace(path: str, data: bytes) -> None:
    """Write a file so that a reader, and a crash of the machine, sees the old or the new one.

    Raises StateError.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(temporary, flags, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from error


def sync_folder(path: str) -> None:
    """Make renames in the folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: str) -> None:
    """Make a folder and those above it, all 0700, where they are missing."""
    if not os.path.isdir(path):
        make_folder(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
