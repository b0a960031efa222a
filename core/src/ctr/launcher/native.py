"""The compiled launcher: finds it, seals it, spawns it.

It runs from a sealed memfd and not from its file: inside a container it would be reachable
as ``/proc/PID/exe``, and root in there could write to the host's file (CVE-2019-5736).
"""

from __future__ import annotations

import _socket  # socket costs 12 ms to import; what is needed of it is here
import fcntl
import os
from typing import TYPE_CHECKING

from ctr.launcher import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The executable that the package was built with.
LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ctr-launcher")

# from linux/memfd.h; kernels before 6.3 do not know it and need no word for it
MFD_EXEC = 0x10

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
#: Descriptors from here on are in nobody's way: file actions fill those below.
_FREE = protocol.STDERR_FD + 1


def available() -> bool:
    """Whether the launcher was built and may be executed."""
    return os.access(LAUNCHER, os.X_OK)


def spawn(
    container_id: str,
    program_fd: int,
    run_dir_fd: int,
    stdio_fds: tuple[int, int, int],
    cleaner: Sequence[str],
    env: Mapping[str, str],
) -> tuple[int, _socket.socket]:
    """Start the supervisor; return its PID and the engine's end of the control socket.

    The descriptors (see ctr.launcher.protocol) stay the caller's.  ``env`` is the cleaner's
    environment.  The socket is one of ``_socket``: no context manager, all else as usual.
    Raises OSError.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    taken: list[int] = []
    try:
        executable = _sealed()
        taken.append(executable)
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
        wanted = (theirs.fileno(), program_fd, run_dir_fd, *stdio_fds)
        for number, fd in enumerate(wanted, protocol.CONTROL_FD):
            taken.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FREE))
            actions.append((os.POSIX_SPAWN_DUP2, taken[-1], number))
        pid = os.posix_spawn(
            f"/proc/self/fd/{executable}",
            ["ctr-launcher", container_id, *cleaner],
            env,
            file_actions=actions,
            setsid=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in taken:
            os.close(fd)
    return pid, ours


def _sealed() -> int:
    """A descriptor of a copy of the launcher that nobody can write to."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        memfd = os.memfd_create("ctr-launcher", flags | MFD_EXEC)
    except OSError:
        memfd = os.memfd_create("ctr-launcher", flags)
    try:
        with open(LAUNCHER, "rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size
            while left:
                left -= os.sendfile(memfd, file.fileno(), None, left)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(memfd, fcntl.F_DUPFD_CLOEXEC, _FREE)
    finally:
        os.close(memfd)
