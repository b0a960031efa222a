"""The laws of storage drivers, on ``vfs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ctr.testing.storage import StorageConformance
from ctr_storage_vfs import ctr_storage_drivers

if TYPE_CHECKING:
    from ctr.drivers import DriverInfo, StorageDriver


@pytest.mark.driver("storage:vfs")
class TestVfs(StorageConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[StorageDriver]:
        (info,) = ctr_storage_drivers()
        return info
