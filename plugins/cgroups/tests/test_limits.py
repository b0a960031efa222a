"""What is written where, and the conversions between the versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.errors import InvalidError, UnsupportedError
from ctr.models import Resources, Throttle
from ctr_cgroups.limits import cpu_weight, io_weight, v1_limits, v2_limits

MB = 1 << 20


def written(limits):
    return [f"{limit.file} = {limit.value}" for limit in limits]


BOTH = [
    # resources, v1's files, v2's files
    ({}, [], []),
    (
        {"memory": 64 * MB},
        ["memory.limit_in_bytes = 67108864"],
        ["memory.max = 67108864"],
    ),
    ({"memory": -1}, ["memory.limit_in_bytes = -1"], ["memory.max = max"]),
    (
        {"memory": 64 * MB, "memory_swap": 96 * MB},
        ["memory.limit_in_bytes = 67108864", "memory.memsw.limit_in_bytes = 100663296"],
        ["memory.max = 67108864", "memory.swap.max = 33554432"],
    ),
    (
        {"memory": 64 * MB, "memory_swap": 64 * MB},
        ["memory.limit_in_bytes = 67108864", "memory.memsw.limit_in_bytes = 67108864"],
        ["memory.max = 67108864", "memory.swap.max = 0"],
    ),
    ({"memory_swap": -1}, ["memory.memsw.limit_in_bytes = -1"], ["memory.swap.max = max"]),
    ({"memory_reservation": 5}, ["memory.soft_limit_in_bytes = 5"], ["memory.low = 5"]),
    ({"memory_reservation": -1}, ["memory.soft_limit_in_bytes = -1"], ["memory.low = 0"]),
    ({"oom_kill_disable": False}, ["memory.oom_control = 0"], []),
    ({"cpu_shares": 1024}, ["cpu.shares = 1024"], ["cpu.weight = 100"]),
    (
        {"cpu_period": 50000, "cpu_quota": 25000},
        ["cpu.cfs_period_us = 50000", "cpu.cfs_quota_us = 25000"],
        ["cpu.max = 25000 50000"],
    ),
    ({"cpu_quota": -1}, ["cpu.cfs_quota_us = -1"], ["cpu.max = max"]),
    ({"cpu_quota": 25000}, ["cpu.cfs_quota_us = 25000"], ["cpu.max = 25000"]),
    ({"cpu_period": 50000}, ["cpu.cfs_period_us = 50000"], ["cpu.max = max 50000"]),
    (
        {"nano_cpus": 1_500_000_000},
        ["cpu.cfs_period_us = 100000", "cpu.cfs_quota_us = 150000"],
        ["cpu.max = 150000 100000"],
    ),
    (
        {"cpuset_cpus": "0-1", "cpuset_mems": "0"},
        ["cpuset.cpus = 0-1", "cpuset.mems = 0"],
        ["cpuset.cpus = 0-1", "cpuset.mems = 0"],
    ),
    ({"pids_limit": 10}, ["pids.max = 10"], ["pids.max = 10"]),
    ({"pids_limit": -1}, ["pids.max = max"], ["pids.max = max"]),
    ({"pids_limit": 0}, ["pids.max = max"], ["pids.max = max"]),
    ({"blkio_weight": 500}, ["blkio.bfq.weight = 500"], ["io.bfq.weight = 500"]),
    (
        {"read_bps": (Throttle(8, 0, 1024),), "write_bps": (Throttle(8, 16, 0),)},
        ["blkio.throttle.read_bps_device = 8:0 1024", "blkio.throttle.write_bps_device = 8:16 0"],
        ["io.max = 8:0 rbps=1024", "io.max = 8:16 wbps=max"],
    ),
    (
        {"read_iops": (Throttle(8, 0, 5),), "write_iops": (Throttle(8, 0, 6),)},
        ["blkio.throttle.read_iops_device = 8:0 5", "blkio.throttle.write_iops_device = 8:0 6"],
        ["io.max = 8:0 riops=5", "io.max = 8:0 wiops=6"],
    ),
    (
        {"unified": (("memory.high", "1G"), ("hugetlb.2MB.max", "0"))},
        ["memory.high = 1G", "hugetlb.2MB.max = 0"],
        ["memory.high = 1G", "hugetlb.2MB.max = 0"],
    ),
    # 0 stands for: not asked for
    (
        dict.fromkeys(
            (
                *("memory", "memory_reservation", "memory_swap", "nano_cpus"),
                *("cpu_shares", "cpu_period", "cpu_quota", "blkio_weight"),
            ),
            0,
        ),
        [],
        [],
    ),
]


@pytest.mark.parametrize(("asked", "v1", "v2"), BOTH, ids=lambda value: str(value)[:40])
def test_files(asked, v1, v2):
    assert written(v1_limits(Resources(**asked))) == v1
    assert written(v2_limits(Resources(**asked))) == v2


def test_only_v1_has_swappiness_and_the_oom_switch():
    asked = Resources(memory_swappiness=0, oom_kill_disable=True)
    assert written(v1_limits(asked)) == ["memory.swappiness = 0", "memory.oom_control = 1"]
    with pytest.raises(UnsupportedError, match="swappiness"):
        v2_limits(Resources(memory_swappiness=0))
    with pytest.raises(UnsupportedError, match="OOM killer"):
        v2_limits(Resources(oom_kill_disable=True))


def test_alternatives():
    (v1,) = v1_limits(Resources(blkio_weight=500))
    (v2,) = v2_limits(Resources(blkio_weight=500))
    assert v1.alternative == ("blkio.weight", "500")
    assert v2.alternative == ("io.weight", "4950")


def test_a_kernel_that_counts_no_swap():
    """Twice the memory is what nobody asks for, and what every limit of memory comes with."""
    (_, v1), (_, v2) = (of(Resources(memory=64, memory_swap=128)) for of in (v1_limits, v2_limits))
    assert (v1.value, v1.alternative) == ("128", ("memory.limit_in_bytes", "64"))
    assert (v2.value, v2.alternative) == ("64", ("memory.max", "64"))
    for of in (v1_limits, v2_limits):
        assert of(Resources(memory=64, memory_swap=129))[1].alternative is None


def test_a_period_alone_repeats_the_quota():
    (limit,) = v2_limits(Resources(cpu_period=50000), current_quota="20000")
    assert limit.value == "20000 50000"


@pytest.mark.parametrize("asked", [{"memory": 100, "memory_swap": 50}])
def test_swap_below_memory(asked):
    for limits in (v1_limits, v2_limits):
        with pytest.raises(InvalidError, match="memory and swap"):
            limits(Resources(**asked))


@pytest.mark.parametrize("memory", [None, 0])
def test_swap_without_memory(memory):
    """v1 counts both together and can do it, v2 can't."""
    asked = Resources(memory=memory, memory_swap=50)
    assert written(v1_limits(asked)) == ["memory.memsw.limit_in_bytes = 50"]
    with pytest.raises(InvalidError, match="swap"):
        v2_limits(asked)


@pytest.mark.parametrize("name", ["", "memory", ".high", "memory.", "../x.y", "a/b.c", "tasks"])
def test_raw_file_names(name):
    for limits in (v1_limits, v2_limits):
        with pytest.raises(InvalidError, match="control group's file"):
            limits(Resources(unified=((name, "1"),)))


@pytest.mark.parametrize(
    ("shares", "weight"),
    # The ends and the default map to each other; 2000 is runc's issue 4896.
    [(2, 1), (1024, 100), (2000, 170), (262144, 10000), (0, 1), (1 << 62, 10000)],
)
def test_cpu_weight(shares, weight):
    assert cpu_weight(shares) == weight


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_cpu_weight_keeps_the_order(one, other):
    low, high = sorted((one, other))
    assert 1 <= cpu_weight(low) <= cpu_weight(high) <= 10000


@pytest.mark.parametrize(("weight", "v2"), [(10, 1), (500, 4950), (1000, 10000)])
def test_io_weight(weight, v2):
    assert io_weight(weight) == v2
