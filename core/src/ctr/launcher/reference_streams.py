"""Copies a container's standard streams between its pipes and the client's."""

from __future__ import annotations

import os
import select

_CHUNK = 65536
# poll(2) answers POLLOUT when this much can be written without blocking (pipe(7)), so the
# client's descriptors, which it shares with us, need not be made non-blocking.
_PIPE_BUF = select.PIPE_BUF


class Stream:
    """One direction; holds at most one chunk.

    End of file closes the sink.  When the sink is gone, ``drains`` says whether the source
    is read on and dropped (the container must never block on a client that left) or
    closed as well.
    """

    def __init__(self, source: int, sink: int, *, drains: bool) -> None:
        self.source = source
        self.sink = sink
        self.drains = drains
        self.buffer = b""

    def interest(self) -> tuple[int, int] | None:
        """The descriptor and poll(2) event it waits for; None when it is finished."""
        if self.buffer:
            return self.sink, select.POLLOUT
        return None if self.source < 0 else (self.source, select.POLLIN)

    def advance(self) -> None:
        """Read or write once; to be called when poll(2) has reported the interest."""
        if not self.buffer:
            self.buffer = os.read(self.source, _CHUNK)
            if not self.buffer:
                self.close()
            elif self.sink < 0:
                self.buffer = b""
            return
        try:
            written = os.write(self.sink, self.buffer[:_PIPE_BUF])
        except OSError:  # EPIPE: nobody reads any more
            self.buffer = b""
            self._close_sink()
            if not self.drains:
                self.close()
        else:
            self.buffer = self.buffer[written:]

    def close(self) -> None:
        """Close both ends."""
        self.buffer = b""
        if self.source >= 0:
            os.close(self.source)
            self.source = -1
        self._close_sink()

    def _close_sink(self) -> None:
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1
