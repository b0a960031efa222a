"""What the laws of storage drivers are written with: fixtures, mounts, children that die."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from ctr.drivers import DriverContext, DriverInfo, StorageDriver
from ctr.models import IdMap, SnapshotOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ctr.models import Mount

OPTIONS = SnapshotOptions()
MAPPED = SnapshotOptions(uid_map=(IdMap(0, 200000, 1001),), gid_map=(IdMap(0, 300000, 1001),))
#: VFS_CAP_REVISION_2 with CAP_NET_RAW permitted and effective, from linux/capability.h.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
#: Audit events (docs.python.org/library/audit_events.html) at which a driver changes something.
_CHANGES = ("open", "os.", "shutil.", "fcntl.", "subprocess.")


@contextlib.contextmanager
def mounted(mounts: Sequence[Mount]) -> Iterator[str]:
    """Make the one mount that a driver returned; yield a path to its root.

    The mount is detached: it is in no mount table, and gone at the end.
    """
    from ctr.kernel import mount_detached

    (mount,) = mounts
    descriptor = mount_detached(mount)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def layer(
    driver: StorageDriver,
    name: str,
    parent: str | None = None,
    options: SnapshotOptions = OPTIONS,
) -> Iterator[str]:
    """Prepare a snapshot and yield its root; commit it as ``name`` at the end."""
    key = f"making-{name}"
    with mounted(driver.prepare(key, parent, options)) as root:
        yield root
    driver.commit(name, key)


@contextlib.contextmanager
def viewed(driver: StorageDriver, parent: str) -> Iterator[str]:
    """View a committed snapshot and yield its root; remove the view at the end."""
    key = f"viewing-{parent}"
    try:
        with mounted(driver.view(key, parent)) as root:
            yield root
    finally:
        driver.remove(key)


def write(path: str, text: str = "") -> None:
    """Write a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: str) -> str:
    """Read a file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def inodes(path: str) -> int:
    """How many inodes there are in ``path`` and below."""
    from ctr.trees import tree_usage

    return tree_usage(path).inodes


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child, in a mount namespace of its own; re-raise its failure."""
    from ctr.kernel import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

    def inside() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        work()

    child = Child(inside)
    if child.wait() != 0:
        raise AssertionError(child.output)


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a forked child that gets SIGKILL before its ``call``-th change.

    A change is whatever Python audits: each file opened, folder made, name removed, program
    started.  Return whether the child got that far; raise AssertionError when it failed.
    """

    def inside() -> None:
        left = call

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event.startswith(_CHANGES):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        left = 0  # what comes now is not the driver's

    child = Child(inside)
    status = child.wait()
    if status not in (0, -signal.SIGKILL):
        raise AssertionError(child.output)
    return status != 0


class Child:
    """A forked process that runs ``work``; its traceback is ``output``."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.output = ""
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(status)

    def wait(self) -> int:
        """Return the exit status, or minus the signal."""
        with open(self._reader, encoding="utf-8", errors="replace") as file:
            self.output = file.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class StorageFixtures:
    """What every law is given."""

    pytestmark = pytest.mark.root

    @pytest.fixture
    def info(self) -> DriverInfo[StorageDriver]:
        """The driver under test.  To be overridden."""
        raise NotImplementedError("override the fixture `info`")

    @pytest.fixture
    def context(self, tmp_path: Path) -> DriverContext:
        """Where the driver works; override it for options, or for another file system."""
        return DriverContext(f"{tmp_path}/storage", f"{tmp_path}/run")

    @pytest.fixture
    def driver(
        self, info: DriverInfo[StorageDriver], context: DriverContext
    ) -> Iterator[StorageDriver]:
        """The driver, opened; at the end it must be able to clear everything away."""
        assert info.probe(context).ok, info.probe(context)
        driver = info.factory(context)
        yield driver
        driver.gc(frozenset())
        assert list(driver.walk()) == []

    @pytest.fixture
    def base(self, driver: StorageDriver) -> str:
        """A committed snapshot: a file, a folder with a file, a folder in a folder."""
        with layer(driver, "base") as root:
            write(f"{root}/file", "base")
            os.makedirs(f"{root}/folder/inner")
            write(f"{root}/folder/one", "1")
            write(f"{root}/folder/inner/two", "2")
        return "base"
