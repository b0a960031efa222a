"""Carries a foreground container's streams and the caller's signals until it ends."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

    from ctr.launch import Exit, Supervisor

CHUNK = 1 << 16

#: Never passed on: about this process itself, or not to be caught.
_OWN = {
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGURG,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
}


class Streams:
    """The client's ends of a container's three pipes (a context manager).

    ``ends`` are for the supervisor; ``started`` closes them here.
    """

    def __init__(self, *, stdin: bool) -> None:
        if stdin:
            end, self.stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.stdin, False)
        else:
            end, self.stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
        self.stdout, stdout = os.pipe2(os.O_CLOEXEC)
        self.stderr, stderr = os.pipe2(os.O_CLOEXEC)
        #: What the supervisor gets as descriptors 6, 7 and 8.
        self.ends = (end, stdout, stderr)
        self._open = {*self.ends, self.stdin, self.stdout, self.stderr} - {-1}

    def started(self) -> None:
        """Close the supervisor's ends: it has its own copies now."""
        for descriptor in self.ends:
            self.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close one of the client's ends."""
        os.close(descriptor)
        self._open.discard(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._open:
            os.close(descriptor)


def relay(supervisor: Supervisor, streams: Streams) -> Exit:
    """Copy until the container has ended and all its output is written; return how it ended.

    Output whose reader is gone is dropped; the container runs on.
    """
    poll = select.poll()
    sinks = {streams.stdout: 1, streams.stderr: 2}
    for descriptor in sinks:
        poll.register(descriptor, select.POLLIN)
    poll.register(supervisor, select.POLLIN)
    stdin = _Input(streams, poll)
    ended: Exit | None = None
    with _Signals(supervisor) as signals:
        poll.register(signals.wakeup, select.POLLIN)
        while ended is None or sinks:
            for descriptor, events in poll.poll():
                if descriptor in sinks:
                    if not _copy(descriptor, sinks[descriptor]):
                        poll.unregister(descriptor)
                        del sinks[descriptor]
                        streams.close(descriptor)  # or the container would wait for a reader
                elif descriptor == supervisor.fileno():
                    ended = supervisor.read_exit() or ended
                    if ended:
                        poll.unregister(descriptor)
                elif descriptor == signals.wakeup:
                    signals.forward()
                else:
                    stdin.handle(descriptor, events)
    return ended


def _copy(source: int, sink: int) -> bool:
    """Copy what is there; False at the end of either side."""
    data = os.read(source, CHUNK)
    if not data:
        return False
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(sink, view) :]
    except BrokenPipeError:
        return False
    return True


class _Input:
    """The caller's standard input on its way into the container's pipe."""

    def __init__(self, streams: Streams, poll: select.poll) -> None:
        self._streams = streams
        self._poll = poll
        self._pending = b""
        if streams.stdin >= 0:
            try:
                poll.register(0, select.POLLIN)
            except OSError:  # closed by the caller
                self._close()

    def handle(self, descriptor: int, events: int) -> None:
        if descriptor == 0:
            self._pending = os.read(0, CHUNK)
            self._poll.unregister(0)
            if not self._pending:
                self._close()
                return
            self._poll.register(self._streams.stdin, select.POLLOUT)
        elif events & select.POLLERR:
            self._poll.unregister(descriptor)
            self._close()
        else:
            try:
                self._pending = self._pending[os.write(descriptor, self._pending) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self._poll.unregister(descriptor)
                self._close()
                return
            if not self._pending:
                self._poll.unregister(descriptor)
                self._poll.register(0, select.POLLIN)

    def _close(self) -> None:
        self._streams.close(self._streams.stdin)


class _Signals:
    """Passes the caller's signals on to PID 1 (docker's ``--sig-proxy``)."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.wakeup, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {
            number: signal.signal(number, _ignore) for number in signal.valid_signals() - _OWN
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.wakeup)
        os.close(self._write)

    def forward(self) -> None:
        for number in os.read(self.wakeup, 64):
            self._supervisor.signal(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor tells; the handler only has to be there."""
