"""Every driver keeps the kit's laws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ctr.testing.namespace import NamespaceConformance
from ctr_namespaces import DRIVERS, ctr_namespaces

if TYPE_CHECKING:
    from ctr.drivers import DriverInfo, NamespaceDriver


class TestNamespaces(NamespaceConformance):
    @pytest.fixture(
        params=[
            pytest.param(name, marks=pytest.mark.driver(f"namespace:{name}"))
            for name, *_ in DRIVERS
        ]
    )
    def info(self, request: pytest.FixtureRequest) -> DriverInfo[NamespaceDriver]:
        (info,) = (one for one in ctr_namespaces() if one.name == request.param)
        return info
