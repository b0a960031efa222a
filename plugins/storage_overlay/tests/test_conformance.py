"""The laws of storage drivers, on ``overlay``: as it comes, on an old kernel, with metacopy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ctr.drivers import DriverContext
from ctr.testing.storage import StorageConformance
from ctr_storage_overlay import ctr_storage_drivers
from ctr_storage_overlay.driver import OverlayStorage
from ctr_storage_overlay.options import Options

if TYPE_CHECKING:
    from pathlib import Path

    from ctr.drivers import DriverInfo, StorageDriver


@pytest.mark.driver("storage:overlay")
class TestOverlay(StorageConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[StorageDriver]:
        (info,) = ctr_storage_drivers()
        return info


@pytest.mark.driver("storage:overlay")
class TestOverlayOnOldKernel(StorageConformance):
    """Debian 12's kernel knows no lowerdir+: mount(2) from a staging folder."""

    @pytest.fixture
    def info(self) -> DriverInfo[StorageDriver]:
        (info,) = ctr_storage_drivers()
        return info._replace(factory=lambda context: OverlayStorage(context.root, release="6.1.0"))


@pytest.mark.driver("storage:overlay")
class TestOverlayWithMetacopy(StorageConformance):
    @pytest.fixture
    def info(self) -> DriverInfo[StorageDriver]:
        (info,) = ctr_storage_drivers()
        return info

    @pytest.fixture
    def context(self, tmp_path: Path) -> DriverContext:
        return DriverContext(f"{tmp_path}/storage", f"{tmp_path}/run", Options(metacopy=True))
