"""The driver ``bridge``: a Linux bridge a network, a veth pair an endpoint, NAT by nftables."""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from ctr.errors import ConflictError, InvalidError, NotFoundError, PrivilegeError, UnsupportedError
from ctr.ipam import mac_for, parse_address, parse_subnet
from ctr_net_bridge.namespace import Inside, disable_ipv6, write_sysctl
from ctr_net_bridge.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctr.drivers import DriverContext
    from ctr.models import Endpoint, Network
    from ctr_net_bridge.netlink import Link

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LONGEST_NAME = 15  # IFNAMSIZ less the NUL


class BridgeNetwork:
    """Networks that are a bridge on the host; see NetworkDriver for the laws.

    The driver keeps no file.  Each link that it makes carries, from its birth on, a link
    group (``ip link show group N``) computed from the driver's root: by it ``walk`` and
    ``gc`` know this installation's links from everybody else's, and no verb touches a link
    without it.
    """

    def __init__(self, context: DriverContext) -> None:
        self.group = link_group(context.root)

    def create_network(self, network: Network) -> None:
        """Make NAT, forwarding and the bridge, in this order: a bridge that is up is complete.

        Raises ConflictError when the bridge's name belongs to another link, or the bridge
        has another address; UnsupportedError when the machine can't do NAT; InvalidError.
        """
        _, prefix = parse_subnet(network.subnet)
        parse_address(network.gateway)
        _check_name(network.bridge)
        address = f"{network.gateway}/{prefix}"
        with Netlink() as netlink:
            self._bridge(netlink, network)
            if network.nat:
                from ctr_net_bridge import nat

                nat.enable(network.bridge, network.subnet)
                _enable_forwarding()
            try:
                self._make_bridge(netlink, network, address)
            except PermissionError as error:
                raise PrivilegeError(
                    f"cannot create network {network.name}: {error.strerror}",
                    hint="run ctr as root",
                ) from error

    def remove_network(self, network: Network) -> None:
        """Remove the bridge and the rules; a link of that name that is not ours is left alone."""
        _check_name(network.bridge)
        with Netlink() as netlink:
            link = netlink.link(network.bridge)
            if link is not None and self._owns(link, "bridge"):
                netlink.delete_link(link.ifindex)
            elif link is not None:
                return
        if network.nat:
            from ctr_net_bridge import nat

            nat.disable(network.bridge)

    def attach(self, network: Network, endpoint: Endpoint, netns: int) -> None:
        """Make the pair and set its inner end up, with address and default route.

        Raises NotFoundError when the bridge is missing or incomplete (a reboot, or removed
        by hand): ``create_network`` makes it again.  Raises ConflictError when a link's
        name is taken.  On failure nothing is left.
        """
        _check_name(endpoint.interface)
        _check_name(endpoint.host_interface)
        with Netlink() as netlink:
            bridge = netlink.link(network.bridge)
            if bridge is None or not bridge.up or not self._owns(bridge, "bridge"):
                raise NotFoundError(
                    f"cannot attach to network {network.name}: there is no bridge {network.bridge}"
                )
            try:
                netlink.add_veth(
                    endpoint.host_interface,
                    master=bridge.ifindex,
                    mtu=network.mtu,
                    group=self.group,
                    peer=endpoint.interface,
                    address=endpoint.mac,
                    netns=netns,
                )
            except FileExistsError as error:
                raise ConflictError(
                    f"cannot attach to network {network.name}: an interface"
                    f" {endpoint.host_interface} here or {endpoint.interface} inside exists"
                ) from error
            try:
                _configure(endpoint, netns)
            except BaseException:
                self._delete(netlink, endpoint.host_interface)
                raise

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Remove the host's end of the pair, and with it the other, wherever that is."""
        with Netlink() as netlink:
            self._delete(netlink, endpoint.host_interface)

    def describe(self, network: Network, endpoint: Endpoint) -> list[str]:
        """Say what ``attach`` would do."""
        return [
            f"make veth {endpoint.host_interface} in bridge {network.bridge}",
            f"put its peer into the container as {endpoint.interface}, {endpoint.mac}",
            f"disable IPv6 on {endpoint.interface}; set it up with {endpoint.address}",
            f"route by default through {endpoint.gateway}",
        ]

    def walk(self) -> Iterator[str]:
        """Yield the host's ends of this installation's pairs."""
        with Netlink() as netlink:
            links = netlink.links()
        yield from (link.name for link in links if self._owns(link, "veth"))

    def gc(self, valid: frozenset[str]) -> list[str]:
        """Remove the pairs whose host's end is not in ``valid``; return the names of those."""
        with Netlink() as netlink:
            gone = [
                link
                for link in netlink.links()
                if self._owns(link, "veth") and link.name not in valid
            ]
            for link in gone:
                netlink.delete_link(link.ifindex)
        return [link.name for link in gone]

    def _owns(self, link: Link, kind: str) -> bool:
        return link.kind == kind and link.group == self.group

    def _delete(self, netlink: Netlink, name: str) -> None:
        link = netlink.link(name)
        if link is not None and self._owns(link, "veth"):
            netlink.delete_link(link.ifindex)

    def _bridge(self, netlink: Netlink, network: Network) -> Link | None:
        """Look the network's bridge up; a link of that name that is not ours is a conflict."""
        link = netlink.link(network.bridge)
        if link is not None and not self._owns(link, "bridge"):
            raise ConflictError(
                f"cannot create network {network.name}: there is a link {link.name} that this"
                " installation did not make",
                hint="choose another name with the network option bridge=NAME",
            )
        return link

    def _make_bridge(self, netlink: Netlink, network: Network, address: str) -> None:
        """Make what is missing of the bridge; the last act sets it up."""
        with suppress(FileExistsError):
            netlink.add_bridge(
                network.bridge,
                # A fixed one: else the bridge takes the lowest of its ports', and changes it.
                address=mac_for(network.gateway),
                mtu=network.mtu,
                group=self.group,
            )
        link = self._bridge(netlink, network)
        if link is None:
            raise NotFoundError(
                f"cannot create network {network.name}: bridge {network.bridge} was removed"
                " while it was made"
            )
        disable_ipv6(network.bridge)
        for other in netlink.addresses(link.ifindex):
            if other != address:
                raise ConflictError(
                    f"cannot create network {network.name}: bridge {network.bridge} has the"
                    f" address {other} instead of {address}",
                    hint="choose another bridge with the network option bridge=NAME",
                )
        with suppress(FileExistsError):
            netlink.add_address(link.ifindex, address)
        netlink.set_up(link.ifindex)


