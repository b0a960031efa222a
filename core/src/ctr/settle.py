"""Turns a request into the settled specification: merged with the image, checked once.

Policy is checked here, on the final object, and nowhere else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ctr import mountspec, parse
from ctr.drivers import check_idmap
from ctr.errors import InvalidError
from ctr.models import IdMap
from ctr.security import capabilities, devices, rlimits, sysctl
from ctr.spec import NAMESPACES, ContainerOptions, ContainerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctr.images.config import ImageConfig
    from ctr.models import DeviceRule, Resources

#: Docker's default, and what `--userns private` maps when no --uidmap says otherwise.
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_MAP = (IdMap(0, 100000, 65536),)
#: What uname(2) says as long as nobody gave the machine a name (linux/uts.h).
_NO_NODENAME = "(none)"
NOBODY_MAP_HINT = "write for instance --uidmap 0:100000:65536"


class ImageFacts(NamedTuple):
    """What settling needs of an image."""

    reference: str
    id: str
    chain_id: str
    config: ImageConfig


class Drivers(NamedTuple):
    """The chosen drivers' names."""

    storage: str
    network: str
    cgroups: str


def settle(
    container: str,
    name: str,
    image: ImageFacts,
    command: tuple[str, ...],
    options: ContainerOptions,
    drivers: Drivers,
    pid_of: Callable[[str], tuple[str, int]],
) -> ContainerSpec:
    """Return the final specification.

    ``pid_of`` finds a running container by reference: its ID and the host's PID of its
    PID 1.  Raises InvalidError, PrivilegeError, NotFoundError or ConflictError.
    """
    config = image.config
    namespaces, network = _namespaces(options, pid_of)
    private = {kind: mode == "private" for kind, (mode, _) in namespaces.items()}
    if options.privileged and private["user"]:
        raise InvalidError("cannot use --privileged: it is incompatible with --userns private")
    # In a user namespace of its own the container's root has every capability there is.
    own = capabilities.ALL if private["user"] else capabilities.own_capabilities()
    hostname = _hostname(options, container, private)
    uid_map, gid_map = _maps(options, private=private["user"])
    nnp, seccomp = _security_opt(options)
    ulimits = tuple(rlimits.parse_ulimit(text) for text in options.ulimits)
    rlimits.check(ulimits, 0 if private["user"] else own)
    nodes, rules = _devices(options)
    if options.time_offsets and not private["time"]:
        raise InvalidError("cannot use --time-offset: the container has no time namespace")
    return ContainerSpec(
        id=container,
        name=name,
        image=image.reference,
        image_id=image.id,
        chain_id=image.chain_id,
        argv=_argv(options, config, command),
        environment=tuple(_environment(options, config, hostname)),
        workdir=_workdir(options, config),
        user=options.user or config.user,
        group_add=options.group_add,
        hostname=hostname,
        domainname=options.domainname,
        namespaces=namespaces,
        uid_map=uid_map,
        gid_map=gid_map,
        time_offsets=options.time_offsets,
        mounts=tuple(mountspec.merge(config.volumes, list(options.mounts))),
        read_only=options.read_only,
        shm_size=options.shm_size,
        privileged=options.privileged,
        capabilities=capabilities.resolve(
            options.cap_add, options.cap_drop, privileged=options.privileged, own=own
        ),
        no_new_privileges=nnp,
        seccomp="unconfined" if options.privileged and seccomp == "default" else seccomp,
        sysctls=_sysctls(options, private),
        ulimits=ulimits,
        resources=_resources(options, rules),
        oom_score_adj=options.oom_score_adj,
        cgroup_group=_group(options, container),
        devices=nodes,
        init=options.init,
        stop_signal=options.stop_signal or config.stop_signal or "SIGTERM",
        labels={**config.labels, **dict(options.labels)},
        annotations=dict(options.annotations),
        network=network,
        dns=options.dns,
        dns_search=options.dns_search,
        dns_options=options.dns_options,
        add_host=options.add_host,
        rm=options.rm,
        stdin=options.stdin,
        storage=drivers.storage,
        network_driver=drivers.network if network not in ("none", "host") else "",
        cgroups=drivers.cgroups,
    )


def _argv(
    options: ContainerOptions, config: ImageConfig, command: tuple[str, ...]
) -> tuple[str, ...]:
    if options.entrypoint is not None:  # it also drops the image's command
        argv = tuple(part for part in options.entrypoint if part) + command
    else:
        argv = config.entrypoint + (command or config.cmd)
    if not argv or not argv[0]:
        raise InvalidError(
            "cannot run: no command specified", hint="the image has none; name one after it"
        )
    return argv


def _environment(options: ContainerOptions, config: ImageConfig, hostname: str) -> list[str]:
    return parse.merge_environment(
        [DEFAULT_PATH, f"HOSTNAME={hostname}"], config.env, options.environment
    )


def _workdir(options: ContainerOptions, config: ImageConfig) -> str:
    path = options.workdir or config.workdir or "/"
    if not path.startswith("/"):
        raise InvalidError(f"cannot use --workdir {path!r}: it needs to be an absolute path")
    return os.path.normpath(path)


