"""Which files hold which limits: ``Resources`` to lines for cgroup v1 and for v2.

``Resources`` speaks v1's numbers, as the OCI runtime specification does; the conversions to
v2 are those of the OCI runtimes (crun(1), "CGROUP v2"; runc 1.3.2 and later).  As in an OCI
configuration a 0 stands for *not asked for*, but for swappiness and pids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ctr.errors import InvalidError, UnsupportedError

if TYPE_CHECKING:
    from ctr.models import Resources, Throttle

#: Microseconds: the kernel's default period, of which ``--cpus`` is a share.
DEFAULT_PERIOD = 100_000


class Limit(NamedTuple):
    """One line for one file of a controller.

    Where the kernel lacks ``file``, ``alternative`` (file and value) is written instead.
    """

    controller: str
    file: str
    value: str
    alternative: tuple[str, str] | None = None


def v1_limits(resources: Resources) -> list[Limit]:
    """The lines for v1, devices apart.  Raises InvalidError."""
    _check_swap(resources)
    limits = []

    def add(controller: str, file: str, value: object) -> None:
        limits.append(Limit(controller, f"{controller}.{file}", str(value)))

    r = resources
    if r.memory:
        add("memory", "limit_in_bytes", r.memory)
    if r.memory_swap:
        limits.append(_swap("memory.memsw.limit_in_bytes", r.memory_swap, r, "limit_in_bytes"))
    if r.memory_reservation:
        add("memory", "soft_limit_in_bytes", r.memory_reservation)
    if r.memory_swappiness is not None:
        add("memory", "swappiness", r.memory_swappiness)
    if r.oom_kill_disable is not None:
        add("memory", "oom_control", int(r.oom_kill_disable))
    if r.cpu_shares:
        add("cpu", "shares", r.cpu_shares)
    period, quota = _bandwidth(r)
    if period:
        add("cpu", "cfs_period_us", period)
    if quota:
        add("cpu", "cfs_quota_us", quota)
    if r.cpuset_cpus:
        add("cpuset", "cpus", r.cpuset_cpus)
    if r.cpuset_mems:
        add("cpuset", "mems", r.cpuset_mems)
    if r.pids_limit is not None:
        add("pids", "max", r.pids_limit if r.pids_limit > 0 else "max")
    if r.blkio_weight:
        # The name with bfq is that of kernels since 5.0, where CFQ is gone.
        weight = str(r.blkio_weight)
        limits.append(
            Limit("blkio", "blkio.bfq.weight", weight, alternative=("blkio.weight", weight))
        )
    for file, throttles in _throttles(r):
        for throttle in throttles:
            value = f"{throttle.major}:{throttle.minor} {throttle.rate}"
            add("blkio", f"throttle.{file[0]}", value)
    limits += _unified(r)
    return limits


def v2_limits(resources: Resources, *, current_quota: str = "max") -> list[Limit]:
    """The lines for v2, devices apart.

    ``current_quota`` is the first word of the group's ``cpu.max``, which a period alone
    must repeat.  Raises InvalidError, and UnsupportedError for what v2 does not have.
    """
    _check_swap(resources)
    r = resources
    if r.memory_swappiness is not None:
        raise UnsupportedError(
            "cannot set the memory swappiness: cgroup v2 has no such limit",
            hint="limit swap itself with --memory-swap, or set vm.swappiness on the host",
        )
    if r.oom_kill_disable:
        raise UnsupportedError(
            "cannot disable the OOM killer: cgroup v2 has no such switch",
            hint="protect the container with --oom-score-adj",
        )
    limits = []

    def add(controller: str, file: str, value: object) -> None:
        limits.append(Limit(controller, f"{controller}.{file}", str(value)))

    if r.memory:
        add("memory", "max", _or_max(r.memory))
    if r.memory_swap:
        swap = swap_max(r.memory, r.memory_swap)
        limits.append(_swap("memory.swap.max", _or_max(swap), r, "max"))
    if r.memory_reservation:
        # -1, no reservation, is v2's 0
        add("memory", "low", max(r.memory_reservation, 0))
    if r.cpu_shares:
        add("cpu", "weight", cpu_weight(r.cpu_shares))
    period, quota = _bandwidth(r)
    if quota or period:
        first = _or_max(quota) if quota else current_quota
        add("cpu", "max", f"{first} {period}" if period else first)
    if r.cpuset_cpus:
        add("cpuset", "cpus", r.cpuset_cpus)
    if r.cpuset_mems:
        add("cpuset", "mems", r.cpuset_mems)
    if r.pids_limit is not None:
        add("pids", "max", r.pids_limit if r.pids_limit > 0 else "max")
    if r.blkio_weight:
        other = ("io.weight", str(io_weight(r.blkio_weight)))
        limits.append(Limit("io", "io.bfq.weight", str(r.blkio_weight), alternative=other))
    for (_, key), throttles in _throttles(r):
        for throttle in throttles:
            # v1 takes 0 away as a limit, v2 does not know 0
            rate = throttle.rate or "max"
            add("io", "max", f"{throttle.major}:{throttle.minor} {key}={rate}")
    limits += _unified(r)
    return limits


def cpu_weight(shares: int) -> int:
    """v1's cpu.shares (2 to 262144, 1024 by default) as cpu.weight (1 to 10000, 100).

    The ends and the default map to each other: the formula of crun since 1.23 and runc
    since 1.3.2 (github.com/opencontainers/cgroups pull 20); the line before it gave 39 for
    the default.
    """
    import math

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """v1's blkio.weight (10 to 1000) as io.weight (1 to 10000), as crun and runc do."""
    return 1 + (weight - 10) * 9999 // 990


