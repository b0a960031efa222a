"""The laws of a namespace driver, as one test class.

A driver's own test is::

    class TestPid(NamespaceConformance):
        @pytest.fixture
        def info(self) -> DriverInfo[NamespaceDriver]:
            (info,) = (one for one in ctr_namespaces() if one.name == "pid")
            return info

The capability of a driver's DriverInfo says how a private namespace comes to be, and so
which laws hold: ``clone`` by a flag of clone3(2), ``unshare`` by an operation of its own,
``declared`` by another driver.  The laws marked ``root`` make real namespaces.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ctr.drivers import DriverContext, DriverInfo, NamespaceDriver, Probe
from ctr.encoding import encode
from ctr.errors import InvalidError
from ctr.models import IdMap, NamespaceRequest
from ctr.operations import OpenPath, Setns, Unshare
from ctr.program import Phase, Slots, Verify

if TYPE_CHECKING:
    from collections.abc import Callable

_NOWHERE = DriverContext(root="/nonexistent/ctr", run_root="/nonexistent/ctr-run")
_CLONE_NEWUSER = 0x10000000
_WAYS = frozenset({"clone", "unshare", "declared"})


class NamespaceConformance:
    """What every namespace driver promises."""

    @pytest.fixture
    def info(self) -> DriverInfo[NamespaceDriver]:
        """The driver under test.  To be overridden."""
        raise NotImplementedError("override the fixture `info`")

    @pytest.fixture
    def private(self) -> NamespaceRequest:
        """A private namespace with what the type needs; override for options of its own."""
        whole = (IdMap(0, 100000, 65536),)
        return NamespaceRequest("private", uid_map=whole, gid_map=whole)

    @pytest.fixture
    def driver(self, info: DriverInfo[NamespaceDriver]) -> NamespaceDriver:
        """The driver, opened."""
        return info.factory(_NOWHERE)

    def test_description(self, info: DriverInfo[NamespaceDriver], driver: NamespaceDriver) -> None:
        """It has a name, a summary, one flag, modes, and says how it is made."""
        assert info.name
        assert info.summary
        assert len(info.capabilities & _WAYS) == 1
        assert driver.flag.bit_count() == 1
        assert driver.modes <= {"private", "host", "path"}
        assert "private" in driver.modes

    def test_probe_is_quiet(self, info: DriverInfo[NamespaceDriver]) -> None:
        """A probe answers, with a reason where it says no."""
        probe = info.probe(_NOWHERE)
        assert isinstance(probe, Probe)
        assert probe.ok or probe.reason

    def test_parts_are_pure(self, driver: NamespaceDriver, private: NamespaceRequest) -> None:
        """The same question gets the same answer, from a second instance of slots too."""
        for mode in sorted(driver.modes):
            request = _request(mode, private)
            assert driver.parts(request, Slots()) == driver.parts(request, Slots())

    def test_private_way(
        self,
        info: DriverInfo[NamespaceDriver],
        driver: NamespaceDriver,
        private: NamespaceRequest,
    ) -> None:
        """The namespace is made as the capability says, and in no second way."""
        parts = driver.parts(private, Slots())
        unshared = sum(one.flags for one in parts.operations if isinstance(one, Unshare))
        assert parts.clone_flags == (driver.flag if "clone" in info.capabilities else 0)
        assert unshared == (driver.flag if "unshare" in info.capabilities else 0)
        assert not [one for one in parts.operations if isinstance(one, Setns)]

    def test_host_adds_nothing(self, driver: NamespaceDriver) -> None:
        """The host's namespace is the one that the launcher is in already."""
        if "host" in driver.modes:
            slots = Slots()
            parts = driver.parts(NamespaceRequest("host"), slots)
            assert parts == (0, ())
            assert slots.names == ()
        else:
            with pytest.raises(InvalidError):
                driver.parts(NamespaceRequest("host"), Slots())

    def test_path_is_verified(self, driver: NamespaceDriver) -> None:
        """A path is opened, must be a namespace, and is joined by its type before the clone."""
        if "path" not in driver.modes:
            with pytest.raises(InvalidError):
                driver.parts(NamespaceRequest("path", path="/proc/1/ns/x"), Slots())
            return
        slots = Slots()
        slots.new("of somebody else")
        parts = driver.parts(NamespaceRequest("path", path="/proc/1/ns/x"), slots)
        assert parts.clone_flags == 0
        opened, joined = (one for one in parts.operations if isinstance(one, OpenPath | Setns))
        assert isinstance(opened, OpenPath)
        assert isinstance(joined, Setns)
        assert (opened.path, opened.verify) == ("/proc/1/ns/x", Verify.NSFS)
        assert (joined.slot, joined.flag) == (opened.slot, driver.flag)
        assert 0 < opened.slot < len(slots.names)
        assert {opened.phase, joined.phase} == {Phase.PREPARE}

    @pytest.mark.parametrize("path", ["", "ns/net", "/proc/1/ns/net\0"])
    def test_wrong_path(self, driver: NamespaceDriver, path: str) -> None:
        """A path that is empty, relative or no path at all is refused."""
        with pytest.raises(InvalidError):
            driver.parts(NamespaceRequest("path", path=path), Slots())

    @pytest.mark.parametrize("mode", ["", "Private", "container", "none"])
    def test_unknown_mode(self, driver: NamespaceDriver, mode: str) -> None:
        """A mode that the driver does not list is refused."""
        with pytest.raises(InvalidError):
            driver.parts(NamespaceRequest(mode), Slots())

    def test_operations_are_encodable(
        self, driver: NamespaceDriver, private: NamespaceRequest
    ) -> None:
        """Each operation describes itself and has an encoding."""
        for mode in sorted(driver.modes):
            for operation in driver.parts(_request(mode, private), Slots()).operations:
                assert operation.describe()
                assert encode([operation])

    @pytest.mark.root
    def test_makes_another_namespace(
        self,
        info: DriverInfo[NamespaceDriver],
        driver: NamespaceDriver,
        private: NamespaceRequest,
    ) -> None:
        """What the operations name is, for the kernel, a namespace of this type."""
        assert info.probe(_NOWHERE).ok
        if "declared" in info.capabilities:
            assert driver.parts(private, Slots()) == (0, ())
        file = f"/proc/self/ns/{driver.proc_name}"
        outside = os.readlink(file)
        inside = _in_child(lambda: _readlink_of_child(driver.flag, driver.proc_name))
        assert inside.startswith(f"{driver.proc_name}:[")
        assert inside != outside
        assert os.readlink(file) == outside

    @pytest.mark.root
    def test_joins_another_namespace(self, driver: NamespaceDriver) -> None:
        """The flag and the file of the path mode fit together, and only together."""
        name = driver.proc_name

        def join() -> str:
            fd = os.open(f"/proc/{os.getppid()}/ns/{name}", os.O_RDONLY)
            wrong = 0x04000000 if name != "uts" else 0x08000000  # CLONE_NEWUTS, CLONE_NEWIPC
            if _syscall("setns", fd, wrong) == 0:
                return "joined as another type"
            # setns(2) to the user namespace that one is in already is EINVAL.
            if driver.flag != _CLONE_NEWUSER and _syscall("setns", fd, driver.flag) != 0:
                return "not joined"
            return os.readlink(f"/proc/self/ns/{name}")

        if "path" in driver.modes:
            assert _in_child(join) == os.readlink(f"/proc/self/ns/{name}")


def _request(mode: str, private: NamespaceRequest) -> NamespaceRequest:
    if mode == "private":
        return private
    return NamespaceRequest(mode, path="/proc/1/ns/x" if mode == "path" else "")


def _readlink_of_child(flag: int, name: str) -> str:
    """Unshare, fork, and tell the namespace of the child: pid and time begin only there."""
    if _syscall("unshare", flag) != 0:
        return "unshare failed"
    # In a fresh pid namespace /proc/self would be an outer procfs's: read from the parent.
    suffix = "_for_children" if name in ("pid", "time") else ""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return os.readlink(f"/proc/self/ns/{name}{suffix}")


def _syscall(name: str, *arguments: int) -> int:
    import ctypes

    return int(getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments))


def _in_child(work: Callable[[], str]) -> str:
    """Run ``work`` in a forked child and return what it returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "failed"
        try:
            text = work()
        except OSError as error:
            text = f"failed: {error}"
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    os.waitpid(child, 0)
    return text
