"""Groups as folders: making, listing and removing them, and writing their limits.

Plain system calls on paths and descriptors.  A container that may write its control groups
can nest them deeper than a path is long, so nested groups are visited by descriptors.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ctr.errors import DriverError, InvalidError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ctr_cgroups.limits import Limit

#: Where containers' groups are by default, below each hierarchy's root.
PARENT = "/ctr"

#: Seconds until ``empty`` gives up on processes that do not die (uninterruptible sleep).
PATIENCE = 10.0

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_group(group: str) -> str:
    """Return ``group`` if it is an absolute path below the root, in its shortest form.

    Raises InvalidError.  The root itself is refused: removing a group kills what is inside.
    """
    parts = group.split("/")
    if (
        len(parts) < 2
        or parts[0]
        or any(part in ("", ".", "..") for part in parts[1:])
        or not group.isprintable()
        or len(group.encode()) > 2048
    ):
        raise InvalidError(
            f"cannot use the control group {group!r}: it is not an absolute path without '..'",
            hint="for example --cgroup-parent /customers/web",
        )
    return group


def make(root: str, group: str) -> list[str]:
    """Make ``group`` below ``root``, parents included; return all of them, topmost first.

    Those that exist are left as they are.  Parents are never removed again, so nobody has
    to make them twice.
    """
    path = root
    paths = [path := f"{path}/{part}" for part in group[1:].split("/")]
    try:
        _make(paths[-1])
    except FileNotFoundError:
        for path in paths:
            _make(path)
    return paths


def _make(path: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    os.chmod(path, 0o755)  # whatever the umask: the container reads its group


def read(path: str) -> str:
    """The file's text, without white space at its ends."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while more := os.read(fd, 65536):
            data += more
    finally:
        os.close(fd)
    return data.decode(errors="replace").strip()


def write(path: str, value: str, *, dir_fd: int | None = None) -> None:
    """One write(2) of ``value``.  Raises OSError with the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def write_limits(limits: Iterable[Limit], folder: Callable[[Limit], str]) -> None:
    """Write each limit into ``folder(limit)``.

    One that the kernel refuses as invalid is tried once more after the others: memory must
    stay below memory plus swap and a quota must fit its period, so that the right order
    depends on the old values.  Raises InvalidError for a value refused in the end, and
    UnsupportedError for a file that the kernel lacks.
    """
    refused = []
    for limit in limits:
        path = folder(limit)
        try:
            _write_limit(path, limit)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise _explained(error, path, limit) from error
            refused.append((path, limit))
    for path, limit in refused:
        try:
            _write_limit(path, limit)
        except OSError as error:
            raise _explained(error, path, limit) from error


def _write_limit(path: str, limit: Limit) -> None:
    try:
        write(f"{path}/{limit.file}", limit.value)
    except FileNotFoundError:
        if limit.alternative is None:
            raise
        file, value = limit.alternative
        write(f"{path}/{file}", value)


def _explained(error: OSError, path: str, limit: Limit) -> Exception:
    if error.errno == errno.ENOENT:
        if not os.path.isdir(path):
            return error  # the group itself is gone
        return UnsupportedError(
            f"cannot set {limit.file}: the {limit.controller} controller of this kernel lacks it",
            hint="leave the limit out, or use a kernel that has it",
        )
    if error.errno in (errno.EROFS, errno.EPERM) or (error.errno == errno.EACCES and os.geteuid()):
        return error
    hint = ""
    if limit.file == "memory.limit_in_bytes" and error.errno == errno.EINVAL:
        hint = "memory can't exceed memory plus swap: give --memory-swap too"
    elif error.errno == errno.EBUSY:
        hint = "the group uses more than that now"
    return InvalidError(
        f"cannot set {limit.file} of {path} to {limit.value}: {error.strerror}", hint=hint
    )


def children(path: str) -> list[str]:
    """Names of the groups right below ``path``; none when it is gone."""
    try:
        fd = os.open(path, _FOLDER)
    except FileNotFoundError:
        return []
    try:
        return _folders(fd)
    finally:
        os.close(fd)


def below(path: str) -> Iterator[tuple[int, str]]:
    """Yield every group below ``path``, the inner ones first, then ``path`` itself.

    Each as the descriptor of its parent (open until the next step) and its name.  Groups
    that vanish meanwhile are left out.
    """
    parent, name = os.path.split(path)
    try:
        fd = os.open(parent, _FOLDER)
    except FileNotFoundError:
        return
    trail: list[str] = []
    pending = [[name]]
    try:
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                try:
                    down = os.open(name, _FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    continue
                os.close(fd)
                fd = down
                trail.append(name)
                pending.append(_folders(fd))
            else:
                pending.pop()
                if trail:
                    up = os.open("..", _FOLDER, dir_fd=fd)
                    os.close(fd)
                    fd = up
                    yield fd, trail.pop()
    finally:
        os.close(fd)


def processes(path: str) -> set[int]:
    """PIDs in ``path`` and below, as this process's PID namespace sees them."""
    pids: set[int] = set()
    for parent, name in below(path):
        try:
            fd = os.open(f"{name}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
            with open(fd, "rb") as file:
                pids.update(int(line) for line in file)
        except OSError as error:
            # gone meanwhile (ENODEV: between open and read); a threaded v2 group has no list
            # of its own (EOPNOTSUPP): its processes are in the list of the group above
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
    pids.discard(0)  # a process of another PID namespace
    return pids


def remove_empty(path: str) -> bool:
    """Remove the group if nothing is inside; say whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def empty(paths: list[str], kill: Callable[[], None]) -> None:
    """Call ``kill`` and remove the groups with all below, until all are gone.

    Raises DriverError after ``PATIENCE`` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    pause = 0.0005
    while True:
        kill()
        paths = [path for path in paths if not _remove_tree(path)]
        if not paths:
            return
        if time.monotonic() > deadline:
            pids = sorted(set().union(*map(processes, paths)))
            raise DriverError(
                f"cannot remove the control group {paths[0]}: "
                f"{len(pids)} processes inside do not die",
                hint=f"see /proc/PID/stack of PIDs {pids[:10]}" if pids else "",
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _remove_tree(path: str) -> bool:
    gone = True
    for parent, name in below(path):
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            gone = False
    return gone


def remove_stale(
    groups: Iterable[str], valid: frozenset[str], paths: Callable[[str], list[str]]
) -> list[str]:
    """Remove the ``groups`` that are not in ``valid``, at their ``paths``; return them.

    Nothing is killed: every root of the machine has its groups here, so one that is not
    known and has processes is a live container of another root.  Goes on past those that
    can't be removed, and raises an ExceptionGroup in the end.
    """
    gone: list[str] = []
    errors: list[Exception] = []
    for group in groups:
        # Every path is looked at before any goes: to take one hierarchy's group from a live
        # container would be as bad.
        if group in valid or any(map(processes, paths(group))):
            continue
        try:
            removed = [_remove_tree(path) for path in paths(group)]
        except OSError as error:
            errors.append(error)
        else:
            if all(removed):
                gone.append(group)
    if errors:
        raise ExceptionGroup("cannot remove every stale control group", errors)
    return gone


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL each; one that is gone is a success."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _folders(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise
