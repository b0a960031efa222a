"""Runs a program's parent and child side, and reports to the supervisor.

The channel between them carries protocol.MESSAGE packets, the kinds of the control socket
and these::

    CLONED      b = the child's PID
    PARTED      the parent's part ended without a Sync

End of file means that the child executed its command, or died.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ctr.errors import InvalidError, UnsupportedError
from ctr.launcher.protocol import FAILED, MAX_TEXT, MESSAGE, SYNC, TRACE
from ctr.launcher.reference_operations import ACTIONS
from ctr.launcher.reference_run import Run
from ctr.operations import Clone, Exec, Init, Setns, Sync, WatchOom
from ctr.program import MAX_SLOTS, NO_SLOT, Phase, Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr.kernel import Kernel
    from ctr.program import Operation

CLONED = 64
PARTED = 65


# The fields that name slots, with the least that each may hold.
_LEAST_SLOT = {"slot": 0, "null": 0, "cgroup": NO_SLOT, "userns": NO_SLOT}


def check(program: Sequence[Operation]) -> None:
    """Raise UnsupportedError for what the reference launcher does not serve.

    Raises InvalidError for slots that no launcher has.
    """
    for index, operation in enumerate(program):
        name = type(operation).__name__
        if isinstance(operation, (Setns, Init)):
            raise UnsupportedError(
                "cannot use the reference launcher: "
                f"only the compiled one can {operation.describe()}",
                hint="apt install gcc libc6-dev, then install ctr-core anew",
            )
        for field, value in operation.items():
            if field in _LEAST_SLOT and not _LEAST_SLOT[field] <= value < MAX_SLOTS:
                raise InvalidError(f"cannot run operation {index}, {name}: no slot [{value}]")
        if not _belongs(operation):
            phase = operation.phase.name
            raise UnsupportedError(f"cannot run operation {index}, {name}, in phase {phase}")
    parts = [type(operation) for operation in program if operation.phase is Phase.CLONED]
    if Sync in parts[:-1]:
        raise UnsupportedError("cannot run the program: its parent ends before its last operation")
    kinds = [type(operation) for operation in program]
    if kinds.count(Clone) != 1 or kinds.count(Exec) != 1 or kinds[-1] is not Exec:
        raise UnsupportedError("cannot run the program: it needs one Clone and, last, one Exec")


def _belongs(operation: Operation) -> bool:
    """Whether the operation can run in its phase."""
    if operation.phase is Phase.WATCH:
        return isinstance(operation, WatchOom)
    if isinstance(operation, Sync):
        return operation.phase >= Phase.CLONED
    if isinstance(operation, Clone) != (operation.phase is Phase.CLONE):
        return False
    return type(operation) in ACTIONS[operation.side]


class Channel:
    """The executor's end of the socket to the supervisor.

    read(2) and write(2), not send(2): a seccomp filter that lets a program run at all lets
    them pass.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, kind: int, a: int = 0, b: int = 0, text: str = "") -> None:
        """Send one packet."""
        raw = text.encode(errors="replace")[:MAX_TEXT]
        os.write(self.fd, MESSAGE.pack(kind, a, b) + raw)

    def wait(self) -> None:
        """Wait for GO; end here when the supervisor is gone."""
        if not os.read(self.fd, MESSAGE.size):
            os._exit(1)


class Executor:
    """Runs the operations from the first to the last; begins as the parent."""

    def __init__(
        self,
        kernel: Kernel,
        channel: Channel,
        program: Sequence[Operation],
        stdio: tuple[int, int, int],
        *,
        trace: bool = False,
    ) -> None:
        self.kernel = kernel
        self.channel = channel
        self.program = program
        self.run = Run(kernel, stdio)
        self.trace = trace
        self.side = Side.PARENT

    def execute(self) -> bool:
        """Run it; return whether this side's part was done.  A failure has been reported.

        Returns twice, as fork(2) does: in the parent after its last operation, in the child
        only if an operation failed.
        """
        index = -1
        try:
            self.run.guard()
            for index, operation in enumerate(self.program):
                if operation.side is self.side:
                    self.step(index, operation)
                    if self.side is Side.PARENT and isinstance(operation, Sync):
                        return True
        except OSError as error:
            number = error.errno or errno.EIO
            detail = error.strerror or str(error)
            plain = os.strerror(number)
            self.channel.send(FAILED, index, number, "" if detail == plain else detail)
            return False
        except Exception as error:  # a value that Python itself refuses to hand to the kernel
            self.channel.send(FAILED, index, errno.EINVAL, str(error))
            return False
        if self.side is Side.PARENT:
            self.channel.send(PARTED)
        return True

    def step(self, index: int, operation: Operation) -> None:
        """Run one operation."""
        if self.trace:
            self.channel.send(TRACE, index)
        if isinstance(operation, Sync):
            self.channel.send(SYNC, operation.point)
            if self.side is Side.CHILD:
                self.channel.wait()
            return
        ACTIONS[self.side][type(operation)](self.run, operation)
        if isinstance(operation, Clone):
            self.cloned()

    def cloned(self) -> None:
        """Go on as the child after sync point A, or tell the supervisor who it is."""
        if self.run.child:
            self.channel.send(CLONED, 0, self.run.child)
            return
        self.run.guard()
        self.channel.wait()
        self.side = Side.CHILD
