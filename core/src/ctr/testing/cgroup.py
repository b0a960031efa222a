"""The laws of a cgroup driver, as one test class.

A driver's own test is::

    class TestV1(CgroupConformance):
        @pytest.fixture
        def info(self) -> DriverInfo[CgroupDriver]:
            (info,) = (one for one in ctr_cgroup_drivers() if one.name == "v1")
            return info

The laws marked ``root`` make real groups below ``/ctr-test-PID``, which they remove again,
and need a machine where the driver's probe says yes: elsewhere they are skipped.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import pytest

from ctr import kernel
from ctr.drivers import CgroupDriver, DriverContext, DriverInfo, Probe
from ctr.encoding import encode
from ctr.errors import InvalidError, UnsupportedError
from ctr.launcher.reference_operations import ACTIONS
from ctr.launcher.reference_run import Run
from ctr.models import DeviceRule, Resources
from ctr.operations import Clone, JoinCgroup, NewMount, OpenPath, OpenTree, Unshare, WatchOom
from ctr.program import NO_SLOT, Operation, Phase, Side, Slots, Verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NOWHERE = DriverContext(root="/nonexistent/ctr", run_root="/nonexistent/ctr-run")

#: Operations that put a descriptor into a slot.
_OPENING = (OpenPath, OpenTree, NewMount)

#: Groups that are not below the root, or not in their shortest form.
BAD_GROUPS = ("", "/", "ctr/web", "/ctr/../memory", "/ctr/.", "/ctr//web", "/ctr/web/", "/ctr/a\nb")

#: What a container may do with devices by default, in short.
DEVICES = (
    DeviceRule(True, "c", -1, -1, "m"),
    DeviceRule(True, "c", 1, 3, "rwm"),  # /dev/null
    DeviceRule(True, "c", 1, 5, "r"),  # /dev/zero
)


class Inside:
    """A process that was put into a group by a driver's operations, as a launch does it."""

    def __init__(self, operations: Iterable[Operation], work: Callable[[], str]) -> None:
        """Start it and wait until it is inside, or has failed to get there.

        ``work`` runs inside and what it returns is ``answer()``.
        """
        ordered = sorted(operations, key=lambda operation: operation.phase)
        clones = [one for one in ordered if isinstance(one, Clone)]
        parent = [one for one in ordered if one.side is Side.PARENT and one not in clones]
        child = [one for one in ordered if one.side is Side.CHILD]
        self.status: int | None = None
        self._reader, writer = os.pipe()
        go_on, gate = os.pipe()
        entered, inside = os.pipe()
        run = Run(kernel.Kernel(), (writer, writer, writer))  # streams to own, and no more
        try:
            _perform(run, [one for one in parent if one.phase < Phase.CLONE])
            flags = functools.reduce(operator.or_, (one.flags for one in clones), 0)
            into = [run.slot(one.cgroup) for one in clones if one.cgroup != NO_SLOT]
            if into:
                flags |= kernel.CLONE_INTO_CGROUP
            self.pid = kernel.clone3(flags, signal.SIGCHLD, *into)
            if self.pid == 0:
                os.close(gate)
                os.read(go_on, 1)
                _be_inside(run, child, work, (writer, inside))
            run.child = self.pid
            _perform(run, [one for one in parent if one.phase > Phase.CLONE])
        finally:
            for fd in (writer, go_on, gate, inside):
                os.close(fd)
            os.read(entered, 1)
            os.close(entered)
            for slot in {one.slot for one in parent if isinstance(one, _OPENING)}:
                with contextlib.suppress(OSError):  # an operation failed before it
                    os.close(run.slot(slot))

    def answer(self) -> str:
        """What ``work`` returned, or the error; empty when it was killed first."""
        data = b""
        while more := os.read(self._reader, 65536):
            data += more
        return data.decode()

    def wait(self, timeout: float = 10.0) -> int:
        """Its exit status as subprocess tells it: negative for a signal."""
        deadline = time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} goes on")
            else:
                time.sleep(0.002)
        return self.status

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._reader)


def _perform(run: Run, operations: Iterable[Operation]) -> None:
    for operation in operations:
        ACTIONS[operation.side][type(operation)](run, operation)


