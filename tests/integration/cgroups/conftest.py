"""The driver of this machine, groups of a test's own, and processes inside them."""

from __future__ import annotations

import os

import pytest

from ctr.drivers import DriverContext
from ctr.models import Resources
from ctr.program import Slots
from ctr.testing.cgroup import Inside
from ctr_cgroups import ctr_cgroup_drivers
from ctr_cgroups.layout import detect

NOWHERE = DriverContext(root="/nonexistent/ctr", run_root="/nonexistent/ctr-run")


@pytest.fixture(scope="session")
def info():
    """The driver that CTR_CGROUPS names, else the machine's: every test here needs one."""
    wanted = os.environ.get("CTR_CGROUPS")
    offers = [info for info in ctr_cgroup_drivers() if wanted in (None, info.name)]
    usable = [info for info in offers if info.probe(NOWHERE).ok]
    assert usable, "no cgroup driver can work here"
    return usable[0]


@pytest.fixture
def driver(info):
    return info.factory(NOWHERE)


@pytest.fixture
def layout():
    return detect()


@pytest.fixture
def v1(info):
    return info.name == "v1"


@pytest.fixture
def group(driver):
    """A group that does not exist yet, with a parent of the test's own."""
    parent = f"/ctr-test-{os.getpid()}"
    yield f"{parent}/group"
    driver.remove(parent)


@pytest.fixture
def folder(layout, v1, group):
    """Where a controller shows the group."""

    def find(controller):
        if not v1:
            return layout.unified + group
        (path,) = (h.path for h in layout.hierarchies if controller in h.controllers)
        return path + group

    return find


@pytest.fixture
def read(folder):
    """The text of the group's file, of whichever version: read(v1's name, v2's name)."""

    def read_one(name):
        with open(f"{folder(name.partition('.')[0])}/{name}") as file:
            return file.read().strip()

    return read_one


@pytest.fixture
def start(driver, group):
    """Start work inside the group; what still runs at the end is killed."""
    started = []

    def start_one(work, *, at=group, private=False, more=()):
        slots = Slots()
        operations = driver.launch(at, Resources(), slots, private=private)
        for make in more:
            operations = make(slots) + operations
        inside = Inside(operations, work)
        started.append(inside)
        return inside

    yield start_one
    for inside in started:
        inside.close()
