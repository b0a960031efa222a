"""A container as docker's inspect document, from its record and what its supervisor says."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ctr import journal
from ctr.models import Endpoint
from ctr.spec import from_json
from ctr.volumes import data_folder

if TYPE_CHECKING:
    from ctr.engine import Engine
    from ctr.mountspec import MountSpec
    from ctr.spec import ContainerSpec
    from ctr.state import ContainerRow


def describe(engine: Engine, row: ContainerRow) -> dict[str, Any]:
    """The document; field names are the Docker Engine API's, ``Drivers`` is ours."""
    spec = from_json(row.spec)
    return {
        "Id": row.id,
        "Created": rfc3339(row.created_ns),
        "Path": spec.argv[0],
        "Args": list(spec.argv[1:]),
        "State": _state(row),
        "Image": spec.image_id,
        "ResolvConfPath": os.path.join(engine.container_folder(row.id), "resolv.conf"),
        "HostnamePath": os.path.join(engine.container_folder(row.id), "hostname"),
        "HostsPath": os.path.join(engine.container_folder(row.id), "hosts"),
        "Name": f"/{row.name}",
        "Drivers": {
            "storage": spec.storage,
            "network": spec.network_driver,
            "cgroups": spec.cgroups,
        },
        "HostConfig": _host_config(spec),
        "Mounts": [_mount(engine, mount) for mount in spec.mounts],
        "Config": _config(spec),
        "NetworkSettings": _network(engine, row.id),
    }


def pids(pid: int) -> list[int]:
    """A process's PIDs in each PID namespace from the host's inwards (proc(5), NSpid)."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return [int(word) for word in line.split()[1:]]
    except OSError:
        pass
    return []


def _state(row: ContainerRow) -> dict[str, Any]:
    inside = pids(row.pid) if row.pid else []
    return {
        "Status": row.state,
        "Running": row.state in ("running", "paused"),
        "Paused": row.state == "paused",
        "Restarting": False,
        "OOMKilled": row.oom,
        "Dead": row.state == "dead",
        "Pid": row.pid,
        "PidInside": inside[-1] if inside else 0,
        "ExitCode": row.exit_code,
        "Error": row.error,
        "StartedAt": rfc3339(row.started_ns),
        "FinishedAt": rfc3339(row.finished_ns),
    }


def _config(spec: ContainerSpec) -> dict[str, Any]:
    return {
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "OpenStdin": spec.stdin,
        "Env": list(spec.environment),
        "Cmd": list(spec.argv),
        "Image": spec.image,
        "WorkingDir": spec.workdir,
        "Labels": spec.labels,
        "StopSignal": spec.stop_signal,
    }


def _host_config(spec: ContainerSpec) -> dict[str, Any]:
    from ctr.security.capabilities import names_of

    resources = spec.resources
    return {
        "NetworkMode": spec.network,
        "AutoRemove": spec.rm,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "Capabilities": list(names_of(spec.capabilities)),
        "Namespaces": {kind: mode for kind, (mode, _) in spec.namespaces.items()},
        "UidMap": [list(entry) for entry in spec.uid_map],
        "GidMap": [list(entry) for entry in spec.gid_map],
        "Dns": list(spec.dns),
        "DnsSearch": list(spec.dns_search),
        "DnsOptions": list(spec.dns_options),
        "ExtraHosts": list(spec.add_host),
        "GroupAdd": list(spec.group_add),
        "Init": spec.init,
        "ShmSize": spec.shm_size,
        "Sysctls": dict(spec.sysctls),
        "Ulimits": [
            {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in spec.ulimits
        ],
        "CgroupParent": os.path.dirname(spec.cgroup_group),
        "OomScoreAdj": spec.oom_score_adj or 0,
        "Memory": resources.memory or 0,
        "MemoryReservation": resources.memory_reservation or 0,
        "MemorySwap": resources.memory_swap or 0,
        "NanoCpus": resources.nano_cpus or 0,
        "CpuShares": resources.cpu_shares or 0,
        "CpuPeriod": resources.cpu_period or 0,
        "CpuQuota": resources.cpu_quota or 0,
        "CpusetCpus": resources.cpuset_cpus or "",
        "CpusetMems": resources.cpuset_mems or "",
        "PidsLimit": resources.pids_limit,
        "BlkioWeight": resources.blkio_weight or 0,
    }


def _mount(engine: Engine, mount: MountSpec) -> dict[str, Any]:
    document: dict[str, Any] = {
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.target,
        "RW": not mount.readonly,
        "Propagation": mount.propagation if mount.kind == "bind" else "",
    }
    if mount.kind == "volume":
        document["Name"] = mount.source
        document["Source"] = data_folder(engine.state, mount.source)
    return document


def _network(engine: Engine, container: str) -> dict[str, Any]:
    for entry in journal.peek(engine.settings.root, container):
        if entry.step == "endpoint":
            endpoint = Endpoint(*entry.record["endpoint"])
            address, _, length = endpoint.address.partition("/")
            settings = {
                "EndpointID": endpoint.id,
                "Gateway": endpoint.gateway,
                "IPAddress": address,
                "IPPrefixLen": int(length),
                "MacAddress": endpoint.mac,
            }
            return {**settings, "Networks": {endpoint.network: settings}}
    return {"Networks": {}}


def rfc3339(ns: int) -> str:
    """RFC 3339 with nanoseconds, as docker has it; zero is Go's zero time."""
    if not ns:
        return "0001-01-01T00:00:00Z"
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