def _be_inside(
    run: Run, operations: Iterable[Operation], work: Callable[[], str], ends: tuple[int, int]
) -> NoReturn:
    writer, inside = ends
    try:
        _perform(run, operations)
        os.close(inside)
        os.write(writer, work().encode())
    except BaseException as error:  # nothing may return into the test's copy
        os.write(writer, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(0)


def sleep_inside() -> str:
    """Work that goes on until it is killed."""
    time.sleep(60)
    return "slept"


class CgroupConformance:
    """What every cgroup driver promises."""

    @pytest.fixture
    def info(self) -> DriverInfo[CgroupDriver]:
        """The driver under test.  To be overridden."""
        raise NotImplementedError("override the fixture `info`")

    @pytest.fixture
    def driver(self, info: DriverInfo[CgroupDriver]) -> CgroupDriver:
        """The driver, opened on this machine; a skip where its probe says no."""
        probe = info.probe(_NOWHERE)
        if not probe.ok:
            pytest.skip(f"cgroup:{info.name}: {probe.reason}")
        return info.factory(_NOWHERE)

    @pytest.fixture
    def parent(self, driver: CgroupDriver) -> Iterator[str]:
        """A parent of the test's own, removed at the end with all below it."""
        group = f"/ctr-test-{os.getpid()}"
        yield group
        driver.remove(group)

    @pytest.fixture
    def group(self, parent: str) -> str:
        """A group that does not exist yet."""
        return f"{parent}/group"

    # -- anywhere -------------------------------------------------------------------------

    def test_description(self, info: DriverInfo[CgroupDriver]) -> None:
        """It has a name and a summary; the probe answers, with a reason where it says no."""
        assert info.name
        assert info.summary
        probe = info.probe(_NOWHERE)
        assert isinstance(probe, Probe)
        assert probe.ok or probe.reason

    @pytest.mark.parametrize("private", [False, True])
    def test_launch_operations(self, info: DriverInfo[CgroupDriver], private: bool) -> None:
        """They are pure; what is opened is verified; joining comes before the namespace."""
        driver = info.factory(_NOWHERE)
        slots = Slots()
        slots.new("of somebody else")
        operations = driver.launch("/ctr/web", Resources(), slots, private=private)
        again = Slots()
        again.new("of somebody else")
        assert driver.launch("/ctr/web", Resources(), again, private=private) == operations
        opened = [one for one in operations if isinstance(one, OpenPath)]
        for one in opened:
            assert one.verify == Verify.CGROUP
            assert one.phase is Phase.PREPARE
            assert "/ctr/web" in one.path
            assert 0 < one.slot < len(slots.names)
        clones = [one for one in operations if isinstance(one, Clone)]
        joined = [one.slot for one in operations if isinstance(one, JoinCgroup)]
        joined += [one.cgroup for one in clones if one.cgroup != NO_SLOT]
        assert sorted(joined) == sorted(one.slot for one in opened)
        unshared = [one for one in operations if isinstance(one, Unshare)]
        made = sum(one.flags for one in clones) + sum(one.flags for one in unshared)
        assert made == (kernel.CLONE_NEWCGROUP if private else 0)
        if unshared:
            assert operations[-1] is unshared[0]
            assert unshared[0].phase is Phase.JOIN
        assert all(one.phase is Phase.WATCH for one in operations if isinstance(one, WatchOom))
        assert all(one.describe() and encode([one]) for one in operations)

    @pytest.mark.parametrize("private", [False, True])
    @pytest.mark.parametrize("writable", [False, True])
    def test_mount_operations(
        self, info: DriverInfo[CgroupDriver], private: bool, writable: bool
    ) -> None:
        """They are pure, never many, and none comes before the container's root is there."""
        driver = info.factory(_NOWHERE)
        arguments = {"private": private, "writable": writable}
        operations = driver.mounts("/ctr/web", Slots(), **arguments)
        assert driver.mounts("/ctr/web", Slots(), **arguments) == operations
        for one in operations:
            assert one.phase in (Phase.PREPARE, Phase.SETUP)
            assert one.describe()
            assert encode([one])

    @pytest.mark.parametrize("group", BAD_GROUPS)
    def test_bad_group(self, info: DriverInfo[CgroupDriver], group: str) -> None:
        """No verb takes a group that is the root or might lie outside of it."""
        driver = info.factory(_NOWHERE)
        for verb in (
            lambda: driver.create(group, Resources()),
            lambda: driver.update(group, Resources()),
            lambda: driver.remove(group),
            lambda: driver.launch(group, Resources(), Slots(), private=True),
            lambda: driver.mounts(group, Slots(), private=True, writable=False),
            lambda: driver.processes(group),
        ):
            with pytest.raises(InvalidError):
                verb()

    # -- on the kernel --------------------------------------------------------------------

    @pytest.mark.root
    def test_create_and_remove(self, driver: CgroupDriver, group: str) -> None:
        """Both may be repeated, and a group can be made again after it was removed."""
        driver.remove(group)
        for _ in range(2):
            driver.create(group, Resources())
            driver.create(group, Resources())
            driver.remove(group)
            driver.remove(group)
        assert driver.processes(group) == []

    @pytest.mark.root
    def test_takes_over(self, driver: CgroupDriver, group: str) -> None:
        """A group that exists, with other limits, gets those that are asked for."""
        driver.create(group, Resources(pids_limit=5))
        driver.create(group, Resources(pids_limit=50))
        inside = self.enter(driver, group, lambda: _forks(10))
        assert inside.answer() == "10"
        inside.wait()
        inside.close()

    @pytest.mark.root
    @pytest.mark.parametrize("private", [False, True])
    def test_joins(self, driver: CgroupDriver, group: str, private: bool) -> None:
        """A process launched into the group is inside before it does anything."""
        driver.create(group, Resources())
        slots = Slots()
        operations = driver.launch(group, Resources(), slots, private=private)
        inside = Inside(operations, lambda: _read("/proc/self/cgroup"))
        lines = inside.answer().splitlines()
        inside.wait()
        inside.close()
        paths = {line.split(":", 2)[2] for line in lines}
        if private:
            assert paths == {"/"}
        else:
            assert any(path.endswith(group) for path in paths)

    @pytest.mark.root
    def test_processes(self, driver: CgroupDriver, group: str) -> None:
        """The group's and those of groups below are listed, by the host's PIDs."""
        driver.create(group, Resources())
        driver.create(f"{group}/inner", Resources())
        inner = self.enter(driver, f"{group}/inner", sleep_inside)
        assert self.listed(driver, group, inner.pid) == [inner.pid]
        assert driver.processes(f"{group}/other") == []
        inner.close()

    @pytest.mark.root
    def test_remove_kills(self, driver: CgroupDriver, group: str) -> None:
        """Removing kills what is inside, in nested groups too, whatever it ignores."""
        driver.create(group, Resources())

        def stubborn() -> str:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            return sleep_inside()

        first = self.enter(driver, group, stubborn)
        self.listed(driver, group, first.pid)
        driver.remove(group)
        assert first.wait() == -signal.SIGKILL
        first.close()
        driver.create(f"{group}/a/b", Resources())
        nested = self.enter(driver, f"{group}/a/b", stubborn)
        self.listed(driver, group, nested.pid)
        driver.remove(group)
        assert nested.wait() == -signal.SIGKILL
        nested.close()
        assert driver.processes(group) == []

    @pytest.mark.root
    def test_walk_and_gc(self, driver: CgroupDriver) -> None:
        """walk yields what is right below /ctr; gc removes what is not valid, and only that."""
        names = [f"/ctr/test-{os.getpid()}-{letter}" for letter in "ab"]
        before = frozenset(driver.walk())
        try:
            for name in names:
                driver.create(name, Resources())
            driver.create(f"{names[0]}/nested", Resources())
            assert sorted(set(driver.walk()) - before) == names
            # Whatever runs on this machine beside the test is valid.
            valid = frozenset(driver.walk()) - {names[0]}
            assert driver.gc(valid) == [names[0]]
            assert names[0] not in set(driver.walk())
            assert names[1] in set(driver.walk())
        finally:
            for name in names:
                driver.remove(name)

    @pytest.mark.root
    def test_gc_kills_nothing(self, driver: CgroupDriver) -> None:
        """A group that is not valid but has processes is another root's live container."""
        group = f"/ctr/test-{os.getpid()}-live"
        try:
            driver.create(group, Resources())
            inside = self.enter(driver, group, sleep_inside)
            self.listed(driver, group, inside.pid)
            assert driver.gc(frozenset(driver.walk()) - {group}) == []
            assert inside.pid in driver.processes(group)
        finally:
            driver.remove(group)
        assert inside.wait() == -signal.SIGKILL
        inside.close()

    @pytest.mark.root
    def test_pids_limit_and_update(self, driver: CgroupDriver, group: str) -> None:
        """A limit holds; update changes it and leaves the others alone."""
        driver.create(group, Resources(pids_limit=4))
        assert int(self.work(driver, group, lambda: _forks(10))) < 4
        driver.update(group, Resources(pids_limit=20))
        assert self.work(driver, group, lambda: _forks(10)) == "10"
        driver.update(group, Resources())
        assert int(self.work(driver, group, lambda: _forks(30))) < 20

    @pytest.mark.root
    def test_devices(self, driver: CgroupDriver, group: str) -> None:
        """Nothing is allowed that the list does not allow; a new list replaces the old one."""
        driver.create(group, Resources(devices=DEVICES))

        def tries() -> str:
            return " ".join(
                name
                for name, flags in (("null", os.O_RDWR), ("zero", os.O_RDONLY), ("full", 0))
                if _can_open(f"/dev/{name}", flags)
            )

        assert self.work(driver, group, tries) == "null zero"
        assert self.work(driver, group, lambda: str(_can_open("/dev/zero", os.O_RDWR))) == "False"
        driver.update(group, Resources(devices=(DeviceRule(True, "c", 1, 7, "r"),)))
        assert self.work(driver, group, tries) == "full"
        driver.update(group, Resources(devices=(DeviceRule(True, "a", -1, -1, "rwm"),)))
        assert self.work(driver, group, tries) == "null zero full"

    @pytest.mark.root
    def test_refused_value(self, driver: CgroupDriver, group: str) -> None:
        """What the kernel refuses is the request's fault and says which value of what."""
        with pytest.raises(InvalidError, match=r"cpu\.\S+ of .* to 10"):
            driver.create(group, Resources(cpu_quota=10))

    @pytest.mark.root
    def test_missing_controller(self, driver: CgroupDriver, group: str) -> None:
        """A controller that the machine lacks is an error that names it, if it is asked for."""
        with pytest.raises(UnsupportedError, match="nosuch"):
            driver.create(group, Resources(unified=(("nosuch.max", "1"),)))
        driver.create(group, Resources())
        with pytest.raises(UnsupportedError, match="nosuch"):
            driver.update(group, Resources(unified=(("nosuch.max", "1"),)))

    # -- tools ----------------------------------------------------------------------------

    def enter(self, driver: CgroupDriver, group: str, work: Callable[[], str]) -> Inside:
        """Start ``work`` inside the group, as the driver's operations say."""
        return Inside(driver.launch(group, Resources(), Slots(), private=False), work)

    def work(self, driver: CgroupDriver, group: str, work: Callable[[], str]) -> str:
        """What ``work`` returns inside the group."""
        inside = self.enter(driver, group, work)
        try:
            return inside.answer()
        finally:
            inside.wait()
            inside.close()

    def listed(self, driver: CgroupDriver, group: str, pid: int) -> list[int]:
        """The group's processes, once ``pid`` is among them."""
        deadline = time.monotonic() + 10
        while True:
            pids = driver.processes(group)
            if pid in pids or time.monotonic() > deadline:
                return pids
            time.sleep(0.002)


def _forks(count: int) -> str:
    """How many children can be had at once, up to ``count``."""
    children = []
    for _ in range(count):
        try:
            child = os.fork()
        except BlockingIOError:
            break
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return str(len(children))


def _can_open(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except PermissionError:
        return False
    return True


def _read(path: str) -> str:
    with open(path, encoding=sys.getfilesystemencoding()) as file:
        return file.read()
