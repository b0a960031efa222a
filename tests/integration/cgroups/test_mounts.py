"""What a container sees below /sys/fs/cgroup, with the operations run as the launcher does."""

from __future__ import annotations

import os

import pytest

from ctr import kernel
from ctr.models import Resources
from ctr.operations import (
    AttachRoot,
    Clone,
    Identity,
    MountAt,
    NewMount,
    PivotRoot,
    Propagation,
    WriteIdMaps,
)
from ctr.program import Phase

pytestmark = pytest.mark.root


#: A user namespace, and those without which the kernel lets it mount neither proc nor sysfs.
OWN = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWPID


@pytest.fixture
def look(driver, group, start):
    """Run work in a fresh root with proc, sys and the driver's mounts."""

    def look_at(work, *, private, writable, more=()):
        driver.create(group, Resources())

        def mounts(slots):
            root = slots.new("root")
            return [
                *more,
                Clone(kernel.CLONE_NEWNS),
                NewMount(root, "tmpfs", "", ()),
                Propagation(kernel.MS_REC | kernel.MS_PRIVATE),
                AttachRoot(root).at(Phase.JOIN),
                MountAt("sysfs", "/sys", (), kernel.MOUNT_ATTR_RDONLY),
                *driver.mounts(group, slots, private=private, writable=writable),
                MountAt("proc", "/proc"),
                PivotRoot(),
            ]

        inside = start(work, private=private, more=[mounts])
        answer = inside.answer()
        inside.wait()
        return answer

    return look_at


def folder_of(v1):
    return "/sys/fs/cgroup/pids" if v1 else "/sys/fs/cgroup"


@pytest.mark.parametrize("private", [True, False])
def test_the_group_is_the_root(look, v1, private):
    """Its own process is all that the container finds in its group."""

    def work():
        with open(f"{folder_of(v1)}/cgroup.procs") as file:
            return f"{file.read().split()} {os.getpid()} {os.path.exists(folder_of(v1) + '/ctr')}"

    pids, pid, above = look(work, private=private, writable=False).split()
    assert pids == f"['{pid}']"
    assert above == "False"


@pytest.mark.parametrize("private", [True, False])
def test_read_only(look, v1, private):
    """Neither a group nor a limit nor a file beside them can be made (CVE-2023-25809)."""

    def work():
        errors = []
        for path in (f"{folder_of(v1)}/new", "/sys/fs/cgroup/new"):
            try:
                os.mkdir(path)
            except OSError as error:
                errors.append(str(error.strerror))
        try:
            os.close(os.open(f"{folder_of(v1)}/pids.max", os.O_WRONLY))
        except OSError as error:
            errors.append(str(error.strerror))
        return "\n".join(errors)

    answer = look(work, private=private, writable=False)
    assert answer.splitlines() == ["Read-only file system"] * 3


@pytest.mark.parametrize("private", [True, False])
def test_writable(look, v1, driver, group, private):
    def work():
        os.mkdir(f"{folder_of(v1)}/new")
        return "made"

    assert look(work, private=private, writable=True) == "made"
    driver.remove(group)


def test_every_controller_is_there(look, v1, layout):
    answer = look(
        lambda: "\n".join(sorted(os.listdir("/sys/fs/cgroup"))), private=True, writable=False
    )
    names = set(answer.splitlines())
    if not v1:
        assert {"cgroup.procs", "memory.max", "pids.max"} <= names
        return
    for hierarchy in layout.hierarchies:
        assert hierarchy.folder in names
        assert set(hierarchy.controllers) <= names


def test_flags(look):
    """nosuid, nodev, noexec, and one mount a place."""

    def work():
        with open("/proc/self/mountinfo") as file:
            lines = [line.split() for line in file]
        return "\n".join(f"{one[4]} {one[5]}" for one in lines if "/sys/fs/cgroup" in one[4])

    lines = look(work, private=True, writable=False).splitlines()
    places = [line.split()[0] for line in lines]
    assert places
    assert len(places) == len(set(places))
    for line in lines:
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[1].split(","))


@pytest.mark.parametrize("private", [True, False])
def test_user_namespace(look, v1, private):
    """Root inside is nobody outside: it sees its group, and can't write it."""

    def work():
        with open(f"{folder_of(v1)}/cgroup.procs") as file:
            pids = len(file.read().split())
        try:
            os.mkdir(f"{folder_of(v1)}/new")
        except OSError as error:
            return f"{pids} {error.strerror}"
        return f"{pids} made"

    maps = "0 100000 65536\n"
    more = [Clone(OWN), WriteIdMaps(maps, maps), Identity(0, 0, ()).at(Phase.JOIN)]
    assert look(work, private=private, writable=False, more=more) == "1 Read-only file system"
