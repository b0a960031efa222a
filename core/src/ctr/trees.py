"""Work on whole file trees by descriptor: walk, remove, measure.

Trees come from images and containers, so they are hostile: no path is ever followed, names
may be any bytes, and folders may be nested deeper than a path or a process's descriptors
reach.  Each function therefore holds two or three descriptors at any depth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.models import Usage

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk_tree(path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield ``(folder, name, stat)`` for everything below ``path``, a folder before its content.

    ``folder`` is a descriptor that is valid until the next step; links are not followed.
    The tree must not be renamed in while it is walked: the way back up is "..".
    """
    folder = os.open(path, _FOLDER)
    try:
        todo: list[list[str]] = []
        while True:
            children = []
            for entry in _entries(folder):
                status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
                yield folder, entry, status
                if stat.S_ISDIR(status.st_mode):
                    children.append(entry)
            todo.append(children)
            while todo and not todo[-1]:
                todo.pop()
                if todo:
                    folder = step(folder, "..")
            if not todo:
                return
            folder = step(folder, todo[-1].pop())
    finally:
        os.close(folder)


def step(folder: int, name: str) -> int:
    """Open the folder ``name`` beneath the descriptor ``folder``, and close that one."""
    below = os.open(name, _FOLDER, dir_fd=folder)
    os.close(folder)
    return below


def _entries(folder: int) -> list[str]:
    """The names in a folder; a list, because the caller changes the folder."""
    return os.listdir(folder)


def tree_usage(path: str) -> Usage:
    """Disk usage of ``path`` and all below it; a file with several links counts once."""
    from ctr.models import Usage

    top = os.lstat(path)
    size, inodes = top.st_blocks * 512, 1
    seen: set[tuple[int, int]] = set()
    for _, _, status in walk_tree(path):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            inode = (status.st_dev, status.st_ino)
            if inode in seen:
                continue
            seen.add(inode)
        size += status.st_blocks * 512
        inodes += 1
    return Usage(size, inodes)


def remove_tree(path: str) -> None:
    """Remove the folder ``path`` and all below it.  One already gone is a success.

    A folder that is not empty is first moved up to the top, so depth costs nothing.  The
    top must be a folder of our own, whose direct names nobody else chose.
    """
    try:
        top = os.open(path, _FOLDER)
    except FileNotFoundError:
        return
    try:
        todo = _clear(top, top, "")
        while todo:
            name = todo.pop()
            with contextlib.suppress(FileNotFoundError):
                folder = os.open(name, _FOLDER, dir_fd=top)
                try:
                    todo += _clear(top, folder, os.urandom(6).hex())
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def _clear(top: int, folder: int, prefix: str) -> list[str]:
    """Empty ``folder``; return the names, now in ``top``, of folders that were not empty."""
    left = []
    with os.scandir(folder) as scan:
        entries = list(scan)
    for number, entry in enumerate(entries):
        name = entry.name
        with contextlib.suppress(FileNotFoundError):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(name, dir_fd=folder)
                continue
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if folder != top:
                    moved = f"{prefix}.{number}"
                    os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=top)
                    name = moved
                left.append(name)
    return left
