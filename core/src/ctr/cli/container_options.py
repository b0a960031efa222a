"""The flags that describe a container, for ``run``, ``create`` and ``plan run``.

One table of click options, and one function that turns their values into
ContainerOptions.  Names, defaults and meaning are docker's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ctr import mountspec, parse
from ctr.errors import InvalidError
from ctr.models import Resources
from ctr.spec import ContainerOptions

if TYPE_CHECKING:
    from collections.abc import Callable

# Flag, its metavar (None: a switch), whether it may be repeated, and its help.
_FLAGS: tuple[tuple[str, str | None, bool, str], ...] = (
    ("--name", "NAME", False, "Name of the container."),
    ("-h/--hostname", "NAME", False, "Host name inside.  [default: the short ID]"),
    ("--domainname", "NAME", False, "NIS domain name inside."),
    ("-e/--env", "KEY[=VALUE]", True, "Set a variable; without a value, pass ctr's own."),
    ("--env-file", "FILE", True, "Read variables from a file."),
    ("-u/--user", "USER[:GROUP]", False, "Run as this user, by name or number."),
    ("-w/--workdir", "DIR", False, "Working directory inside."),
    ("--entrypoint", "COMMAND", False, "Replace the image's entry point."),
    ("-v/--volume", "[SOURCE:]TARGET[:OPTIONS]", True, "Mount a host path or a volume."),
    ("--mount", "type=T,source=S,target=T,…", True, "Mount: bind, volume or tmpfs."),
    ("--tmpfs", "TARGET[:OPTIONS]", True, "Mount a tmpfs."),
    ("--read-only", None, False, "Make the root file system read-only."),
    ("--cap-add", "CAP", True, "Add a capability, or ALL."),
    ("--cap-drop", "CAP", True, "Drop a capability, or ALL."),
    ("--privileged", None, False, "Give every capability and device that ctr has."),
    ("--security-opt", "OPTION", True, "no-new-privileges, seccomp=FILE, seccomp=unconfined."),
    ("--sysctl", "NAME=VALUE", True, "Set a sysctl of the container's own namespaces."),
    ("--ulimit", "NAME=SOFT[:HARD]", True, "Set a resource limit."),
    ("--shm-size", "SIZE", False, "Size of /dev/shm.  [default: 64m]"),
    ("--init", None, False, "Run an init that forwards signals and reaps processes."),
    ("-l/--label", "KEY=VALUE", True, "Set a label."),
    ("--annotation", "KEY=VALUE", True, "Set an OCI annotation, for hooks."),
    ("--stop-signal", "SIGNAL", False, "Signal that stops it.  [default: SIGTERM]"),
    ("--group-add", "GROUP", True, "Add a supplementary group."),
    ("--pid", "MODE", False, "PID namespace: private, host, container:NAME, path:FILE."),
    ("--ipc", "MODE", False, "IPC namespace, likewise."),
    ("--uts", "MODE", False, "UTS namespace, likewise."),
    ("--userns", "MODE", False, "User namespace: host (default), private, path:FILE."),
    ("--cgroupns", "MODE", False, "Cgroup namespace: private (default) or host."),
    ("--uidmap", "INSIDE:OUTSIDE:SIZE", True, "Map user ids; implies --userns private."),
    ("--gidmap", "INSIDE:OUTSIDE:SIZE", True, "Map group ids; implies --userns private."),
    ("--time-offset", "CLOCK=SECONDS", True, "Shift monotonic or boottime; a time namespace."),
    ("--network", "NAME", False, "bridge (default), none, host, container:NAME."),
    ("--dns", "ADDRESS", True, "DNS server."),
    ("--dns-search", "DOMAIN", True, "DNS search domain; . for none."),
    ("--dns-option", "OPTION", True, "Resolver option."),
    ("--add-host", "NAME:ADDRESS", True, "Line for /etc/hosts; ADDRESS may be host-gateway."),
    ("-m/--memory", "SIZE", False, "Memory limit."),
    ("--memory-reservation", "SIZE", False, "Memory soft limit."),
    ("--memory-swap", "SIZE", False, "Memory and swap together; -1 for unlimited swap."),
    ("--memory-swappiness", "0-100", False, "Tendency to swap; -1 leaves it."),
    ("--oom-kill-disable", None, False, "Do not OOM-kill (cgroup v1)."),
    ("--oom-score-adj", "-1000-1000", False, "Preference of the host's OOM killer."),
    ("--cpus", "NUMBER", False, "CPU time, such as 1.5."),
    ("-c/--cpu-shares", "NUMBER", False, "Relative CPU weight."),
    ("--cpu-period", "MICROSECONDS", False, "CFS period."),
    ("--cpu-quota", "MICROSECONDS", False, "CFS quota."),
    ("--cpuset-cpus", "LIST", False, "CPUs to run on, such as 0-2,4."),
    ("--cpuset-mems", "LIST", False, "Memory nodes to use."),
    ("--pids-limit", "NUMBER", False, "Number of processes; -1 for unlimited."),
    ("--blkio-weight", "10-1000", False, "Relative block I/O weight."),
    ("--device-read-bps", "DEVICE:RATE", True, "Limit reading, bytes a second."),
    ("--device-write-bps", "DEVICE:RATE", True, "Limit writing, bytes a second."),
    ("--device-read-iops", "DEVICE:RATE", True, "Limit reading, operations a second."),
    ("--device-write-iops", "DEVICE:RATE", True, "Limit writing, operations a second."),
    ("--device", "HOST[:INSIDE][:rwm]", True, "Add a host device."),
    ("--device-cgroup-rule", "RULE", True, "Allow devices, such as 'c 1:3 rwm'."),
    ("--cgroup-parent", "PATH", False, "Parent control group.  [default: /ctr]"),
    ("--cgroup-conf", "FILE=VALUE", True, "Write a control group file."),
    ("--rm", None, False, "Remove the container when it ends."),
    ("-i/--interactive", None, False, "Pass standard input on."),
)


def container_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command with all of them."""
    for flags, metavar, multiple, text in reversed(_FLAGS):
        names = flags.split("/")
        decorate = (
            click.option(*names, is_flag=True, help=text)
            if metavar is None
            else click.option(*names, metavar=metavar, multiple=multiple, help=text)
        )
        command = decorate(command)
    return command


