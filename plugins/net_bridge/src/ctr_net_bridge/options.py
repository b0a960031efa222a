"""The driver's options, as ``--network-opt KEY=VALUE`` and the configuration file give them."""

from __future__ import annotations

import attrs


@attrs.frozen
class Options:
    """What the default network is made with.  An existing network keeps what it has."""

    nat: bool = attrs.field(
        default=True,
        metadata={"help": "hide the containers behind the host's addresses (nftables)"},
    )
    mtu: int = attrs.field(
        default=1500,
        validator=[attrs.validators.ge(68), attrs.validators.le(65535)],
        metadata={"help": "largest packet in bytes, 68 to 65535"},
    )
    subnet: str = attrs.field(
        default="",
        metadata={"help": "IPv4 subnet as A.B.C.D/LENGTH; empty: the first free default pool"},
    )
    bridge: str = attrs.field(
        default="",
        validator=attrs.validators.matches_re(r"|[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"),
        metadata={
            "help": "name of the bridge on the host; empty: ctr0, or for another --root than the "
            "usual one a name made from it"
        },
    )
