"""The launcher in Python: for reading, for debugging and for comparing the compiled one with.

It speaks the protocol of ``ctr.launcher.protocol`` and runs programs that start a container
in fresh namespaces.  It enters no live container: whoever does must not be the Python
interpreter, whose ``/proc/PID/exe`` would hand the host's ``python3`` to the container
(CVE-2019-5736); such a program is refused before anything is done.

Started by ``spawn``, or by hand with the descriptors in place::

    python -m ctr.launcher.reference ID CLEANER…
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from ctr import encoding
from ctr.errors import CtrError, InvalidError
from ctr.kernel import PR_SET_DUMPABLE, Kernel, close_range, prctl, reset_signals
from ctr.launcher import protocol
from ctr.launcher.protocol import MAX_TEXT, MESSAGE
from ctr.launcher.reference_executor import CLONED, PARTED, Channel, Executor, check
from ctr.launcher.reference_streams import Stream
from ctr.operations import WatchOom

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ctr.program import Operation

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from ctr.launcher.reference import main; sys.exit(main())"
)
_IGNORED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE),
    *(signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP),
)
_PACKET = MESSAGE.size + MAX_TEXT
_PAGE = 4096

# from proc(5): fields of /proc/PID/stat, counted from the third; the start time with the PID
# names a process for good
_FLAGS = 9 - 3
_START_TIME = 22 - 3
_FORKED_BUT_NOT_EXECUTED = 0x40  # PF_FORKNOEXEC, from linux/sched.h


def spawn(
    container_id: str,
    program_fd: int,
    run_dir_fd: int,
    stdio_fds: tuple[int, int, int],
    cleaner: Sequence[str],
    env: Mapping[str, str],
) -> tuple[int, socket.socket]:
    """Start the supervisor; return its PID and the engine's end of the control socket.

    The descriptors stay the caller's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wanted = (theirs.fileno(), program_fd, run_dir_fd, *stdio_fds)
    # Out of the way first: a wanted descriptor may have a number that another one must get.
    first_free = protocol.STDERR_FD + 1
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first_free) for fd in wanted]
    try:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)
        ]
        for number, fd in enumerate(copies, protocol.CONTROL_FD):
            actions.append((os.POSIX_SPAWN_DUP2, fd, number))
        # The package as this process found it, installed or in a checkout.
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # -I: neither the current directory, wherever the user stands, nor the environment,
        # which is the cleaner's, is a place for modules.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-c", _START, package, container_id, *cleaner],
            env,
            file_actions=actions,
            setsid=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in copies:
            os.close(fd)
    return pid, ours


class _BrokenOffError(Exception):
    """The launch failed: the operation's index, errno and detail; no index, nobody to tell."""

    def __init__(self, index: int | None, number: int = 0, text: str = "") -> None:
        super().__init__(index, number, text)
        self.index = index
        self.number = number
        self.text = text


