"""What a container's supervisor says of it, from the files in its run folder.

A supervisor lives for as long as it holds the flock on ``lock``; a PID is never believed.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import NamedTuple


class Status(NamedTuple):
    """The status file, read; times are nanoseconds since the epoch, 0 for not yet.

    ``exit_code`` is as a shell has it: 128 + signal for a killed process.
    """

    pid: int = 0
    start_time: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom: bool = False

    @property
    def started(self) -> bool:
        """Whether the commit point was reached."""
        return self.started_ns > 0

    @property
    def exited(self) -> bool:
        """Whether PID 1 has ended."""
        return self.finished_ns > 0


def read_status(run_dir: str) -> Status:
    """Read the status file; a missing one is an empty Status."""
    status = Status()
    try:
        with open(os.path.join(run_dir, "status"), encoding="ascii") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return status
    for line in lines:
        word, *values = line.split()
        if word == "started":
            pid, start_time, at = map(int, values)
            status = Status(pid, start_time, at)
        elif word == "exited":
            code, oom, at = map(int, values)
            status = status._replace(
                exit_code=128 + os.WTERMSIG(code) if os.WIFSIGNALED(code) else os.WEXITSTATUS(code),
                oom=oom == 1,
                finished_ns=at,
            )
    return status


def alive(run_dir: str) -> bool:
    """Whether a supervisor holds the lock."""
    try:
        descriptor = os.open(os.path.join(run_dir, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def running_pid(run_dir: str) -> int:
    """The host's PID of a running container's PID 1, or 0 when it does not run."""
    if alive(run_dir):
        status = read_status(run_dir)
        if status.started and not status.exited:
            return status.pid
    return 0


def wait_until_dead(run_dir: str, seconds: float) -> bool:
    """Wait for the supervisor's end; False when it still lives after ``seconds``."""
    deadline = time.monotonic() + seconds
    while alive(run_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
