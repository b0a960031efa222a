"""The bridge driver keeps the laws of network drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ctr.testing.network import NetworkConformance
from ctr_net_bridge import ctr_network_drivers

if TYPE_CHECKING:
    from ctr.drivers import DriverInfo, NetworkDriver


@pytest.mark.driver("network:bridge")
class TestBridge(NetworkConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[NetworkDriver]:
        (info,) = ctr_network_drivers()
        return info
