"""The default filter in the kernel: what a process under it can and can't do."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ctr.security.capabilities import ALL, DEFAULT
from ctr.security.seccomp import default_filter, filter_from_file
from ctr.security.seccomp.syscalls import numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

# from linux/prctl.h, linux/seccomp.h
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2

CLONE_NEWUSER = 0x10000000
CALLS = numbers(os.uname().machine)


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(program: bytes) -> None:
    """Put this process under ``program``."""
    libc = ctypes.CDLL(None, use_errno=True)
    loaded = Program(len(program) // 8, program)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def under(program: bytes, work: Callable[[], str]) -> str:
    """What ``work`` returns in a child under ``program`` (empty: no filter)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "failed"
        try:
            if program:
                confine(program)
            text = work()
        except OSError as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    _, status = os.waitpid(child, 0)
    return text if status == 0 else signal.Signals(os.WTERMSIG(status)).name


def call(number: int, *arguments: int) -> str:
    """The errno's name of a system call, or ``done``."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)) >= 0:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


@pytest.fixture
def program(tmp_path: Path) -> bytes:
    return default_filter(DEFAULT, str(tmp_path)).program


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mount", (0, 0, 0, 0, 0)),
        ("umount2", (0, 0)),
        ("unshare", (CLONE_NEWUSER,)),
        ("setns", (2**32 - 1, 0)),
        ("bpf", (2**32 - 1, 0, 0)),
        ("keyctl", (0, 0, 0)),
        ("add_key", (0, 0, 0, 0, 0)),
        ("perf_event_open", (0, 0, 0, 0, 0)),
        ("open_tree", (2**32 - 1, 0, 0)),
        ("fsopen", (0, 0)),
        ("init_module", (0, 0, 0)),
        ("open_by_handle_at", (0, 0, 0)),
        ("io_uring_setup", (0, 0)),
        ("socket", (40, 1, 0)),  # AF_VSOCK
        ("socket", (1 << 32 | 40, 1, 0)),
        ("clone", (CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)),
    ],
)
def test_refused(program: bytes, name: str, arguments: tuple[int, ...]) -> None:
    assert under(program, lambda: call(CALLS[name], *arguments)) == "EPERM"


@pytest.mark.parametrize("number", [CALLS["clone3"], 467, 1000])
def test_as_if_the_kernel_had_no_such_call(program: bytes, number: int) -> None:
    assert under(program, lambda: call(number, 0, 0)) == "ENOSYS"


@pytest.mark.parametrize("name", ["mount", "fsopen", "bpf", "setns"])
def test_the_filter_is_what_refuses(program: bytes, tmp_path: Path, name: str) -> None:
    """Without it, or with the capability, the kernel looks at the same call's arguments."""
    opened = default_filter(ALL, str(tmp_path)).program

    def work() -> str:
        return call(CALLS[name], *(2**64 - 1,) * 5)

    assert under(program, work) == "EPERM"
    assert under(opened, work) == under(b"", work) not in ("EPERM", "ENOSYS")


def test_ordinary_programs_work(program: bytes) -> None:
    script = (
        "import os, socket, subprocess, tempfile, threading, time\n"
        "one = threading.Thread(target=time.sleep, args=(0.01,)); one.start(); one.join()\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()\n"
        "file = tempfile.TemporaryFile(); file.write(b'x'); os.fsync(file.fileno())\n"
        "print(subprocess.run(['/bin/sh', '-c', 'ls / | wc -l; id -u'], check=True,\n"
        "                     capture_output=True).stdout.split()[-1].decode())\n"
    )

    def work() -> str:
        done = subprocess.run(
            [sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=False
        )
        return f"{done.returncode} {done.stdout}{done.stderr}"

    assert under(program, work) == "0 0\n"


def test_the_flags_of_the_filter_are_the_kernels(tmp_path: Path) -> None:
    """seccomp(2) itself takes program and flags as they are."""
    made = default_filter(DEFAULT, str(tmp_path))

    def work() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        loaded = Program(len(made.program) // 8, made.program)
        return call(CALLS["seccomp"], 1, made.flags, ctypes.addressof(loaded))

    assert under(b"", work) == "done"


def test_a_profile_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ['
        '{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7},'
        '{"names": ["getpgid"], "action": "SCMP_ACT_KILL_PROCESS",'
        ' "args": [{"index": 0, "value": 77, "op": "SCMP_CMP_GE"}]}]}'
    )
    program = filter_from_file(str(path), DEFAULT).program
    assert under(program, lambda: call(CALLS["getppid"])) == "E2BIG"
    assert under(program, lambda: call(CALLS["getpgid"], 0)) == "done"
    assert under(program, lambda: call(CALLS["getpgid"], 78)) == "SIGSYS"
