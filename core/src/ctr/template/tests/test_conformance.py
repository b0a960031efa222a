"""The laws of storage drivers, on ``example``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ctr.testing.storage import StorageConformance

from ctr_storage_example import ctr_storage_drivers

if TYPE_CHECKING:
    from ctr.drivers import DriverInfo, StorageDriver


@pytest.mark.driver("storage:example")
class TestExample(StorageConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[StorageDriver]:
        """The driver under test."""
        (info,) = ctr_storage_drivers()
        return info
