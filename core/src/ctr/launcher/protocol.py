"""How the engine and a container's supervisor speak; both launchers keep to it.

**Processes.**  The engine spawns the *supervisor* (a session of its own, current directory
``/``).  The supervisor forks the short-lived *parent*, which runs the program's PREPARE,
CLONE and CLONED phases and ends at the first Sync; its clone3 uses CLONE_PARENT, so the
*child*, which runs the rest and becomes the container, is the supervisor's.  Parent and
child carry PR_SET_PDEATHSIG SIGKILL and are not dumpable until exec.

**Descriptors** of the supervisor at its start (everything else is closed)::

    3  control: one end of a SOCK_SEQPACKET pair
    4  the program's bytes (a sealed memfd or a file)
    5  the container's run folder (O_DIRECTORY)
    6  read end of a pipe: the client's standard input   (/dev/null: none)
    7  write end of a pipe: the client's standard output (/dev/null: dropped)
    8  write end of a pipe: the client's standard error  (/dev/null: dropped)

``argv`` is ``LAUNCHER ID CLEANER…``: the cleaner is an absolute command with arguments.

**Files** in the run folder: ``lock`` is created and held with flock(LOCK_EX) for as long as
the supervisor lives, and liveness means that lock, never a PID.  ``status`` gets one
appended line an event, each by one write(2)::

    started PID STARTTIME TIME_NS        the exec succeeded: the commit point
    exited WAIT_STATUS OOM TIME_NS       PID 1 ended; WAIT_STATUS as wait(2), OOM 0 or 1

(STARTTIME is field 22 of /proc/PID/stat.)  A supervisor that finds ``lock`` held exits 1.

**Messages** on the control socket are one packet each: ``MESSAGE`` (u32 kind, i32 a, i64 b),
then text (UTF-8, at most ``MAX_TEXT`` bytes).

From the supervisor::

    HELLO    a = protocol version                    the lock is held, the program is valid
    TRACE    a = index of the operation about to run (only with the header flag TRACE)
    SYNC     a = point, b = the child's PID          then it waits for GO
    FAILED   a = index of the operation (-1: none), b = errno, text = detail or empty
    STARTED  b = the child's PID                     ``started`` is in the status file
    EXITED   a = wait status, b = OOM 0 or 1         ``exited`` is in the status file; all
                                                     output has been given to the client

From the engine::

    GO       go on after SYNC
    SIGNAL   a = signal for PID 1
    DONE     the engine has cleaned up: exit

**Ends.**  Before STARTED, end of file on the control socket means that the engine died: the
supervisor kills parent and child and exits 1.  After FAILED it does the same and exits 1.
After STARTED, end of file means that nobody is watching: the supervisor goes on (output is
dropped when a client's pipe is gone), and when PID 1 has ended and no DONE came or can come,
it executes the cleaner in its own place.  It never stops reading the container's output.

**Streams.**  The supervisor makes three pipes for the container, which never gets a
descriptor of the caller's.  Without a standard input the container reads end of file at
once.  End of file from the client closes the container's standard input.
"""

from __future__ import annotations

import struct

VERSION = 1

MESSAGE = struct.Struct("<Iiq")
MAX_TEXT = 240

# from the supervisor
HELLO = 1
TRACE = 2
SYNC = 3
FAILED = 4
STARTED = 5
EXITED = 6

# from the engine
GO = 16
SIGNAL = 17
DONE = 18

# descriptors of the supervisor
CONTROL_FD = 3
PROGRAM_FD = 4
RUN_DIR_FD = 5
STDIN_FD = 6
STDOUT_FD = 7
STDERR_FD = 8
