"""Storage driver ``overlay``: layers stacked by the kernel's overlayfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import DriverInfo
from ctr.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import DriverContext, Probe, StorageDriver


@hookimpl
def ctr_storage_drivers() -> Iterable[DriverInfo[StorageDriver]]:
    """Offer ``overlay``."""
    return [
        DriverInfo(
            "overlay",
            "layers stacked by overlayfs; nothing is copied before it is written",
            _open,
            _probe,
            options="ctr_storage_overlay.options:Options",
            capabilities=frozenset({"usage", "userns"}),
        )
    ]


def _open(context: DriverContext) -> StorageDriver:
    from ctr_storage_overlay.driver import OverlayStorage

    return OverlayStorage(context.root, metacopy=getattr(context.options, "metacopy", False))


def _probe(context: DriverContext) -> Probe:
    from ctr_storage_overlay.probe import probe

    return probe(context.root)
