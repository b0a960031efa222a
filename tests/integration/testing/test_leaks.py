"""What is left behind is found, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from ctr import kernel
from ctr.testing.leaks import Snapshot, leaks

pytestmark = pytest.mark.root


@pytest.fixture
def found(tmp_path_factory):
    folder = str(tmp_path_factory.getbasetemp())
    before = Snapshot.take(folder)
    return lambda: leaks(before, folder, patience=0)


def test_nothing(found):
    assert found() == []


def test_a_mount(found, tmp_path):
    kernel.mount("tmpfs", str(tmp_path), "tmpfs", 0)
    assert found() == [f"mount: tmpfs tmpfs (/) on {tmp_path}"]
    kernel.umount2(str(tmp_path))


def test_a_descriptor(found):
    with open(os.devnull) as file:
        assert found() == [f"descriptor: {file.fileno()} -> /dev/null"]


def test_a_link(found):
    subprocess.run(["ip", "link", "add", "ctr-leak", "type", "bridge"], check=True)
    assert found() == ["link: ctr-leak"]
    subprocess.run(["ip", "link", "del", "ctr-leak"], check=True)


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_a_rule(found):
    subprocess.run(["nft", "add table ip leak; add chain ip leak c; "], check=True)
    assert any("table ip leak" in line for line in found())
    subprocess.run(["nft", "delete table ip leak"], check=True)


def test_a_group(found):
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file if " - cgroup" in line and "cpuset" not in line]
    root = mounts[0][4]
    group = f"{root}/ctr-test-{os.getpid()}"
    os.makedirs(f"{group}/leak")
    assert f"cgroup: {group}/leak" in found()
    os.rmdir(f"{group}/leak")
    os.rmdir(group)


def test_a_process_and_what_it_began(found):
    """Also when that has namespaces of its own."""
    command = "import os, time; os.system('unshare -mn sleep 60 & sleep 60')"
    process = subprocess.Popen([sys.executable, "-c", command], start_new_session=True)
    deadline = time.monotonic() + 5
    while len(found()) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    lines = found()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert all(line.startswith("process: ") for line in lines)
    assert sum(" sleep started" in line for line in lines) == 2


def test_what_ends_in_time_is_no_leak(found, tmp_path_factory):
    folder = str(tmp_path_factory.getbasetemp())
    before = Snapshot.take(folder)
    process = subprocess.Popen(["sleep", "0.3"])
    assert leaks(before, folder, patience=5) == []
    process.wait()


def test_the_tests_have_namespaces_of_their_own():
    for kind in ("mnt", "net"):
        parent = os.readlink(f"/proc/{os.getppid()}/ns/{kind}")
        assert os.readlink(f"/proc/self/ns/{kind}") != parent
    assert set(os.listdir("/sys/class/net")) == {name for _, name in socket.if_nameindex()}
    assert os.listdir("/sys/fs/cgroup")
    with socket.create_server(("127.0.0.1", 0)):
        pass
