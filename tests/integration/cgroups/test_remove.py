"""Removing takes everything along, whatever the container did with its groups."""

from __future__ import annotations

import os
import time

import pytest

from ctr.errors import DriverError
from ctr.models import Resources
from ctr.testing.cgroup import sleep_inside
from ctr_cgroups import tree

pytestmark = pytest.mark.root


def listed(driver, group, count):
    deadline = time.monotonic() + 10
    while len(driver.processes(group)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def fork_for_ever():
    while True:
        try:
            os.fork()
        except BlockingIOError:
            time.sleep(0.001)
        else:
            time.sleep(0.0005)


def test_fork_bomb(driver, group, start):
    driver.create(group, Resources(pids_limit=50))
    bomb = start(fork_for_ever)
    listed(driver, group, 10)
    driver.remove(group)
    assert bomb.wait() == -9
    assert driver.processes(group) == []


def test_frozen(driver, group, folder, start, v1):
    """Frozen by somebody, in an inner group too: it dies all the same."""
    driver.create(group, Resources())
    if v1:
        driver.create(f"{group}/inner", Resources())
    else:  # without controllers, so that processes may live above it
        os.mkdir(f"{folder('')}/inner")
    outer, inner = start(sleep_inside), start(sleep_inside, at=f"{group}/inner")
    listed(driver, group, 2)
    for path in (f"{folder('freezer')}/inner", folder("freezer")):
        if v1:
            tree.write(f"{path}/freezer.state", "FROZEN")
        else:
            tree.write(f"{path}/cgroup.freeze", "1")
    driver.remove(group)
    assert outer.wait() == -9
    assert inner.wait() == -9


def test_deeper_than_a_path_is_long(driver, group, folder, start):
    """A container that writes its groups can nest them beyond PATH_MAX."""
    driver.create(group, Resources())
    fd = os.open(folder("pids"), os.O_RDONLY)
    name = "n" * 200
    for _ in range(30):
        os.mkdir(name, dir_fd=fd)
        down = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = down
    os.close(fd)
    process = start(sleep_inside)
    listed(driver, group, 1)
    driver.remove(group)
    assert process.wait() == -9
    assert not os.path.exists(folder("pids"))


def test_half_made(driver, group, layout, v1):
    """A create that was killed between two hierarchies leaves nothing that stays."""
    if not v1:
        pytest.skip("cgroup v2 has one hierarchy")
    driver.create(group, Resources())
    os.rmdir(layout.hierarchies[0].path + group)
    driver.remove(group)
    assert not any(os.path.exists(h.path + group) for h in layout.hierarchies)
    tree.make(layout.hierarchies[0].path, group)
    driver.remove(group)
    assert not os.path.exists(layout.hierarchies[0].path + group)


def test_what_does_not_die_is_told(folder, driver, group, start, monkeypatch):
    """There is an end to the waiting, and the error names the processes."""
    driver.create(group, Resources())
    process = start(sleep_inside)
    listed(driver, group, 1)
    monkeypatch.setattr(tree, "PATIENCE", 0.05)
    with pytest.raises(DriverError, match="1 processes inside do not die") as caught:
        tree.empty([folder("pids")], lambda: None)
    assert str(process.pid) in caught.value.hint
