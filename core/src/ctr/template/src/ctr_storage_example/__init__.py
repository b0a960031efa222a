"""Storage driver ``example``: a full copy of the parent for each snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import DriverInfo, Probe
from ctr.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import DriverContext, StorageDriver


@hookimpl
def ctr_storage_drivers() -> Iterable[DriverInfo[StorageDriver]]:
    """Offer ``example``."""
    return [
        DriverInfo(
            "example",
            "a full copy of the parent for each snapshot",
            _open,
            _probe,
            capabilities=frozenset({"userns"}),
        )
    ]


def _open(context: DriverContext) -> StorageDriver:
    # Heavy imports wait until the driver is used: this file is read for every command.
    from ctr_storage_example.driver import ExampleStorage

    return ExampleStorage(context.root)


def _probe(context: DriverContext) -> Probe:
    import os

    if os.geteuid() != 0:
        return Probe(False, "giving files to their owners needs root", "run ctr as root")
    return Probe(True)
