"""Bridge networks: one Linux bridge a network, one veth pair a container, NAT by nftables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import DriverInfo
from ctr.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctr.drivers import DriverContext, NetworkDriver, Probe


@hookimpl
def ctr_network_drivers() -> Iterable[DriverInfo[NetworkDriver]]:
    """Offer the driver ``bridge``."""
    return [
        DriverInfo(
            "bridge",
            "a Linux bridge, a veth pair for each container, NAT by nftables",
            _open,
            _probe,
            options="ctr_net_bridge.options:Options",
            capabilities=frozenset({"gateway", "host-link", "nat"}),
        )
    ]


def _open(context: DriverContext) -> NetworkDriver:
    from ctr_net_bridge.driver import BridgeNetwork

    return BridgeNetwork(context)


def _probe(context: DriverContext) -> Probe:
    from ctr_net_bridge.probe import probe

    return probe(context)
