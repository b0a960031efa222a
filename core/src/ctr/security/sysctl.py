"""Which sysctls a container may set: those of its own namespaces (docker's and runc's rules)."""

from __future__ import annotations

import re

from ctr.errors import InvalidError

#: Those of the IPC namespace outside of ``fs.mqueue.`` (ipc_namespaces(7)).
IPC = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)

_UTS = {"kernel.hostname": "--hostname", "kernel.domainname": "--domainname"}

# Compiled on use: a run without such a flag does not pay for it.
_PATH = r"[a-zA-Z0-9_.:@/-]+"


def parse(text: str, *, private_network: bool, private_ipc: bool) -> tuple[str, str]:
    """Turn ``NAME=VALUE`` into the path below /proc/sys and the value.

    A name is written with dots, or with slashes where a part holds a dot
    (``net/ipv4/conf/eth0.1/forwarding``).  Raises InvalidError for one that is not the
    container's own: of no namespace, or of one that it shares.
    """
    name, equals, value = text.partition("=")
    path = _path(name)
    if not equals or path is None or "\0" in value or "\n" in value:
        raise InvalidError(
            f"cannot use sysctl {text!r}: it is not NAME=VALUE",
            hint="for example --sysctl net.ipv4.ip_forward=1",
        )
    dotted = path.replace("/", ".")
    if dotted in _UTS:
        raise InvalidError(
            f"cannot set sysctl {dotted}: it has a flag of its own",
            hint=f"use {_UTS[dotted]}",
        )
    if path.startswith("net/"):
        _require(dotted, "network", private=private_network)
    elif dotted in IPC or path.startswith("fs/mqueue/"):
        _require(dotted, "ipc", private=private_ipc)
    else:
        raise InvalidError(
            f"cannot set sysctl {dotted}: it is not namespaced, it would change the host",
            hint="allowed are net.*, fs.mqueue.* and kernel.{msg*,sem,shm*}",
        )
    return path, value


def defaults(*, user_namespace: bool, root: str = "/proc/sys") -> list[tuple[str, str]]:
    """What docker sets in a fresh network namespace, as paths and values.

    Ports below 1024 and ping need no privilege inside.  A kernel without them is fine, and
    in a user namespace the range of gids would not be mapped.
    """
    import os

    wanted = [("net/ipv4/ip_unprivileged_port_start", "0")]
    if not user_namespace:
        wanted.append(("net/ipv4/ping_group_range", "0 2147483647"))
    return [(path, value) for path, value in wanted if os.path.exists(f"{root}/{path}")]


def _path(name: str) -> str | None:
    """The path of a sysctl's name; None for what is none.

    As sysctl(8) reads it: the first separator, dot or slash, is the one that separates.
    """
    first = min((name.find(mark) for mark in "./" if mark in name), default=-1)
    if first <= 0:
        return None
    path = name if name[first] == "/" else name.translate(str.maketrans("./", "/."))
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return None
    return path if re.fullmatch(_PATH, path) else None


def _require(name: str, namespace: str, *, private: bool) -> None:
    if not private:
        raise InvalidError(
            f"cannot set sysctl {name}: the container shares its {namespace} namespace",
            hint=f"give it a {namespace} namespace of its own",
        )
