"""Control groups as drivers of ctr: ``v2``, and ``v1`` for v1 and hybrid layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import DriverInfo
from ctr.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import CgroupDriver, DriverContext, Probe


@hookimpl
def ctr_cgroup_drivers() -> Iterable[DriverInfo[CgroupDriver]]:
    """Offer one driver for each version of the kernel's interface."""
    return [
        DriverInfo("v2", "the unified hierarchy", _open_v2, _probe_v2),
        DriverInfo(
            "v1", "one hierarchy a controller; serves hybrid layouts too", _open_v1, _probe_v1
        ),
    ]


def _open_v1(context: DriverContext) -> CgroupDriver:
    from ctr_cgroups.layout import detect
    from ctr_cgroups.v1 import V1

    return V1(detect())


def _open_v2(context: DriverContext) -> CgroupDriver:
    from ctr_cgroups.layout import detect
    from ctr_cgroups.v2 import V2

    return V2(detect())


def _probe_v1(context: DriverContext) -> Probe:
    from ctr_cgroups.layout import detect, probe_v1

    return probe_v1(detect())


def _probe_v2(context: DriverContext) -> Probe:
    from ctr_cgroups.layout import detect, probe_v2

    return probe_v2(detect())
