"""Linux namespaces as drivers of ctr: one for each of the kernel's eight types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import DriverInfo
from ctr.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import DriverContext, NamespaceDriver, Probe

#: What ``capabilities`` of a driver says: how a private namespace comes to be.
CLONE = frozenset({"clone"})  # by a flag of clone3(2)
UNSHARE = frozenset({"unshare"})  # by an operation of the driver's own
DECLARED = frozenset({"declared"})  # by another driver

#: Name, summary, capabilities.  The user namespace comes first: the others that a container
#: joins or makes belong to it.
DRIVERS = (
    ("user", "user and group ids: root inside, nobody outside", CLONE),
    ("mount", "mount points", CLONE),
    ("pid", "process ids: the command is PID 1", CLONE),
    ("network", "interfaces, addresses, routes, ports", CLONE),
    ("ipc", "System V IPC and POSIX message queues", CLONE),
    ("uts", "hostname and domain name", CLONE),
    ("cgroup", "the view of the control groups (made by the cgroup driver)", DECLARED),
    ("time", "offsets of the monotonic and boot-time clocks", UNSHARE),
)


@hookimpl
def ctr_namespaces() -> Iterable[DriverInfo[NamespaceDriver]]:
    """Offer the eight types."""
    return [_info(*driver) for driver in DRIVERS]


def _info(name: str, summary: str, capabilities: frozenset[str]) -> DriverInfo[NamespaceDriver]:
    def factory(context: DriverContext) -> NamespaceDriver:
        from ctr_namespaces.namespaces import open_driver

        return open_driver(name)

    def probe(context: DriverContext) -> Probe:
        from ctr_namespaces.probe import probe_namespace

        return probe_namespace(name)

    return DriverInfo(name, summary, factory, probe, capabilities=capabilities)
