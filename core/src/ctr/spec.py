"""What a container is: what was asked for, and the settled specification.

``ContainerOptions`` is the request, one field a flag of ``ctr run`` with docker's meaning;
``ContainerSpec`` is the final, merged object that policy was checked on and that is recorded.
Annotations here are types, not text, each of which NamedTuple would compile (3 ms a start).
"""

from typing import Any, NamedTuple

from ctr.models import DeviceRule, IdMap, Resources, Throttle
from ctr.mountspec import MountSpec
from ctr.security.devices import Device
from ctr.security.rlimits import Ulimit

NAMESPACES = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time")


class ContainerOptions(NamedTuple):
    """What the user asked for.  Pairs are (key, value) tuples; empty means not asked for."""

    name: str = ""
    hostname: str = ""
    domainname: str = ""
    environment: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    entrypoint: tuple[str, ...] | None = None
    mounts: tuple[MountSpec, ...] = ()
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    shm_size: int = 64 << 20
    init: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    group_add: tuple[str, ...] = ()
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns: str = ""
    cgroupns: str = ""
    network: str = ""
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    time_offsets: tuple[tuple[str, int], ...] = ()
    resources: Resources = Resources()
    oom_score_adj: int | None = None
    cgroup_parent: str = ""
    devices: tuple[str, ...] = ()
    device_rules: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()
    rm: bool = False
    stdin: bool = False


class ContainerSpec(NamedTuple):
    """A container, settled.

    ``namespaces`` maps each type to (mode, path), modes private, host and path.
    ``network`` is the network's name, or none, host, or ``container:ID``.  ``storage``,
    ``network_driver`` and ``cgroups`` name the drivers it was made with.
    """

    id: str
    name: str
    image: str
    image_id: str
    chain_id: str
    argv: tuple[str, ...]
    environment: tuple[str, ...]
    workdir: str
    user: str
    group_add: tuple[str, ...]
    hostname: str
    domainname: str
    namespaces: dict[str, tuple[str, str]]
    uid_map: tuple[IdMap, ...]
    gid_map: tuple[IdMap, ...]
    time_offsets: tuple[tuple[str, int], ...]
    mounts: tuple[MountSpec, ...]
    read_only: bool
    shm_size: int
    privileged: bool
    capabilities: int
    no_new_privileges: bool
    seccomp: str
    sysctls: tuple[tuple[str, str], ...]
    ulimits: tuple[Ulimit, ...]
    resources: Resources
    oom_score_adj: int | None
    cgroup_group: str
    devices: tuple[Device, ...]
    init: bool
    stop_signal: str
    labels: dict[str, str]
    annotations: dict[str, str]
    network: str
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_options: tuple[str, ...]
    add_host: tuple[str, ...]
    rm: bool
    stdin: bool
    storage: str
    network_driver: str
    cgroups: str

    def private(self, namespace: str) -> bool:
        """Whether the container has a namespace of this type of its own."""
        return self.namespaces[namespace][0] == "private"


def from_json(record: dict[str, Any]) -> ContainerSpec:
    """The specification that ``ContainerSpec._asdict`` was recorded of."""
    return ContainerSpec(
        **{
            **record,
            "namespaces": {kind: tuple(value) for kind, value in record["namespaces"].items()},
            "uid_map": tuple(IdMap(*entry) for entry in record["uid_map"]),
            "gid_map": tuple(IdMap(*entry) for entry in record["gid_map"]),
            "mounts": tuple(MountSpec(*entry) for entry in record["mounts"]),
            "ulimits": tuple(Ulimit(*entry) for entry in record["ulimits"]),
            "devices": tuple(Device(*entry) for entry in record["devices"]),
            "resources": _resources(record["resources"]),
        }
    )


def _resources(record: list[Any]) -> Resources:
    fields = Resources(*record)
    throttles: dict[str, Any] = {
        name: tuple(Throttle(*entry) for entry in getattr(fields, name))
        for name in ("read_bps", "write_bps", "read_iops", "write_iops")
    }
    rules = fields.devices
    return fields._replace(
        **throttles,
        devices=None if rules is None else tuple(DeviceRule(*rule) for rule in rules),
        unified=tuple((key, value) for key, value in fields.unified),
    )
