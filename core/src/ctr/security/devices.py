"""The device nodes of a container and the rules of its device control group."""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from ctr.errors import InvalidError, NotFoundError
from ctr.models import DeviceRule


class Device(NamedTuple):
    """A device node: where the container sees it and where the host has it."""

    path: str
    host_path: str
    type: str  # b or c
    major: int
    minor: int
    mode: int = 0o666  # permission bits
    uid: int = 0
    gid: int = 0


class DeviceSpec(NamedTuple):
    """What ``--device`` asks for."""

    host_path: str
    path: str
    access: str  # of r, w, m


def _node(name: str, major: int, minor: int) -> Device:
    return Device(f"/dev/{name}", f"/dev/{name}", "c", major, minor)


#: The nodes of every container (runtime-spec, config-linux.md, "Default Devices").
NODES = (
    _node("null", 1, 3),
    _node("zero", 1, 5),
    _node("full", 1, 7),
    _node("random", 1, 8),
    _node("urandom", 1, 9),
    _node("tty", 5, 0),
)

#: The links of every container: path and target.
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/core", "/proc/kcore"),
)

#: What a container may do by default, as runc 1.2.4 allows it (specconv, AllowedDevices).
DEFAULT_RULES = (
    DeviceRule(True, "c", -1, -1, "m"),  # making a node is harmless while opening it is not allowed
    DeviceRule(True, "b", -1, -1, "m"),
    *(DeviceRule(True, node.type, node.major, node.minor, "rwm") for node in NODES),
    DeviceRule(True, "c", 136, -1, "rwm"),  # /dev/pts/N
    DeviceRule(True, "c", 5, 2, "rwm"),  # /dev/ptmx
    DeviceRule(True, "c", 5, 1, "rwm"),  # /dev/console
    DeviceRule(True, "c", 10, 200, "rwm"),  # /dev/net/tun
)

#: What a privileged container may do.
ALL_RULES = (DeviceRule(True, "a", -1, -1, "rwm"),)

#: Folders and files of the host's /dev that are no devices to hand on.
_SKIPPED = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"})

# Compiled on use: a run without such a flag does not pay for it.
_RULE = r"([abc]) ([0-9]{1,10}|\*):([0-9]{1,10}|\*) ([rwm]{1,3})"


def parse_device(text: str) -> DeviceSpec:
    """Parse ``HOST[:CONTAINER][:ACCESS]`` as ``--device`` takes it.  Raises InvalidError."""
    host, *rest = text.split(":")
    access = "rwm"
    if rest and _is_access(rest[-1]):
        access = rest.pop()
    path = rest.pop() if rest else host
    if rest or not _is_plain(host) or not _is_plain(path):
        raise InvalidError(
            f"cannot use device {text!r}: it is not HOST[:CONTAINER][:rwm] with absolute paths",
            hint="for example --device /dev/fuse or --device /dev/sdb:/dev/xvdb:r",
        )
    return DeviceSpec(host, path, access)


def parse_rule(text: str) -> DeviceRule:
    """Parse ``TYPE MAJOR:MINOR ACCESS`` as ``--device-cgroup-rule`` takes it.

    Raises InvalidError.
    """
    match = re.fullmatch(_RULE, text)
    if not match or len(set(match[4])) != len(match[4]):
        raise InvalidError(
            f"cannot use device rule {text!r}: it is not TYPE MAJOR:MINOR ACCESS",
            hint="for example 'c 1:3 rwm' or 'b 8:* r'",
        )
    major, minor = (-1 if number == "*" else int(number) for number in (match[2], match[3]))
    return DeviceRule(True, match[1], major, minor, match[4])


def find(spec: DeviceSpec) -> list[Device]:
    """The devices that ``spec`` names on this host: one, or all below a folder.

    Raises NotFoundError when it does not exist, InvalidError when it is no device.
    """
    try:
        status = os.stat(spec.host_path)
    except OSError as error:
        raise NotFoundError(
            f"cannot use device {spec.host_path}: {error.strerror}",
            hint="the path must name a device of the host",
        ) from error
    if stat.S_ISDIR(status.st_mode):
        found = _below(spec.host_path, spec.path)
        if found:
            return found
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return [_device(spec.path, spec.host_path, status)]
    raise InvalidError(
        f"cannot use device {spec.host_path}: it is no device",
        hint="a file or a folder is passed by -v",
    )


def host_devices(root: str = "/dev") -> list[Device]:
    """Every device of the host, for a privileged container; links and ttys' folders excluded."""
    return _below(root, "/dev")


def rules_of(devices: list[Device], access: str = "rwm") -> tuple[DeviceRule, ...]:
    """The rules that allow ``devices``."""
    return tuple(
        DeviceRule(True, device.type, device.major, device.minor, access) for device in devices
    )


def _below(root: str, inside: str) -> list[Device]:
    devices: list[Device] = []
    for folder, folders, files in os.walk(root):  # does not follow links
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue  # gone since it was listed: devices come and go
            if name not in _SKIPPED and (
                stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
            ):
                target = os.path.join(inside, os.path.relpath(path, root))
                devices.append(_device(target, path, status))
    return devices


def _device(path: str, host_path: str, status: os.stat_result) -> Device:
    return Device(
        path,
        host_path,
        "b" if stat.S_ISBLK(status.st_mode) else "c",
        os.major(status.st_rdev),
        os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _is_plain(path: str) -> bool:
    """Whether ``path`` is absolute, names something below ``/`` and has no ``..``."""
    return (
        path.startswith("/")
        and path.strip("/") != ""
        and "\0" not in path
        and ".." not in path.split("/")
    )
