"""Whether this kernel has a type of namespace: a pure function of /proc."""

from __future__ import annotations

import os

from ctr.drivers import Probe
from ctr_namespaces.namespaces import open_driver


def probe_namespace(name: str, proc: str = "/proc") -> Probe:
    """Look for the type ``name`` below ``proc``.  Never raises."""
    file = open_driver(name).proc_name
    if not os.path.exists(f"{proc}/self/ns/{file}"):
        return Probe(
            ok=False,
            reason=f"this kernel has no {name} namespaces",
            hint="namespaces(7) tells since which version and with which option a kernel has it",
        )
    if name == "user" and _read(f"{proc}/sys/user/max_user_namespaces").strip() == "0":
        return Probe(
            ok=False,
            reason="user.max_user_namespaces is 0",
            hint="sysctl -w user.max_user_namespaces=15000",
        )
    if name == "time" and not os.path.exists(f"{proc}/self/timens_offsets"):
        return Probe(ok=False, reason=f"{proc}/self/timens_offsets is missing")
    return Probe(ok=True)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