class Supervisor:
    """The container's parent: starts it, carries its streams, records its end."""

    def __init__(self, cleaner: Sequence[str]) -> None:
        self.cleaner = list(cleaner)
        self.control = socket.socket(fileno=protocol.CONTROL_FD)
        self.program: Sequence[Operation] = ()
        self.trace = False
        self.streams: list[Stream] = []
        self.channel = -1
        self.parent = 0
        self.child = 0
        self.oom_files: list[int] = []
        self.done = False
        self.watched = True

    def main(self) -> int:
        """Return the exit status; with the engine gone, the cleaner takes this process's place."""
        if not self.lock():
            return 1
        try:
            self.load()
            self.send(protocol.HELLO, protocol.VERSION)
            self.watch()
            self.fork_parent()
            self.launch()
            self.record(
                f"started {self.child} {int(_stat(self.child)[_START_TIME])} {time.time_ns()}"
            )
        except _BrokenOffError as failure:
            return self.break_off(failure)
        except OSError as error:
            return self.break_off(_BrokenOffError(-1, error.errno or errno.EIO, str(error)))
        self.send(protocol.STARTED, 0, self.child)
        self.supervise()
        status = os.waitpid(self.child, 0)[1]
        oom = self.oom_killed()
        self.record(f"exited {status} {oom:d} {time.time_ns()}")
        self.send(protocol.EXITED, status, oom)
        while self.watched and not self.done:
            self.receive()
        if not self.done and self.cleaner:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_DFL)
            os.execv(self.cleaner[0], self.cleaner)  # noqa: S606 (an absolute command)
        return 0

    # -- before the launch ----------------------------------------------------------------

    def lock(self) -> bool:
        """Take the lock whose holder is the container's supervisor, and the status file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        fd = os.open("lock", flags, 0o600, dir_fd=protocol.RUN_DIR_FD)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.lock_fd = fd
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        self.status_fd = os.open("status", flags, 0o600, dir_fd=protocol.RUN_DIR_FD)
        return True

    def load(self) -> None:
        """Read the program and check that all of it is served here."""
        # One byte too many, where it is too long, for the decoder to notice.
        size = min(os.fstat(protocol.PROGRAM_FD).st_size, encoding.MAX_SIZE + 1)
        try:
            self.program, flags = encoding.decode(os.pread(protocol.PROGRAM_FD, size, 0))
            check(self.program)
        except CtrError as error:
            number = errno.EINVAL if isinstance(error, InvalidError) else errno.ENOSYS
            raise _BrokenOffError(-1, number, error.message) from error
        self.trace = bool(flags & encoding.TRACE)

    def watch(self) -> None:
        """Open what is read when the container has ended."""
        for index, operation in enumerate(self.program):
            if isinstance(operation, WatchOom):
                if self.trace:
                    self.send(protocol.TRACE, index)
                try:
                    self.oom_files.append(os.open(operation.path, os.O_RDONLY))
                except OSError as error:
                    raise _BrokenOffError(index, error.errno or errno.EIO) from error

    def fork_parent(self) -> None:
        """Make the container's pipes and the channel; fork the parent."""
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        self.streams = [
            Stream(protocol.STDIN_FD, stdin[1], drains=False),
            Stream(stdout[0], protocol.STDOUT_FD, drains=True),
            Stream(stderr[0], protocol.STDERR_FD, drains=True),
        ]
        ends = (stdin[0], stdout[1], stderr[1])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        self.parent = os.fork()
        if self.parent == 0:
            try:
                self.become_parent(ours)
                channel = Channel(theirs.fileno())
                executor = Executor(Kernel(), channel, self.program, ends, trace=self.trace)
                done = os.getppid() == supervisor and executor.execute()
                os._exit(0 if done else 1)
            finally:
                os._exit(1)
        theirs.close()
        for fd in ends:
            os.close(fd)
        self.channel = ours.detach()

    def become_parent(self, channel: socket.socket) -> None:
        """Let go of what is the supervisor's; signals as a fresh program expects them."""
        channel.close()
        self.control.close()
        for stream in self.streams:
            stream.close()
        mine = (protocol.PROGRAM_FD, protocol.RUN_DIR_FD, self.lock_fd, self.status_fd)
        for fd in (*mine, *self.oom_files):
            os.close(fd)
        reset_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    # -- the launch -----------------------------------------------------------------------

    def launch(self) -> None:
        """Relay between executor and engine until the exec.  Raises _BrokenOffError."""
        parent = os.pidfd_open(self.parent)
        poll = select.poll()
        for fd in (self.channel, protocol.CONTROL_FD, parent):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if protocol.CONTROL_FD in ready:
                message = self.receive()
                if not self.watched:
                    raise _BrokenOffError(None)
                if message == protocol.GO:
                    self.go_on()
            if self.channel in ready:
                packet = b""
                with contextlib.suppress(ConnectionResetError):  # it died and left a GO unread
                    packet = os.read(self.channel, _PACKET)
                if not packet:
                    break
                self.relay(packet)
            elif parent in ready:
                poll.unregister(parent)
                os.close(parent)
                status = self.reap("parent")
                if status:
                    raise _BrokenOffError(-1, 0, f"the launch's parent died: wait status {status}")
        # Everybody has closed the channel: the exec succeeded or the child died.  The kernel
        # tells them apart by a flag that a process carries from fork to exec.
        if not self.child or int(_stat(self.child)[_FLAGS]) & _FORKED_BUT_NOT_EXECUTED:
            raise _BrokenOffError(-1, 0, f"the child died: wait status {self.reap('child')}")
        if self.parent:
            self.reap("parent")
        os.close(self.channel)
        self.channel = -1

    def relay(self, packet: bytes) -> None:
        """Act on one packet of the executor.  Raises _BrokenOffError."""
        kind, a, b = MESSAGE.unpack_from(packet)
        if kind == CLONED:
            self.child = b
        elif kind == PARTED:
            self.go_on()
        elif kind == protocol.SYNC:
            self.send(kind, a, self.child)
        elif kind == protocol.TRACE:
            self.send(kind, a)
        else:
            raise _BrokenOffError(a, b, packet[MESSAGE.size :].decode(errors="replace"))

    def go_on(self) -> None:
        """Let the child, which waits, go on."""
        with contextlib.suppress(BrokenPipeError):  # it has died, which reading will tell
            os.write(self.channel, MESSAGE.pack(protocol.GO, 0, 0))

    def reap(self, who: str) -> int:
        """Kill, if it still lives, and reap ``parent`` or ``child``; return the wait status."""
        pid = getattr(self, who)
        if not pid:
            return 0
        setattr(self, who, 0)
        os.kill(pid, signal.SIGKILL)  # a zombie takes it; it is ours, so the PID is too
        return os.waitpid(pid, 0)[1]

    def break_off(self, failure: _BrokenOffError) -> int:
        """End what the launch has begun, then say why; return the exit status."""
        if self.channel >= 0:
            # A child that we were not told of waits for a GO and ends now.
            os.close(self.channel)
        self.reap("parent")
        self.reap("child")
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        if failure.index is not None:
            self.send(protocol.FAILED, failure.index, failure.number, failure.text)
        return 1

    # -- while it runs --------------------------------------------------------------------

    def supervise(self) -> None:
        """Carry the streams until PID 1 has ended and its output was given on."""
        pidfd = os.pidfd_open(self.child)
        running = True
        while True:
            interests = [(stream, stream.interest()) for stream in self.streams]
            streams = {interest[0]: stream for stream, interest in interests if interest}
            # After the end whoever still holds the other end of a pipe must not keep us: what
            # the client has not taken yet is waited for, what may yet be written is not.
            leaving = not running and not any(stream.buffer for stream in self.streams)
            poll = select.poll()
            for _, interest in interests:
                if interest:
                    poll.register(*interest)
            if running:
                poll.register(pidfd, select.POLLIN)
            if self.watched:
                poll.register(self.control, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(0 if leaving else None)]
            for fd in ready:
                if fd in streams:
                    streams[fd].advance()
                elif fd == pidfd:
                    running = False
                    self.streams.pop(0).close()
                else:
                    self.receive(pidfd)
            if leaving and streams.keys().isdisjoint(ready):
                break
        os.close(pidfd)
        for stream in self.streams:
            stream.close()

    def oom_killed(self) -> bool:
        """Whether a watched file counts an OOM kill."""
        for fd in self.oom_files:
            with contextlib.suppress(OSError):  # its group is gone
                for line in os.pread(fd, _PAGE, 0).splitlines():
                    key, _, count = line.partition(b" ")
                    if key == b"oom_kill" and int(count) > 0:
                        return True
        return False

    # -- talking --------------------------------------------------------------------------

    def send(self, kind: int, a: int = 0, b: int = 0, text: str = "") -> None:
        """Tell the engine; that it is gone is noticed when reading."""
        try:
            self.control.send(MESSAGE.pack(kind, a, b) + text.encode()[:MAX_TEXT])
        except (BrokenPipeError, ConnectionResetError):
            self.watched = False

    def receive(self, pidfd: int = -1) -> int:
        """Take one message; return its kind, 0 for end of file."""
        try:
            packet = self.control.recv(_PACKET)
        except ConnectionResetError:
            packet = b""
        if len(packet) < MESSAGE.size:
            self.watched = False
            return 0
        kind, a, _ = MESSAGE.unpack_from(packet)
        if kind == protocol.DONE:
            self.done = True
        elif kind == protocol.SIGNAL and pidfd >= 0:
            with contextlib.suppress(OSError):  # it has just ended, or there is no such signal
                signal.pidfd_send_signal(pidfd, a)
        return int(kind)

    def record(self, line: str) -> None:
        """Append one event to the status file, by one write(2)."""
        os.write(self.status_fd, f"{line}\n".encode())


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on (proc(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The second field, the command's name, may hold anything but ends at the last ")".
        return file.read().rpartition(b")")[2].split()


def main() -> int:
    """Be the supervisor."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    close_range(protocol.STDERR_FD + 1, 0xFFFFFFFF)
    for fd in range(protocol.CONTROL_FD, protocol.STDERR_FD + 1):
        os.set_inheritable(fd, False)
    os.chdir("/")
    os.umask(0o022)
    prctl(PR_SET_DUMPABLE, 0)  # parent and child are born with it
    return Supervisor(sys.argv[2:]).main()


if __name__ == "__main__":
    sys.exit(main())
