"""Both drivers keep the kit's laws, each where its version is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ctr.testing.cgroup import CgroupConformance
from ctr_cgroups import ctr_cgroup_drivers

if TYPE_CHECKING:
    from ctr.drivers import CgroupDriver, DriverInfo

V2, V1 = ctr_cgroup_drivers()


@pytest.mark.driver("cgroup:v1")
class TestV1(CgroupConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[CgroupDriver]:
        return V1


@pytest.mark.driver("cgroup:v2")
class TestV2(CgroupConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[CgroupDriver]:
        return V2
