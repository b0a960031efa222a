"""Drives one launcher through the protocol, as the engine does, for the tests of both."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from ctr import encoding
from ctr.launcher import protocol
from ctr.launcher.protocol import MAX_TEXT, MESSAGE
from ctr.operations import (
    AttachRoot,
    Chdir,
    Clone,
    CloseDescriptors,
    Exec,
    MountAt,
    MoveMount,
    OpenPath,
    OpenTree,
    PivotRoot,
    Propagation,
    Stdio,
    Sync,
)
from ctr.program import Create, Phase, Verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ctr.program import Operation

# from linux/sched.h
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
FRESH = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET

# from linux/mount.h
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The slots that ``container`` uses; a test's own begin at FREE_SLOT.
ROOT_SLOT, NULL_SLOT, FREE_SLOT = 0, 1, 10

#: How long a test waits for a message before it gives up, in seconds.
PATIENCE = 20.0


class LauncherModule(Protocol):
    """ctr.launcher.native or ctr.launcher.reference."""

    def spawn(
        self,
        container_id: str,
        program_fd: int,
        run_dir_fd: int,
        stdio_fds: tuple[int, int, int],
        cleaner: Sequence[str],
        env: Mapping[str, str],
    ) -> tuple[int, Any]: ...


class Message(NamedTuple):
    """One packet of the supervisor; ``kind`` 0 is end of file."""

    kind: int
    a: int = 0
    b: int = 0
    text: str = ""


class Result(NamedTuple):
    """What a launch gave: every message, the output, and PID 1's wait status (None: no EXITED)."""

    events: list[Message]
    stdout: bytes
    stderr: bytes
    status: int | None

    @property
    def exit_code(self) -> int | None:
        """As a shell has it: 128 + signal for a killed process."""
        if self.status is None:
            return None
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    @property
    def failure(self) -> Message | None:
        """The FAILED message, if there was one."""
        return next((event for event in self.events if event.kind == protocol.FAILED), None)

    @property
    def kinds(self) -> list[int]:
        """The messages' kinds, in order."""
        return [event.kind for event in self.events]


class Launch:
    """A running supervisor; a context manager that leaves nothing behind.

    ``stdin`` None is /dev/null, else a pipe in ``self.stdin``.  ``stdout`` and ``stderr``
    are the read ends of the client's pipes, -1 once closed.
    """

    def __init__(
        self,
        module: LauncherModule,
        program: bytes,
        run_dir: str,
        *,
        with_stdin: bool = False,
        cleaner: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.events: list[Message] = []
        self.child = 0
        self.stdin = -1
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs_in = null
        if with_stdin:
            theirs_in, self.stdin = os.pipe()
        self.stdout, theirs_out = os.pipe()
        self.stderr, theirs_err = os.pipe()
        run_fd = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        program_fd = os.memfd_create("program", os.MFD_CLOEXEC)
        os.write(program_fd, program)
        try:
            self.pid, self.control = module.spawn(
                "test", program_fd, run_fd, (theirs_in, theirs_out, theirs_err), cleaner, env or {}
            )
        finally:
            for fd in {null, theirs_in, theirs_out, theirs_err, run_fd, program_fd}:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for name in ("stdin", "stdout", "stderr"):
            self.close(name)
        self.control.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # the container dies with it
            self.wait()
        if self.child:
            wait_gone(self.child)

    def close(self, name: str) -> None:
        """Close the client's end ``stdin``, ``stdout`` or ``stderr``."""
        fd: int = getattr(self, name)
        if fd >= 0:
            os.close(fd)
            setattr(self, name, -1)

    def receive(self) -> Message:
        """The next message; fails the test when none comes."""
        assert select.select([self.control], [], [], PATIENCE)[0], f"silence after {self.events}"
        try:
            data = self.control.recv(MESSAGE.size + MAX_TEXT)
        except ConnectionResetError:
            data = b""
        message = Message(0)
        if data:
            kind, a, b = MESSAGE.unpack_from(data)
            message = Message(kind, a, b, data[MESSAGE.size :].decode())
        self.events.append(message)
        if message.kind in (protocol.SYNC, protocol.STARTED):
            self.child = message.b
        return message

    def send(self, kind: int, a: int = 0) -> None:
        """Send one message, whether or not the supervisor still lives."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.control.send(MESSAGE.pack(kind, a, 0))

    def expect(self, kind: int) -> Message:
        """The next message but TRACE, which must be of ``kind``."""
        while True:
            message = self.receive()
            if message.kind != protocol.TRACE:
                assert message.kind == kind, self.events
                return message

    def start(self, on_sync: Callable[[int, int], None] | None = None) -> bool:
        """Answer sync points until the commit point (True), a failure or the end (False)."""
        while True:
            message = self.receive()
            if message.kind == protocol.SYNC:
                if on_sync:
                    on_sync(message.a, message.b)
                self.send(protocol.GO)
            elif message.kind in (protocol.STARTED, protocol.FAILED, 0):
                return message.kind == protocol.STARTED

    def finish(self, stdin: bytes | None = None) -> Result:
        """Feed the input, read the output to its end, then the exit; say DONE and reap."""
        output = self.communicate(stdin)
        status = None
        while True:
            kind, a, _, _ = self.receive()
            if kind == protocol.EXITED:
                status = a
                self.send(protocol.DONE)
            elif kind == 0:
                break
        self.wait()
        return Result(self.events, *output, status)

    def communicate(self, stdin: bytes | None = None) -> tuple[bytes, bytes]:
        """Move bytes until both outputs are at their end."""
        outputs = {self.stdout: bytearray(), self.stderr: bytearray()}
        open_ends = set(outputs) - {-1}
        left = memoryview(stdin or b"")
        deadline = time.monotonic() + PATIENCE
        if not left:
            self.close("stdin")
        while open_ends:
            writers = [self.stdin] if self.stdin >= 0 else []
            ready, writable, _ = select.select(list(open_ends), writers, [], 1)
            assert time.monotonic() < deadline, f"no end of output after {self.events}"
            for fd in ready:
                data = os.read(fd, 1 << 16)
                outputs[fd] += data
                if not data:
                    open_ends.discard(fd)
            if writable:
                try:
                    left = left[os.write(self.stdin, left[: select.PIPE_BUF]) :]
                except BrokenPipeError:
                    left = left[:0]
                if not left:
                    self.close("stdin")
        return bytes(outputs[self.stdout]), bytes(outputs[self.stderr])

    def wait(self) -> int:
        """Reap the supervisor; its wait status."""
        status = os.waitpid(self.pid, 0)[1]
        self.pid = 0
        return status


def launch(
    module: LauncherModule,
    operations: Sequence[Operation],
    run_dir: str,
    *,
    stdin: bytes | None = None,
    on_sync: Callable[[int, int], None] | None = None,
    flags: int = 0,
) -> Result:
    """Run a program from its start to its end."""
    program = encoding.encode(operations, flags=flags)
    with Launch(module, program, run_dir, with_stdin=stdin is not None) as running:
        running.start(on_sync)
        return running.finish(stdin)


def make_root(folder: str) -> None:
    """Make a root folder for ``container``, which binds the host's programs into it."""
    for name in ("dev", "etc", "proc", "tmp", "usr"):
        os.makedirs(os.path.join(folder, name))
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), os.path.join(folder, name))
        elif os.path.isdir(f"/{name}"):
            os.makedirs(os.path.join(folder, name))


