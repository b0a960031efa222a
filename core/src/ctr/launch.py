"""The engine's end of a launch: spawn a supervisor, answer its sync points, read its reports.

See ctr.launcher.protocol for the messages and the descriptors.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ctr.errors import (
    CommandNotFoundError,
    InvalidError,
    LaunchError,
    NotExecutableError,
    UnsupportedError,
)
from ctr.launcher import protocol
from ctr.operations import Exec

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping, Sequence

    from ctr.program import Operation


class Exit(NamedTuple):
    """How PID 1 ended: ``status`` as a shell has it (128 + signal), ``oom``: by the OOM killer.

    ``lost``: the supervisor died, and the container with it.
    """

    status: int
    oom: bool
    lost: bool = False


class Supervisor:
    """A supervisor that this process has spawned, as seen through its control socket."""

    def __init__(self, pid: int, control: _socket.socket) -> None:
        self.pid = pid
        self._control = control

    def fileno(self) -> int:
        """The control socket's descriptor, for poll(2)."""
        return self._control.fileno()

    def start(
        self,
        operations: Sequence[Operation],
        name: str,
        on_sync: Callable[[int, int], None],
        on_trace: Callable[[Operation], None] | None = None,
    ) -> int:
        """Drive the launch up to the commit point; return the PID of the container's PID 1.

        ``on_sync(point, pid)`` is called at each sync point; if it raises, the launch is
        broken off.  Raises LaunchError for an operation that failed.
        """
        while True:
            kind, a, b, text = self._receive()
            if kind == protocol.SYNC:
                on_sync(a, b)
                self._send(protocol.GO)
            elif kind == protocol.TRACE:
                if on_trace:
                    on_trace(operations[a])
            elif kind == protocol.STARTED:
                return b
            elif kind == protocol.FAILED:
                raise failure(operations, name, a, b, text)
            elif kind == protocol.HELLO and a != protocol.VERSION:
                raise LaunchError(
                    f"cannot start {name}: the launcher speaks protocol {a}, "
                    f"this is {protocol.VERSION}",
                    hint="install ctr-core anew",
                )
            elif kind == 0:
                raise LaunchError(f"cannot start {name}: the supervisor died")

    def read_exit(self) -> Exit | None:
        """Read one message after the commit point; the exit, if it is that."""
        kind, a, b, _ = self._receive()
        if kind == protocol.EXITED:
            return Exit(
                os.waitstatus_to_exitcode(a) if os.WIFEXITED(a) else 128 + os.WTERMSIG(a), b == 1
            )
        if kind == 0:
            return Exit(137, oom=False, lost=True)
        return None

    def signal(self, number: int) -> None:
        """Send a signal to PID 1."""
        self._send(protocol.SIGNAL, number)

    def done(self) -> None:
        """Tell it that the clean-up is done, and reap it."""
        self._send(protocol.DONE)
        self.close()
        os.waitpid(self.pid, 0)

    def close(self) -> None:
        """Drop the control socket: before the commit point this ends the launch."""
        self._control.close()

    def abandon(self) -> None:
        """Break a launch off that has not reached the commit point, and wait for its end."""
        self.close()
        os.waitpid(self.pid, 0)

    def _send(self, kind: int, a: int = 0) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the next receive says so
            self._control.send(protocol.MESSAGE.pack(kind, a, 0))

    def _receive(self) -> tuple[int, int, int, str]:
        """One message; kind 0 at end of file."""
        try:
            data = self._control.recv(protocol.MESSAGE.size + protocol.MAX_TEXT)
        except ConnectionResetError:
            data = b""
        if len(data) < protocol.MESSAGE.size:
            return 0, 0, 0, ""
        kind, a, b = protocol.MESSAGE.unpack_from(data)
        return kind, a, b, data[protocol.MESSAGE.size :].decode(errors="replace")