def build(values: dict[str, Any]) -> ContainerOptions:
    """The options that the flags' values (click's, by name) describe.  Raises InvalidError."""
    mounts = [
        *map(mountspec.parse_volume, values["volume"]),
        *map(mountspec.parse_mount, values["mount"]),
        *map(mountspec.parse_tmpfs, values["tmpfs"]),
    ]
    entrypoint = values["entrypoint"]
    return ContainerOptions(
        name=values["name"] or "",
        hostname=values["hostname"] or "",
        domainname=values["domainname"] or "",
        environment=tuple(parse.environment(values["env"], values["env_file"], os.environ)),
        user=values["user"] or "",
        workdir=values["workdir"] or "",
        entrypoint=None if entrypoint is None else (entrypoint,),
        mounts=tuple(mounts),
        read_only=values["read_only"],
        cap_add=values["cap_add"],
        cap_drop=values["cap_drop"],
        privileged=values["privileged"],
        security_opt=values["security_opt"],
        sysctls=values["sysctl"],
        ulimits=values["ulimit"],
        shm_size=parse.size(values["shm_size"] or "64m", "--shm-size"),
        init=values["init"],
        labels=tuple(parse.pairs(values["label"], "--label").items()),
        annotations=tuple(parse.pairs(values["annotation"], "--annotation").items()),
        stop_signal=_signal(values["stop_signal"]),
        group_add=values["group_add"],
        pid=values["pid"] or "",
        ipc=values["ipc"] or "",
        uts=values["uts"] or "",
        userns=values["userns"] or "",
        cgroupns=values["cgroupns"] or "",
        network=values["network"] or "",
        uid_map=parse.id_maps(values["uidmap"], "--uidmap"),
        gid_map=parse.id_maps(values["gidmap"], "--gidmap"),
        time_offsets=tuple(map(parse.time_offset, values["time_offset"])),
        resources=_resources(values),
        oom_score_adj=_integer(values["oom_score_adj"], "--oom-score-adj", -1000, 1000),
        cgroup_parent=values["cgroup_parent"] or "",
        devices=values["device"],
        device_rules=values["device_cgroup_rule"],
        dns=values["dns"],
        dns_search=values["dns_search"],
        dns_options=values["dns_option"],
        add_host=values["add_host"],
        rm=values["rm"],
        stdin=values["interactive"],
    )


def _resources(values: dict[str, Any]) -> Resources:
    def memory(name: str, least: int = 6 << 20) -> int | None:
        text = values[name]
        return (
            None if text is None else parse.memory(text, f"--{name.replace('_', '-')}", least=least)
        )

    def throttles(name: str) -> tuple[Any, ...]:
        option = f"--{name.replace('_', '-')}"
        return tuple(parse.throttle(text, option) for text in values[name])

    def cpuset(name: str) -> str | None:
        text = values[name]
        return None if text is None else parse.cpuset(text, f"--{name.replace('_', '-')}")

    limit, swap = memory("memory"), memory("memory_swap")
    if swap is not None and swap != -1:
        if limit is None:
            raise InvalidError("cannot use --memory-swap: it needs --memory as well")
        if swap < limit:
            raise InvalidError("cannot use --memory-swap: it is less than --memory")
    swappiness = _integer(values["memory_swappiness"], "--memory-swappiness", -1, 100)
    if values["cpus"] is not None and (values["cpu_period"] or values["cpu_quota"]):
        raise InvalidError("cannot use --cpus: it conflicts with --cpu-period and --cpu-quota")
    return Resources(
        memory=limit,
        memory_reservation=memory("memory_reservation"),
        memory_swap=swap,
        memory_swappiness=None if swappiness == -1 else swappiness,
        oom_kill_disable=values["oom_kill_disable"] or None,
        nano_cpus=None if values["cpus"] is None else parse.nano_cpus(values["cpus"]),
        cpu_shares=_integer(values["cpu_shares"], "--cpu-shares", 0, 262144) or None,
        cpu_period=_integer(values["cpu_period"], "--cpu-period", 1000, 1_000_000),
        cpu_quota=_integer(values["cpu_quota"], "--cpu-quota", -1, 1 << 40),
        cpuset_cpus=cpuset("cpuset_cpus"),
        cpuset_mems=cpuset("cpuset_mems"),
        pids_limit=_integer(values["pids_limit"], "--pids-limit", -1, 1 << 22) or None,
        blkio_weight=_integer(values["blkio_weight"], "--blkio-weight", 10, 1000),
        read_bps=throttles("device_read_bps"),
        write_bps=throttles("device_write_bps"),
        read_iops=throttles("device_read_iops"),
        write_iops=throttles("device_write_iops"),
        unified=tuple(parse.pairs(values["cgroup_conf"], "--cgroup-conf").items()),
    )


def _integer(text: str | None, option: str, least: int, most: int) -> int | None:
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise InvalidError(f"cannot use {option} {text}: the range is from {least} to {most}")
    return number


def _signal(text: str | None) -> str:
    if text:
        parse.signal_number(text, "--stop-signal")
    return text or ""