def swap_max(memory: int | None, memory_swap: int) -> int:
    """v1's memory plus swap as swap alone; -1 for no limit.  Raises InvalidError."""
    if memory_swap < 0:
        return -1
    if not memory or memory < 0:
        raise InvalidError(
            "cannot limit swap: cgroup v2 counts swap apart from memory, whose limit is not given",
            hint="give --memory with --memory-swap",
        )
    return memory_swap - memory


def _swap(file: str, value: object, resources: Resources, memory_file: str) -> Limit:
    """A limit of swap.  Twice the memory is the default, and may be asked for by nobody.

    So a kernel that doesn't count swap gets the memory's limit once more instead.
    """
    memory = resources.memory
    default = memory is not None and resources.memory_swap == 2 * memory
    instead = (f"memory.{memory_file}", str(memory)) if default else None
    return Limit("memory", file, str(value), instead)


def _check_swap(resources: Resources) -> None:
    memory, both = resources.memory or 0, resources.memory_swap or 0
    if both > 0 and (memory < 0 or both < memory):
        raise InvalidError(
            f"cannot limit memory and swap to {both}: memory alone has the limit {memory}",
            hint="--memory-swap is the sum of both; it is at least --memory",
        )


def _bandwidth(resources: Resources) -> tuple[int | None, int | None]:
    """Period and quota in microseconds, each None where it is not asked for."""
    if not resources.nano_cpus:
        return resources.cpu_period, resources.cpu_quota
    period = resources.cpu_period or DEFAULT_PERIOD
    return period, resources.nano_cpus * period // 1_000_000_000


def _throttles(resources: Resources) -> list[tuple[tuple[str, str], tuple[Throttle, ...]]]:
    """((v1's file, v2's key), throttles) of each kind."""
    return [
        (("read_bps_device", "rbps"), resources.read_bps),
        (("write_bps_device", "wbps"), resources.write_bps),
        (("read_iops_device", "riops"), resources.read_iops),
        (("write_iops_device", "wiops"), resources.write_iops),
    ]


def _unified(resources: Resources) -> list[Limit]:
    """Raw files: the controller is what stands before the name's first dot.

    So the files by which groups are run (``cgroup.procs``, ``tasks``) have none and can't
    be written, for there is no controller ``cgroup``.
    """
    limits = []
    for file, value in resources.unified:
        controller, dot, rest = file.partition(".")
        if not (controller and dot and rest) or "/" in file or "\0" in file:
            raise InvalidError(
                f"cannot set {file!r}: it is not a control group's file",
                hint="the form is CONTROLLER.FILE=VALUE, such as memory.high=500M",
            )
        limits.append(Limit(controller, file, value))
    return limits


def _or_max(value: int) -> str:
    return str(value) if value >= 0 else "max"