def _namespaces(
    options: ContainerOptions, pid_of: Callable[[str], tuple[str, int]]
) -> tuple[dict[str, tuple[str, str]], str]:
    """Each type's mode and path, and the network's name."""
    asked = {
        "pid": options.pid,
        "ipc": options.ipc,
        "uts": options.uts,
        "user": options.userns,
        "cgroup": options.cgroupns,
    }
    if options.uid_map or options.gid_map:
        asked["user"] = asked["user"] or "private"
    defaults = {"user": "host", "time": "private" if options.time_offsets else "host"}
    result: dict[str, tuple[str, str]] = {}
    for kind in NAMESPACES:
        text = asked.get(kind) or defaults.get(kind, "private")
        flag = {"user": "--userns", "cgroup": "--cgroupns"}.get(kind, f"--{kind}")
        if kind == "ipc" and text == "shareable":
            text = "private"
        if kind != "network":
            result[kind] = _mode(kind, text, flag, pid_of)
    network = options.network or "bridge"
    if network in ("none", "host"):
        result["network"] = ("private" if network == "none" else "host", "")
    elif network.startswith(("container:", "path:")):
        result["network"] = _mode("network", network, "--network", pid_of)
        if network.startswith("container:"):
            network = f"container:{pid_of(network.partition(':')[2])[0]}"
    else:
        result["network"] = ("private", "")
    return {kind: result[kind] for kind in NAMESPACES}, network


_PROC_NAMES = {"network": "net", "mount": "mnt"}


def _mode(
    kind: str, text: str, flag: str, pid_of: Callable[[str], tuple[str, int]]
) -> tuple[str, str]:
    mode, _, target = text.partition(":")
    if mode in ("private", "host") and not target:
        return mode, ""
    if mode == "container" and target and kind not in ("mount", "cgroup", "time", "user"):
        pid = pid_of(target)[1]
        return "path", f"/proc/{pid}/ns/{_PROC_NAMES.get(kind, kind)}"
    if mode == "path" and target.startswith("/") and kind not in ("mount", "time"):
        return "path", target
    choices = "private or host" if kind == "user" else "private, host, container:NAME or path:FILE"
    raise InvalidError(f"cannot use {flag} {text!r}: not {choices}")


def _hostname(options: ContainerOptions, container: str, private: dict[str, bool]) -> str:
    if not private["uts"]:
        if options.hostname or options.domainname:
            raise InvalidError("cannot use --hostname: it conflicts with the UTS mode (--uts)")
        return os.uname().nodename
    if not options.hostname and options.network == "host":
        name = os.uname().nodename  # as docker does
        if name != _NO_NODENAME:
            return name
    if len(options.hostname) > 64 or len(options.domainname) > 64:
        raise InvalidError("cannot use --hostname: more than 64 characters")
    return options.hostname or container[:12]


def _maps(
    options: ContainerOptions, *, private: bool
) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    if not private:
        if options.uid_map or options.gid_map:
            raise InvalidError("cannot use --uidmap: the container shares a user namespace")
        return (), ()
    uid_map = options.uid_map or options.gid_map or DEFAULT_MAP
    gid_map = options.gid_map or uid_map
    for maps in (uid_map, gid_map):
        check_idmap(maps)
        if not any(entry.inside == 0 for entry in maps):
            raise InvalidError(
                "cannot use the id map: it does not map id 0 inside", hint=NOBODY_MAP_HINT
            )
    return uid_map, gid_map


def _security_opt(options: ContainerOptions) -> tuple[bool, str]:
    """no-new-privileges, and the seccomp profile: default, unconfined or a file's path."""
    nnp, seccomp = False, "default"
    for text in options.security_opt:
        key, _, value = text.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            nnp = value != "false"
        elif key == "seccomp" and value:
            seccomp = value if value in ("unconfined", "default") else os.path.abspath(value)
        elif key in ("apparmor", "label"):
            raise InvalidError(f"cannot use --security-opt {text!r}: no {key} driver is installed")
        else:
            raise InvalidError(
                f"cannot use --security-opt {text!r}: unknown",
                hint="known are no-new-privileges, seccomp=FILE and seccomp=unconfined",
            )
    return nnp, seccomp


def _devices(
    options: ContainerOptions,
) -> tuple[tuple[devices.Device, ...], tuple[DeviceRule, ...]]:
    if options.privileged:
        return tuple(devices.host_devices()), devices.ALL_RULES
    nodes: list[devices.Device] = []
    rules = list(devices.DEFAULT_RULES)
    for text in options.devices:
        spec = devices.parse_device(text)
        found = devices.find(spec)
        nodes += found
        rules += devices.rules_of(found, spec.access)
    rules += [devices.parse_rule(text) for text in options.device_rules]
    return tuple(nodes), tuple(rules)


def _resources(options: ContainerOptions, rules: tuple[DeviceRule, ...]) -> Resources:
    """With docker's default for swap: as much again as memory."""
    resources = options.resources._replace(devices=rules)
    if resources.memory and resources.memory > 0 and resources.memory_swap is None:
        return resources._replace(memory_swap=2 * resources.memory)
    return resources


def _sysctls(options: ContainerOptions, private: dict[str, bool]) -> tuple[tuple[str, str], ...]:
    asked = dict(
        sysctl.parse(text, private_network=private["network"], private_ipc=private["ipc"])
        for text in options.sysctls
    )
    if private["network"]:
        for path, value in sysctl.defaults(user_namespace=private["user"]):
            asked.setdefault(path, value)
    return tuple(asked.items())


def _group(options: ContainerOptions, container: str) -> str:
    parent = options.cgroup_parent or "/ctr"
    if ".." in parent.split("/") or "\0" in parent:
        raise InvalidError(f"cannot use --cgroup-parent {parent!r}: it holds ..")
    return os.path.join("/", parent.strip("/"), container)
