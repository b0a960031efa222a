"""IPv4 address management: subnets, addresses, hardware addresses and link names.

Everything but ``host_routes`` is a pure function of its arguments: what is in use is the
engine's to know, in one record beside the containers'.  Addresses are text outside and
integers inside; ``ipaddress`` would cost every ``ctr run`` 4 ms of import.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ctr.errors import ConflictError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: A route wider than this is a default route in disguise (VPNs: 0.0.0.0/1 and 128.0.0.0/1).
_WIDEST = 8

#: Hexadecimal digits of an endpoint's id in its link's name; a link's name has at most 15
#: characters (IFNAMSIZ).
_NAME_DIGITS = 11


def next_address(subnet: str, gateway: str, used: Collection[str]) -> str:
    """Return the lowest free address of ``subnet`` with its prefix length.

    ``172.30.0.0/16`` with gateway ``172.30.0.1`` and nothing used gives ``172.30.0.2/16``.
    ``used`` holds addresses with or without prefix length.  The network's own address, the
    broadcast address and the gateway are never given out.  Raises ConflictError when the
    subnet is full, InvalidError when it is malformed or has no room for a container.
    """
    first, prefix = parse_subnet(subnet)
    if prefix > 30:
        raise InvalidError(
            f"cannot use subnet {subnet}: it holds no container beside the gateway",
            hint="the longest prefix is /30",
        )
    taken = {parse_address(address.partition("/")[0]) for address in used}
    taken.add(parse_address(gateway))
    last = first + (1 << (32 - prefix)) - 1
    for address in range(first + 1, last):
        if address not in taken:
            return f"{format_address(address)}/{prefix}"
    raise ConflictError(
        f"cannot allocate an address: subnet {subnet} is full",
        hint="remove containers or use a network with a larger subnet",
    )


def choose_subnet(taken: Iterable[str]) -> str:
    """Return the first subnet of the pools that overlaps none of ``taken``.

    ``taken`` are the subnets of other networks and the host's routes.  The pools are
    docker's, begun at the other end (172.30.0.0/16 first), so that both engines can live on
    one host.  Raises ConflictError when every pool is taken.
    """
    ranges = [_range(subnet) for subnet in taken]
    for subnet in _pools():
        first, last = _range(subnet)
        if all(last < low or high < first for low, high in ranges):
            return subnet
    raise ConflictError(
        "cannot choose a subnet: every default pool overlaps a route of this host",
        hint="name one with the network option subnet=A.B.C.D/LENGTH",
    )


def first_address(subnet: str) -> str:
    """Return the subnet's first usable address, by convention the gateway's."""
    return format_address(parse_subnet(subnet)[0] + 1)


def host_routes(path: str = "/proc/thread-self/net/route") -> list[str]:
    """Return the destinations of the IPv4 routes of the calling thread's network namespace.

    Default routes are left out, also those in disguise.  A kernel without the file has no
    routes.  See proc_pid_net(5).
    """
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return []
    routes = []
    for line in lines:
        fields = line.split()
        prefix = _from_proc(fields[7]).bit_count()
        if prefix >= _WIDEST:
            routes.append(f"{format_address(_from_proc(fields[1]))}/{prefix}")
    return routes


def mac_for(address: str) -> str:
    """Return the locally administered hardware address that belongs to an IPv4 address.

    02:42 and the four bytes of the address, as docker does: an address that is given out
    again keeps its entry in the neighbours' ARP tables valid.
    """
    value = parse_address(address.partition("/")[0])
    return "02:42:" + ":".join(f"{byte:02x}" for byte in value.to_bytes(4, "big"))


def host_interface_name(endpoint_id: str) -> str:
    """Return the name of the host's end of an endpoint's pair: ``ctr`` and 11 digits.

    ``endpoint_id`` is hexadecimal; raises InvalidError for anything else.
    """
    digits = endpoint_id[:_NAME_DIGITS]
    if len(digits) < _NAME_DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise InvalidError(
            f"cannot name the link of endpoint {endpoint_id!r}: not a hexadecimal id"
        )
    return f"ctr{digits}"


def parse_subnet(text: str) -> tuple[int, int]:
    """Return first address and prefix length of ``A.B.C.D/LENGTH``.

    Raises InvalidError for a malformed one and for one whose address has host bits set.
    """
    address, slash, length = text.partition("/")
    if not (slash and length.isascii() and length.isdigit() and int(length) <= 32):
        raise InvalidError(f"cannot use subnet {text!r}: it is not of the form A.B.C.D/LENGTH")
    value, prefix = parse_address(address), int(length)
    if value & ((1 << (32 - prefix)) - 1):
        raise InvalidError(f"cannot use subnet {text}: the address has host bits set")
    return value, prefix


def parse_address(text: str) -> int:
    """Return an IPv4 address as an integer.  Raises InvalidError for a malformed one."""
    parts = text.split(".")
    value = 0
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255):
            break
        # A leading zero is octal to some readers and decimal to others.
        if len(part) > 1 and part[0] == "0":
            break
        value = value << 8 | int(part)
    else:
        if len(parts) == 4:
            return value
    raise InvalidError(f"cannot use {text!r}: it is not an IPv4 address")


def format_address(value: int) -> str:
    """Return an integer as an IPv4 address."""
    return ".".join(str(byte) for byte in value.to_bytes(4, "big"))


def _pools() -> Iterator[str]:
    for second in (30, 31, *range(29, 16, -1)):
        yield f"172.{second}.0.0/16"
    for third in range(240, -1, -16):
        yield f"192.168.{third}.0/20"


def _range(subnet: str) -> tuple[int, int]:
    first, prefix = parse_subnet(subnet)
    return first, first + (1 << (32 - prefix)) - 1


def _from_proc(text: str) -> int:
    """An address of /proc/net/route: big-endian in memory, printed as a native integer."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")
