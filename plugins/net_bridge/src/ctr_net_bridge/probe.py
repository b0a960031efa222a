"""Whether the driver works on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctr.drivers import Probe
from ctr_net_bridge import nat
from ctr_net_bridge.netlink import Netlink

if TYPE_CHECKING:
    from ctr.drivers import DriverContext


def probe(context: DriverContext) -> Probe:
    """Ask the kernel for its link kinds and, unless the option says ``nat=false``, for NAT.

    Nothing is made; at most the kernel loads a module that the driver needs anyway.
    """
    try:
        with Netlink() as netlink:
            for kind in ("bridge", "veth"):
                if not netlink.knows_kind(kind):
                    return Probe(
                        False,
                        f"the kernel has no {kind} links",
                        f"load the module with `modprobe {kind}`",
                    )
    except PermissionError:
        return Probe(False, "needs CAP_NET_ADMIN", "run ctr as root")
    except OSError as error:
        return Probe(False, f"rtnetlink fails: {error.strerror}")
    if getattr(context.options, "nat", True) and (reason := nat.refusal()):
        return Probe(False, f"no NAT: {reason}", nat.hint())
    return Probe(True)
