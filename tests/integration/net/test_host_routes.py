"""The kernel's routes as ipam reads them."""

from __future__ import annotations

import pytest

from ctr.ipam import choose_subnet, host_routes
from ctr.testing.network import WORLD, Namespace, ip, world

pytestmark = pytest.mark.root


def test_host_routes() -> None:
    host = Namespace()
    with host.inside():
        assert host_routes() == []
        with world():
            ip("route", "add", "default", "via", WORLD)
            ip("route", "add", "0.0.0.0/1", "via", WORLD)
            ip("route", "add", "203.0.113.7", "via", WORLD)
            ip("route", "add", "172.30.128.0/17", "via", WORLD)
            found = host_routes()
    host.close()
    assert sorted(found) == ["172.30.128.0/17", "198.51.100.0/24", "203.0.113.7/32"]
    assert choose_subnet(found) == "172.31.0.0/16"