def link_group(root: str) -> int:
    """Return the link group of the installation whose driver root is ``root``.

    30 bits of a checksum and one more, so that it never is one of the small numbers that
    people choose.
    """
    return 0x40000000 | zlib.crc32(root.encode(errors="surrogateescape")) >> 2


def _configure(endpoint: Endpoint, netns: int) -> None:
    """Set the inner end up, from a socket inside the container's namespace."""
    with Inside(netns):
        disable_ipv6(endpoint.interface)
        netlink = Netlink()
    with netlink:
        link = netlink.link(endpoint.interface)
        if link is None:
            raise NotFoundError(
                f"cannot attach container {endpoint.container}: interface"
                f" {endpoint.interface} was removed while it was set up"
            )
        netlink.add_address(link.ifindex, endpoint.address)
        netlink.set_up(link.ifindex)
        netlink.add_default_route(link.ifindex, endpoint.gateway)


def _enable_forwarding() -> None:
    """Let the host forward IPv4; never undone, since others may count on it by then."""
    with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
        if file.read().strip() == "1":
            return  # also where the administrator set it and /proc/sys is read-only
    try:
        write_sysctl("ipv4/ip_forward", "1")
    except OSError as error:
        raise UnsupportedError(
            f"cannot enable IPv4 forwarding: {error.strerror}",
            hint="run `sysctl net.ipv4.ip_forward=1` on the host, or make the network"
            " without NAT: network option nat=false",
        ) from error


def _check_name(name: str) -> None:
    """Raise InvalidError for what is no plain interface name; it goes into paths and rules."""
    if not (0 < len(name) <= _LONGEST_NAME and _NAME_CHARACTERS.issuperset(name)) or name in (
        ".",
        "..",
    ):
        raise InvalidError(
            f"cannot use {name!r} as an interface name",
            hint="1 to 15 of A-Z a-z 0-9 _ . -, and not . or ..",
        )
