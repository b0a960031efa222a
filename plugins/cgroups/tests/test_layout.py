"""Detection on trees made up in a folder."""

from __future__ import annotations

import os

import pytest

from ctr_cgroups.layout import Hierarchy, Layout, detect, probe_v1, probe_v2


class Machine:
    """A mountinfo file, and folders for what it says is mounted."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.root = f"{self.folder}/cg"
        self.lines = []
        self.ids = {"": 1}
        self.mount("/", "ext4", "rw")
        self.mount("/cg", "tmpfs", "rw,mode=755")

    def mount(self, point, kind, options, *, on=None, controllers=None):
        """Mount ``kind`` on ``point`` (below the folder), standing on the mount ``on``."""
        number = 100 + len(self.lines)
        if on is None:
            on = max((p for p in self.ids if f"{point}/".startswith(f"{p.rstrip('/')}/")), key=len)
        path = self.folder + ("" if point == "/" else point)
        escaped = path.replace(" ", "\\040")
        self.lines.append(
            f"{number} {self.ids[on]} 0:{number} / {escaped} rw,relatime shared:5 - "
            f"{kind} {kind} {options}"
        )
        self.ids[point] = number
        os.makedirs(path, exist_ok=True)
        if controllers is not None:
            with open(f"{path}/cgroup.controllers", "w") as file:
                file.write(controllers + "\n")
        return self

    def detect(self):
        with open(f"{self.folder}/mountinfo", "w") as file:
            file.write("\n".join(self.lines) + "\n")
        return detect(f"{self.folder}/mountinfo", self.root)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_v1(machine):
    machine.mount("/cg/memory", "cgroup", "rw,memory").mount("/cg/pids", "cgroup", "rw,pids")
    layout = machine.detect()
    assert layout == Layout(
        (
            Hierarchy(f"{machine.root}/memory", ("memory",)),
            Hierarchy(f"{machine.root}/pids", ("pids",)),
        )
    )
    assert layout.mode == "v1"
    assert probe_v1(layout).ok
    assert probe_v2(layout) == (False, "cgroup v2 is not mounted", "use --cgroups v1")


def test_controllers_mounted_together(machine):
    machine.mount("/cg/cpu,cpuacct", "cgroup", "rw,seclabel,cpu,cpuacct")
    (hierarchy,) = machine.detect().hierarchies
    assert hierarchy.options == hierarchy.controllers == ("cpu", "cpuacct")
    assert hierarchy.folder == "cpu,cpuacct"


def test_named_hierarchy(machine):
    options = "rw,xattr,release_agent=/lib/agent,name=systemd"
    layout = machine.mount("/cg/systemd", "cgroup", options).detect()
    (hierarchy,) = layout.hierarchies
    assert hierarchy.options == ("name=systemd",)
    assert hierarchy.controllers == ()
    assert hierarchy.folder == "systemd"
    assert layout.mode == "none"
    assert probe_v1(layout).reason == "no cgroup file system is mounted"


def test_v2(machine):
    layout = machine.mount("/cg", "cgroup2", "rw", controllers="cpu io memory pids").detect()
    assert layout == Layout((), machine.root, ("cpu", "io", "memory", "pids"))
    assert layout.mode == "v2"
    assert probe_v2(layout).ok
    assert probe_v1(layout).reason == "no cgroup v1 controller is mounted"


def test_hybrid(machine):
    machine.mount("/cg/memory", "cgroup", "rw,memory")
    layout = machine.mount("/cg/unified", "cgroup2", "rw", controllers="hugetlb").detect()
    assert layout.mode == "hybrid"
    assert layout.unified == f"{machine.root}/unified"
    assert probe_v1(layout).ok
    assert probe_v2(layout) == (
        False,
        "cgroup v2 is mounted, but its only controllers are: hugetlb",
        "use --cgroups v1",
    )


def test_v2_without_controllers(machine):
    layout = machine.mount("/cg", "cgroup2", "rw", controllers="").detect()
    assert probe_v2(layout).reason == "cgroup v2 is mounted, but it has no controllers"


def test_nothing(machine):
    assert machine.detect() == Layout()
    for probe in (probe_v1(Layout()), probe_v2(Layout())):
        assert probe.reason == "no cgroup file system is mounted"
        assert "mount -t cgroup2" in probe.hint


def test_no_mountinfo(tmp_path):
    assert detect(f"{tmp_path}/missing") == Layout()


def test_elsewhere(machine):
    """Mounts outside of the usual folder count, but those inside are preferred."""
    machine.mount("/a place/memory", "cgroup", "rw,memory").mount("/dev/pids", "cgroup", "rw,pids")
    machine.mount("/cg/pids", "cgroup", "rw,pids")
    paths = [hierarchy.path for hierarchy in machine.detect().hierarchies]
    assert paths == [f"{machine.folder}/a place/memory", f"{machine.root}/pids"]


def test_hidden_by_a_mount_on_top(machine):
    machine.mount("/cg/unified", "cgroup2", "rw", controllers="cpu")
    machine.mount("/cg/unified", "tmpfs", "rw", on="/cg/unified")
    assert machine.detect() == Layout()


def test_hidden_by_a_mount_above(machine):
    machine.mount("/cg/memory", "cgroup", "rw,memory", on="/cg")
    machine.mount("/cg", "tmpfs", "rw", on="/cg")
    assert machine.detect() == Layout()
    machine.mount("/cg/memory", "cgroup", "rw,memory", on="/cg")
    assert machine.detect().mode == "v1"


def test_root_that_comes_late_in_the_file(machine):
    """An initial RAM disk mounts the cgroups first and moves the root below them later."""
    machine.mount("/cg/memory", "cgroup", "rw,memory")
    machine.lines.append(machine.lines.pop(0))
    assert machine.detect().mode == "v1"


def test_not_writable(machine, monkeypatch):
    layout = machine.mount("/cg/memory", "cgroup", "rw,memory").detect()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert probe_v1(layout).reason == f"{machine.root}/memory is not writable"
