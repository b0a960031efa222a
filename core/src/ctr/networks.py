"""Networks on record.  ``bridge`` is the default one and is made when it is first used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ctr.errors import NotFoundError
from ctr.models import Network

if TYPE_CHECKING:
    from ctr.engine import Engine

DEFAULT = "bridge"


def ensure(engine: Engine, name: str) -> Network:
    """The network ``name``; the default one is recorded and made on first use."""
    record = engine.state.network(name)
    if record is not None:
        return from_json(record)
    if name != DEFAULT:
        raise NotFoundError(
            f"cannot find network {name!r}: known are {', '.join(known(engine))}",
            hint="user-defined networks are not there yet; use bridge, none, host or container:NAME",
        )
    with engine.state.lock("networks"):
        record = engine.state.network(name)
        if record is not None:
            return from_json(record)
        network = default(engine)
        # On record before it is made: a bridge that is there without record would be nobody's.
        engine.state.add_network(name, network)
        driver = engine.network_driver(network.driver)
        try:
            driver.create_network(network)
        except BaseException:
            driver.remove_network(network)
            engine.state.drop_network(name)
            raise
    return network


def from_json(record: list[Any]) -> Network:
    """The network that was recorded."""
    *fields, options = record
    return Network._make((*fields, tuple((key, value) for key, value in options)))


def known(engine: Engine) -> list[str]:
    """Names that ``--network`` takes."""
    named = {str(record[1]) for record in engine.state.networks()}
    return sorted({*named, DEFAULT, "host", "none"})


def default(engine: Engine) -> Network:
    """What the default network would be made as."""
    from ctr import ipam

    driver = engine.chosen("network")
    options = engine.options("network", driver)
    subnet = getattr(options, "subnet", "") or ipam.choose_subnet(ipam.host_routes())
    return Network(
        id=os.urandom(32).hex(),
        name=DEFAULT,
        driver=driver,
        subnet=subnet,
        gateway=ipam.first_address(subnet),
        bridge=getattr(options, "bridge", "") or _bridge_name(engine.settings.root),
        mtu=getattr(options, "mtu", 0) or 1500,
        nat=getattr(options, "nat", True),
    )


def _bridge_name(root: str) -> str:
    """``ctr0`` for the usual root; others get their own, so that two roots don't collide."""
    from hashlib import sha256

    from ctr.config import ROOT

    if root == ROOT:
        return "ctr0"
    return f"ctr-{sha256(os.path.abspath(root).encode()).hexdigest()[:8]}"
