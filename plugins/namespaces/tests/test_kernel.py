"""What the drivers' operations say, done by hand: the kernel takes it and does what is meant."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING

import pytest

from ctr.models import IdMap, NamespaceRequest
from ctr.operations import Identity, Unshare, WriteFile, WriteIdMaps
from ctr.program import Slots
from ctr_namespaces.namespaces import CLONE_NEWNS, open_driver

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.root

MAP = (IdMap(0, 100000, 1000), IdMap(1000, 300000, 1))


def in_child(work: Callable[[], str], meanwhile: Callable[[int], None] = lambda pid: None) -> str:
    """What ``work`` returns in a child; ``meanwhile`` gets the child's PID first."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "failed"
        try:
            text = work()
        except OSError as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    meanwhile(child)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    os.waitpid(child, 0)
    return text


def test_root_of_a_user_namespace() -> None:
    """Root inside is nobody outside, and can make what the launch must make."""
    request = NamespaceRequest("private", uid_map=MAP, gid_map=MAP)
    parts = open_driver("user").parts(request, Slots())
    maps, become = parts.operations
    assert isinstance(maps, WriteIdMaps)
    assert isinstance(become, Identity)
    ready, unshared = os.pipe()
    mapped, map_written = os.pipe()
    outside: list[str] = []

    def work() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(parts.clone_flags | CLONE_NEWNS) == 0
        os.write(unshared, b"x")
        os.read(mapped, 1)
        before = os.getuid()
        os.setgroups(become.groups)
        os.setresgid(become.gid, become.gid, become.gid)
        os.setresuid(become.uid, become.uid, become.uid)
        os.write(unshared, b"x")
        # A folder that everybody may pass, in a mount namespace of the child's own.
        if libc.mount(b"none", b"/tmp", b"tmpfs", 0, b"mode=0755"):
            return os.strerror(ctypes.get_errno())
        os.mkdir("/tmp/dev")
        # devpts takes a gid only if it is mapped.
        if libc.mount(b"none", b"/tmp/dev", b"devpts", 0, b"newinstance,gid=5"):
            return os.strerror(ctypes.get_errno())
        return f"{before} {os.getuid()} {os.getgid()} {os.stat('/tmp/dev').st_uid}"

    def meanwhile(child: int) -> None:
        os.read(ready, 1)
        for name, text in (("uid_map", maps.uid_map), ("gid_map", maps.gid_map)):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        os.write(map_written, b"x")
        os.read(ready, 1)
        with open(f"/proc/{child}/status", encoding="ascii") as file:
            outside.extend(line.split()[1] for line in file if line.startswith(("Uid:", "Gid:")))

    try:
        assert in_child(work, meanwhile) == "65534 0 0 0"
        assert outside == ["100000", "100000"]
    finally:
        for fd in (ready, unshared, mapped, map_written):
            os.close(fd)


@pytest.mark.driver("namespace:time")
def test_time_offsets() -> None:
    hour = 3600 * 10**9
    request = NamespaceRequest("private", monotonic_ns=hour + 5, boottime_ns=-1)
    unshare, write = open_driver("time").parts(request, Slots()).operations
    assert isinstance(unshare, Unshare)
    assert isinstance(write, WriteFile)

    def work() -> str:
        assert ctypes.CDLL(None).unshare(unshare.flags) == 0
        with open(write.path, "wb") as file:
            file.write(write.data)
        with open(write.path, encoding="ascii") as file:
            told = file.read().split()
        inside = in_child(lambda: str(time.clock_gettime_ns(time.CLOCK_MONOTONIC)))
        late = int(inside) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return f"{told} {round(late / hour, 1)}"

    assert in_child(work) == "['monotonic', '3600', '5', 'boottime', '-1', '999999999'] 1.0"