def container(
    root: str,
    *argv: str,
    flags: int = FRESH,
    watch: Sequence[Operation] = (),
    prepare: Sequence[Operation] = (),
    cloned: Sequence[Operation] = (),
    join: Sequence[Operation] = (),
    setup: Sequence[Operation] = (),
    settle: Sequence[Operation] = (),
    last: Sequence[Operation] = (),
    environment: Sequence[str] = (f"PATH={PATH}",),
) -> list[Operation]:
    """A plain program: fresh namespaces, ``root`` as the root, the host's programs, proc.

    The sequences are put at the end of their phases, which they are moved to.
    """
    binds = [name for name in os.listdir(root) if name not in ("dev", "etc", "proc", "tmp")]
    folders = [name for name in binds if not os.path.islink(os.path.join(root, name))]
    folders = [name for name in folders if os.path.isdir(f"/{name}")]
    return [
        *watch,
        OpenTree(ROOT_SLOT, root, 1),
        *(OpenTree(2 + i, f"/{name}", 1) for i, name in enumerate(folders)),
        *(operation.at(Phase.PREPARE) for operation in prepare),
        Clone(flags),
        *(operation.at(Phase.CLONED) for operation in cloned),
        Sync(1),
        *(operation.at(Phase.JOIN) for operation in join),
        Propagation(MS_REC | MS_PRIVATE),
        OpenPath(NULL_SLOT, "/dev/null", os.O_PATH, Verify.CHAR_DEVICE, 1, 3).at(Phase.JOIN),
        AttachRoot(ROOT_SLOT),
        *(MoveMount(2 + i, f"/{name}", Create.NOTHING) for i, name in enumerate(folders)),
        MountAt("proc", "/proc"),
        *(operation.at(Phase.SETUP) for operation in setup),
        Sync(2).at(Phase.SETUP),
        PivotRoot(),
        *(operation.at(Phase.ROOT) for operation in settle),
        Stdio(0, 0),
        Sync(3).at(Phase.ROOT),
        Chdir("/"),
        *(operation.at(Phase.LAST) for operation in last),
        CloseDescriptors(),
        Exec(argv, tuple(environment), PATH),
    ]


def read_until(fd: int, wanted: bytes) -> bytes:
    """Read until ``wanted`` was there; fails the test at end of file."""
    data = b""
    while wanted not in data:
        assert select.select([fd], [], [], PATIENCE)[0], data
        more = os.read(fd, 4096)
        assert more, data
        data += more
    return data


def wait_gone(pid: int) -> None:
    """Wait until a process that is not our child has ended (a zombie counts)."""
    deadline = time.monotonic() + PATIENCE
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def status_lines(run_dir: str) -> list[list[str]]:
    """The status file, split into words."""
    with open(os.path.join(run_dir, "status"), encoding="ascii") as file:
        return [line.split() for line in file]
