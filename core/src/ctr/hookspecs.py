"""Every hook of ctr, in the order of a container's life.

A *driver* answers "which implementation of a primitive": the first four hooks offer
drivers, and one of them is chosen by name.  The other hooks answer "what else happens
at this moment": every implementation runs, their order must not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import (
        CgroupDriver,
        DriverInfo,
        HookContext,
        NamespaceDriver,
        NetworkDriver,
        StorageDriver,
    )

#: The entry-point group and pluggy project name.
GROUP = "ctr"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def ctr_storage_drivers() -> Iterable[DriverInfo[StorageDriver]]:  # type: ignore[empty-body]
    """Offer storage drivers.  Called when a command needs one or lists them."""


@hookspec
def ctr_network_drivers() -> Iterable[DriverInfo[NetworkDriver]]:  # type: ignore[empty-body]
    """Offer network drivers.  Not called for ``--network none|host|container:NAME``."""


@hookspec
def ctr_cgroup_drivers() -> Iterable[DriverInfo[CgroupDriver]]:  # type: ignore[empty-body]
    """Offer cgroup drivers."""


@hookspec
def ctr_namespaces() -> Iterable[DriverInfo[NamespaceDriver]]:  # type: ignore[empty-body]
    """Offer namespace drivers, each one namespace type."""


@hookspec
def ctr_create_runtime(context: HookContext) -> None:
    """Act once the namespaces exist (OCI createRuntime, sync point A).

    Called with the container's PID 1 and namespaces alive and the host's root still in
    place.  Raising fails the start, and everything is rolled back.
    """


@hookspec
def ctr_create_container(context: HookContext) -> None:
    """Act before pivot_root (OCI createContainer, sync point B).  Raising fails the start."""


@hookspec
def ctr_start_container(context: HookContext) -> None:
    """Act before the command is executed (OCI startContainer, sync point C).

    The container is set up completely.  Raising fails the start.
    """


@hookspec
def ctr_poststart(context: HookContext) -> None:
    """Act after the command was executed (OCI poststart).

    Called after the commit point: raising is a warning, the container runs on.
    """


@hookspec
def ctr_poststop(context: HookContext) -> None:
    """Act after the container's resources are gone (OCI poststop).

    May run in another process than the start did, and ``context.pid`` is 0.  Raising is
    a warning.
    """
