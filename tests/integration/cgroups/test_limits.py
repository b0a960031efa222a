"""Limits that really hold, on the kernel at hand and its version of cgroups."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ctr.errors import InvalidError, UnsupportedError
from ctr.models import DeviceRule, Resources, Throttle
from ctr.operations import WatchOom
from ctr.program import Slots

pytestmark = pytest.mark.root

MB = 1 << 20


def hog():
    """Use 200 MB of memory."""
    kept = bytearray()
    for _ in range(200):
        kept += os.urandom(1) * MB
    return str(len(kept))


def test_memory_hog_is_killed_and_counted(driver, group, start):
    driver.create(group, Resources(memory=32 * MB))
    (watch,) = (
        one
        for one in driver.launch(group, Resources(), Slots(), private=True)
        if isinstance(one, WatchOom)
    )

    def kills():
        with open(watch.path) as file:
            (count,) = (line.split()[1] for line in file if line.startswith("oom_kill "))
        return int(count)

    assert kills() == 0
    assert start(hog).wait(30) == -signal.SIGKILL
    assert kills() == 1


def test_memory_is_enough(driver, group, start):
    driver.create(group, Resources(memory=512 * MB))
    assert start(hog).answer() == str(200 * MB)


def test_memory_and_swap_up_and_down(driver, group, read, v1):
    """v1 wants memory below memory plus swap at every moment, whatever was there before."""

    def now():
        if v1:
            return int(read("memory.limit_in_bytes")), int(read("memory.memsw.limit_in_bytes"))
        memory = int(read("memory.max"))
        return memory, memory + int(read("memory.swap.max"))

    driver.create(group, Resources(memory=64 * MB, memory_swap=64 * MB))
    assert now() == (64 * MB, 64 * MB)
    for memory, both in ((128, 256), (32, 32), (512, 512), (16, 64)):
        driver.update(group, Resources(memory=memory * MB, memory_swap=both * MB))
        assert now() == (memory * MB, both * MB)
    driver.update(group, Resources(memory=-1, memory_swap=-1))


def test_memory_above_memory_and_swap(driver, group, v1):
    if not v1:
        pytest.skip("cgroup v2 counts swap apart")
    driver.create(group, Resources(memory=64 * MB, memory_swap=64 * MB))
    with pytest.raises(InvalidError, match=r"memory\.limit_in_bytes .* to 134217728") as caught:
        driver.update(group, Resources(memory=128 * MB))
    assert "--memory-swap" in caught.value.hint


def test_memory_below_its_use(driver, group, start, v1):
    if not v1:
        pytest.skip("cgroup v2 kills instead of refusing")
    driver.create(group, Resources(memory=64 * MB))
    reader, writer = os.pipe()

    def hold():
        kept = bytearray(b"x") * (32 * MB)
        os.write(writer, b"x")
        time.sleep(60)
        return str(len(kept))

    start(hold)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    with pytest.raises(InvalidError, match=r"memory\.limit_in_bytes"):
        driver.update(group, Resources(memory=4 * MB))


def test_what_one_version_alone_has(driver, group, read, v1):
    if v1:
        driver.create(group, Resources(memory_swappiness=7, oom_kill_disable=True))
        assert read("memory.swappiness") == "7"
        assert "oom_kill_disable 1" in read("memory.oom_control")
    else:
        driver.create(group, Resources(memory_reservation=8 * MB))
        assert read("memory.low") == str(8 * MB)
        with pytest.raises(UnsupportedError, match="swappiness"):
            driver.update(group, Resources(memory_swappiness=7))


def test_cpu(driver, group, read, v1):
    def bandwidth():
        if v1:
            return f"{read('cpu.cfs_quota_us')} {read('cpu.cfs_period_us')}"
        return read("cpu.max")

    driver.create(group, Resources(nano_cpus=500_000_000, cpu_shares=512))
    assert bandwidth() == "50000 100000"
    assert read("cpu.shares" if v1 else "cpu.weight") == ("512" if v1 else "59")
    driver.update(group, Resources(cpu_period=50_000))
    assert bandwidth() == "50000 50000"
    driver.update(group, Resources(cpu_quota=20_000))
    assert bandwidth() == "20000 50000"
    driver.update(group, Resources(cpu_quota=-1))
    assert bandwidth() == ("-1 50000" if v1 else "max 50000")
    with pytest.raises(InvalidError, match=r"cpu\.\S+ of .* to 10"):
        driver.update(group, Resources(cpu_quota=10))


def test_cpu_is_throttled(driver, group, read, start):
    driver.create(group, Resources(nano_cpus=100_000_000))

    def spin():
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        return str(time.process_time())

    assert float(start(spin).answer()) < 0.25
    assert "nr_throttled 0" not in read("cpu.stat")


def test_cpuset(driver, group, layout, read, start, v1):
    controllers = layout.unified_controllers
    if v1:
        controllers = [name for h in layout.hierarchies for name in h.controllers]
    if "cpuset" not in controllers:
        pytest.skip("this kernel has no cpuset controller")
    with pytest.raises(InvalidError, match=r"cpuset\.cpus of .* to 4000"):
        driver.create(group, Resources(cpuset_cpus="4000"))
    allowed = os.sched_getaffinity(0)
    first = min(allowed)
    driver.update(group, Resources(cpuset_cpus=str(first), cpuset_mems="0"))
    assert read("cpuset.cpus") == str(first)
    assert start(lambda: str(os.sched_getaffinity(0))).answer() == str({first})


def test_pids(driver, group, start):
    driver.create(group, Resources(pids_limit=1))

    def fork():
        try:
            child = os.fork()
        except BlockingIOError:
            return "refused"
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return "forked"

    assert start(fork).answer() == "refused"
    driver.update(group, Resources(pids_limit=-1))
    assert start(fork).answer() == "forked"


def disk():
    """Numbers of a block device that is not empty."""
    for name in sorted(os.listdir("/sys/block")):
        with open(f"/sys/block/{name}/size") as size, open(f"/sys/block/{name}/dev") as numbers:
            if int(size.read()):
                major, minor = numbers.read().split(":")
                return int(major), int(minor)
    pytest.skip("no block device that takes a limit")


def test_block_io(driver, group, layout, read, v1):
    major, minor = disk()
    driver.create(group, Resources(write_bps=(Throttle(major, minor, MB),)))
    driver.update(group, Resources(read_iops=(Throttle(major, minor, 100),)))
    if v1:
        assert read("blkio.throttle.write_bps_device") == f"{major}:{minor} {MB}"
        assert read("blkio.throttle.read_iops_device") == f"{major}:{minor} 100"
    else:
        assert f"{major}:{minor} rbps=max wbps={MB} riops=100 wiops=max" in read("io.max")
    with pytest.raises(InvalidError, match="999:0"):
        driver.update(group, Resources(read_bps=(Throttle(999, 0, 1),)))


def test_block_io_weight(driver, group, folder, v1):
    """Written where the kernel has a file for it, else an error that names the controller."""
    driver.create(group, Resources())
    names = ("blkio.bfq.weight", "blkio.weight") if v1 else ("io.bfq.weight", "io.weight")
    files = [f"{folder('blkio')}/{name}" for name in names]
    there = [file for file in files if os.path.exists(file)]
    if not there:
        with pytest.raises(UnsupportedError, match="io"):
            driver.update(group, Resources(blkio_weight=300))
        return
    driver.update(group, Resources(blkio_weight=300))
    with open(there[0]) as file:
        weight = file.read().split()[-1]
    assert weight == ("2930" if there[0].endswith("/io.weight") else "300")


def test_devices(driver, group, start):
    """mknod is a part of its own, and reading and writing are judged apart."""
    rules = (
        DeviceRule(True, "c", 1, -1, "r"),
        DeviceRule(True, "c", -1, 3, "w"),
    )
    driver.create(group, Resources(devices=rules))

    def tries():
        found = []
        for name in ("null", "zero"):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                try:
                    os.close(os.open(f"/dev/{name}", flags))
                except PermissionError:
                    continue
                found.append(f"{name}:{flags}")
        try:
            os.mknod(f"/dev/shm/ctr-test-{os.getpid()}", 0o020600, os.makedev(1, 3))
        except PermissionError:
            found.append("no mknod")
        return " ".join(found)

    assert start(tries).answer() == "null:0 null:1 null:2 zero:0 no mknod"


def test_raw_files(driver, group, read):
    driver.create(group, Resources(unified=(("pids.max", "77"),)))
    assert read("pids.max") == "77"
    with pytest.raises(UnsupportedError, match=r"memory\.no_such: the memory controller"):
        driver.update(group, Resources(unified=(("memory.no_such", "1"),)))


@pytest.mark.parametrize("name", ["cgroup.procs", "cgroup.subtree_control"])
def test_files_that_run_the_groups(driver, group, layout, name):
    """They belong to no controller, and can't be written; nothing is made then."""
    asked = Resources(unified=((name, "1"),))
    with pytest.raises(UnsupportedError, match=f"no {name.partition('.')[0]} controller") as caught:
        driver.create(group, asked)
    assert "memory" in caught.value.hint
    parents = [h.path for h in layout.hierarchies] or [layout.unified]
    assert not any(os.path.exists(parent + group) for parent in parents)
    driver.create(group, Resources())


def test_umask_does_not_matter(driver, group, folder):
    old = os.umask(0o077)
    try:
        driver.create(group, Resources())
    finally:
        os.umask(old)
    assert os.stat(folder("memory")).st_mode & 0o777 == 0o755
