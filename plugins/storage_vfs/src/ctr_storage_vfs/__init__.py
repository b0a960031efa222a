"""Storage driver ``vfs``: a full copy of the parent for each snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import DriverInfo, Probe
from ctr.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import DriverContext, StorageDriver


@hookimpl
def ctr_storage_drivers() -> Iterable[DriverInfo[StorageDriver]]:
    """Offer ``vfs``."""
    return [
        DriverInfo(
            "vfs",
            "a full copy of the parent for each snapshot; works on every file system",
            _open,
            _probe,
            capabilities=frozenset({"usage", "userns"}),
        )
    ]


def _open(context: DriverContext) -> StorageDriver:
    from ctr_storage_vfs.driver import VfsStorage

    return VfsStorage(context.root)


def _probe(context: DriverContext) -> Probe:
    import os

    if os.geteuid() != 0:
        return Probe(False, "giving files to their owners needs root", "run ctr as root")
    return Probe(True)
