"""The driver v2 on a folder that looks like its hierarchy."""

from __future__ import annotations

import os

import pytest

from ctr.models import Resources
from ctr.operations import WatchOom
from ctr.program import Slots
from ctr_cgroups.layout import Layout
from ctr_cgroups.v2 import V2


def watched(root) -> list[str]:
    driver = V2(Layout((), str(root), ("cpu", "memory")))
    operations = driver.launch("/ctr/x", Resources(), Slots(), private=True)
    return [operation.path for operation in operations if isinstance(operation, WatchOom)]


def test_kills_are_watched_for(tmp_path) -> None:
    events = f"{tmp_path}/ctr/x/memory.events"
    assert watched(tmp_path) == [events]  # a plan: the group is not made yet
    os.makedirs(f"{tmp_path}/ctr/x")
    open(events, "w").close()
    assert watched(tmp_path) == [events]


def test_a_group_that_was_not_handed_the_memory_controller(tmp_path) -> None:
    os.makedirs(f"{tmp_path}/ctr/x")
    assert watched(tmp_path) == []


@pytest.mark.parametrize("real_root", [True, False])
@pytest.mark.parametrize("processes", ["", "0\n17\n"])
def test_nothing_is_handed_down_where_processes_live(tmp_path, real_root, processes) -> None:
    """Not even the controllers that the kernel would: they would make a threaded subtree."""
    (tmp_path / "ctr").mkdir()
    for folder in (tmp_path, tmp_path / "ctr"):
        (folder / "cgroup.subtree_control").write_text("")
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.type").write_text("domain\n")
    (tmp_path / "cgroup.procs").write_text(processes)
    if real_root:
        (tmp_path / "cgroup.type").unlink()
    V2(Layout((), str(tmp_path), ("cpu", "memory"))).create("/ctr/x", Resources())
    handed = "" if processes and not real_root else "+cpu +memory"
    assert (tmp_path / "cgroup.subtree_control").read_text() == handed
    assert (tmp_path / "ctr/cgroup.subtree_control").read_text() == "+cpu +memory"
