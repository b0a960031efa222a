"""Writes layers: tar archives that are the same, byte for byte, for the same content."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from ctr.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    #: A member and, for a regular file, what opens its content.
    Member = tuple[tarfile.TarInfo, Callable[[], BinaryIO] | None]

_BUFFER = 1 << 20
_MAX_DEPTH = 256  # as ctr.images.tar.Limits


def member(
    name: str, kind: bytes, mode: int, *, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    """A member that belongs to root and has no time; ``kind`` as in tarfile."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, target, size
    return info


def write_layer(members: Iterable[Member], write: Callable[[bytes], object]) -> None:
    """Write the members in the order given.  Raises ImageError when one can't be read."""
    with tarfile.open(
        fileobj=cast("IO[bytes]", _Output(write)),
        mode="w|",
        bufsize=_BUFFER,
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for info, opener in members:
            try:
                if opener is None:
                    archive.addfile(info)
                else:
                    with opener() as file:
                        archive.addfile(info, file)
            except OSError as error:
                raise ImageError(
                    f"cannot read {info.name!r}: {error.strerror or 'it changed meanwhile'}"
                ) from error


def folder_members(path: str | int) -> Iterator[Member]:
    """Everything below a folder (a path or a descriptor), sorted, with all its attributes.

    Links are not followed; sockets, which an archive can't hold, are left out.  Raises
    ImageError.
    """
    seen: dict[tuple[int, int], str] = {}
    # A descriptor is never turned into a path: it may be of a mount that has none.
    top, start = (os.path.realpath(path), None) if isinstance(path, str) else (".", path)
    for folder, folders, files, fd in os.fwalk(
        top, onerror=_raise, follow_symlinks=False, dir_fd=start
    ):
        below = os.path.relpath(folder, top)
        if below == ".":
            yield _member("./", os.fstat(fd), fd, "."), None
        elif below.count("/") >= _MAX_DEPTH - 1:
            raise ImageError(f"cannot import {path!r}: it is deeper than {_MAX_DEPTH} folders")
        folders.sort()
        for name in sorted([*folders, *files]):
            inside = name if below == "." else f"{below}/{name}"
            if name.startswith(".wh."):
                raise ImageError(f"cannot import {inside!r}: its name is that of a whiteout")
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                continue
            info = _member(inside, status, fd, name)
            identity = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if identity in seen:
                    info.type, info.linkname, info.size = tarfile.LNKTYPE, seen[identity], 0
                seen.setdefault(identity, inside)
            yield info, _opener(fd, name) if info.isreg() else None


def _member(path: str, status: os.stat_result, fd: int, name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime, fraction = divmod(status.st_mtime_ns, 1_000_000_000)
    pax: dict[str, str] = {}
    if fraction:
        pax["mtime"] = _seconds(status.st_mtime_ns)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        info.size = status.st_size
    else:
        info.type = _TYPES[kind]
    if kind == stat.S_IFLNK:
        info.linkname = os.readlink(name, dir_fd=fd)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind in (stat.S_IFREG, stat.S_IFDIR):
        for key, value in _attributes(fd, name):
            pax[f"SCHILY.xattr.{key}"] = value.decode(errors="surrogateescape")
    info.pax_headers = pax
    return info


_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def _seconds(nanoseconds: int) -> str:
    """Decimal seconds without a loss, which a float would have."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{sign}{seconds}.{fraction:09d}"


def _attributes(fd: int, name: str) -> Iterator[tuple[str, bytes]]:
    """The extended attributes that ``ctr.images.layers`` would keep."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(name, flags, dir_fd=fd)
    try:
        for key in sorted(os.listxattr(file)):
            if key == "security.capability" or key.startswith("user."):
                yield key, os.getxattr(file, key)
    finally:
        os.close(file)


def _opener(fd: int, name: str) -> Callable[[], BinaryIO]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return lambda: open(os.open(name, flags, dir_fd=fd), "rb")


def _raise(error: OSError) -> None:
    raise error


class _Output:
    """A file to tarfile, which wants only ``write``."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