def spawn(
    launcher: str,
    container: str,
    program: bytes,
    run_dir: str,
    streams: tuple[int, int, int],
    cleaner: Sequence[str],
    environment: Mapping[str, str],
) -> Supervisor:
    """Spawn a supervisor with ``launcher`` (native or reference) for an encoded program.

    ``streams`` are the client's ends as the protocol lists them; the caller closes them.
    """
    program_fd = os.memfd_create("ctr-program", os.MFD_CLOEXEC)
    run_fd = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.write(program_fd, program)
        os.lseek(program_fd, 0, os.SEEK_SET)
        if launcher == "native":
            from ctr.launcher.native import spawn as spawn_supervisor
        else:
            from ctr.launcher.reference import spawn as spawn_supervisor
        pid, control = spawn_supervisor(
            container, program_fd, run_fd, streams, cleaner, environment
        )
    finally:
        os.close(program_fd)
        os.close(run_fd)
    return Supervisor(pid, control)


def choose_launcher(asked: str = "") -> str:
    """``native`` where it was built, else ``reference``; or what was asked for.

    Raises UnsupportedError when that is not there, InvalidError for another name.
    """
    from ctr.launcher import native

    if asked not in ("", "native", "reference"):
        raise InvalidError(
            f"cannot use the launcher {asked!r}: unknown", hint="known are native and reference"
        )
    if asked == "reference" or (not asked and not native.available()):
        return "reference"
    if not native.available():
        raise UnsupportedError(
            f"cannot use the launcher {asked!r}: not built",
            hint="apt install gcc libc6-dev, then install ctr-core anew",
        )
    return "native"


def failure(
    operations: Sequence[Operation], name: str, index: int, errno: int, detail: str
) -> LaunchError:
    """The error for a launch that failed at operation ``index`` (-1: none)."""
    cause = os.strerror(errno) if errno else ""
    if not 0 <= index < len(operations):
        text = ": ".join(part for part in (detail, cause) if part)
        return LaunchError(f"cannot start {name}: {text or 'the launch broke off'}", errno=errno)
    operation = operations[index]
    if isinstance(operation, Exec):
        return _exec_failure(operation, errno, cause)
    if detail and cause:
        cause = f"{cause} ({detail})"
    return LaunchError(
        f"cannot start {name}: {operation.by}: {operation.describe()} failed: {cause or detail}",
        hint=_hint(operation, errno),
        by=operation.by,
        errno=errno,
    )


def _exec_failure(operation: Exec, errno: int, cause: str) -> LaunchError:
    import errno as codes

    command = operation.argv[0]
    if errno == codes.ENOENT:
        where = (
            "no such file or directory" if "/" in command else "executable file not found in $PATH"
        )
        return CommandNotFoundError(
            f'cannot execute "{command}": {where}',
            hint="a script needs its interpreter in the image, a program its loader",
            by=operation.by,
            errno=errno,
        )
    hint = {
        codes.EACCES: "is it executable, for this user?",
        codes.ENOEXEC: "is it for this machine's architecture, or a script without #! line?",
    }.get(errno, "")
    return NotExecutableError(
        f'cannot execute "{command}": {cause.lower()}', hint=hint, by=operation.by, errno=errno
    )


def _hint(operation: Operation, errno: int) -> str:
    import errno as codes

    kind = type(operation).__name__
    if kind == "MoveMount" and errno in (codes.EINVAL, codes.ENOTDIR):
        return "are you trying to mount a folder onto a file (or vice versa)?"
    if kind == "OomScore":
        return "lowering it takes CAP_SYS_RESOURCE, which ctr lacks"
    if errno == codes.EPERM:
        return "run as root; inside a container, ctr needs CAP_SYS_ADMIN and an unconfined seccomp"
    if errno == codes.ENOSPC and kind in ("Clone", "Unshare"):
        return "a limit in /proc/sys/user is reached (max_*_namespaces)"
    if errno == codes.EINVAL and kind in ("Clone", "Unshare"):
        return "this kernel lacks one of the namespaces; `ctr doctor` tells which"
    if errno in (codes.ENODEV, codes.EINVAL) and "Mount" in kind:
        return "the kernel lacks the file system or one of its options; `ctr doctor` tells more"
    if errno == codes.EAGAIN:
        return "the limit of processes is reached: a larger --pids-limit or ulimit nproc"
    return "`ctr --debug …` shows each operation as it runs"
