"""The records that pass between the engine, the drivers and the disk.

Sizes are bytes, times nanoseconds since the epoch, unless the name says otherwise.
Annotations here are types, not text, each of which NamedTuple would compile (3 ms a start).
"""

from typing import NamedTuple


class IdMap(NamedTuple):
    """One range of a user namespace's id map: ``size`` ids from ``inside`` map to ``outside``."""

    inside: int
    outside: int
    size: int


class Mount(NamedTuple):
    """A mount that a driver asks for and the launcher makes.

    ``type`` is a file-system type, or ``bind``.  ``options`` are the file system's own, as
    ``key=value`` or ``key``, in order (``lowerdir+`` may repeat).  ``attributes`` are the
    MOUNT_ATTR_… bits.  ``staging`` is set for kernels on which the new mount API can't make
    this mount: a folder from which mount(2) is called with ``options`` joined by commas
    (paths in them relative to that folder), inside a mount namespace of its own.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()
    attributes: int = 0
    staging: str = ""


class SnapshotOptions(NamedTuple):
    """How an active snapshot will be used.

    ``volatile``: need not survive a crash of the machine.  ``size``: limit in bytes (0:
    none), only for drivers with the capability ``quota``.  The id maps are for containers
    with a user namespace, for drivers with the capability ``userns``: files that the image
    says belong to ``inside`` ids appear with ``outside`` ids.
    """

    volatile: bool = False
    size: int = 0
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()


class Usage(NamedTuple):
    """Disk usage."""

    size: int
    inodes: int


class DeviceRule(NamedTuple):
    """One line of a device allow-list; ``major`` and ``minor`` are -1 for any."""

    allow: bool
    type: str  # a, b or c
    major: int
    minor: int
    access: str  # of r, w, m


class Throttle(NamedTuple):
    """A limit for one block device: bytes or operations a second."""

    major: int
    minor: int
    rate: int


class Resources(NamedTuple):
    """Limits of a control group.  None (or empty) means: not asked for.

    memory* in bytes, -1 for no limit; ``cpu_period`` and ``cpu_quota`` in microseconds,
    ``nano_cpus`` in 1e-9 CPUs; ``cpu_shares`` and ``blkio_weight`` are v1's numbers, which
    the v2 driver converts as OCI says; ``unified`` are raw files of v2 (or of a v1
    controller) by name.  ``devices`` is the complete list, first match from the end wins,
    nothing is allowed that it does not allow; None leaves the device controller alone.
    """

    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    nano_cpus: int | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    read_bps: tuple[Throttle, ...] = ()
    write_bps: tuple[Throttle, ...] = ()
    read_iops: tuple[Throttle, ...] = ()
    write_iops: tuple[Throttle, ...] = ()
    devices: tuple[DeviceRule, ...] | None = None
    unified: tuple[tuple[str, str], ...] = ()


class Network(NamedTuple):
    """A network as recorded.  ``subnet`` and ``gateway`` as in ``172.30.0.0/16``, ``172.30.0.1``."""

    id: str
    name: str
    driver: str
    subnet: str
    gateway: str
    bridge: str
    mtu: int = 1500
    nat: bool = True
    options: tuple[tuple[str, str], ...] = ()


class Endpoint(NamedTuple):
    """A container's place in a network, decided before anything is made.

    ``host_interface`` (at most 15 characters) is the host's end of the pair, ``interface``
    the name inside; ``address`` carries the prefix length.
    """

    id: str
    container: str
    network: str
    address: str
    gateway: str
    mac: str
    host_interface: str
    interface: str = "eth0"


class NamespaceRequest(NamedTuple):
    """What was asked of one namespace.

    ``mode`` is private, host or path; ``path`` names the namespace's file for the last.
    The rest is for the type that it belongs to.
    """

    mode: str
    path: str = ""
    hostname: str = ""
    domainname: str = ""
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    monotonic_ns: int = 0
    boottime_ns: int = 0
    #: Whether the container has a user namespace of its own.
    user_namespace: bool = False
